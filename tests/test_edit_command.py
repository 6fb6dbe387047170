"""`mechinterp edit` as its user calls it: one instance or many, in every mode, and with bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import call
from conftest import N_BLOCKS, make_instance, tiny_checkpoint

from mechinterp.data.safeedit import write_safeedit
from mechinterp.data.storage.ledger import LEDGER
from mechinterp.methods.registry import METHODS
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
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["0", "1", "2", "3", "edit_log.csv"]
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
        (["--instance", 77], "no instance has the id 77; 4 have ids from 0 to 3"),
        (["--all", "--instance", 1], "--all and --instance exclude each other"),
        (["--layer", "last"], "--layer is auto or the number of a block, or several as in 3,5; got 'last'"),
        (["--layer", str(N_BLOCKS)], f"block {N_BLOCKS} is out of range"),
        (["--all", "--merged", "x"], "--merged is for one edit"),
        (["--all", "--mode", "sequential", "--rank", 2], "--rank is not for --mode sequential"),
        (["--lr", 0], "--lr: Input should be greater than 0"),
        (["--mode", "batched"], "'batched' is not one of"),
        (["--together", 0], "--together"),
        (["--layer", "1", "--lr", "1e30"], "the change of the weights is not finite after step 0; nothing was applied"),
        (["--layer", "1", "--lr", "1e30", "--norm-bound", 0.1], "instance 0: the change of the weights is not finite"),
        (["--layer", "1", "--lr", "1e30", "--mode", "batch", "--all"], "the batch of 4 instances: the change of the"),
        (["--lr", "inf"], "--lr: Input should be a finite number, got inf"),
        (["--lr", "1e38"], "--lr: Input should be less than or equal to 1000"),
        (["--lr", "1e39", "--optimiser", "sgd"], "--lr: Input should be less than or equal to 1000"),
        (["--norm-bound", "nan"], "--norm-bound: Input should be"),
        (["--entry-bound", 0], "--entry-bound: Input should be greater than 0"),
        (["--kl-direction", "base"], "'base' is not one of"),
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
    # the released code cuts nothing: the advice is another one
    released = ["--constraint", "released", "--layer", "1", "--max-input-tokens", 50]
    assert edit(there, tmp_path / "released", *released, data="long.json") == 2
    err = capsys.readouterr().err
    assert 'use constraint "published", which cuts, or a shorter instance' in err
    assert "lower max_input_tokens" not in err


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LEDGER]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_nothing_of_the_users_is_removed(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precious, model = tmp_path / "precious", tmp_path / "model"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    (tmp_path / "many" / "2").mkdir(parents=True)
    (tmp_path / "many" / "2" / "mine.txt").write_text("mine")
    tiny_checkpoint("mistral").save(model)
    assert edit(there, tmp_path / "edits", "--all", "--layer", "1") == 0
    assert edit(there, tmp_path / "one", "--layer", "1") == 0
    (tmp_path / "one" / "notes.txt").write_text("beside the edit")
    (tmp_path / "link").symlink_to(precious)
    before = contents(tmp_path)
    for refused, reason in (
        (["--out", precious], "is not empty"),
        (["--out", tmp_path / "edits"], "is not empty"),
        (["--out", model], "is not empty"),
        (["--out", tmp_path / "one"], "is not empty"),
        (["--out", tmp_path / "link"], "a link"),
        (["--out", tmp_path / "many", "--all"], "is not empty"),
        (["--out", precious, "--all", "--mode", "batch"], "is not empty"),
        (["--out", precious, "--all", "--mode", "sequential"], "is not empty"),
        (["--out", tmp_path / "new", "--merged", model], "is not empty"),
        (["--out", tmp_path / "new", "--merged", tmp_path / "edits" / "0"], "is not empty"),
        (["--out", tmp_path / "new", "--merged", tmp_path / "new"], "choose two folders"),
        (["--out", tmp_path / "new" / "edit", "--merged", tmp_path / "new"], "choose two folders"),
    ):
        capsys.readouterr()
        # a model that is nowhere: refused before it is looked for
        assert call("edit", "--model", tmp_path / "nowhere", "--data", there / "data.json", *refused) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert reason in line
    for kind in ("sft", "dpo", "ext_sub"):
        given = ["--model", tmp_path / "nowhere", "--data", there / "data.json", "--out", precious]
        assert call("train", kind, *given) == 2
        assert "is not empty" in capsys.readouterr().err
    assert contents(tmp_path) == before
    (tmp_path / "one" / "notes.txt").unlink()
    assert edit(there, tmp_path / "one", "--layer", "2") == 0  # an edit makes way for an edit
    assert WeightDelta.load(tmp_path / "one").block == 2
    (tmp_path / "empty").mkdir()
    assert edit(there, tmp_path / "empty", "--layer", "2") == 0


def test_every_trained_method_of_the_registry_has_a_command(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call("train", "--help") == 0
    told = capsys.readouterr().out
    trained = [name for name, method in METHODS.items() if method.takes == ("training",)]
    assert {"sft", "dpo", "ext_sub"} <= set(trained)
    assert all(f"\n  {name} " in told for name in trained)
    given = ["--model", there / "model", "--data", there / "data.json", "--out", tmp_path / "made"]
    assert call("train", "ext_sub", *given, "--set", "step=1") == 2
    assert "ext_sub: unknown setting `step`" in capsys.readouterr().err
    assert call("train", "ext_sub", *given, "--set", "steps") == 2
    assert "--set takes NAME=VALUE" in capsys.readouterr().err
    assert call("train", "dinm", *given) == 2  # an editor: `mechinterp edit`
    few = ["--steps", 1, "--batch-size", 2, "--max-length", 200]
    few += [word for setting in ("gradient_accumulation=1", "warmup_steps=0") for word in ("--set", setting)]
    assert call("train", "ext_sub", *given, *few, "--set", "lora={rank: 2, alpha: 4}") == 0
    made, base = (Checkpoint.load(path, device="cpu") for path in (tmp_path / "made", there / "model"))
    assert made.fingerprint != base.fingerprint


def test_edits_may_be_kept_here(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert edit(there, Path("."), "--all", "--layer", "1") == 0
    assert (tmp_path / "3" / "edit.json").is_file()


def test_all_means_a_folder_each_even_of_one(there: Path, tmp_path: Path) -> None:
    write_safeedit(INSTANCES[:1], tmp_path / "single.json")
    data = str(tmp_path / "single.json")
    assert edit(there, tmp_path / "all", "--all", "--layer", "1", data=data) == 0
    assert sorted(contents(tmp_path / "all")) == ["0/delta.safetensors", "0/edit.json", "edit_log.csv"]
    assert edit(there, tmp_path / "one", "--layer", "1", data=data) == 0
    assert sorted(contents(tmp_path / "one")) == ["delta.safetensors", "edit.json"]


def test_an_edit_tells_its_mode_and_sequential_stands_on_its_own_alone(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--layer", "1"]
    for mode in ("each", "batch", "sequential"):
        assert edit(there, tmp_path / mode, "--instance", 0, "--mode", mode, *given) == 0
        assert json.loads((tmp_path / mode / "edit.json").read_text())["mode"] == mode
    assert "edit of instance 0 at layer 2" in capsys.readouterr().out
    before = contents(tmp_path)
    for mode in ("each", "batch"):
        assert edit(there, tmp_path / mode, "--all", "--mode", "sequential", *given) == 2
        assert f"an edit of --mode {mode} is there" in capsys.readouterr().err
    assert edit(there, tmp_path / "sequential", "--all", "--mode", "sequential", *given, "--lr", 0.1) == 2
    assert "edits with other settings are there" in capsys.readouterr().err
    changed = [INSTANCES[0].model_copy(update={"safe_generation": "No."}), *INSTANCES[1:]]
    write_safeedit(changed, tmp_path / "changed.json")
    data = str(tmp_path / "changed.json")
    assert edit(there, tmp_path / "sequential", "--all", "--mode", "sequential", *given, data=data) == 2
    assert "were made of other texts, at other layers" in capsys.readouterr().err
    assert edit(there, tmp_path / "sequential", "--all", "--mode", "sequential", "--layer", "2") == 2
    assert "were made of other texts, at other layers" in capsys.readouterr().err
    (tmp_path / "changed.json").unlink()
    assert contents(tmp_path) == before
    assert edit(there, tmp_path / "sequential", "--all", "--mode", "sequential", *given) == 0
    assert WeightDelta.load(tmp_path / "sequential").instances == (0, 1, 2, 3)


def test_no_steps_leave_a_log_without_rows(there: Path, tmp_path: Path) -> None:
    given = ["--model", there / "model", "--data", there / "data.json", "--all", "--layer", "1", "--steps", 0]
    assert call("edit", *given, "--out", tmp_path) == 0
    log = pd.read_csv(tmp_path / "edit_log.csv")
    assert log.empty
    assert list(log.columns[:5]) == ["instance", "block", "step", "loss", "loss_edit"]


def test_direction_and_entry_bound_are_options(there: Path, tmp_path: Path) -> None:
    given = ["--layer", "1", "--lr", 0.1]
    more = {"free": [], "turned": ["--kl-direction", "base||edited"], "bound": ["--entry-bound", 0.001]}
    changes = {}
    for name, options in more.items():
        assert edit(there, tmp_path / name, *given, *options) == 0
        (changes[name],) = WeightDelta.load(tmp_path / name).tensors.values()
    assert not torch.equal(changes["free"], changes["turned"])
    assert changes["bound"].abs().max().item() == pytest.approx(0.001, rel=1e-2)
    assert changes["free"].abs().max() > 0.01
