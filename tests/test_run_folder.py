"""A run folder as it is read: what it has, one line for what it has not, and nothing of it trusted as markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from synthetic_run import TUNED, make_run, make_tables

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
    table = found.table("verdict")
    table["method"] = "changed"
    assert "changed" not in set(found.verdict["method"])


def test_a_table_that_is_not_there_is_one_line_with_those_that_are(run: Path) -> None:
    with pytest.raises(InputError, match=r"no table 'verdicts'; it has .*decomposition, .*verdict") as caught:
        RunFolder.open(run).table("verdicts")
    assert "\n" not in str(caught.value)


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
