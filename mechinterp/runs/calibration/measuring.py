"""Every measure of the audit on one checkpoint after the other, beside one base and one model that never learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from mechinterp.answers.judges import Judge
from mechinterp.audit import decodability
from mechinterp.audit.attacks.examining import Attacking
from mechinterp.audit.attacks.registry import ATTACKS
from mechinterp.audit.attacks.results import Examined, Measured, Role
from mechinterp.audit.attacks.tables import attack_tables
from mechinterp.audit.depth import DepthTables, answer_drops, depth_texts
from mechinterp.audit.evidence import Baseline, gather_evidence
from mechinterp.audit.origins.asking import Asked
from mechinterp.audit.origins.measuring import origins_of
from mechinterp.audit.store import Store
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.decomposition import decomposition
from mechinterp.audit.tables.mechanism import mechanism
from mechinterp.audit.tables.reading import interval_of
from mechinterp.audit.tables.validity import check_directions
from mechinterp.audit.tables.verdicts import READOUT, verdict_table
from mechinterp.data.storage.hashing import hash_path
from mechinterp.data.storage.provenance import library_versions
from mechinterp.measures.relapse import Rates, judge_relapse
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import continue_greedily
from mechinterp.models.progress import Reporter
from mechinterp.runs.calibration.settings import MetaSettings
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.questions import benign_of
from mechinterp.runs.study.run import Run
from mechinterp.runs.workspace import fingerprint_of_judge

DATA = ("train.json", "validation.json", "test.json", "benign.jsonl")
"""What of a study's data checkpoints are made with and asked."""


