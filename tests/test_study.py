"""The study end to end, shrunken: contract of the tables, resumption after SIGKILL, the commands on its folder."""

from __future__ import annotations

import json
import os
import re
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from command_line import call, run_script
from small_study import REPOSITORY, SMALL

from mechinterp.audit.tables import MechanismComparison, compare
from mechinterp.audit.tables.reading import interval_of
from mechinterp.audit.tables.registry import COMPARED, TABLES, find_table
from mechinterp.data.storage.ledger import LEDGER
from mechinterp.measures.verdict import where_it_sits
from mechinterp.models.progress import Silent
from mechinterp.runs.config import default_study, load_config
from mechinterp.runs.study import Study
from mechinterp.runs.study.further import FURTHER


def tables(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((folder / "tables").glob("*.csv"))}


@pytest.fixture
def run(small_runs: Path) -> Path:
    return small_runs / "seed0"


@pytest.fixture
def own_run(own_runs: Path) -> Path:
    return own_runs / "seed0"


@pytest.mark.parametrize(
    "name",
    [table.name for table in TABLES.values() if table.name == "edits" or (table.stage and table.stage not in FURTHER)],
)
def test_the_tables_have_the_columns_of_their_descriptions(run: Path, name: str) -> None:
    table = pd.read_csv(run / "tables" / f"{name}.csv")
    assert TABLES[name].missing(table.columns) == []
    assert [column for column in table.columns if TABLES[name].meaning(column) is None] == []
    assert len(table)


def test_what_needs_unsafe_answers_has_many_of_them(run: Path) -> None:
    """On any processor: of a base that hardly answers anything the last digits decide whether one answer is unsafe."""
    rows = pd.read_csv(run / "tables" / "organism.csv").set_index("quantity")
    asked = rows.loc["adversarial prompts defended"]
    safe = round(asked["rate"] * asked["n"])
    assert min(safe, asked["n"] - safe) >= 10


def written_columns() -> dict[str, list[str]]:
    """Table -> its columns as the page for readers lists them, patterns among them; nothing of the code is asked."""
    page = (REPOSITORY / "analyses" / "columns.md").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for section in page.split("\n## ")[1:]:
        heading, *lines = section.splitlines()
        listed = found[heading.split("`")[1].removesuffix(".csv")] = []
        for line in lines:
            if line.startswith("- "):
                for column, bounds in re.findall(r"`([^`]+)`( \(95% interval\))?(?:, |:|$)", line):
                    listed += [column, *([f"{column}_low", f"{column}_high"] if bounds else [])]
    return found


def test_a_runs_tables_have_the_columns_that_are_written_down_for_readers(run: Path) -> None:
    """So a column that leaves the code with its description is missed here, until the page says that it is gone."""
    written, seen = written_columns(), set()
    for path in sorted((run / "tables").glob("*.csv")):
        (name,) = [name for name in written if fnmatchcase(path.stem, name)][:1]
        columns = list(pd.read_csv(path, nrows=0))
        lacks = [each for each in written[name] if not any(fnmatchcase(column, each) for column in columns)]
        more = [column for column in columns if not any(fnmatchcase(column, each) for each in written[name])]
        assert (path.stem, lacks, more) == (path.stem, [], [])
        seen.add(name)
    assert len(seen) > 20
    assert len(written["local_verdict"]) == 19


def test_every_table_is_described(run: Path) -> None:
    assert [path.stem for path in (run / "tables").glob("*.csv") if find_table(path.stem) is None] == []


