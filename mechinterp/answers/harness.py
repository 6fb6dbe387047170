"""General abilities through lm-evaluation-harness (the extra `eval`): knowledge questions and summaries.

    KQA    task `triviaqa`: TriviaQA without context, exact match
    CSum   task `xsum`: XSum, ROUGE; one of the harness's unitxt tasks, which needs the package `unitxt` as well

The harness downloads its data sets, takes shots and prompts from its own task files, and scores by its own metrics:
what it measures is said there, and numbers of two of its versions need not agree.
"""

from __future__ import annotations

import copy
import importlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import ending
from mechinterp.models.passes.watching import evaluating

TASKS = ("triviaqa", "xsum")
"""Of the paper's general metrics KQA and CSum, by the harness's names."""


def check_harness() -> None:
    """Raise `InputError` unless lm-evaluation-harness is installed; before anything long."""
    _harness()


def run_harness(
    checkpoint: Checkpoint,
    tasks: Sequence[str] = TASKS,
    *,
    limit: int | None = None,
    shots: int | None = None,
) -> pd.DataFrame:
    """Run tasks of the harness on a checkpoint.

    Args:
        checkpoint: the model; it and the global random states are left as they were. Answers end as everywhere here,
            see `generation.end_tokens`.
        tasks: by the harness's names.
        limit: documents per task, all if not given.
        shots: examples in the prompt; the task's own number if not given.

    Returns:
        Tidy: method, task, metric, filter, value, stderr, n.

    Raises:
        InputError: if the harness is not installed or refuses a task.
    """
    evaluate, wrap = _harness()
    if not tasks:
        raise InputError(f"name at least one task of lm-evaluation-harness, such as {', '.join(TASKS)}")
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the harness seeds the global ones
    try:
        with (
            torch.random.fork_rng(range(torch.cuda.device_count())),
            evaluating(checkpoint.model),
            ending(checkpoint),
        ):
            chat = checkpoint.chat
            # it sets the tokenizer's padding: it gets one of its own
            tokenizer = copy.deepcopy(checkpoint.tokenizer) if chat is None else chat.onto(checkpoint.tokenizer)
            model = wrap(pretrained=checkpoint.model, tokenizer=tokenizer, batch_size=8)
            read: dict[str, Any] = {}
            if chat is not None:
                read = {"apply_chat_template": True, "system_instruction": chat.system}
            found = evaluate(model=model, tasks=list(tasks), num_fewshot=shots, limit=limit, log_samples=False, **read)
    except (KeyError, ValueError, FileNotFoundError, ImportError, ConnectionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"lm-evaluation-harness cannot run {', '.join(tasks)} ({reason})") from error
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
    columns = ["method", "task", "metric", "filter", "value", "stderr", "n"]
    rows = [] if found is None else _rows(checkpoint.name, found)  # only the main process has results
    return pd.DataFrame(rows, columns=columns)


def _rows(method: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The harness keeps `METRIC,FILTER` and `METRIC_stderr,FILTER` of each task side by side."""
    rows = []
    for task, values in found["results"].items():
        counted = found.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{kind}")
            error = error if isinstance(error, int | float) else float("nan")  # "N/A" where it has none
            row = {"method": method, "task": task, "metric": metric, "filter": kind, "value": value}
            rows.append({**row, "stderr": error, "n": counted})
    return rows


def _harness() -> tuple[Any, Any]:
    try:
        simple_evaluate = importlib.import_module("lm_eval").simple_evaluate
        wrapper = importlib.import_module("lm_eval.models.huggingface").HFLM
    except ImportError as error:
        raise InputError(
            f"lm-evaluation-harness cannot be imported ({error}); install it: pip install 'mechinterp[eval]'"
        ) from error
    return simple_evaluate, wrapper
