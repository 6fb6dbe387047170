"""The benchmark of ways, and the scripts of the paper's tables on a small study."""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from command_line import call, run_script
from safetensors.torch import load_file, save_file
from small_study import SMALL

from mechinterp.answers.judged import Defense
from mechinterp.errors import InputError
from mechinterp.measures.statistics import wilson, wilson_of_shares
from mechinterp.methods.editing.ablations import DINM
from mechinterp.methods.training.ext_sub import EXT_SUB
from mechinterp.models.deltas import WeightDelta
from mechinterp.runs.benchmark import Benchmark, harmless, making
from mechinterp.runs.config import default_folder, load_config
from mechinterp.runs.study import Study

ANALYSES = Path(__file__).parents[1] / "analyses"
METHODS = {
    "ft_l": {"learning_rate": 5e-3, "steps": 2, "max_output_tokens": 20},
    "ext_sub": {"steps": 2, "batch_size": 2, "gradient_accumulation": 1, "warmup_steps": 0, "max_length": 256},
}
SCRIPTS = {
    "table1_methods": ("method", {"vanilla", "sft", "dpo", "self_reminder", "ext_sub", "ft_l", "mend", "dinm"}),
    "table2_ablations": ("method", {"dinm", "dinm_wo_suffix", "dinm_wo_constraint", "dinm_wo_location"}),
    "table3_all_test": ("method", {"vanilla", "sft", "dpo", "self_reminder", "ext_sub", "dinm"}),
    "table11_categories": ("edited", {"Offensiveness", "Political"}),
    "table12_suffixes": ("suffix", {"none", "SyPrompt1", "SyPrompt2"}),
    "table13_blocks": ("block", {0, 1, 2}),
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "methods": METHODS, "edit_instances": 9, "benign_prompts": 6}))
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, small_runs: Path, config_file: Path) -> Study:
    """The small study with other settings: what was trained there is up to date here."""
    folder = shutil.copytree(small_runs / "seed0", tmp_path_factory.mktemp("tables") / "run")
    for later in ("responses", "relapse", "evidence", "edits", "figures"):
        shutil.rmtree(folder / later)
    found = Study(load_config(config_file), 0, folder)
    found.run(only={"locate", "sft", "dpo"})
    return found


def script(name: str, study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """Run a script as its user does, in this process."""
    monkeypatch.syspath_prepend(str(ANALYSES))
    arguments = ["--config", str(config_file), "--run", str(study.folder), *more]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(ANALYSES / f"{name}.py"), run_name="__main__")


