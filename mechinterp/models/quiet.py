"""Keeping the libraries' own bars, advice and reports off a terminal and out of a notebook."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = (
    *("accelerate", "datasets", "huggingface_hub", "lm_eval", "peft", "safetensors", "sklearn", "tokenizers"),
    *("torch", "tqdm", "transformer_lens", "transformers", "trl"),
)
"""Whose warnings, about themselves and each other, a user cannot act on."""


def quiet_libraries() -> None:
    """Keep the libraries' own bars, advice and reports off the terminal, or out of a notebook.

    Warnings of the user's own code, and of this package, stay as they are.
    """
    warnings.filterwarnings("ignore", message="IProgress not found")  # a notebook's bars, which the imports look for
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_MODE", "disabled")
    from datasets import disable_progress_bars as disable_dataset_bars
    from huggingface_hub.utils.tqdm import disable_progress_bars as disable_hub_bars
    from transformers.utils import logging as transformers_logging

    disable_dataset_bars()
    disable_hub_bars()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for category in (FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=rf"({'|'.join(LIBRARIES)})(\.|$)")


@contextmanager
def quieted() -> Iterator[None]:
    """The libraries quiet for the time of a context; then they are as talkative as the user had them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import datasets
        from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
        from transformers.utils import logging as transformers_logging

        verbosity = transformers_logging.get_verbosity()
        had = {
            datasets.enable_progress_bars: not datasets.are_progress_bars_disabled(),
            enable_progress_bars: not are_progress_bars_disabled(),
            transformers_logging.enable_progress_bar: transformers_logging.is_progress_bar_enabled(),
        }
        quiet_libraries()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            for enable, enabled in had.items():
                if enabled:
                    enable()
