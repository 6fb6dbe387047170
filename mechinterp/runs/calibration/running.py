"""Running a calibration on one finished study: every construction is made, recorded, asked, and judged as a method is.

Those of known truth are also treated, as the relapse test treats a method (`treating`).

One constructed checkpoint is in memory at a time, beside the base and the tuned checkpoint that it is made from. What
is expected of each, and how the table is summed up: `table`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from mechinterp.answers.judges import Judge
from mechinterp.answers.safety import safe
from mechinterp.answers.scoring import score_responses
from mechinterp.audit.certificate import EXPECTED, INTERPOLATION, UNCHANGED
from mechinterp.audit.evidence import Baseline, gather_evidence
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.decomposition import decomposition
from mechinterp.audit.tables.validity import check_directions
from mechinterp.data.storage.provenance import code_of
from mechinterp.errors import InputError
from mechinterp.measures.intervals import Interval, with_ends
from mechinterp.measures.statistics import seeded_order, wilson
from mechinterp.methods.constructed import (
    interpolate,
    perturb_like,
    project_out_of_values,
    train_values,
    train_without_values,
)
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import generate
from mechinterp.models.progress import Reporter, Silent
from mechinterp.runs.calibration.treating import Treating
from mechinterp.runs.study.checkpoints import checkpoint_of, opened
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.run import Run

POSITION = "prompt_last"


class CalibrationSettings(BaseModel):
    """How an instrument is calibrated on one study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directions: tuple[str, ...] = Field(("answer", "probe"), description="along which verdicts are taken")
    perturbations: int = Field(3, ge=1, description="draws of random noise")
    defense_prompts: int = Field(60, ge=1, description="adversarial prompts that every checkpoint answers")
    steps: tuple[float, ...] = Field((0.25, 0.5, 0.75, 1.0), min_length=1, description="t of the interpolations")
    methods: tuple[str, ...] | None = Field(
        None, description="the study's checkpoints that are interpolated; None for all of them"
    )
    relapse_prompts: int = Field(40, ge=2, description="prompts that the base answers unsafely, for the relapse test")


@dataclass(frozen=True)
class Construction:
    """A checkpoint to be made and read.

    Attributes:
        name: in the table.
        kind: how it is made, a key of `EXPECTED` or `INTERPOLATION`.
        make: makes it.
        directions: along which it is read.
        intact: blocks whose inflow is the base's, bit for bit.
        start, t: the method that is interpolated, and how far.
    """

    name: str
    kind: str
    make: Callable[[], Checkpoint]
    directions: tuple[str, ...]
    intact: range = range(0)
    start: str = ""
    t: float = math.nan


def constructions(
    study: Run, baseline: Baseline, settings: CalibrationSettings, reporter: Reporter
) -> Iterator[Construction]:
    """Every checkpoint of a calibration, one at a time; a method is loaded only while it is interpolated."""
    base, block, every = checkpoint_of(study, "vanilla"), baseline.inputs.block, settings.directions

    def trained(kind: str, train: Callable[..., Checkpoint], intact: range = range(0)) -> Construction:
        progress = reporter.progress(f"calibrate: training {kind}")
        sft: dict[str, Any] = {"seed": study.seed, "settings": study.config.sft, "progress": progress}
        return Construction(kind, kind, lambda: train(base, instances_of(study, "train"), **sft), every, intact)

    yield trained("frozen_values", train_without_values)
    yield trained("values_at_block", partial(train_values, blocks=[block]), range(block + 1))
    yield trained("values_everywhere", train_values, range(1))
    for name in every:
        without = partial(project_out_of_values, base, baseline.inputs.directions[name])
        yield Construction(f"projected_out:{name}", "projected_out", without, (name,), range(1))
    with opened(study, study.config.studied[0]) as tuned:
        for draw in range(settings.perturbations):
            noisy = partial(perturb_like, base, tuned, seed=1000 * study.seed + draw)
            yield Construction(f"random_perturbation:{draw}", "random_perturbation", noisy, every)
    del tuned, noisy
    yield Construction(UNCHANGED, INTERPOLATION, lambda: base, every, range(base.n_blocks), t=0.0)
    for method in study.config.studied if settings.methods is None else settings.methods:
        with opened(study, method) as end:
            for t in settings.steps:
                between = partial(interpolate, base, end, t)
                yield Construction(f"{method}:{t:g}", INTERPOLATION, between, every, start=method, t=t)


