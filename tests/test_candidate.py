"""A checkpoint is looked up once, wherever it is: in memory it is compared as its folder is, to the byte."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers
from checkpoint_folder import INSTANCES, SETTINGS, compared, make_folder
from command_line import call
from conftest import tiny_checkpoint
from quick_comparisons import FEW, FewOrigins, quick_comparisons

from mechinterp.answers.fold_judge import FoldJudge
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.data.safeedit import write_safeedit
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.sources import Source
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.comparison import compare_checkpoints
from mechinterp.runs.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
NAMES = ("tuned", "adapter", "edit")


@pytest.fixture
def folder(shared: Callable[..., Path]) -> Path:
    return shared("checkpoints", make_folder)


def tables_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "tables").glob("*.csv"))}


def in_memory(base: Candidate, tuned: list[Candidate], folder: Path, **options: Any) -> RunFolder:
    probe, judge = ToxicProbe.load(folder / "probe.safetensors"), FoldJudge.of_instances(INSTANCES, seed=0)
    with patch("mechinterp.report.plates.draw_all"), patch("mechinterp.report.write_report"):
        return compare_checkpoints(base, tuned, INSTANCES, probe, judge, **{"out": None, **options})


@pytest.fixture(scope="module")
def by_command(shared: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of the command line on the folders."""
    folder, out = shared("checkpoints", make_folder), tmp_path_factory.mktemp("command")
    write_safeedit(INSTANCES, out / "data.json")
    checkpoints = [part for name in NAMES for part in ("--checkpoint", f"{name}={folder / name}")]
    options = [
        "--max-new-tokens",
        "2",
        "--layer",
        "2",
        "--device",
        "cpu",
        "--data",
        str(out / "data.json"),
    ]
    probe = ["--probe", str(folder / "probe.safetensors")]
    with (
        quick_comparisons(),
        patch("mechinterp.report.plates.draw_all"),
        patch("mechinterp.report.write_report"),
    ):
        assert call("compare", "--base", str(folder / "base"), *checkpoints, *options, *probe, "--out", str(out)) == 0
    return tables_of(out)


def test_memory_path_adapter_and_edit_give_the_tables_of_the_command_line(
    folder: Path, by_command: dict[str, bytes]
) -> None:
    base = Candidate.of(folder / "base", name="base", device="cpu")
    loaded = Checkpoint.load(folder / "tuned", device="cpu")
    tuned = [
        Candidate.of(loaded, name="tuned"),
        Candidate.of(folder / "adapter", base=base),
        Candidate.of(WeightDelta.load(folder / "edit"), name="edit", base=base),
    ]
    given = {"block": 2, "settings": FEW.model_copy(update={"max_new_tokens": 2}), "origins": FewOrigins()}
    before = copy.deepcopy(loaded.model.state_dict())
    found = in_memory(base, tuned, folder, **given)
    assert tables_of(found.path) == by_command
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())


def test_a_base_in_memory_gives_the_same(folder: Path, by_command: dict[str, bytes]) -> None:
    base = Candidate.of(Checkpoint.load(folder / "base", device="cpu"), name="base")
    tuned = [Candidate.of(folder / name, base=base, device="cpu") for name in NAMES]
    assert all(candidate.origin is base.origin for candidate in tuned[1:])  # put on a copy of it
    given = {"block": 2, "settings": FEW.model_copy(update={"max_new_tokens": 2}), "origins": FewOrigins()}
    found = in_memory(base, tuned, folder, **given)
    assert tables_of(found.path) == by_command


def test_what_changes_in_memory_is_recorded_again(folder: Path, tmp_path: Path) -> None:
    base, loaded = Candidate.of(folder / "base", name="base"), Checkpoint.load(folder / "tuned", device="cpu")

    def mechanism() -> bytes:
        given = {"block": 2, "settings": SETTINGS, "cache": tmp_path}
        found = in_memory(base, [Candidate.of(loaded)], folder, **given)
        return tables_of(found.path)["mechanism.csv"]

    first = mechanism()
    assert mechanism() == first
    with torch.no_grad():
        loaded.value_matrix(1).add_(1.0)
    assert mechanism() != first


def test_the_temporary_folder_goes_with_the_object(folder: Path) -> None:
    base = Candidate.of(folder / "base", name="base")
    found = in_memory(base, [Candidate.of(folder / "edit", base=base)], folder, block=2, settings=SETTINGS)
    place = found.path
    assert len(found.verdict)
    del found
    assert not place.exists()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often sources are looked up, and configs and tokenizers are read."""
    counts: Counter[str] = Counter()

    def count(owner: Any, method: str, name: str) -> None:
        real = getattr(owner, method).__func__

        def counting(cls: Any, *args: Any, **options: Any) -> Any:
            counts[name] += 1
            return real(cls, *args, **options)

        monkeypatch.setattr(owner, method, classmethod(counting))

    count(Source, "find", "sources")
    count(transformers.AutoConfig, "from_pretrained", "configs")
    count(transformers.AutoTokenizer, "from_pretrained", "tokenizers")
    return counts


def test_everything_is_looked_up_once(folder: Path, tmp_path: Path, counted: Counter[str]) -> None:
    compared(folder, tmp_path, *NAMES)
    # base, tuned, adapter, the base that the adapter names, edit; the two models have configs, and equal tokenizers
    assert counted == {"sources": 5, "configs": 2, "tokenizers": 1}


def test_another_tokenizer_is_read(folder: Path, tmp_path: Path, counted: Counter[str]) -> None:
    base = Candidate.of(folder / "base")
    tiny_checkpoint("llama", bos=True).save(tmp_path / "other")
    tuned = Candidate.of(tmp_path / "other", base=base)
    assert tuned.skeleton.tokenizer is not base.skeleton.tokenizer
    assert len(tuned.skeleton.tokenizer("a")["input_ids"]) == 1 + len(base.skeleton.tokenizer("a")["input_ids"])
    assert Candidate.of(folder / "tuned", base=base).skeleton.tokenizer is base.skeleton.tokenizer
    assert counted["tokenizers"] == 2


def test_what_cannot_stand_on_a_base_in_memory(folder: Path) -> None:
    base = replace(tiny_checkpoint("llama"), source="memory")
    with pytest.raises(InputError, match=r"the base is in memory; give .*@MODEL"):
        Candidate.of(folder / "state.safetensors", base=Candidate.of(base))
    named = Candidate.of(folder / "adapter", base=Candidate.of(base))
    assert named.skeleton.source == f"{folder / 'adapter'} on {folder / 'base'}"  # the model that it names itself
    with pytest.raises(InputError, match="an edit is no base"):
        Candidate.of(WeightDelta.load(folder / "edit"))
    other = Candidate.of(tiny_checkpoint("gpt2"))
    with pytest.raises(InputError, match="does not fit"):
        _ = Candidate.of(folder / "edit", base=other).skeleton
