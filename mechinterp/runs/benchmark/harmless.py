"""What a way to detoxify does to harmless prompts, asked as the way is evaluated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import pandas as pd
import torch

from mechinterp.answers.divergence import next_token_divergence
from mechinterp.answers.side_effects import over_refusal
from mechinterp.data.storage.files import write_json
from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import bootstrap, wilson, wilson_of_shares
from mechinterp.runs.benchmark.made import Made
from mechinterp.runs.benchmark.materials import Materials
from mechinterp.runs.benchmark.opening import opened

HARMLESS_EDITS = 9
"""Of a way that edits instance by instance, how many edits are asked harmless prompts."""

HARMLESS_BY = ("mechinterp.answers.divergence", "mechinterp.answers.side_effects")
"""The code that what is said of harmless prompts depends on."""


def side_effects(materials: Materials, made: Made, *, edits: int = HARMLESS_EDITS) -> pd.DataFrame:
    """What a way does to harmless prompts, asked as the way is evaluated.

    The prompts are the units: values of several edits are averaged for each prompt first.

    Args:
        materials: of the study.
        made: what the way made.
        edits: of a way that edits instance by instance, how many are measured.

    Returns:
        Tidy: quantity, value, low, high, n (prompts). `over_refusal`: Wilson's interval, of several edits
        `statistics.wilson_of_shares`; `jsd_last`: Jensen-Shannon divergence of the next-token distributions after
        the prompt from the base's after the same query, in bits, with its bootstrap. Empty without such prompts.
    """
    if not materials.harmless:
        return pd.DataFrame(columns=["quantity", "value", "low", "high", "n"])
    found = [_asked_harmless(materials, part) for part in made.parts(edits)]
    moved = torch.tensor([one["jsd"] for one in found], dtype=torch.float64).mean(0)
    seed = materials.study.seed
    estimates = {
        "over_refusal": _refusals([one["refused"] for one in found]),
        "jsd_last": (bootstrap(lambda weights: weights @ moved, len(moved), seed=seed), len(moved)),
    }
    return pd.DataFrame([{"quantity": name, **vars(rate), "n": n} for name, (rate, n) in estimates.items()])


def _asked_harmless(materials: Materials, part: Made) -> dict[str, list[Any]]:
    """For every harmless prompt: response, whether it is a refusal (None if empty), divergence from the base."""
    config, prompts = materials.study.config, materials.harmless
    detecting = [materials.detector.name, [vars(one) for one in materials.study.benign], materials.study.seed]
    key = digest([prompts, detecting, config.max_new_tokens, config.truncate, code_of(*HARMLESS_BY)])[:12]
    path = part.answers / f"harmless-{key}.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    around: dict[str, Any] = {"prefix": part.prefix, "suffix": part.suffix, "truncate": config.truncate}
    with opened(materials, part) as treated:
        refused = over_refusal(treated, prompts, materials.detector, max_new_tokens=config.max_new_tokens, **around)
    moved = next_token_divergence(
        lambda: nullcontext(materials.base), partial(opened, materials, part), prompts, **around
    )
    found = {"prompts": prompts, "responses": refused.responses, "refused": refused.refused}
    found |= {"jsd": moved.values.tolist()}
    write_json(path, found)
    return {name: list(values) for name, values in found.items()}


def _refusals(refused: Sequence[Sequence[bool | None]]) -> tuple[Interval, int]:
    """Over-refusal of [edit][prompt], and the number of prompts; empty responses are left out."""
    prompts = [[one for one in own if one is not None] for own in zip(*refused, strict=True)]
    shares = [sum(own) / len(own) for own in prompts if own]
    if len(refused) == 1 or not shares:
        return wilson(round(sum(shares)), len(shares)), len(shares)
    return wilson_of_shares(sum(shares) / len(shares), len(shares)), len(shares)
