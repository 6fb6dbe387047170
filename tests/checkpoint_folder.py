"""Checkpoints of every kind in one folder, and how the tests compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from conftest import make_instance, tiny_checkpoint
from made_checkpoints import make_adapter
from safetensors.torch import save_file

from mechinterp.answers.judges import EmbeddedJudge
from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.audit.evidence import ComparisonSettings
from mechinterp.data.comments import Comment
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.progress import Silent
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.comparison import compare_checkpoints

INSTANCES = [make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(6)]


SETTINGS = ComparisonSettings(max_new_tokens=2, steering_inputs=2, middle_inputs=2, top_neurons=2, null_draws=8)


class Listening(Silent):
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def make_folder(folder: Path) -> None:
    """A base, checkpoints of every kind on it, a training run, and the probe."""
    base = tiny_checkpoint("llama")
    base.save(folder / "base")
    tiny_checkpoint("llama", seed=1).save(folder / "tuned")
    for step in (2, 10, 100):
        moved = tiny_checkpoint("llama")
        with torch.no_grad():
            moved.value_matrix(1).add_(0.01 * step * torch.ones_like(moved.value_matrix(1)))
        moved.save(folder / "run" / f"checkpoint-{step}")
    name = "model.layers.2.mlp.down_proj.weight"
    change = 0.1 * torch.ones_like(base.parameter(name))
    WeightDelta({name: change}, block=2, instance=0, fingerprint=base.fingerprint).save(folder / "edit")
    state = {key: value + 0.01 for key, value in tiny_checkpoint("llama").model.state_dict().items()}
    save_file(state, folder / "state.safetensors")
    make_adapter(base, folder / "adapter", names=str(folder / "base"))
    comments = [Comment(f"you {w} {i}", t) for i in range(12) for w, t in (("fool", True), ("friend", False))]
    fit_probe(base, comments, seed=0).save(folder / "probe.safetensors")


def compared(folder: Path, out: Path, *names: str, **changes: Any) -> list[str]:
    """Compare some of the checkpoints, without figures; returns what was told."""
    from mechinterp.audit.directions.probe import ToxicProbe

    responses = [i.safe for i in INSTANCES] + [i.unsafe for i in INSTANCES]
    judge = EmbeddedJudge.fit(responses, [True] * 6 + [False] * 6, seed=0)
    base, listening = Candidate.of(folder / "base", name="base"), Listening()
    undrawn = (patch("mechinterp.report.plates.draw_all"), patch("mechinterp.report.write_report"))
    settled = patch("mechinterp.data.storage.hashing.RECENT", 0)  # the files were made a moment ago
    with undrawn[0], undrawn[1], settled:
        compare_checkpoints(
            base,
            [Candidate.of(folder / name, name=name, base=base) for name in names],
            INSTANCES,
            ToxicProbe.load(folder / "probe.safetensors"),
            judge,
            out=out,
            **{"block": 2, "settings": SETTINGS, "reporter": listening, **changes},
        )
    return listening.notes


def table(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / "tables" / f"{name}.csv")
