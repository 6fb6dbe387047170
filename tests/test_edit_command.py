"""`mechinterp edit` as its user calls it: one instance or many, in every mode, and with bad input."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import N_BLOCKS, make_instance, tiny_checkpoint
from test_study import call

from mechinterp.data.safeedit import write_safeedit
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta

INSTANCES = [make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(4)]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edit")
    tiny_checkpoint("mistral").save(folder / "model")
    write_safeedit(INSTANCES, folder / "data.json")
    long = make_instance(9, adversarial_prompt="why " * 300)
    write_safeedit([long], folder / "long.json")
    return folder


def edit(there: Path, out: Path, *more: object, data: str = "data.json") -> int:
    return call("edit", "--model", there / "model", "--data", there / data, "--out", out, "--steps", 2, *more)


def test_one_instance_is_one_edit(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit(there, tmp_path / "e", "--instance", 2, "--layer", "1", "--merged", tmp_path / "m") == 0
    assert "edit of instance 2 at layer 2 (block 1), loss of the safe response" in capsys.readouterr().out
    delta = WeightDelta.load(tmp_path / "e")
    assert (delta.instance, delta.block, len(delta.log)) == (2, 1, 2)
    capsys.readouterr()
    assert call("diff", there / "model", tmp_path / "m") == 0
    assert "1 of" in capsys.readouterr().out  # one tensor
    (name,) = delta.tensors
    before, after = Checkpoint.load(there / "model"), Checkpoint.load(tmp_path / "m")
    changed = [n for n, p in after.model.named_parameters() if not torch.equal(p, before.parameter(n))]
    assert changed == [name]


def test_all_instances_are_edits_of_their_own_and_not_redone(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(there, tmp_path, "--all", "--layer", "2", "--rank", 2) == 0
    assert "edits of 4 instances" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1", "2", "3", "edit_log.csv"]
    log = pd.read_csv(tmp_path / "edit_log.csv")
    assert list(log["instance"]) == [0, 0, 1, 1, 2, 2, 3, 3]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/edit.json")}
    assert edit(there, tmp_path, "--all", "--layer", "2", "--rank", 2) == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/edit.json")} == before
    assert torch.linalg.matrix_rank(next(iter(WeightDelta.load(tmp_path / "3").tensors.values()))) == 2


def test_auto_locates_each_and_the_first_may_serve_for_all(there: Path, tmp_path: Path) -> None:
    assert edit(there, tmp_path / "own", "--all", "--distance", "relative") == 0
    assert edit(there, tmp_path / "first", "--all", "--distance", "relative", "--reuse-first-layer") == 0
    own, first = ([WeightDelta.load(tmp_path / d / str(i)).block for i in range(4)] for d in ("own", "first"))
    assert first == [own[0]] * 4


@pytest.mark.parametrize("mode", ["sequential", "batch"])
def test_other_modes_leave_one_edit(mode: str, there: Path, tmp_path: Path) -> None:
    assert edit(there, tmp_path / "e", "--all", "--mode", mode, "--layer", "0,2") == 0
    delta = WeightDelta.load(tmp_path / "e")
    assert delta.instances == (0, 1, 2, 3)
    assert (delta.block, delta.also) == (0, (2,))
    assert call("evaluate", "--model", there / "model", "--data", there / "data.json", "--edit", tmp_path / "e") == 0


def test_sequential_goes_on_where_it_was(there: Path, tmp_path: Path) -> None:
    given = ["--mode", "sequential", "--layer", "1"]
    assert edit(there, tmp_path / "whole", "--all", *given) == 0
    assert edit(there, tmp_path / "parts", "--instance", 0, "--instance", 1, *given) == 0
    assert edit(there, tmp_path / "parts", "--all", *given) == 0
    whole, parts = (WeightDelta.load(tmp_path / name) for name in ("whole", "parts"))
    assert whole.instances == parts.instances
    assert all(torch.equal(change, parts.tensors[name]) for name, change in whole.tensors.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--instance", 77], "no instance has the id 77"),
        (["--all", "--instance", 1], "--all and --instance exclude each other"),
        (["--layer", "last"], "--layer is auto, the number of a block, or several as in 3,5; got 'last'"),
        (["--layer", str(N_BLOCKS)], f"block {N_BLOCKS} is out of range"),
        (["--all", "--merged", "x"], "--merged is for one edit"),
        (["--all", "--mode", "sequential", "--rank", 2], "--rank is not for --mode sequential"),
        (["--lr", 0], "learning_rate: Input should be greater than 0"),
        (["--mode", "batched"], "'batched' is not one of"),
        (["--together", 0], "--together"),
        (["--layer", "1", "--lr", "1e30"], "the change of the weights is not finite after step 0; nothing was applied"),
    ],
)
def test_bad_options_are_one_line(
    options: list[object], message: str, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(there, tmp_path / "out", *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert message in line
    assert not (tmp_path / "out" / "edit.json").exists()


def test_a_prompt_longer_than_the_context_is_named(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(there, tmp_path / "out", "--layer", "1", data="long.json") == 2
    assert "instance 9" in (err := capsys.readouterr().err)
    assert "do not fit into the context of 256" in err
    assert edit(there, tmp_path / "out", "--layer", "1", "--max-input-tokens", 50, data="long.json") == 0