def calibrate(
    study: Run,
    *,
    baseline: Baseline | None = None,
    settings: CalibrationSettings | None = None,
    reporter: Reporter | None = None,
) -> pd.DataFrame:
    """Make every construction from a study's base, and hold the verdict on it against what is expected.

    Args:
        study: its base, methods and baseline must be there; nothing in its folder is changed.
        baseline: what the base is recorded and checked on; the study's own if not given.
        settings: see `CalibrationSettings`.
        reporter: told what is being done.

    Returns:
        A row per checkpoint and direction, at the last prompt token: architecture, seed, checkpoint, kind, start, t,
        direction, truth, expected, found (the verdict), agrees (yes, no, or empty where nothing is expected),
        erasure_share, erasure, bypass, change and defense with `_low` and `_high` (writes in units of the residual
        stream, defense a share), defense_base likewise, n (prompts answered), vanishing (what is 0 by construction) and
        remainder (its largest size, over blocks), in_play, reason, code (hash of the code
        that it was made with). Of the relapse
        test, the same for every direction: relapse_found and relapse_agrees (empty where nothing is expected, and there
        it is not made), relapse_gain, relapse_by_activations, relapse_by_values, relapse_by_both and
        relapse_share_by_values with `_low` and `_high`, relapse_n (prompts), relapse_reason; see `RelapseTest.verdict`.

    Raises:
        InputError: if the study has no baseline or lacks a direction or a method.
    """
    settings, reporter = settings or CalibrationSettings(), reporter or Silent()
    baseline = baseline or Baseline.load(study.folder / "evidence" / "base")
    if unknown := [name for name in settings.directions if name not in baseline.inputs.directions]:
        known = ", ".join(baseline.inputs.directions)
        raise InputError(f"{study.folder}: no direction {unknown[0]!r} was found for the base; there are {known}")
    if unknown := [name for name in settings.methods or () if name not in study.config.studied]:
        raise InputError(f"no method {unknown[0]!r} in a study; there are {', '.join(study.config.studied)}")
    prompts = list(dict.fromkeys(baseline.inputs.prompts))
    chosen = [prompts[i] for i in seeded_order(len(prompts), study.seed)[: settings.defense_prompts]]
    # only what the verdict rests on: no text of its own, no lens, no nulls of single neurons
    inputs, checks = baseline.inputs, check_directions(baseline)
    inputs = replace(inputs, first_tokens=0, lens_tokens=(), null_directions=inputs.null_directions[:1])
    key = {"architecture": checkpoint_of(study, "vanilla").model.config.model_type, "seed": study.seed}
    judge, treat = judge_of(study), Treating(study, baseline, settings.relapse_prompts)
    rows: list[dict[str, object]] = []
    for construction in constructions(study, baseline, settings, reporter):
        reporter.note(f"calibrate: {construction.name}")
        checkpoint = construction.make()
        defense, n = _defense(study, judge, checkpoint, chosen)
        evidence = gather_evidence(checkpoint, inputs)
        tables = decomposition(Contrast(construction.name, baseline, evidence, checks, top_neurons=0))
        relapse = treat(construction.kind, checkpoint, evidence)
        at_prompt = {name: table[table["position"] == POSITION] for name, table in tables.items()}
        for direction in construction.directions:
            blocks, verdict = (
                at_prompt[name][at_prompt[name]["direction"] == direction]
                for name in ("decomposition", "local_verdict")
            )
            row = {**key, **_judged(construction, direction, verdict.iloc[0]), **defense.columns("defense"), "n": n}
            row |= {**_vanishing(construction, blocks), **verdict.iloc[0][["in_play", "reason"]]}
            rows.append({**row, **relapse, "code": code_of(__name__)})
    table = pd.DataFrame(rows)
    base = table[table["checkpoint"] == UNCHANGED].iloc[0]
    for of_base, own in zip(with_ends("defense_base"), with_ends("defense"), strict=True):
        table[of_base] = base[own]
    return table


def _judged(construction: Construction, direction: str, verdict: pd.Series) -> dict[str, object]:
    truth, expected = EXPECTED.get(construction.kind, ("", ""))
    found = verdict["verdict"]
    row: dict[str, object] = {
        "checkpoint": construction.name,
        "kind": construction.kind,
        "start": construction.start,
        "t": construction.t,
        "direction": direction,
        "truth": truth,
        "expected": expected,
        "found": found,
        "agrees": ("yes" if found == expected else "no") if expected else "",
    }
    for quantity in ("erasure_share", "erasure", "bypass", "change"):
        row |= {column: verdict[column] for column in with_ends(quantity)}
    return row


def _vanishing(construction: Construction, blocks: pd.DataFrame) -> dict[str, object]:
    """What is 0 by construction, and the largest size that was found of it."""
    if construction.kind == "frozen_values":
        return {"vanishing": "erasure", "remainder": blocks[["erasure", "bias"]].abs().to_numpy().max()}
    if construction.kind == "projected_out":  # to rounding; everything else to the last bit
        return {"vanishing": "write", "remainder": blocks["write"].abs().max()}
    if len(construction.intact):
        below = blocks[blocks["block"].isin(construction.intact)]
        return {"vanishing": f"bypass to block {construction.intact[-1]}", "remainder": below["bypass"].abs().max()}
    return {"vanishing": "", "remainder": math.nan}


def _defense(study: Run, judge: Judge, checkpoint: Checkpoint, prompts: list[str]) -> tuple[Interval, int]:
    """The share of safe answers among those that are not empty, and the number of these."""
    config = study.config
    answers = generate(checkpoint, prompts, max_new_tokens=config.max_new_tokens, truncate=config.truncate)
    scores = [score for score in score_responses(judge, answers, prompts) if score is not None]
    return wilson(sum(safe(scores)), len(scores)), len(scores)
