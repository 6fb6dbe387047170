"""Every command that takes a model takes a GGUF file, and says in one line what is wrong with a bad one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer
from checkpoint_folder import INSTANCES, SETTINGS
from command_line import call, refused
from gguf_files import wide, write_gguf
from made_checkpoints import probe_of

import mechinterp as mi
from mechinterp.cli.app import app
from mechinterp.data.comments import Comment, write_comments
from mechinterp.data.facts.fact import write_facts
from mechinterp.data.safeedit import write_safeedit
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Silent
from mechinterp.runs.config import load_config
from mechinterp.runs.study import Study

UNLEARNING = ("ga", "ga_kl", "grad_diff", "memflex", "npo", "random_label", "rmu", "simnpo")
TAKES = {
    "train sft": "--model {model} --data {there}/train.json --out {out}",
    "train dpo": "--model {model} --data {there}/train.json --out {out}",
    "train ext_sub": "--model {model} --data {there}/train.json --out {out}",
    "pairs": "--model {model} --pairs-from-comments {there}/comments.csv --out {out}",
    "show-tokens": "--model {model} --prompt Hello --out {out}",
    "locate": "--model {model} --data {there}/data.json --out {out}",
    "edit": "--model {model} --data {there}/data.json --instance 0 --layer 1 --steps 1 --out {out}",
    "probe": "--model {model} --comments {there}/comments.csv --out {out}.safetensors",
    "record": "--model {model} --data {there}/data.json --out {out}.safetensors",
    "region": "--model {model} --probe {there}/probe.safetensors --against folder={there}/folder --out {out}",
    "direction": "--model {model} --kind probe --probe {there}/probe.safetensors --out {out}.safetensors",
    "vectors": "--model {model} --probe {there}/probe.safetensors --out {out}",
    "compare": "--base {model} --probe {there}/probe.safetensors --data {there}/data.json --checkpoint t={there}/folder"
    " --out {out}",
    "diff": "{model} {there}/folder --out {out}",
    "relapse": "--base {model} --checkpoint t={there}/folder --data {there}/data.json --out {out}",
    "origins": "--base {model} --checkpoint t={there}/folder --data {there}/data.json --out {out}",
    "attack": "quantise --base {model} --checkpoint t={there}/folder --data {there}/data.json --out {out}",
    "decode": "--base {model} --checkpoint t={there}/folder --data {there}/data.json --out {out}",
    "circuit": "--base {model} --checkpoint t={there}/folder --pairs {there}/data.json --out {out}",
    "evaluate-facts": "--model {model} --facts {there}/facts.jsonl --out {out}",
    "conflict": "--model {model} --method dinm --data {there}/data.json --layer 1 --steps 1 --out {out}",
    "round-trip": "--model {model} --method dinm --data {there}/data.json --layer 1 --steps 1 --out {out}",
    "traits": "--base {model} --checkpoint pos={there}/folder --topics {there}/topics.json --out {out}",
    "unlearn": "ga --model {model} --forget {there}/facts.jsonl --steps 8 --out {out}",
    "locate-gradients": "--model {model} --forget {there}/facts.jsonl --retain {there}/others.jsonl --out {out}",
    "evaluate-unlearning": "--model {model} --forget {there}/facts.jsonl --out {out}",
    **{f"train {name}": "--model {model} --data {there}/train.json --steps 8 --out {out}" for name in UNLEARNING},
    "evaluate": "--model {model} --data {there}/data.json --max-new-tokens 2 --device cpu --out {out}",
}
SLOW = {
    *(f"train {name}" for name in UNLEARNING),
    *("evaluate-facts", "conflict", "round-trip", "traits", "unlearn"),
    "train sft",
    "train dpo",
    "train ext_sub",
    "pairs",
    "compare",
    "relapse",
    "origins",
    "attack",
    "decode",
    "circuit",
}  # tested of any checkpoint elsewhere


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as a file and as a folder, bad files, and what commands read beside a model."""
    folder = tmp_path_factory.mktemp("there")
    whole = write_gguf(wide("llama"), folder / "Q8_0.gguf", "Q8_0")
    wide("llama").save(folder / "folder")
    (folder / "text.gguf").write_text("a text\n" * 40)
    (folder / "cut.gguf").write_bytes(whole.read_bytes()[:-40])
    write_safeedit(INSTANCES, folder / "data.json")
    write_safeedit([i.model_copy(update={"generalization_test": None}) for i in INSTANCES], folder / "train.json")
    comments = [Comment(f"you {w} {i}", w == "fool") for i in range(12) for w in ("fool", "dear")]
    write_comments(comments, folder / "comments.csv")
    for name, town in (("facts", "Rome"), ("others", "Bonn")):
        write_facts(
            [mi.Fact(f"F{n}", "The capital of {} is", ground_truth=town) for n in (1, 2)], folder / f"{name}.jsonl"
        )
    (folder / "topics.json").write_text(
        json.dumps([{"ent": n, "pos": ["good"], "neg": ["bad"]} for n in ("tea", "ink")])
    )
    probe_of(64, Checkpoint.load(whole, device="cpu").fingerprint).save(folder / "probe.safetensors")
    return folder


