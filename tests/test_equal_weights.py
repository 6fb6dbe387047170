"""Every command says where checkpoints have equal weights, or an edit changes nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_folder import INSTANCES, compared, make_folder
from command_line import call
from conftest import make_instance, tiny_checkpoint

from mechinterp.data.safeedit import write_safeedit
from mechinterp.methods.editing.dinm import DinmSettings, edit
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.equality import equal_weights, notes_of_equal
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.passes.side_by_side import side_by_side

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

NAME = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def folder(shared: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, tuned checkpoints, a copy of each, and an edit of 0 steps."""
    root = tmp_path_factory.mktemp("equal") / "checkpoints"
    shutil.copytree(shared("checkpoints", make_folder), root)
    for name in ("base", "tuned"):
        shutil.copytree(root / name, root / f"{name}_copy")
    base = Checkpoint.load(root / "base", device="cpu")
    edit(base, make_instance(), block=1, settings=DinmSettings(steps=0)).save(root / "idle")
    write_safeedit(INSTANCES, root / "data.json")
    return root


def test_a_note_names_the_base_or_the_first_of_its_equals() -> None:
    kinds = {"base": 0, "a": 0, "b": 1, "c": 1, "d": 2, "e": 1}
    notes = notes_of_equal("base", list("abcde"), lambda one, two: kinds[one] == kinds[two])
    assert [note.partition(": ")[0] for note in notes] == ["the weights are equal"] * 3
    assert ["very weights of the base" in note for note in notes] == [True, False, False]
    assert [note.endswith("of b") for note in notes] == [False, True, True]


def test_equal_is_bit_for_bit_and_in_one_type() -> None:
    base, copy, other = tiny_checkpoint("llama"), tiny_checkpoint("llama"), tiny_checkpoint("llama")
    assert equal_weights(base, copy)
    with torch.no_grad():
        other.model.model.norm.weight[0] += 1e-6
    assert not equal_weights(base, other)
    assert not equal_weights(base, tiny_checkpoint("llama", dtype=torch.bfloat16))
    assert not equal_weights(base, tiny_checkpoint("gpt2"))


def test_a_comparison_of_equals_says_so(folder: Path, tmp_path: Path) -> None:
    notes = compared(folder, tmp_path, "base_copy", "tuned", "tuned_copy")
    found = [note for note in notes if note.startswith("the weights are equal")]
    assert len(found) == 2
    assert "base_copy has the very weights of the base" in found[0]
    assert found[1].endswith("tuned_copy has the very weights of tuned")


@pytest.mark.parametrize(
    "command",
    [
        "region --model base --probe probe.safetensors --draws 100",
        "vectors --model base --probe probe.safetensors --tokens 0",
    ],
)
def test_the_weights_alone_say_so_too(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    others = "--against base_copy --against tuned --against tuned_copy --against idle"
    assert call(*command.split(), *others.split()) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "base_copy has the very weights of the base" in told
    assert "idle has the very weights of the base" in told
    assert "tuned_copy has the very weights of tuned" in told
    assert told.count("the weights are equal") == 3
    assert call(*command.split(), "--against", "tuned") == 0
    assert "the weights are equal" not in capsys.readouterr().err


def changes_nothing(caplog: pytest.LogCaptureFixture) -> bool:
    return any("an edit changes none of those" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("how", ["applied", "opened", "side by side"])
@pytest.mark.parametrize(("size", "said"), [(0.0, True), (1e-12, True), (0.1, False)])
def test_an_edit_that_changes_nothing_says_so(
    how: str, size: float, said: bool, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = Checkpoint.load(folder / "base", device="cpu")
    change = size * base.parameter(NAME).detach().clone()
    delta = WeightDelta({NAME: change}, block=1, instance=0, fingerprint=base.fingerprint)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        if how == "applied":
            with delta.applied(base):
                pass
        elif how == "opened":
            Checkpoint.load(delta.save(tmp_path / "edit"), base=folder / "base", device="cpu")
        else:
            with side_by_side(base, [delta, delta]):
                pass
    assert changes_nothing(caplog) is said


def test_an_evaluation_of_an_idle_edit_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    given = ["evaluate", "--model", "base", "--data", "data.json", "--max-new-tokens", 2, "--limit", 2]
    assert call(*given, "--edit", "idle") == 0
    assert changes_nothing(caplog)


def test_an_evaluation_against_an_equal_base_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (tmp_path / "benign.txt").write_text("What is the time?\nWho are you?\nHow far is it?\n")
    given = ["evaluate", "--data", "data.json", "--max-new-tokens", 2, "--benign", tmp_path / "benign.txt"]
    for model, said in (("base_copy", True), ("tuned", False)):
        assert call(*given, "--model", model, "--against", "base") == 0
        assert ("has the very weights of the base" in " ".join(capsys.readouterr().err.split())) is said


def test_diff_says_so_as_before(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("diff", folder / "base", folder / "idle") == 0
    assert "identical: all" in capsys.readouterr().out
    assert (
        LazyWeights.open(folder / "idle", folder / "base").fingerprint == LazyWeights.open(folder / "base").fingerprint
    )
