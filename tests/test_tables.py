"""The benchmark of ways, and the scripts of the paper's tables on a small study."""

from __future__ import annotations

import copy
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from test_study import SMALL, call

from mechinterp import benchmark as benchmark_module
from mechinterp.benchmark import Benchmark
from mechinterp.config import load_config
from mechinterp.errors import InputError
from mechinterp.study import Study

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
def study(tmp_path_factory: pytest.TempPathFactory, config_file: Path) -> Study:
    found = Study(load_config(config_file), 0, tmp_path_factory.mktemp("tables") / "run")
    found.run(only={"locate", "sft", "dpo"})
    return found


def script(name: str, study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """Run a script as its user does, in this process."""
    monkeypatch.syspath_prepend(str(ANALYSES))
    arguments = ["--config", str(config_file), "--run", str(study.folder), *more]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(ANALYSES / f"{name}.py"), run_name="__main__")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_table_has_its_rows_with_the_papers_beside_them(
    name: str, study: Study, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(name, study, config_file, monkeypatch)
    table = pd.read_csv(study.folder / "benchmark" / f"{name}.csv", keep_default_na=True)
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
    script("table2_ablations", study, config_file, monkeypatch)
    table = pd.read_csv(study.folder / "benchmark" / "table2_ablations.csv").set_index(["method", "quantity"])
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

    monkeypatch.setattr(benchmark_module, "find_way", lambda name: fail)
    monkeypatch.setattr("mechinterp.defense.generate_each", fail)
    assert Benchmark(study).evaluate("dinm") == first
    with pytest.raises(AssertionError, match="made again"):  # under other settings it is another thing
        Benchmark(study).evaluate("dinm", settings={"dinm": {"steps": 1}})


def test_a_killed_way_goes_on_with_the_edits_it_has(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"dinm": {**study.config.dinm.model_dump(), "steps": 1}}
    whole = Benchmark(study).evaluate("dinm", label="whole", settings=settings)
    real, kept = benchmark_module._keep, []

    def dies(treatment: Any, folder: Path, **given: Any) -> None:
        if len(kept) == 4:
            raise KeyboardInterrupt
        kept.append(treatment.instances[0].id)
        real(treatment, folder, **given)

    monkeypatch.setattr(benchmark_module, "_keep", dies)
    with pytest.raises(KeyboardInterrupt):
        Benchmark(study).evaluate("dinm", label="killed", settings=settings)
    again: list[int] = []

    def counts(treatment: Any, folder: Path, **given: Any) -> None:
        again.append(treatment.instances[0].id)
        real(treatment, folder, **given)

    monkeypatch.setattr(benchmark_module, "_keep", counts)
    resumed = Benchmark(study).evaluate("dinm", label="killed", settings=settings)
    assert len(again) == 5
    assert not set(again) & set(kept)
    assert [r.response for r in resumed.responses] == [r.response for r in whole.responses]


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