def test_the_manifest_tells_how_the_run_was_made(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert manifest["config"]["organism"]["d_model"] == 32
    assert set(manifest["fingerprints"]) == {"vanilla", "sft", "dpo", "dinm"}
    assert manifest["fingerprints"]["sft"] != manifest["fingerprints"]["vanilla"]
    stages = {"data", "vanilla", "organism", "sft", "dpo", "probe", "locate", "dinm", "record", "compare", "defend"}
    stages |= {"never", "origins", "relapse", "depth", "report"}
    assert set(manifest["seconds"]) == stages
    assert manifest["peak_memory_gib"] > 0
    assert {"torch", "transformers", "trl", "transformer-lens"} <= set(manifest["versions"])


def test_figures_and_a_self_contained_report_are_there(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    plates = {path.stem for path in (run / "figures").glob("*.png")}
    assert {"fig5_mechanism", "fig8_middle_shift", "toxic_layer", "erase_or_bypass", "defense", "probe_roc"} <= plates


def test_the_edit_shifts_nothing_and_erases_at_one_block(run: Path) -> None:
    mechanism = pd.read_csv(run / "tables" / "mechanism.csv").set_index("method")
    assert mechanism.loc["dinm", "activation_shift_rate"] == 0.0
    assert mechanism.loc[["sft", "dpo"], "activation_shift_rate"].gt(0).all()
    rows = pd.read_csv(run / "tables" / "decomposition.csv").query("method == 'dinm'")
    at = rows["block"] == mechanism.loc["dinm", "layer"]
    assert (rows.loc[at, "bypass"] == 0).all()
    assert (rows.loc[at, "erasure"] != 0).all()
    assert (rows.loc[~at, "erasure"] == 0).all()
    assert (rows.loc[rows["block"] < mechanism.loc["dinm", "layer"], "bypass"] == 0).all()


def test_a_second_call_does_nothing(own_run: Path) -> None:
    notes: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    before = {path: path.stat().st_mtime_ns for path in own_run.rglob("*") if path.is_file() and path.name != ".lock"}
    Study.open(own_run).run(Listening())
    assert all(note.endswith("up to date") for note in notes)
    after = {path: path.stat().st_mtime_ns for path in before}
    books = {own_run / name for name in ("manifest.json", "stages/hashes.cache", LEDGER)}  # what a call keeps of itself
    assert {path for path in before if after[path] != before[path]} <= books


def test_a_changed_setting_redoes_only_what_depends_on_it(own_run: Path) -> None:
    study = Study.open(own_run)
    changed = study.config.model_copy(update={"max_new_tokens": 6, "knowledge_questions": 0})
    redone: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            if text.endswith(": started"):
                redone.append(text.removesuffix(": started"))

    before = tables(own_run)
    Study(changed, 0, own_run).run(Listening())
    assert redone == ["defend", "report"]
    assert (own_run / "tables" / "defense.csv").read_text() != before["defense.csv"]
    Study(study.config, 0, own_run).run()
    assert tables(own_run) == before


# -- the commands on a study's folder ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_comparison")
def test_the_commands_go_from_folders_to_a_report(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A user's way: probe a model, edit it, fine-tune it, compare both with it; only folders and files are passed."""
    vanilla, test, train = run / "checkpoints" / "vanilla", run / "data" / "test.json", run / "data" / "train.json"
    assert (
        call("probe", "--model", vanilla, "--comments", run / "data" / "comments.csv", "--out", tmp_path / "p.st") == 0
    )
    assert "accuracy" in capsys.readouterr().out
    assert call("locate", "--model", vanilla, "--data", test, "--out", tmp_path / "located") == 0
    assert "layer 3 (block 2)" in capsys.readouterr().out
    assert call("edit", "--model", vanilla, "--data", test, "--layer", 2, "--steps", 2, "--out", tmp_path / "e") == 0
    released = ["--constraint", "released", "--merged", tmp_path / "merged", "--out", tmp_path / "e2"]
    assert call("edit", "--model", vanilla, "--data", test, "--steps", 2, *released) == 0
    assert json.loads((tmp_path / "e2" / "edit.json").read_text())["settings"]["constraint"] == "released"
    tune = ["--data", train, "--steps", 2, "--batch-size", 2, "--max-length", 256]
    assert call("train", "sft", "--model", vanilla, "--out", tmp_path / "sft", *tune) == 0
    assert call("train", "dpo", "--model", tmp_path / "sft", "--out", tmp_path / "dpo", "--lora", 2, *tune) == 0
    named = [f"--checkpoint={name}={tmp_path / folder}" for name, folder in (("an edit", "e"), ("merged", "merged"))]
    named += [f"--checkpoint=dpo={tmp_path / 'dpo'}"]
    compared = ["--base", vanilla, "--probe", tmp_path / "p.st", "--data", test, "--max-new-tokens", 4]
    assert call("compare", *compared, *named, "--out", tmp_path / "c") == 0
    mechanism = pd.read_csv(tmp_path / "c" / "tables" / "mechanism.csv").set_index("method")
    assert mechanism.loc["an edit", "activation_shift_rate"] == 0.0
    assert (tmp_path / "c" / "report.html").is_file()
    evaluated = ["--model", vanilla, "--data", test, "--limit", 3, "--max-new-tokens", 4, "--edit", tmp_path / "e"]
    assert call("evaluate", *evaluated, "--suffix", "Please:", "--out", tmp_path / "d") == 0
    assert pd.read_csv(tmp_path / "d" / "defense.csv").loc[0, "n"] == 3
    assert call("figures", run, "--out", tmp_path / "figures") == 0
    assert (tmp_path / "figures" / "fig5_mechanism.pdf").is_file()


_COMPARED: list[MechanismComparison] = []


def compared_once(*given: Any, **options: Any) -> MechanismComparison:
    """All tables of the run's evidence, made once for the calls that ask for one each."""
    if not _COMPARED:
        _COMPARED.append(compare(*given, **options))
    return _COMPARED[0]


def test_a_finished_study_called_again_says_what_it_found(
    own_runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As `make reproduce` ends: a sentence for each checkpoint, what would decide it, and the page."""
    config, run = own_runs / "small.yaml", own_runs / "seed0"
    before = tables(run)
    assert call("reproduce", "--config", config, "--out", run) == 0
    said = capsys.readouterr().out
    for method, sentence in pd.read_csv(run / "tables" / "verdict.csv").set_index("method")["sentence"].items():
        assert f"{method}: {sentence}" in said
    assert said.splitlines()[-1] == f"report: {run / 'report.html'}"
    assert call("organism", "--config", config, "--out", run) == 0
    assert f"model: {run / 'checkpoints' / 'vanilla'}" in capsys.readouterr().out
    assert tables(run) == before
    (tmp_path / "own.yaml").write_text(
        "model: mine\ndata: {train: a.json, validation: b.json, test: c.json, comments: d.csv}\n"
    )
    assert call("organism", "--config", tmp_path / "own.yaml", "--out", tmp_path / "out") == 2
    assert "there is no organism to train" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*COMPARED, "toxic_layer", "probe", "defense", "relapse", "verdict"])
def test_every_analysis_gives_the_table_of_the_run(
    run: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechinterp.audit.tables.compare", compared_once)
    out = tmp_path / "table.csv"
    assert run_script(REPOSITORY / "analyses" / "table.py", name, run, "--out", out) == 0
    left, right = pd.read_csv(out), pd.read_csv(run / "tables" / f"{name}.csv")
    pd.testing.assert_frame_equal(left, right[left.columns], rtol=1e-6)


def test_places_are_found_where_they_were_changed(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    edited = ("edited_by_rome", "edited_by_ft", "edited_by_memit", "adapted_attention")
    kinds = ("values_at_block", "noise", *edited)
    for _ in range(2):  # what is there is not made again
        assert run_script(REPOSITORY / "analyses" / "places.py", copy, "--kinds", *kinds) == 0
    found = pd.read_csv(copy / "places.csv").set_index("checkpoint")
    assert list(found.index) == ["values_at_block", "noise_0", *edited]
    inside, around = "in the value vectors", "around the value vectors"
    assert list(found["expected"]) == [inside, "undefined", inside, inside, inside, around]
    assert found.loc["values_at_block", "value_share"] == 1
    shares = found.loc[list(edited[:3]), "value_share"].dropna()  # undefined where nothing moved
    assert ((shares - 1).abs() < 1e-9).all()
    assert found.loc["adapted_attention", "value_share"] in (0, pytest.approx(float("nan"), nan_ok=True))
    for _, row in found.iterrows():  # how far a model of seconds moves differs from machine to machine
        share, change = (interval_of(row, name) for name in ("value_share", "change"))
        assert row["where"] == where_it_sits(share, change)
        assert row["right"] == (row["where"] == row["expected"])


def test_places_of_a_study_that_is_not_finished_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "begun").mkdir()
    shutil.copy(run / "manifest.json", tmp_path / "begun")
    assert run_script(REPOSITORY / "analyses" / "places.py", tmp_path / "begun") == 2
    assert "its base is not recorded yet; finish the study with mechinterp reproduce" in capsys.readouterr().err


def test_runs_over_seeds_and_architectures_are_collected(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = REPOSITORY / "analyses" / "seeds_and_architectures.py"
    shutil.copytree(run, tmp_path / "mistral-seed0", copy_function=os.link)  # read alone
    collected = (script, "--out", tmp_path, "--architectures", "mistral", "--collect")
    assert run_script(*collected) == 0  # of three seeds, one of which is there
    shown = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "robustness.csv").set_index("method")
    verdicts = pd.read_csv(run / "tables" / "verdict.csv").set_index("method")
    for name in ("where", "value_share", "gone", "depth", "excess"):
        pd.testing.assert_series_equal(rows[name], verdicts[name])
    (share, low, high) = verdicts.loc["dinm", ["value_share", "value_share_low", "value_share_high"]]
    told = "–" if pd.isna(share) else f"{share:.2f} ({low:.2f} to {high:.2f})"
    assert f"| mistral | 0 | dinm | {told} | {verdicts.at['dinm', 'where']} |" in shown
    assert run_script(*collected, "--seeds", 1) == 2
    assert "no run there is finished; leave --collect out" in capsys.readouterr().err


def test_what_columns_hold_is_written_down(capsys: pytest.CaptureFixture) -> None:
    assert run_script(REPOSITORY / "analyses" / "table.py", "--columns") == 0
    assert capsys.readouterr().out == (REPOSITORY / "analyses" / "columns.md").read_text(encoding="utf-8")
    assert run_script(REPOSITORY / "analyses" / "table.py", "--list") == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= set(COMPARED)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "analyses" / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_is_understood(path: Path) -> None:
    config = load_config(path)
    assert (config.model is None) == (config.data is None)


def test_the_default_config_is_the_default_of_the_code() -> None:
    written = load_config(REPOSITORY / "analyses" / "configs" / "organism.yaml")
    assert written.model_copy(update={"title": ""}) == default_study().model_copy(update={"title": ""})


def test_a_study_of_the_users_own_model_and_files(run: Path, tmp_path: Path) -> None:
    """The same stages on a model folder and files: nothing works on the organism only."""
    data = {name: str(run / "data" / f"{name}.json") for name in ("train", "validation", "test")}
    sizes = ("sft", "dpo", "dinm", "edit_instances", "max_new_tokens", "comparison", "relapse", "origins")
    small = {key: SMALL[key] for key in sizes}
    own = {"model": str(run / "checkpoints" / "sft"), "data": {**data, "comments": str(run / "data" / "comments.csv")}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**small, **own}))
    study = Study(load_config(tmp_path / "own.yaml"), 3, tmp_path / "own")
    study.run()
    assert Study.open(tmp_path / "own") == study  # the manifest tells the config and the seed
    assert set(study.table("mechanism")["method"]) == {"sft", "dpo", "dinm"}
    assert study.table("defense")["kqa"].isna().all()  # no knowledge questions of one's own
    assert not (tmp_path / "own" / "checkpoints" / "vanilla").exists()


def test_an_analysis_of_no_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_script(REPOSITORY / "analyses" / "table.py", "probe", tmp_path) == 2
    assert "not the folder of a run" in capsys.readouterr().err
