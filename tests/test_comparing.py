"""Comparing any checkpoints: one in memory at a time, nothing recorded twice, a killed comparison goes on."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoint_folder import INSTANCES, SETTINGS, compared, make_folder, table
from command_line import call
from conftest import tiny_checkpoint

from mechinterp.answers.keyword_judge import KeywordJudge
from mechinterp.answers.two_judges import TwoJudges
from mechinterp.audit.tables.validity import VALIDITY
from mechinterp.audit.trajectory import find_steps, last_steps
from mechinterp.errors import InputError
from mechinterp.models.bases import stands_on
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.runs import comparison as comparing
from mechinterp.runs.candidate import Candidate

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture
def folder(shared: Callable[..., Path]) -> Path:
    return shared("checkpoints", make_folder)


def test_every_kind_of_checkpoint_in_one_comparison(folder: Path, tmp_path: Path) -> None:
    compared(folder, tmp_path, "tuned", "adapter", "edit", "state.safetensors")
    mechanism = table(tmp_path, "mechanism").set_index("method")
    assert list(mechanism.index) == ["tuned", "adapter", "edit", "state.safetensors"]
    assert mechanism.loc["edit", "activation_shift_rate"] == 0.0
    assert (mechanism.drop("edit")["activation_shift_rate"] > 0).all()
    by_edit = table(tmp_path, "decomposition").query("method == 'edit'")
    assert (by_edit.loc[by_edit["block"] < 2, ["erasure", "bypass"]] == 0).all(axis=None)


def test_answers_that_only_look_safe_are_flagged(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the base itself, and of the base steered."""

    class Lenient:
        name = "lenient"

        def __call__(self, responses: Sequence[str]) -> np.ndarray:
            return np.ones(len(responses))

    two = TwoJudges(Lenient(), KeywordJudge())
    monkeypatch.setattr("checkpoint_folder.EmbeddedJudge.fit", lambda *_, **__: two)
    compared(folder, tmp_path, "tuned")
    flags = table(tmp_path, "flags").set_index("flag")
    assert set(flags["method"]) == {"base"}
    assert flags.loc["short", "value"] == 1.0  # two new tokens
    assert flags.loc["judged_safe", "value"] == 1.0
    assert flags.loc["judges_disagree", "value"] == flags.loc["keywords_disagree", "value"] == 1.0
    validity = table(tmp_path, "validity")
    assert (validity[[f"steering_degenerate_{name}" for name in ("minus", "none", "plus")]] == 1.0).all(axis=None)
    assert all(VALIDITY.meaning(column) for column in validity)


def test_one_model_is_in_memory_at_a_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref] = []
    load = Checkpoint.load

    def watched(*args: Any, **kwargs: Any) -> Checkpoint:
        assert not [reference for reference in alive if reference() is not None]
        checkpoint = load(*args, **kwargs)
        alive.append(weakref.ref(checkpoint.model))
        return checkpoint

    monkeypatch.setattr(Checkpoint, "load", watched)
    compared(folder, tmp_path, "tuned", "adapter", "edit")
    assert len(alive) == 4


def test_what_was_recorded_is_not_recorded_again(folder: Path, tmp_path: Path) -> None:
    first = compared(folder, tmp_path, "tuned")
    assert "recording the base" in first
    second = compared(folder, tmp_path, "tuned", "edit")
    assert [note for note in second if note.startswith(("recording", "opening"))] == [
        f"opening edit: {folder / 'edit'}",
        "recording edit",
    ]
    before = table(tmp_path, "local_verdict")
    third = compared(folder, tmp_path, "tuned", "edit")
    assert not third  # nothing was loaded, not even to see whose weights they are
    pd.testing.assert_frame_equal(table(tmp_path, "local_verdict"), before)
    elsewhere = compared(folder, tmp_path / "other", "tuned", cache=tmp_path / "recordings")
    assert not elsewhere
    redone = compared(folder, tmp_path, "tuned", block=1)
    assert "recording the base" in redone