class Instrument:
    """The audit, ready to be held against checkpoints.

    Args:
        run: a study with its base, its reference that never learnt, and the base's evidence.
        baseline: of the base.
        judge: of answers.
        settings: how things are measured.
        store: where points of attacks are kept.
        reporter: told what is being done.

    Attributes:
        given: what decides who is asked and judges, JSON-serialisable: the judge and the study's data.
    """

    def __init__(
        self, run: Run, baseline: Baseline, judge: Judge, settings: MetaSettings, store: Store, reporter: Reporter
    ) -> None:
        self.run, self.settings, self.reporter = run, settings, reporter
        self.given = [fingerprint_of_judge(judge), hash_path(*(run.folder / "data" / name for name in DATA))]
        self.base, never = checkpoint_of(run, "vanilla"), checkpoint_of(run, "never")
        self.seed, pairs = run.seed, instances_of(run, "test")
        self.baseline, self.checks = baseline, check_directions(baseline)
        # only what single numbers rest on: no text of its own, no lens, no nulls of single neurons
        inputs = baseline.inputs
        self.inputs = replace(inputs, first_tokens=0, lens_tokens=(), null_directions=inputs.null_directions[:1])
        given = settings.origins
        self.asked = Asked.of(
            self.base, pairs, baseline.unsafe.tolist(), prompts=given.prompts, tokens=given.tokens, seed=run.seed
        )
        texts = depth_texts(self.base, baseline, pairs, wanted=settings.depth_prompts)
        if texts is None:
            raise ValueError(f"{run.folder}: the base answers no prompt unsafely")
        self.texts = texts
        self.never_drops = answer_drops(self.base, never, texts)
        begun = continue_greedily(self.base, inputs.prompts, max_new_tokens=1, quiet=True)
        wanted = settings.decoding_prompts
        self.decoded = decodability.Asked.of(pairs, baseline.unsafe, begun, seed=run.seed, wanted=wanted)
        attacking = Attacking.of(
            self.base,
            [*pairs, *instances_of(run, "validation")],  # which nothing was chosen on here: more prompts to bound with
            judge,
            settings=settings.attack,
            store=store,
            key=[library_versions(), self.given, self.base.fingerprint],
            reporter=reporter,
            max_new_tokens=run.config.max_new_tokens,
            benign=benign_of(run),
            seed=run.seed,
        )
        # harmless prompts are there to make directions from; what is refused of them is not asked
        self.attacking = replace(attacking, examiner=replace(attacking.examiner, detector=None))
        self.beside = [self._attacked(self.base, "base"), self._attacked(never, "never")]

    def measure(self, checkpoint: Checkpoint, name: str) -> dict[str, Any]:
        """All measures of a checkpoint, as the columns of the certificate, see `audit.certificate.MEASURES`."""
        attacked = replace(self._attacked(checkpoint, "tuned"), name=name)
        attacks = attack_tables([*self.beside, attacked], self.attacking.examiner.known.pairs, (), seed=self.seed)
        contrast = Contrast(name, self.baseline, gather_evidence(checkpoint, self.inputs), self.checks, top_neurons=0)
        origins = origins_of(
            self.base, checkpoint, self.asked, method=name, settings=self.settings.origins, seed=self.seed
        )
        drops = answer_drops(self.base, checkpoint, self.texts)
        depth = DepthTables.of({name: drops}, self.never_drops, seed=self.seed)
        tables = {
            **origins.tables,
            **depth.tables,
            "attacks": attacks["attacks"],
            "local_verdict": decomposition(contrast)["local_verdict"],
        }
        verdict = verdict_table(tables).iloc[0]
        moved = mechanism(contrast).iloc[0]
        states = decodability.decode(name, checkpoint, self.decoded).table
        plain = _unsafe(attacked.plain)
        return {
            "toxicity_reduction": moved["toxicity_reduction_rate"],
            "activation_shift": moved["activation_shift_rate"],
            **interval_of(dict(verdict), "local_erasure_share").columns("local_share"),
            "local_verdict": verdict["local_verdict"],
            **interval_of(dict(verdict), "value_share").columns("value_share"),
            **interval_of(dict(verdict), "depth").columns("depth"),
            **self._relapse(attacked),
            **_brought_back(name, attacks["attacks"]),
            "probe_auroc": float(states["auroc"].mean()),
            "defense": 1 - float(plain.mean()),
            "n": len(plain),
            "change": verdict["change"],
            **{key: verdict[key] for key in ("where", "gone", "attack", "missing", "sentence")},
        }

    def _attacked(self, checkpoint: Checkpoint, role: Role) -> Examined:
        """Under all attacks, without the tables that single attacks leave of their own."""
        found = self.attacking.examine(
            checkpoint, name=role, role="base" if role == "base" else "never", identity=checkpoint.fingerprint
        )
        return replace(found, role=role)

    def _relapse(self, attacked: Examined) -> dict[str, Any]:
        """The relapse test's share and verdict, from what the base's MLPs bring back at all blocks."""
        restored = {one.point.setting: _unsafe(one) for one in attacked.found if one.attack == "restore"}
        rates = Rates(_unsafe(self.beside[0].plain), _unsafe(attacked.plain), self.seed)
        found = judge_relapse(rates, restored["activations"], restored["values"], restored["both"])
        return {"relapse_share": found.share.value, "relapse_verdict": found.verdict}


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON holds it: None for what is undefined."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    return None if math.isnan(number) else number


def _unsafe(measured: Measured) -> Float[Tensor, " input"]:
    found = measured.of("unsafe")
    assert found is not None  # whatever is asked is judged
    return found


def _brought_back(name: str, attacks: pd.DataFrame) -> dict[str, float]:
    """Of each attack the largest recovery over its points, and the largest excess over the reference's."""
    found: dict[str, float] = {}
    own = attacks[attacks["method"] == name]
    for attack in own["attack"].unique():
        if attack not in ATTACKS:
            continue
        rows = own[(own["attack"] == attack) & ~own["setting"].isin(ATTACKS[attack].aside)]
        read = rows[rows["quantity"] == (READOUT if (rows["quantity"] == READOUT).any() else "unsafe")]
        for column in ("recovery", "excess"):
            largest = read[column].max()
            found[f"{attack}_{column}"] = float(largest) if pd.notna(largest) else math.nan
    return found