def written(name: str, study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table of a script without further options, which runs once for the tests that read it."""
    path = study.folder / "benchmark" / f"{name}.csv"
    if not path.exists():
        script(name, study, config_file, monkeypatch)
    return path


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_table_has_its_rows_with_the_papers_beside_them(
    name: str, study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_csv(written(name, study, config_file, monkeypatch), keep_default_na=True)
    key, expected = SCRIPTS[name]
    assert expected <= set(table[key])
    models = [column for column in table if column.startswith("paper ")]
    assert models
    assert table[models].notna().any().all()
    rates = table[table["quantity"].isin(["ds", "dg_only_q", "avg"])].dropna(subset=["value"])
    assert len(rates)
    assert rates["value"].between(0, 100).all()
    bounded = rates.dropna(subset=["low"])
    assert ((bounded["low"] <= bounded["value"] + 1e-9) & (bounded["value"] <= bounded["high"] + 1e-9)).all()
    page = (study.folder / "benchmark" / f"{name}.md").read_text()
    assert "*paper* columns are other models on another set" in page
    assert "judge embedded, accuracy" in page
    assert page.count("\n| ") > len(expected)


def test_the_papers_numbers_stand_beside_the_right_rows(
    study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_csv(written("table2_ablations", study, config_file, monkeypatch)).set_index(["method", "quantity"])
    assert table.loc[("dinm", "avg"), "paper LLaMA2-7B-Chat"] == 88.59
    assert table.loc[("dinm_wo_suffix", "dg_other_aq"), "paper LLaMA2-7B-Chat"] == 52.17
    assert pd.isna(table.loc[("dinm", "over_refusal"), "paper LLaMA2-7B-Chat"])


def test_figure_7_measures_each_method_in_a_process_of_its_own(
    study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []

    def run(command: list[str], **_: Any) -> Any:
        started.append(command[command.index("--measure") + 1])
        return subprocess.CompletedProcess(command, 0, stdout="some line\n0.25\n")

    monkeypatch.setattr(subprocess, "run", run)
    script("figure7_memory", study, config_file, monkeypatch)
    assert started == ["sft", "dpo", "ext_sub", "ft_l", "dinm"]
    table = pd.read_csv(study.folder / "benchmark" / "figure7_memory.csv")
    assert table.set_index("method").loc["dinm", "value"] == 0.25
    capsys.readouterr()
    script("figure7_memory", study, config_file, monkeypatch, "--measure", "dinm")
    assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1]) < 10


def test_nothing_is_made_or_asked_twice(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Benchmark(study)
    first, made = bench.evaluate("dinm"), bench.make("dinm")
    assert len(made.edits) == 9
    assert len({i.category for i in bench.instances[:9]}) == 9
    assert list(made.edits) == [i.id for i in bench.instances]

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    fail.__module__ = DINM.module  # of the same code
    monkeypatch.setattr("mechinterp.methods.editing.ablations.DINM", replace(DINM, make=fail))
    monkeypatch.setattr("mechinterp.answers.asking.generate_each", fail)
    assert Benchmark(study).evaluate("dinm") == first
    with pytest.raises(AssertionError, match="made again"):  # under other settings it is another thing
        Benchmark(study).evaluate("dinm", settings={"dinm": {"steps": 1}})


def copied(study: Study, folder: Path) -> Study:
    """The same study in a folder of its own, without what its benchmark has made."""
    shutil.copytree(study.folder, folder, ignore=shutil.ignore_patterns("benchmark"))
    return Study(study.config, study.seed, folder)


def test_a_killed_way_goes_on_with_the_edits_it_has(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"dinm": {**study.config.dinm.model_dump(), "steps": 1}}
    whole = Benchmark(study).evaluate("dinm", settings=settings)
    other = copied(study, tmp_path / "killed")
    real, kept = making.keep, []

    def dies(treatment: Any, folder: Path, around: Any, **given: Any) -> None:
        if len(kept) == 4:
            raise KeyboardInterrupt
        kept.append(treatment.instances[0].id)
        real(treatment, folder, around, **given)

    monkeypatch.setattr(making, "keep", dies)
    with pytest.raises(KeyboardInterrupt):
        Benchmark(other).evaluate("dinm", settings=settings)
    again: list[int] = []

    def counts(treatment: Any, folder: Path, around: Any, **given: Any) -> None:
        again.append(treatment.instances[0].id)
        real(treatment, folder, around, **given)

    monkeypatch.setattr(making, "keep", counts)
    resumed = Benchmark(other).evaluate("dinm", settings=settings)
    assert len(again) == 5
    assert not set(again) & set(kept)
    assert [r.response for r in resumed.responses] == [r.response for r in whole.responses]
    assert Benchmark(other).make("dinm", settings=settings).seconds is None  # of a part of them only


@pytest.mark.parametrize("way", ["dinm", "ext_sub", "dinm_batch", "vanilla"])
def test_a_way_killed_after_the_last_of_it_is_not_stuck(
    way: str, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last edit, before the note that all are there: nothing is made again, and nothing is missing."""
    other = copied(study, tmp_path / "killed")
    real = making.write_json

    def dies(path: Path, value: Any) -> Path:
        if path.name == "made.json":
            raise KeyboardInterrupt
        return real(path, value)

    with monkeypatch.context() as patched:
        patched.setattr(making, "write_json", dies)
        with pytest.raises(KeyboardInterrupt):
            Benchmark(other).make(way)
    if way != "vanilla":
        monkeypatch.setattr(making, "keep", lambda *_, **__: pytest.fail("made again"))
    made = Benchmark(other).make(way)
    assert made.suffix == (other.config.dinm.suffix if way.startswith("dinm") else None)
    assert len(made.edits) == (9 if way == "dinm" else 0)
    assert (made.edit is not None) == (way in ("ext_sub", "dinm_batch"))


def test_edits_on_top_of_each_other_go_on_where_they_were(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Benchmark(study).make("dinm_sequential")
    other = copied(study, tmp_path / "killed")
    real, saved = WeightDelta.save, []

    def dies(self: WeightDelta, *arguments: Any, **given: Any) -> Path:
        if len(saved) == 4:
            raise KeyboardInterrupt
        saved.append(self.instances[-1])
        return real(self, *arguments, **given)

    with monkeypatch.context() as patched:
        patched.setattr(WeightDelta, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            Benchmark(other).make("dinm_sequential")
    told: list[str] = []
    resumed = Benchmark(other, reporter=Told(told)).make("dinm_sequential")
    assert len([text for text in told if text.startswith("dinm_sequential: instance")]) == 5
    assert whole.edit is not None
    assert resumed.edit is not None
    one, two = WeightDelta.load(whole.edit), WeightDelta.load(resumed.edit)
    assert one.instances == two.instances
    for name, change in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], change, rtol=0, atol=0)
    assert sorted(path.name for path in resumed.answers.iterdir()) == ["around.json", "edit", "made.json"]


@dataclass
class Told:
    """A reporter that remembers."""

    texts: list[str]

    def note(self, text: str) -> None:
        self.texts.append(text)

    def progress(self, what: str) -> Callable[..., None]:
        return lambda *_: None


def test_what_a_way_depends_on_is_in_the_name_of_its_folder(study: Study, tmp_path: Path) -> None:
    """Contents, not ids: an instance, a training text, a fine-tuned checkpoint; and nothing else."""
    other = copied(study, tmp_path / "other")
    assert Benchmark(other).make("vanilla").answers.name == Benchmark(study).make("vanilla").answers.name
    seen = {Benchmark(other).make("vanilla").answers.name}
    for name in ("instances", "training"):
        bench = Benchmark(other)
        changed = [i.model_copy(update={"safe_generation": f"{i.safe_generation} No."}) for i in getattr(bench, name)]
        bench.__dict__[name] = changed
        assert bench.make("vanilla").answers.name not in seen
        seen.add(bench.make("vanilla").answers.name)
    before = {way: Benchmark(other).make(way).answers.name for way in ("sft", "dpo", "vanilla")}
    tensors = load_file(other.folder / "checkpoints" / "sft" / "model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, other.folder / "checkpoints" / "sft" / "model.safetensors")
    after = {way: Benchmark(other).make(way).answers.name for way in before}
    assert [way for way in before if before[way] != after[way]] == ["sft"]


def test_a_label_is_no_part_of_what_is_made_and_asked(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Benchmark(study)
    plain, made = bench.evaluate("dinm"), bench.make("dinm")
    monkeypatch.setattr("mechinterp.answers.asking.generate_each", lambda *_, **__: pytest.fail("asked again"))
    same = {"dinm": study.config.dinm.model_copy()}  # as Table 12 gives it
    again = bench.evaluate("dinm", label="dinm_SyPrompt1", settings=same)
    assert (again.method, again.responses) == ("dinm_SyPrompt1", plain.responses)
    assert bench.make("dinm", label="dinm_SyPrompt1", settings=same).answers == made.answers
    for way in ("sft", "dpo"):
        found = bench.make(way)
        assert found.checkpoint == study.folder / "checkpoints" / way
        assert not list(found.answers.rglob("*.safetensors"))
        assert found.seconds is None
        with bench.opened(found) as opened:
            assert opened.fingerprint == study.checkpoint(way).fingerprint != bench.base.fingerprint


def test_the_organisms_own_settings_of_methods_are_used(study: Study, tmp_path: Path) -> None:
    other = copied(study, tmp_path / "other")
    plain = Study(study.config.model_copy(update={"methods": {"ft_l": {"steps": 1}}}), 0, other.folder)
    assert Benchmark(plain).settings("ext_sub", {})["ext_sub"].steps == EXT_SUB.organism["steps"]
    assert Benchmark(plain).settings("ft_l", {})["ft_l"].steps == 1


def test_side_effects_have_intervals_over_prompts_and_are_kept(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copied(study, tmp_path / "other")
    bench = Benchmark(study)
    found = bench.side_effects(bench.make("dinm"), edits=3).set_index("quantity")
    assert list(found.index) == ["over_refusal", "jsd_last"]
    assert (found["n"] == 6).all()
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    assert (found["high"] > found["low"]).all()
    monkeypatch.setattr(harmless, "over_refusal", lambda *_, **__: pytest.fail("asked again"))
    again = Benchmark(study).side_effects(bench.make("dinm", label="other"), edits=3).set_index("quantity")
    pd.testing.assert_frame_equal(again, found)
    with pytest.raises(pytest.fail.Exception, match="asked again"):  # a fourth was not asked
        bench.side_effects(bench.make("dinm"), edits=4)


def test_over_refusal_of_several_edits_by_hand() -> None:
    one = [True, False, None, False]
    assert harmless._refusals([one]) == (wilson(1, 3), 3)
    rate, n = harmless._refusals([one, [True, True, None, None]])
    assert (rate.value, n) == (pytest.approx((1 + 0.5 + 0) / 3), 3)
    assert rate == wilson_of_shares(0.5, 3)
    doubled, _ = harmless._refusals([one, one])  # the same answers twice say nothing new
    assert (doubled.low, doubled.high) == pytest.approx((wilson(1, 3).low, wilson(1, 3).high))


def test_an_unknown_way_is_named_with_the_known_ones(study: Study) -> None:
    for call_it in (Benchmark(study).make, Benchmark(study).evaluate):
        with pytest.raises(InputError, match="unknown method 'nope'; known are vanilla"):
            call_it("nope")


def test_the_run_folder_is_held_while_a_benchmark_works(
    study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Benchmark(study).prepared(["vanilla"]):
        live = study.folder / "benchmark" / ".half.1.partial"
        live.parent.mkdir(exist_ok=True)
        live.touch()
        place = ["--config", config_file, "--out", study.folder]
        assert call("benchmark", *place, "--method", "vanilla") == 2
        assert "another run is working there" in capsys.readouterr().err
        with pytest.raises(SystemExit, match="2"):
            script("table2_ablations", study, config_file, monkeypatch)
        assert "another run is working there" in capsys.readouterr().err
        assert live.exists()  # not swept by what was refused


def test_the_benchmark_is_for_one_process(
    study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert call("benchmark", "--config", config_file, "--out", study.folder, "--method", "vanilla") == 2
    assert "start it without torchrun" in capsys.readouterr().err


def test_table_3_counts_every_prompt_once(study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script("table3_all_test", study, config_file, monkeypatch, "--edits", "2")
    table = pd.read_csv(study.folder / "benchmark" / "table3_all_test.csv", dtype={"instance": str})
    test = study.instances("test")
    bare = {i.generalization_test.only_question for i in test if i.generalization_test}
    assert len(bare) < len(test)
    table["instance"] = table["instance"].fillna("")
    own = table.dropna(subset=["value"]).set_index(["method", "instance", "quantity"]).sort_index()
    answers = Benchmark(study).evaluate("vanilla").responses  # of some instances, but of every question
    assert {r.prompt for r in answers if r.kind == "dg_only_q"} <= bare
    assert 0 < own.loc[("vanilla", "", "dg_only_q"), "n"] <= len(bare)
    page = (study.folder / "benchmark" / "table3_all_test.md").read_text()
    assert f"{len(bare)} onlyQ" in page
    mean = own.loc[("dinm", "mean")]
    assert set(mean.index) == {"dg_only_q", "dg_other_aq", "avg", "fluency", "kqa"}
    single = own.loc["dinm"].drop("mean")["value"].unstack()
    assert mean.loc["fluency", "value"] == pytest.approx(single["fluency"].mean())
    assert mean.loc["fluency", "sd"] == pytest.approx(single["fluency"].std(ddof=0))
    assert mean.loc["dg_other_aq", "sd"] == pytest.approx(single["dg_other_aq"].std(ddof=0))
    assert mean.loc["dg_only_q", "sd paper LLaMA2-7B-Chat"] == 2.64
    assert "csum" not in set(table["quantity"])
    each = table[(table["instance"] == "paper's 3") & (table["quantity"] == "avg")].iloc[0]  # of Table 14
    assert each["paper Mistral-7B-v0.1"] == 96.67
    assert pd.isna(each["value"])


def test_table_11_leaves_out_the_prompt_that_was_edited(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits that defend nothing but their own prompt defend nothing."""
    monkeypatch.syspath_prepend(str(ANALYSES))
    table = importlib.import_module("table11_categories")
    bench, numbers = Benchmark(study), []
    real = Benchmark.ask

    def ask(self: Benchmark, part: Any, instances: Any, **given: Any) -> Defense:
        found = real(self, part, instances, **given)
        own = int(part.edit.name) if part.edit is not None else None
        numbers.append(own)
        prompts = {i.adversarial_prompt for i in instances if i.id == own}
        return replace(found, responses=tuple(replace(r, safe=float(r.prompt in prompts)) for r in found.responses))

    monkeypatch.setattr(Benchmark, "ask", ask)
    ours = table.categories(bench, argparse.Namespace(edits=1)).ours
    assert len([number for number in numbers if number is not None]) == 9
    assert (ours["value"] == 0).all()
    prompts = {i.adversarial_prompt for i in study.instances("test")}
    assert (ours.groupby("edited")["n"].sum() == len(prompts) - 1).all()


def test_a_table_says_what_it_measures(study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written("table1_methods", study, config_file, monkeypatch)
    page = path.with_suffix(".md").read_text()
    assert "the released script counts each as half safe" in page
    assert "the mean over 9 edits" in page  # as many as there are
    table = pd.read_csv(path).set_index(["method", "quantity"]).sort_index()
    assert table.loc[[("vanilla", "over_refusal"), ("dinm", "jsd_last")], ["low", "high", "n"]].notna().all(axis=None)
    assert ("sft", "seconds") not in table.index
    assert ("ft_l", "seconds") in table.index


def test_a_study_without_a_folder_goes_where_its_config_says() -> None:
    assert default_folder(None, 3) == Path("runs/seed3")
    assert default_folder(Path("analyses/configs/mistral-7b.yaml"), 0) == Path("runs/mistral-7b-seed0")


def test_the_command_names_the_ways(study: Study, config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--config", config_file, "--out", study.folder]
    assert call("benchmark", *place, "--method", "vanilla", "--method", "dinm") == 0
    table = pd.read_csv(study.folder / "benchmark" / "benchmark.csv")
    assert list(table["method"]) == ["vanilla", "dinm"]
    assert {"ds", "avg", "fluency", "over_refusal", "jsd_last"} <= set(table)
    assert table.set_index("method").loc["vanilla", "jsd_last"] == 0
    capsys.readouterr()
    assert call("benchmark", "--list") == 0
    assert "dinm_wo_constraint" in capsys.readouterr().out
    for bad, message in (
        ([], "name at least one --method"),
        (["--method", "dimn"], "unknown method 'dimn'; known are vanilla"),
    ):
        assert call("benchmark", *place, *bad) == 2
        assert message in capsys.readouterr().err


def test_settings_of_a_way_are_checked_in_the_config(tmp_path: Path) -> None:
    for methods, message in (
        ({"ftl": {}}, "unknown method 'ftl'"),
        ({"ft_l": {"stepps": 3}}, "unknown setting `stepps`"),
    ):
        changed = copy.deepcopy(SMALL) | {"methods": methods}
        path = tmp_path / "bad.yaml"
        path.write_text(yaml.safe_dump(changed))
        with pytest.raises(InputError, match=message):
            load_config(path)


def test_a_mistake_in_one_of_the_tables_over_seeds_is_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "mine.yaml"
    settings.write_text("extends: elsewhere.yaml\n")
    assert run_script(ANALYSES / "tables_over_seeds.py", "--config", settings, "--seeds", 0, "--runs", tmp_path) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.endswith("error: table1_methods stopped at seed 0: what it says stands above\n")