def test_a_changed_file_is_recorded_again(folder: Path, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(folder, checkpoints)
    compared(checkpoints, tmp_path / "out", "tuned")
    before = table(tmp_path / "out", "mechanism")
    other = tiny_checkpoint("llama", seed=2)
    shutil.rmtree(checkpoints / "tuned")
    other.save(checkpoints / "tuned")
    notes = compared(checkpoints, tmp_path / "out", "tuned")
    assert "recording tuned" in notes
    assert "recording the base" not in notes
    assert table(tmp_path / "out", "mechanism")["toxicity"].item() != before["toxicity"].item()
    shutil.rmtree(checkpoints / "tuned")
    shutil.copytree(folder / "tuned", checkpoints / "tuned")  # the same weights again, in new files
    assert not [note for note in compared(checkpoints, tmp_path / "out", "tuned") if note.startswith("recording")]
    pd.testing.assert_frame_equal(table(tmp_path / "out", "mechanism"), before)


def test_a_killed_comparison_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared(folder, tmp_path / "whole", "tuned", "edit")
    gather = comparing.gather_evidence

    def killed(checkpoint: Checkpoint, *args: Any, **more: Any) -> Any:
        if checkpoint.name == "edit":
            raise KeyboardInterrupt
        return gather(checkpoint, *args, **more)

    monkeypatch.setattr(comparing, "gather_evidence", killed)
    with pytest.raises(KeyboardInterrupt):
        compared(folder, tmp_path / "out", "tuned", "edit")
    assert not (tmp_path / "out" / "tables").exists()
    monkeypatch.setattr(comparing, "gather_evidence", gather)
    notes = compared(folder, tmp_path / "out", "tuned", "edit")
    assert [note for note in notes if note.startswith("recording")] == ["recording edit"]
    for path in (tmp_path / "whole" / "tables").glob("*.csv"):
        assert path.read_text() == (tmp_path / "out" / "tables" / path.name).read_text()


def test_a_damaged_recording_is_made_anew(folder: Path, tmp_path: Path) -> None:
    compared(folder, tmp_path, "tuned")
    before = table(tmp_path, "local_verdict")
    for path in (tmp_path / "recordings" / "evidence").rglob("response.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    assert "recording tuned" in compared(folder, tmp_path, "tuned")
    pd.testing.assert_frame_equal(table(tmp_path, "local_verdict"), before)


def test_an_edit_that_was_never_saved_is_noticed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "base", tmp_path / "copy")
    notes = compared(folder, tmp_path / "out", str(tmp_path / "copy"))
    assert any("has the very weights of the base" in note for note in notes)
    assert (table(tmp_path / "out", "decomposition")["change"] == 0).all()


def test_greedy_tokens_of_the_base_and_ones_own_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"generated": 3, "text": "both"})
    compared(folder, tmp_path, "tuned", "edit", settings=settings)
    verdict = table(tmp_path, "local_verdict")
    assert list(dict.fromkeys(verdict["position"])) == [
        "prompt_last",
        "response",
        "generated:3",
        "generated:3:on_policy",
    ]
    own = verdict[verdict["position"] == "generated:3:on_policy"]
    assert (own["verdict"] == "undecided").all()
    assert own["reason"].str.contains("its own tokens").all()
    rows = table(tmp_path, "decomposition").query("method == 'edit' and block == 2")
    fixed, on_policy = (rows[rows["position"] == p] for p in ("generated:3", "generated:3:on_policy"))
    assert (fixed["bypass"] == 0).all()  # the same tokens, so the same inflow
    assert not on_policy.empty
    whole = table(tmp_path, "decomposition")
    total = whole["erasure"] + whole["bypass"] + whole["bias"]
    torch.testing.assert_close(torch.tensor(total), torch.tensor(whole["change"]))


@pytest.mark.usefixtures("quick_comparison")
def test_a_training_run_over_its_steps(folder: Path, tmp_path: Path) -> None:
    probe, data = folder / "probe.safetensors", tmp_path / "data.json"
    from mechinterp.data.safeedit import write_safeedit

    write_safeedit(INSTANCES, data)
    given = ["--base", folder / "base", "--probe", probe, "--data", data, "--layer", 1, "--max-new-tokens", 2]
    (tmp_path / "lr=1e-4").symlink_to(folder / "run")
    steps = ["--trajectory", tmp_path / "lr=1e-4" / "checkpoint-*"]
    assert call("compare", *given, *steps, "--checkpoint", f"tuned={folder / 'tuned'}", "--out", tmp_path / "out") == 0
    found = table(tmp_path / "out", "trajectory")
    toxicity = found.query("quantity == 'toxicity'")
    assert list(toxicity["step"]) == [0, 2, 10, 100]
    mechanism = table(tmp_path / "out", "mechanism").set_index("method")
    assert list(mechanism.index) == ["tuned", "run@2", "run@10", "run@100"]
    assert toxicity["value"].iloc[0] == mechanism["toxicity_base"].iloc[0]
    assert list(toxicity["value"].iloc[1:]) == list(mechanism["toxicity"].iloc[1:])
    terms = found.query("direction == 'answer' and position == 'prompt_last'").pivot(
        index="step", columns="quantity", values="value"
    )
    assert (terms.loc[0, ["erasure", "bypass", "change"]] == 0).all()
    erasure = terms["erasure"].abs()
    assert erasure.is_monotonic_increasing  # the steps go ever farther along one line
    torch.testing.assert_close(erasure[100] / erasure[10], 10.0, rtol=1e-3, atol=0.0)
    assert (tmp_path / "out" / "figures" / "trajectory.png").is_file()
    assert "Over the steps of training" in (tmp_path / "out" / "report.html").read_text()