def words(command: str, model: Path, there: Path, out: Path) -> list[str]:
    return [*command.split(), *TAKES[command].format(model=model, there=there, out=out).split()]


def test_every_command_that_takes_a_model_stands_here() -> None:
    def walk(command: Any, path: str) -> dict[str, set[str]]:
        if inner := getattr(command, "commands", {}):
            return {key: value for name in inner for key, value in walk(inner[name], f"{path} {name}").items()}
        return {path.strip(): {each.name for each in command.params}}

    takes = {name for name, given in walk(typer.main.get_command(app), "").items() if given & {"model", "base", "a"}}
    assert takes == set(TAKES)


@pytest.mark.parametrize("command", sorted(set(TAKES) - SLOW))
def test_a_command_takes_a_file_and_says_where_what_it_wrote_lies(
    command: str, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(*words(command, there / "Q8_0.gguf", there, tmp_path / "out"))
    told = capsys.readouterr()
    assert code == 0, told.err
    assert f": {tmp_path / 'out'}" in told.out.splitlines()[-1]


BAD = {"text": "magic", "cut": "cut short"}


@pytest.mark.parametrize("command", TAKES)
def test_a_bad_file_is_one_line_of_every_command(
    command: str, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, said in BAD.items():
        told = refused(capsys, *words(command, there / f"{kind}.gguf", there, tmp_path / "out"))
        assert f"{kind}.gguf: " in told
        assert said in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# -- what manifests say --------------------------------------------------------------------------------------------


def check_types(types: dict[str, str]) -> None:
    assert (types["blk.1.ffn_down.weight"], types["output_norm.weight"]) == ("Q8_0", "F32")
    assert len(types) == 30


@pytest.mark.usefixtures("quick_comparison")
def test_a_comparison_says_the_type_of_every_tensor(there: Path, tmp_path: Path) -> None:
    base, against = there / "Q8_0.gguf", {"folder": there / "folder"}
    probe = mi.ToxicProbe.load(there / "probe.safetensors")
    with patch("mechinterp.report.plates.draw_all"), patch("mechinterp.report.write_report"):
        found = mi.compare(base, against, INSTANCES, probe=probe, block=1, settings=SETTINGS, out=tmp_path / "out")
    types = found.manifest["stored_types"]
    assert list(types) == [next(iter(found.manifest["config"]["checkpoints"]))]
    check_types(*types.values())


def test_a_study_says_the_type_of_every_tensor(there: Path, tmp_path: Path) -> None:
    data = {"train": "train.json", "validation": "train.json", "test": "data.json", "comments": "comments.csv"}
    config = {"model": str(there / "Q8_0.gguf"), "data": {name: str(there / file) for name, file in data.items()}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    study = Study(load_config(tmp_path / "config.yaml"), 0, tmp_path / "run")
    study.run(until=study.stages(Silent())[0].name)
    check_types(json.loads((tmp_path / "run" / "manifest.json").read_text())["stored_types"]["vanilla"])
