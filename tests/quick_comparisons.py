"""Comparisons of the command line made quick: it has no options for how many draws, inputs and nodes there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from mechinterp.audit.evidence import ComparisonSettings
from mechinterp.audit.origins.settings import OriginsSettings

FEW = ComparisonSettings(steering_inputs=2, middle_inputs=2, top_neurons=2, null_draws=8)
ORIGINS = OriginsSettings(prompts=2, tokens=2, nodes=1)


@contextmanager
def quick_comparisons() -> Iterator[None]:
    """What a command is given counts; the rest is little."""
    with (
        patch("mechinterp.audit.evidence.ComparisonSettings", lambda **given: FEW.model_copy(update=given)),
        patch("mechinterp.audit.origins.settings.OriginsSettings", lambda: ORIGINS),
    ):
        yield
