"""A run folder as it is read: what it has, one line for what it has not, and nothing of it trusted as markup."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from pandas.testing import assert_frame_equal
from synthetic_run import TUNED, make_local_tables, make_run, make_tables

from mechinterp.audit.tables.verdicts import SOURCES
from mechinterp.errors import InputError
from mechinterp.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_a_run_is_read_when_it_is_asked(run: Path) -> None:
    found = RunFolder.open(run)
    assert found.path == run
    assert found.tables == tuple(sorted(make_tables()))
    assert found.methods == TUNED
    assert found.report == run / "report.html"
    assert list(found.verdict["method"].unique()) == list(TUNED)
    assert found.manifest == json.loads((run / "manifest.json").read_text())
    assert found.config == found.manifest["config"]


def test_a_benchmarks_table_is_one_of_its_studys(run: Path) -> None:
    (run / "benchmark").mkdir()
    (run / "benchmark" / "benchmark.csv").write_text("method,ds\nsft,1.0\n")
    found = RunFolder.open(run)
    assert list(found.table("benchmark")["method"]) == ["sft"]
    assert found.tables == tuple(sorted((*make_tables(), "benchmark")))


def test_a_table_is_ones_own(run: Path) -> None:
    found = RunFolder.open(run)
    table = found.table("local_verdict")
    table["method"] = "changed"
    assert "changed" not in set(found.verdict["method"])


def test_a_table_that_is_not_there_is_one_line_with_those_that_are(run: Path) -> None:
    with pytest.raises(InputError, match=r"no table 'verdicts'; it has .*decomposition, .*local_verdict") as caught:
        RunFolder.open(run).table("verdicts")
    assert "\n" not in str(caught.value)


def test_what_was_found_is_said_in_a_sentence_for_each_checkpoint(run: Path) -> None:
    found = RunFolder.open(run)
    assert found.sentences == dict(zip(found.verdict["method"], found.verdict["sentence"], strict=True))
    assert str(found).splitlines()[1:] == [f"{name}: {said}" for name, said in found.sentences.items()]


def test_a_run_that_judged_neither_half_says_its_local_shares(tmp_path: Path) -> None:
    found = RunFolder.open(make_run(tmp_path / "run", make_local_tables()))
    assert list(found.sentences) == list(TUNED)
    assert found.sentences["sft"].startswith("bypassed (at the last prompt token, 1")
    assert "erasure along the answer direction" in found.sentences["sft"]
    assert "probe" not in found.sentences["sft"]  # not in play, which `counted` says
    assert found.sentences["dinm"].startswith("erased, by construction")
    assert "one block's weights alone were changed" in found.sentences["dinm"]
    assert "relapse test: " in found.sentences["sft"]
    counts, idle, *_ = found.counted.split(". ")
    assert "the answer direction (last prompt token" in counts
    assert idle.startswith("Not in play")
    assert "the probe direction" in idle
    assert "probe" not in counts
    lines = str(found).splitlines()
    assert [line.partition(":")[0] for line in lines[1:4]] == list(TUNED)
    assert "bypassed (at the last prompt token" in found._repr_html_()
    assert "\n" not in repr(found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"in_play": False}, "no verdict: no direction is in play; relapse test"),
        (
            {"verdict": "undecided", "reason": "the write hardly fell"},
            "at the last prompt token, along the probe direction: the write",
        ),
        (
            {"verdict": "undecided", "reason": None},
            "undecided (at the last prompt token, along the probe direction, along the answer direction, ",
        ),
        ({"in_play": None}, "whether the directions are in play was not checked"),
    ],
)
def test_a_sentence_carries_what_speaks_against_it(tmp_path: Path, change: dict[str, object], said: str) -> None:
    tables = make_local_tables()
    tables["local_verdict"] = tables["local_verdict"].assign(**{"in_play": True} | change)
    if change == {"in_play": None}:
        del tables["validity"]
    assert said in RunFolder.open(make_run(tmp_path / "run", tables)).sentences["sft"]


def test_readings_that_disagree_say_which_says_what(tmp_path: Path) -> None:
    tables = make_local_tables()
    of_means = tables["local_verdict"]["direction"] == "class_means"
    tables["local_verdict"] = tables["local_verdict"].assign(in_play=True)
    tables["local_verdict"].loc[of_means, "verdict"] = "erased"
    tables["local_verdict"].loc[~of_means, "verdict"] = "bypassed"
    said = RunFolder.open(make_run(tmp_path / "run", tables)).sentences["sft"]
    assert said.startswith("the readings disagree (")
    assert "along the class means direction: erased" in said
    assert "along the answer direction: bypassed" in said


def test_a_study_without_its_report_has_its_verdict_all_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    saved = RunFolder.open(run).verdict
    (run / "tables" / "verdict.csv").unlink()
    assert_frame_equal(RunFolder.open(run).verdict, saved, check_dtype=False)
    for name in SOURCES:
        (run / "tables" / f"{name}.csv").unlink(missing_ok=True)
    with pytest.raises(InputError, match="no table 'verdict'"):
        _ = RunFolder.open(run).verdict


def test_a_relapse_test_alone_says_its_verdict_and_why(tmp_path: Path) -> None:
    alone = {name: make_tables()[name] for name in ("relapse", "relapse_verdict")}
    found = RunFolder.open(make_run(tmp_path / "run", alone))
    reason = alone["relapse_verdict"].set_index("method").loc["sft", "reason"]
    assert found.sentences["sft"] == f"relapse test: bypassed; {reason}"
    assert found.counted == ""


def test_a_narrow_screen_shows_which_row_it_is_and_what_it_says(run: Path) -> None:
    table = RunFolder.open(run).verdict
    assert sorted(table) == sorted(make_tables()["verdict"])
    with pd.option_context("display.width", 80, "display.max_columns", 0):
        heading = str(table.head(2)).splitlines()[0].split()
    assert heading[0] == "method"
    assert heading[-1] == "sentence"


def test_a_name_that_is_not_there_is_answered_by_a_near_one(run: Path) -> None:
    found = RunFolder.open(run)
    with pytest.raises(InputError, match=r"; did you mean 'local_verdict'\?$"):
        found.table("local_verdicts")
    with pytest.raises(InputError, match=r"; did you mean 'erase_or_bypass'\?$"):
        found.plot("erase_or_bypassed")
    with pytest.raises(
        AttributeError, match=r"'RunFolder' object has no attribute 'sentence'; did you mean 'sentences'\?$"
    ):
        _ = found.sentence
    with pytest.raises(AttributeError, match=r"no attribute 'decomposition'; the table is \.table\('decomposition'\)$"):
        _ = found.decomposition
    with pytest.raises(AttributeError, match=r"no attribute 'zzzz'$"):
        _ = found.zzzz
    assert not hasattr(copy.copy(found), "_repr_mimebundle_")


def test_a_damaged_table_is_one_line_and_hinders_no_other(run: Path) -> None:
    (run / "tables" / "defense.csv").write_bytes(b"\xff\xfe\x00")
    (run / "tables" / "judge.csv").write_text("")
    found = RunFolder.open(run)
    for name in ("defense", "judge"):
        with pytest.raises(InputError, match=f"{name}.csv: cannot be read as a table") as caught:
            found.table(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read as a table"):
        found.plot("defense")
    assert isinstance(found.plot("fig5_mechanism").figure, Figure)
    assert len(found.verdict)


def test_a_figure_that_cannot_be_drawn_is_one_line_with_those_that_can(tmp_path: Path) -> None:
    found = RunFolder.open(make_run(tmp_path / "run", {"mechanism": make_tables()["mechanism"]}))
    assert found.figures == ("fig5_mechanism",)
    with pytest.raises(InputError, match=r"no figure 'defense'; .* fig5_mechanism"):
        found.plot("defense")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        RunFolder.open(tmp_path / "absent")
    with pytest.raises(InputError, match="not the folder of a run"):
        RunFolder.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON") as caught:
        _ = RunFolder.open(tmp_path).manifest
    assert "\n" not in str(caught.value)


def test_a_notebook_is_shown_text_not_markup(tmp_path: Path) -> None:
    tables = make_tables(("<script>alert(1)</script>",))
    shown = RunFolder.open(make_run(tmp_path / "<b>run", tables))._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    assert "&lt;b&gt;run" in shown
    assert "verdict" in shown
    assert "erase_or_bypass" in shown
