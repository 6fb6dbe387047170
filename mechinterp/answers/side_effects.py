"""Over-refusal: how often a model turns away requests that nobody should turn away.

    over-refusal  share of refusals among the non-empty responses to benign prompts, with Wilson's 95% interval

What counts as a refusal, and what the detectors miss: `refusals`. A low rate of refusals is no sign of health where the
responses answer nothing: read it beside the divergence from the base (`divergence`), which needs no detector, and
beside the responses themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechinterp.answers.divergence import Opened, next_token_divergence
from mechinterp.answers.refusals import RefusalClassifier, RefusalDetector
from mechinterp.data.benign import BenignPrompt
from mechinterp.data.normalised import normalised
from mechinterp.data.storage.files import write_json_lines
from mechinterp.errors import InputError
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import wilson
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.watching import Progress


@dataclass(frozen=True)
class OverRefusal:
    """The responses of one checkpoint to benign prompts.

    `refused` is None for an empty response, and for one of which the detector knows no word.
    """

    method: str
    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    refused: tuple[bool | None, ...]
    detector: str
    detector_accuracy: float | None = None

    @property
    def rate(self) -> Interval:
        """Share of refusals among the responses that can be told, Wilson's 95% interval."""
        told = [refused for refused in self.refused if refused is not None]
        return wilson(sum(told), len(told))

    @property
    def empty(self) -> Interval:
        """Share of empty responses."""
        return wilson(sum(not normalised(response) for response in self.responses), len(self.responses))

    @property
    def unjudged(self) -> Interval:
        """Share of responses that are not empty, but of which the detector knows no word."""
        told = zip(self.responses, self.refused, strict=True)
        unknown = sum(refused is None and bool(normalised(response)) for response, refused in told)
        return wilson(unknown, len(self.responses))

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows: method, quantity, value, low, high, n, unit, by (the detector) and accuracy (the detector's).

        `unjudged_benign` is among them where there are such responses.
        """
        told = sum(refused is not None for refused in self.refused)
        by = {"unit": "share", "by": self.detector, "accuracy": self.detector_accuracy}
        shares = {"empty_benign": self.empty} | ({"unjudged_benign": self.unjudged} if self.unjudged.value else {})
        return [
            {"method": self.method, "quantity": "over_refusal", **vars(self.rate), "n": told, **by},
            *(
                {"method": self.method, "quantity": name, **vars(share), "n": len(self.refused), "unit": "share"}
                for name, share in shares.items()
            ),
        ]

    def save(self, path: Path) -> Path:
        """Write the responses as JSON lines."""
        lines = zip(self.prompts, self.responses, self.refused, strict=True)
        labels = {"method": self.method, "detector": self.detector}
        return write_json_lines(path, [{**labels, "prompt": p, "response": r, "refused": f} for p, r, f in lines])


def measure_side_effects(
    open_tuned: Opened,
    benign: Sequence[BenignPrompt],
    detector: RefusalDetector,
    *,
    open_base: Opened | None = None,
    max_new_tokens: int,
    seed: int = 0,
    progress: Progress | None = None,
    **around: Any,
) -> tuple[pd.DataFrame, tuple[OverRefusal, ...]]:
    """Over-refusal of a checkpoint on benign prompts, and what it moved against its base where there is one.

    Args:
        open_tuned: gives the checkpoint, see `divergence.Opened`.
        benign: prompts; the divergence along responses is measured on those that have an answer.
        detector: see `refusals.refusal_detector`.
        open_base: gives the base; over-refusal is then measured on both.
        around: `prefix`, `suffix` and `truncate`, the same for both models.

    Returns:
        Tidy table (method, quantity, value, low, high, n, unit, by, accuracy) with `over_refusal`, `empty_benign`,
        `jsd_last` and `jsd_response`, and the responses.
    """
    prompts, rows, found = [one.prompt for one in benign], [], []
    for opened in (open_tuned,) if open_base is None else (open_base, open_tuned):
        with opened() as checkpoint:
            found.append(
                over_refusal(checkpoint, prompts, detector, max_new_tokens=max_new_tokens, progress=progress, **around)
            )
        rows += found[-1].rows()
    if open_base is not None:
        answered = [(one.prompt, one.answer) for one in benign if one.answer is not None]
        asked: list[tuple[str, list[str], list[str] | None]] = [("last", prompts, None)]
        if answered:
            asked.append(("response", [prompt for prompt, _ in answered], [answer for _, answer in answered]))
        measured = [
            next_token_divergence(open_base, open_tuned, texts, answers, position=position, progress=progress, **around)
            for position, texts, answers in asked
        ]
        rows += [
            {
                "method": found[-1].method,
                "quantity": f"jsd_{divergence.position}",
                **vars(divergence.mean(seed=seed)),
                "n": len(divergence.values),
                "unit": "bits",
                "by": found[0].method,
            }
            for divergence in measured
        ]
    return pd.DataFrame(rows), tuple(found)


def over_refusal(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    detector: RefusalDetector,
    *,
    max_new_tokens: int,
    method: str | None = None,
    **settings: Any,
) -> OverRefusal:
    """Let a checkpoint answer benign prompts, and count its refusals.

    Args:
        checkpoint: the model; left as it was.
        prompts: texts.
        detector: see `refusals`.
        max_new_tokens: longest response.
        method: label in the table; by default the checkpoint's name.
        settings: of `generation.generate`: `suffix`, `prefix`, `truncate`, `progress`.
    """
    if not prompts:
        raise InputError("there are no benign prompts")
    unique = list(dict.fromkeys(prompts))
    found = generate(checkpoint, unique, max_new_tokens=max_new_tokens, **settings)
    answers = dict(zip(unique, found, strict=True))
    responses = tuple(answers[prompt] for prompt in prompts)
    rows = [row for row, response in enumerate(responses) if normalised(response)]
    spoken = [responses[row] for row in rows]
    if isinstance(detector, RefusalClassifier):
        told = detector(spoken, [prompts[row] for row in rows])
    else:
        told = detector(spoken)
    refused: list[bool | None] = [None] * len(responses)
    for row, refusal in zip(rows, np.asarray(told, dtype=float).tolist(), strict=True):
        refused[row] = None if math.isnan(refusal) else bool(refusal)
    return OverRefusal(
        method=method or checkpoint.name,
        prompts=tuple(prompts),
        responses=responses,
        refused=tuple(refused),
        detector=detector.name,
        detector_accuracy=detector.accuracy,
    )