def test_other_figures_show_the_last_step_only() -> None:
    steps = pd.DataFrame(
        {"trajectory": "r", "step": [0, 1, 2], "method": ["base", "r@1", "r@2"], "quantity": "toxicity"}
    )
    tables = {"trajectory": steps, "mechanism": pd.DataFrame({"method": ["sft", "r@1", "r@2"], "layer": 1})}
    assert list(last_steps(tables)["mechanism"]["method"]) == ["sft", "r@2"]
    assert len(last_steps(tables)["trajectory"]) == 3


def test_an_adapter_stands_on_the_model_that_it_names(folder: Path, tmp_path: Path) -> None:
    adapter, base = str(folder / "adapter"), str(folder / "base")
    assert stands_on(adapter, "elsewhere") == (adapter, base)
    assert stands_on(str(folder / "edit"), base) == (str(folder / "edit"), base)
    assert stands_on(f"{adapter}@{folder / 'tuned'}", base) == (adapter, str(folder / "tuned"))
    moved = tmp_path / "moved"
    shutil.copytree(folder / "adapter", moved)
    for named in ("owner/base", "/gone/base", "owner/sft", "/gone/sft"):  # one name is not one model
        settings = json.loads((moved / "adapter_config.json").read_text())
        (moved / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": named}))
        with pytest.raises(InputError, match=f"{named}.*not (here|there).*@MODEL|not there .{named}.*@MODEL"):
            stands_on(str(moved), base)


def test_what_a_checkpoint_stood_on_is_in_the_manifest(folder: Path, tmp_path: Path) -> None:
    compared(folder, tmp_path, "adapter")
    sources = json.loads((tmp_path / "manifest.json").read_text())["config"]["checkpoints"]
    assert sources == {"base": str(folder / "base"), "adapter": f"{folder / 'adapter'} on {folder / 'base'}"}


def test_checkpoints_that_would_not_read_the_same_tokens_are_refused(folder: Path, tmp_path: Path) -> None:
    """One vocabulary and the same special tokens, but one of them puts a BOS first."""
    tiny_checkpoint("llama", bos=True).save(tmp_path / "bos")
    with pytest.raises(InputError, match="their tokenizers make"):
        compared(folder, tmp_path / "out", str(tmp_path / "bos"))
    same = tiny_checkpoint("llama", seed=1)
    same.tokenizer.padding_side = "left"  # makes no difference to what is read
    same.save(tmp_path / "same")
    compared(folder, tmp_path / "out", str(tmp_path / "same"))


def test_what_a_hub_id_holds_is_not_taken_for_known(folder: Path) -> None:
    adapter = str(folder / "adapter")
    assert Candidate.of(f"{adapter}@owner/model").signature() is None
    signatures = [Candidate.of(f"{adapter}@{folder / base}").signature() for base in ("base", "tuned")]
    assert signatures[0] is not None
    assert signatures[0] != signatures[1]


@pytest.mark.parametrize(
    ("names", "message"),
    [(["none"], "nothing matches"), (["step-a"], "no step at its end"), (["c-1", "c-01"], "both step 1")],
)
def test_steps_that_cannot_be_ordered(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        if name != "none":
            (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=message):
        find_steps(str(tmp_path / "*"))


def test_names_are_given_once(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'tuned'.* more than once"):
        compared(folder, tmp_path, "tuned", "tuned")
    with pytest.raises(InputError, match=r"'base'.* more than once"):
        compared(folder, tmp_path, "base")
    with pytest.raises(InputError, match="no tuned checkpoints"):
        compared(folder, tmp_path)
