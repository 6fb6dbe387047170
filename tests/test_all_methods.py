"""Every method side by side: pooled over runs, drawn, and told by the script."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import run_script
from made_methods import make_methods, make_methods_run
from matplotlib.figure import Figure

from mechinterp.audit.all_methods import all_methods, counted, in_words, together, verdicts_of
from mechinterp.audit.tables.registry import TABLES
from mechinterp.errors import InputError
from mechinterp.measures.intervals import Interval
from mechinterp.report.plotting.all_methods import plot_all_methods
from mechinterp.report.plotting.drawing import BANDS, draw_curve

SCRIPT = Path(__file__).parents[1] / "analyses" / "all_methods.py"


def test_the_table_is_pooled_over_runs() -> None:
    runs = [make_methods_run(depth=0.2, gone="hidden"), make_methods_run(depth=0.6, gone="not decided")]
    table = all_methods({"mistral": runs}).set_index("method")
    assert list(table.index) == ["vanilla", "never", "sft", "dinm"]
    assert TABLES["all_methods"].missing(table.reset_index().columns) == []
    assert all(TABLES["all_methods"].meaning(column) for column in table.reset_index())
    sft = table.loc["sft"]
    assert sft["runs"] == 2
    assert sft["depth"] == pytest.approx(0.4)
    assert (sft["depth_low"], sft["depth_high"]) == pytest.approx((0.15, 0.65))
    assert (sft["gone"], sft["hidden"], sft["not_decided"]) == (0, 1, 1)
    assert verdicts_of(sft) == {"hidden": 1, "not decided": 1}
    assert sft["attack"] == "prefilled answer at 1 tokens given"  # of the run that it shows it in
    assert sft["attacks"] == 1
    assert sft["recovery"] == pytest.approx(0.9)
    assert sft["where"] == "around the value vectors"
    assert (table.loc["vanilla", "depth"], table.loc["never", "depth"]) == (0, 1)
    assert math.isnan(table.loc["never", "recovery"])
    assert verdicts_of(table.loc["vanilla"]) == {}
    assert table["kept"].notna().all()
    assert table.loc["dinm", "defense"] == 1.0


def test_a_method_of_one_run_only_is_of_that_run() -> None:
    one, both = make_methods_run(methods=("sft",)), make_methods_run()
    table = all_methods({"mistral": [one, both]}).set_index("method")
    assert table["runs"].to_dict() == {"vanilla": 2, "never": 2, "sft": 2, "dinm": 1}
    chosen = all_methods({"mistral": [one, both]}, ["dinm"]).set_index("method")
    pd.testing.assert_frame_equal(chosen, table.drop("sft"))


def test_architectures_have_rows_of_their_own_and_all_together() -> None:
    runs = {
        "gpt2": [make_methods_run(depth=0.2)],
        "llama": [make_methods_run(0.6, "gone"), make_methods_run(0.7, "gone")],
    }
    table = all_methods(runs).set_index(["architecture", "method"])
    assert list(dict.fromkeys(table.index.get_level_values(0))) == ["gpt2", "llama", "all"]
    alone = all_methods({"gpt2": runs["gpt2"]}).set_index(["architecture", "method"])
    pd.testing.assert_frame_equal(table.loc[["gpt2"]], alone)
    assert table.loc[("all", "sft"), "depth"] == pytest.approx(0.5)
    assert verdicts_of(table.loc[("all", "sft")]) == {"gone": 2, "hidden": 1}
    printed = in_words(table.reset_index())
    assert list(printed["architecture"]) == [name for name in ("gpt2", "llama", "all") for _ in range(4)]
    assert printed["verdict"].iloc[-1] == "gone (2 of 3); hidden (1 of 3)"
    assert "architecture" not in in_words(alone.reset_index())


def test_pooling_leaves_out_what_is_undefined() -> None:
    nothing = Interval(math.nan, math.nan, math.nan)
    assert together([Interval(0.2, 0.1, 0.3), nothing]) == Interval(0.2, 0.1, 0.3)
    assert math.isnan(together([nothing]).value)
    assert counted([None, math.nan]) is None
    assert counted(["a", "b", "b"]) == "b (2 of 3); a (1 of 3)"


def test_in_words() -> None:
    table = in_words(all_methods({"mistral": [make_methods_run()]})).set_index("method")
    assert table.loc["sft", "depth score"] == "0.40 [0.35, 0.45]"
    assert table.loc["sft", "brings back (%)"] == "90 [80, 100]"
    assert table.loc["never", "verdict"] == ""
    assert table.loc["never", "depth score"] == "1.00"


def test_runs_that_lack_something() -> None:
    with pytest.raises(InputError, match="no run to compare"):
        all_methods({})
    tables = make_methods_run()
    with pytest.raises(InputError, match=r"run 2 of 2 has no tables/depth\.csv"):
        all_methods({"llama": [tables], "gpt2": [{name: table for name, table in tables.items() if name != "depth"}]})
    with pytest.raises(InputError, match="no run has a method 'npo'; they have sft, dinm"):
        all_methods({"llama": [tables]}, ["sft", "npo"])


def test_the_plate_marks_verdicts_and_references() -> None:
    figure = plot_all_methods(make_methods())
    (axes,) = figure.get_axes()
    points = [line for line in axes.lines if line.get_gid() == "point"]
    assert len(points) == 5
    faces = {tuple(line.get_xydata()[0]): line.get_markerfacecolor() for line in points}
    hidden, gone = (make_methods().set_index("method").loc[name] for name in ("sft", "gone_one"))
    assert faces[100 * hidden["kept"], hidden["depth"]] == "white"
    assert faces[100 * gone["kept"], gone["depth"]] not in ("white", faces[100 * hidden["kept"], hidden["depth"]])
    said = [text.get_text().replace("\n", " ") for text in axes.texts]
    assert "Never learnt" in said
    assert "SFT: hidden, prefilled answer at 1 tokens given (90%)" in said
    assert "DINM: hidden 2 of 3, not decided 1 of 3" in said


def test_the_plate_has_a_panel_for_each_architecture() -> None:
    both = make_methods(architectures=("gpt2", "llama", "all"))
    first, second = plot_all_methods(both).get_axes()
    assert (first.get_title(), second.get_title()) == ("gpt2", "llama")
    assert first.get_xlim() == second.get_xlim()
    (alone,) = plot_all_methods(both[both["architecture"] == "llama"]).get_axes()
    for told in (second, alone):
        assert [text.get_text() for text in told.texts] == [text.get_text() for text in first.texts]
    assert alone.get_title() == ""


def test_the_axis_label_of_few_methods_is_within_the_figure() -> None:
    figure = plot_all_methods(make_methods().iloc[:4])
    figure.draw_without_rendering()
    label = figure.axes[0].yaxis.label.get_window_extent()
    assert label.y0 >= 0
    assert label.y1 <= figure.bbox.height


def test_bands_of_many_curves_are_left_out() -> None:
    rows = pd.DataFrame({"value": [0.1, 0.2], "value_low": [0.0, 0.1], "value_high": [0.2, 0.3]})
    for beside, bands in ((BANDS, 1), (BANDS + 1, 0)):
        axes = Figure().subplots()
        draw_curve(axes, np.arange(2.0), rows, "value", "#000000", beside=beside)
        assert len(axes.collections) == bands


def test_the_script_collects_what_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        folder = tmp_path / f"seed{seed}"
        (folder / "tables").mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"config": {}, "seed": seed}))
        for name, table in make_methods_run(depth=0.2 + 0.4 * seed).items():
            table.to_csv(folder / "tables" / f"{name}.csv", index=False)
    runs = [tmp_path / "seed0", tmp_path / "seed1"]
    assert run_script(SCRIPT, *runs, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "all_methods.md").read_text() == printed
    assert "| SFT | 100 [90, 100] |" in printed
    assert len(pd.read_csv(tmp_path / "out" / "tables" / "all_methods.csv")) == 4
    assert (tmp_path / "out" / "figures" / "all_methods.png").is_file()
    (runs[1] / "tables" / "verdict.csv").unlink()
    assert run_script(SCRIPT, *runs, "--out", tmp_path / "out") == 2
    assert "its study has not come to its end" in capsys.readouterr().err
