"""The figures, tested on what they draw (bar lengths, interval ends, colours, offsets), not on pixels."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib
import numpy as np
import pandas as pd
import pytest
from command_line import run_script
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from synthetic_run import LAST_BLOCK, TUNED, make_run, make_tables

from mechinterp.errors import InputError
from mechinterp.report import plates, plotting
from mechinterp.report.plotting.certificate import plot_certificate
from mechinterp.report.plotting.decomposition import plot_blocks, plot_erase_or_bypass
from mechinterp.report.plotting.defense import DEFENSE_RATES, plot_defense
from mechinterp.report.plotting.mechanism import plot_mechanism
from mechinterp.report.plotting.middle_shift import LEVELS, plot_middle_shift
from mechinterp.report.plotting.neuron_curve import plot_neuron_curve
from mechinterp.report.plotting.neuron_groups import plot_neuron_groups
from mechinterp.report.plotting.origins import plot_origins, plot_origins_blocks
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.probe_roc import plot_probe_roc
from mechinterp.report.plotting.relapse import plot_relapse, plot_relapse_verdict
from mechinterp.report.plotting.residual_shift import plot_residual_shift
from mechinterp.report.plotting.stream import plot_stream
from mechinterp.report.plotting.toxic_activations import plot_toxic_activations
from mechinterp.report.plotting.toxic_layer import DISTANCES, plot_toxic_layer
from mechinterp.report.plotting.trajectory import plot_trajectory
from mechinterp.report.plotting.value_vectors import plot_value_vectors

ODD = ("<b>a$b$c_^</b> %s{x}", "Ωmega-a-checkpoint-name-that-goes-on-and-on-and-on")
"""Names of checkpoints as users may give them."""
GROUPS = ["toxic_down", "anti_toxic_up", "toxic_up", "anti_toxic_down"]
DRAW = Path(__file__).parents[1] / "figures" / "draw.py"


@pytest.fixture
def undrawn() -> None:
    """Here figures are rendered."""


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return make_tables()


@pytest.fixture
def quick_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save stand-ins: rendering is what takes the time, and other tests render."""
    monkeypatch.setattr(plates, "figure_bytes", lambda figure, kind: kind.encode())


@dataclass(frozen=True)
class Rendered:
    """A run all of whose figures were drawn and saved, the figures, and matplotlib's settings before and after."""

    run: Path
    paths: list[Path]
    figures: dict[str, Figure]
    settings: tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Once for all that is asked of them: of checkpoints with names of the user's, and one of the paper's."""
    run = make_run(tmp_path_factory.mktemp("rendered") / "run", make_tables((*ODD, TUNED[-1])))
    figures, save, before = {}, plates.save_figure, rc()

    def kept(figure: Figure, folder: Path, name: str) -> list[Path]:
        figures[name] = figure
        return save(figure, folder, name)

    with patch.object(plates, "save_figure", kept):
        paths = plates.draw_all(run)
    return Rendered(run, paths, figures, (before, rc()))


def rc() -> dict[str, Any]:
    return dict(matplotlib.rcParams)


def all_drawn(figure: Figure) -> Figure:
    """Every artist is drawn where it is put first, without the layout of the whole, which takes most of the time."""
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    return figure


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def widths(axes: Axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches]


def intervals(axes: Axes) -> list[tuple[float, float]]:
    return [tuple(line.get_xdata()) for line in axes.lines if line.get_gid() == "interval"]


def texts(figure: Figure) -> str:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join([*found, figure.get_supxlabel()])


def test_the_papers_methods_have_fixed_distinct_colours() -> None:
    colours = plotting.method_colours(["vanilla", *TUNED])
    assert colours == {method: plotting.METHOD_COLOURS[method] for method in ("vanilla", *TUNED)}
    assert len(set(colours.values())) == 4


def test_unknown_methods_get_stable_colours_of_their_own() -> None:
    alone = plotting.method_colours(["my-edit"])["my-edit"]
    assert plotting.method_colours(["sft", "my-edit", "dinm"])["my-edit"] == alone
    assert alone not in plotting.METHOD_COLOURS.values()
    names = ["a", "b", "c", "d", "e", "f"]
    assert plotting.method_colours(names) == plotting.method_colours(names[::-1])
    assert len(set(plotting.method_colours(names).values())) == 6
    assert set(plotting.method_colours(map(str, range(20)))) == set(map(str, range(20)))


def test_mechanism_draws_rates_and_intervals_in_per_cent(tables: dict[str, pd.DataFrame]) -> None:
    mechanism = tables["mechanism"]
    figure = plot_mechanism(mechanism)
    for axes, rate in zip(panels(figure), ("toxicity_reduction_rate", "activation_shift_rate"), strict=True):
        np.testing.assert_allclose(widths(axes), 100 * mechanism[rate])
        np.testing.assert_allclose(intervals(axes), 100 * mechanism[[f"{rate}_low", f"{rate}_high"]])
    assert "layer 6 (block 5)" in panels(figure)[0].get_xlabel()
    assert "0% exactly" in texts(figure)


def test_only_ill_conditioned_rates_are_hatched_and_daggered(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_mechanism(tables["mechanism"])
    assert [bar.get_hatch() for bar in panels(figure)[0].patches] == ["////", None, None]
    assert [bar.get_hatch() for bar in panels(figure)[1].patches] == [None, None, None]
    assert "+8%†" in texts(figure)
    assert "† hatched" in texts(figure)
    sound = plot_mechanism(tables["mechanism"].assign(ill_conditioned=False))
    assert "†" not in texts(sound)


def test_an_interval_far_wider_than_the_bars_ends_in_an_arrow(tables: dict[str, pd.DataFrame]) -> None:
    wide = tables["mechanism"].assign(toxicity_reduction_rate_high=90.0)
    axes = panels(plot_mechanism(wide))[0]
    edge = axes.get_xlim()[1]
    arrows = [line for line in axes.lines if line.get_marker() == ">"]
    assert len(arrows) == len(TUNED)
    assert edge == pytest.approx(4 * 100 * wide["toxicity_reduction_rate"].abs().max())


def test_regions_at_several_layers_are_named_by_row(tables: dict[str, pd.DataFrame]) -> None:
    axes = panels(plot_mechanism(tables["mechanism"].assign(layer=[5, 3, 5])))[0]
    assert "layer 4 (block 3)" in axes.get_yticklabels()[1].get_text().replace("\n", " ")
    assert "layer" not in axes.get_xlabel()


def test_missing_values_are_left_out_not_drawn_as_zero(tables: dict[str, pd.DataFrame]) -> None:
    gaps = tables["mechanism"].copy()
    gaps.loc[0, ["toxicity_reduction_rate", "null_p"]] = np.nan
    figure = plot_mechanism(gaps)
    assert np.isnan(widths(panels(figure)[0])[0])
    assert "no value" in texts(figure)
    gaps.loc[1, "toxicity_reduction_rate"] = np.inf
    figure = plot_mechanism(gaps)
    assert np.isnan(widths(panels(figure)[0])).tolist() == [True, True, False]
    plates.figure_bytes(figure)


def test_origins_draws_the_shares_of_the_exact_game_and_says_where_there_are_none(
    tables: dict[str, pd.DataFrame],
) -> None:
    origins = tables["origins"]
    (axes,) = panels(plot_origins(origins))
    for row, method in enumerate(TUNED):
        wanted = origins[(origins["method"] == method) & (origins["way"] == "exact game")]["share"].dropna()
        bars = [bar for bar in axes.patches if round(bar.get_y() + bar.get_height() / 2) == row]
        np.testing.assert_allclose(sorted(bar.get_width() for bar in bars), sorted(wanted))
        for sign in (-1, 1):  # of each sign one after the other, from zero
            own = sorted(bar.get_x() for bar in bars if sign * bar.get_width() > 0)
            assert not own or sign * min(own, key=abs) >= 0
    said = [text.get_text() for text in axes.texts]
    assert "contains 0" in said[0]
    assert said[2] == "100% (95 to 105)"
    path = plot_origins(origins[origins["way"] == "path"])
    assert widths(panels(path)[0]) == widths(axes)
    maps = panels(plot_origins_blocks(tables["origins_blocks"]))
    assert [each.get_title() for each in maps] == [plotting.method_label(method) for method in TUNED]
    assert [label.get_text() for label in maps[-1].get_xticklabels()] == [*"123456", "outside"]


def test_middle_shift_joins_the_two_points_of_every_input(tables: dict[str, pd.DataFrame]) -> None:
    shift = tables["middle_shift"].sample(frac=1, random_state=0)  # rows of any order
    figure = plot_middle_shift(shift)
    for axes, method in zip(panels(figure), dict.fromkeys(shift["method"]), strict=True):
        assert axes.get_title() == plotting.method_label(method)
        ends = {tuple(np.round(line.get_xydata().ravel(), 6)) for line in axes.lines}
        rows = shift[shift["method"] == method].set_index(["checkpoint", "input"])
        columns = ["shift_component", "first_component"]
        expected = {
            tuple(
                np.round(
                    np.concatenate([rows.loc[("base", i), columns], rows.loc[(method, i), columns]]).astype(float), 6
                )
            )
            for i in range(30)
        }
        assert ends == expected


def test_middle_shift_colours_the_three_levels(tables: dict[str, pd.DataFrame]) -> None:
    shift = tables["middle_shift"]
    axes = panels(plot_middle_shift(shift))[0]
    levels = shift[(shift["method"] == "sft") & (shift["checkpoint"] == "sft")]["toxic_activation_level"]
    drawn = [to_hex(colour) for colour in axes.collections[1].get_facecolors()]
    assert drawn == [LEVELS[level][1] for level in levels]


def test_toxic_layer_counts_from_one_in_the_known_order(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_toxic_layer(tables["toxic_layer"].iloc[::-1])
    assert [axes.get_title() for axes in panels(figure)] == list(DISTANCES)
    released = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in panels(figure)[0].patches}
    assert released == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 60}


def test_erase_or_bypass_adds_up_to_the_change(tables: dict[str, pd.DataFrame]) -> None:
    decomposition = tables["decomposition"]
    figure = plot_erase_or_bypass(decomposition, tables["local_verdict"])
    axes = next(axes for axes in panels(figure) if axes.get_title() == "answer direction\nlast prompt token")
    here = decomposition.query("direction == 'answer' and position == 'prompt_last'")
    total = here.groupby("method")[["erasure", "bypass", "change"]].sum().loc[list(TUNED)]
    np.testing.assert_allclose(widths(axes)[0::2], total["erasure"])
    np.testing.assert_allclose(widths(axes)[1::2], total["bypass"])
    diamonds = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(diamonds, total["change"])
    assert [bar.get_x() for bar in axes.patches[1::2]] == pytest.approx([*total["erasure"][:2], 0.0])
    np.testing.assert_allclose(intervals(axes), np.outer(total["change"], (1.2, 0.8)))
    assert "bypassed 0.15 [0.11, 0.19]" in [text.get_text() for text in axes.texts]


def test_a_change_of_nothing_has_no_share(tables: dict[str, pd.DataFrame]) -> None:
    nothing = tables["local_verdict"].assign(erasure_share=np.nan, verdict="undecided", in_play=True)
    figure = plot_erase_or_bypass(tables["decomposition"].assign(erasure=0.0, bypass=0.0), nothing)
    assert {text.get_text() for axes in panels(figure) for text in axes.texts} == {"undecided"}


def test_parts_of_opposite_sign_both_start_from_zero(tables: dict[str, pd.DataFrame]) -> None:
    opposite = tables["decomposition"].assign(erasure=-1.0, bypass=2.0)
    for axes in panels(plot_erase_or_bypass(opposite, tables["local_verdict"])):
        assert {bar.get_x() for bar in axes.patches} == {0.0}


def test_the_bias_term_counts_as_erasure(tables: dict[str, pd.DataFrame]) -> None:
    biased = tables["decomposition"].assign(erasure=-1.0, bypass=0.0, bias=-0.5)
    axes = panels(plot_erase_or_bypass(biased, tables["local_verdict"]))[0]
    assert widths(axes)[0] == pytest.approx(-1.5 * (LAST_BLOCK + 1))


def test_a_direction_not_in_play_is_greyed_and_gets_no_verdict(tables: dict[str, pd.DataFrame]) -> None:
    for axes in panels(plot_erase_or_bypass(tables["decomposition"], tables["local_verdict"])):
        probe = "probe" in axes.get_title()
        assert (to_hex(axes.get_facecolor()) != "#ffffff") == probe
        assert all((text.get_text() == "not in play") == probe for text in axes.texts)


def test_blocks_share_one_symmetric_scale_within_a_direction(tables: dict[str, pd.DataFrame]) -> None:
    decomposition = tables["decomposition"]
    figure = plot_blocks(decomposition, position="prompt_last")
    images = [axes.collections[0] for axes in panels(figure)]
    assert len(images) == 6
    for erasure, bypass in zip(images[0::2], images[1::2], strict=True):
        low, high = erasure.get_clim()
        assert low == -high
        assert bypass.get_clim() == (low, high)
        assert max(np.abs(erasure.get_array()).max(), np.abs(bypass.get_array()).max()) == pytest.approx(high)
    here = decomposition.query("direction == 'probe' and position == 'prompt_last' and method == 'dpo'")
    np.testing.assert_allclose(images[1].get_array().reshape(3, -1)[1], here.sort_values("block")["bypass"])


def test_blocks_without_any_change_have_a_scale(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_blocks(tables["decomposition"].assign(erasure=0.0, bypass=0.0), position="response")
    assert panels(figure)[0].collections[0].get_clim() == (-1.0, 1.0)


def test_an_unknown_position_is_an_error_that_lists_those_present(tables: dict[str, pd.DataFrame]) -> None:
    with pytest.raises(InputError, match="no position 'middle', it has prompt_last, response"):
        plot_blocks(tables["decomposition"], position="middle")


def test_defense_draws_every_rate_with_its_interval(tables: dict[str, pd.DataFrame]) -> None:
    defense = tables["defense"]
    figure = plot_defense(defense)
    for axes, rate in zip(panels(figure), DEFENSE_RATES, strict=True):
        np.testing.assert_allclose(widths(axes), 100 * defense[rate])
        np.testing.assert_allclose(intervals(axes), 100 * defense[[f"{rate}_low", f"{rate}_high"]])
        dashed = next(line for line in axes.lines if line.get_linestyle() == "--")
        assert dashed.get_xdata()[0] == pytest.approx(100 * defense[rate].iloc[0])
    assert [bar.get_hatch() for bar in panels(figure)[0].patches] == [None, None, None, "////"]
    labels = [label.get_text() for label in panels(figure)[0].get_yticklabels()]
    assert labels == ["Vanilla", "SFT", "DPO", "DINM + suffix"]


def test_a_trajectory_is_drawn_in_the_order_of_its_steps(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_trajectory(tables["trajectory"])
    found = {axes.get_title(): axes for axes in panels(figure)}
    assert list(found["activation shift rate"].lines[0].get_xdata()) == [0, 50, 100, 200]
    erasure, bypass = found["answer direction\nlast prompt token"].lines[:2]
    assert erasure.get_linestyle() == "-"
    assert bypass.get_linestyle() == "--"
    np.testing.assert_allclose(erasure.get_ydata(), [0, -0.05, -0.1, -0.2])
    np.testing.assert_allclose(bypass.get_ydata(), [0, -0.2, -0.4, -0.8])
    bands = [band for band in found["answer direction\nlast prompt token"].collections if band.get_gid() == "interval"]
    assert len(bands) == 2


def test_value_vectors_are_drawn_by_rank_with_their_drift(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["value_vectors"]
    figure = plot_value_vectors(table)
    cosines, drifts = panels(figure)[:2]
    own = table.query("direction == 'probe' and rank <= 10")
    assert len(panels(figure)) == 6
    first = own.drop_duplicates("rank")
    np.testing.assert_allclose(cosines.collections[0].get_offsets()[:, 0], first["cosine"])
    for turn, method in enumerate(TUNED):
        rows = own[own["method"] == method]
        np.testing.assert_allclose(cosines.collections[1 + turn].get_offsets()[:, 0], rows["cosine_tuned"])
        np.testing.assert_allclose(drifts.collections[turn].get_offsets()[:, 0], 100 * rows["drift_relative"])
        assert to_hex(drifts.collections[turn].get_facecolor()[0]) == plotting.METHOD_COLOURS[method].lower()
    row = first.iloc[0]
    assert cosines.get_yticklabels()[0].get_text() == f'" fool" "idiot" {row["block"] + 1}.{row["neuron"]}'


def test_tokens_that_the_font_lacks_become_boxes(tables: dict[str, pd.DataFrame]) -> None:
    odd = tables["value_vectors"].assign(tokens='["天", "\\u0000", "é$"]')
    figure = plot_value_vectors(odd)
    plates.figure_bytes(figure)  # a missing letter would warn, and warnings are errors here
    assert panels(figure)[0].get_yticklabels()[0].get_text().startswith('"□"')


def test_groups_show_net_and_gross_together_with_the_null(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["neuron_groups"]
    figure = plot_neuron_groups(table)
    axes = panels(figure)[1]
    assert axes.get_title() == "SFT: answer direction"
    groups = ["toxic_down", "anti_toxic_up", "toxic_up", "anti_toxic_down", "neither", "all"]
    rows = table.query(
        "method == 'sft' and direction == 'answer' and position == 'prompt_last' and definition == 'projection'"
    )
    rows = rows.set_index("group").loc[groups]
    np.testing.assert_allclose(widths(axes)[0::2], rows["erasure"])
    np.testing.assert_allclose(widths(axes)[1::2], rows["bypass"])
    lines = {
        name: [line.get_xdata() for line in axes.lines if line.get_gid() == name] for name in ("gross", "net", "null")
    }
    np.testing.assert_allclose(lines["gross"], rows[["reduction", "increase"]])
    np.testing.assert_allclose(np.ravel(lines["net"]), rows["change"])
    np.testing.assert_allclose(np.ravel(lines["null"]), -3 * rows["null_share_mean"].dropna())
    assert "67% (25%) p = 0.002" in [text.get_text() for text in axes.texts]


def test_an_unknown_definition_of_groups_is_an_error_that_lists_those_present(tables: dict[str, pd.DataFrame]) -> None:
    with pytest.raises(InputError, match="no definition 'size', it has activation_change, activation_sign, projection"):
        plot_neuron_groups(tables["neuron_groups"], definition="size")
    with pytest.raises(InputError, match="no position 'middle', it has prompt_last, response"):
        plot_stream(tables["stream"], position="middle")


def test_the_neuron_curve_is_drawn_with_its_parts_and_null(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_neuron_curve(tables["neuron_curve"].sample(frac=1, random_state=0))
    axes = panels(figure)[0]
    rows = tables["neuron_curve"].query("method == 'sft' and direction == 'probe' and position == 'prompt_last'")
    own = [line for line in axes.lines if line.get_color() == plotting.METHOD_COLOURS["sft"]]
    assert [line.get_linestyle() for line in own] == ["-", ":", "--"]
    for line, part in zip(own, ("change", "erasure", "bypass"), strict=True):
        np.testing.assert_allclose(line.get_xdata(), 100 * rows["share_of_neurons"])
        np.testing.assert_allclose(line.get_ydata(), rows[f"cumulative_{part}"])
    assert sum(band.get_gid() == "null" for band in axes.collections) == len(TUNED)


def test_the_stream_is_drawn_by_component_and_depth(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_stream(tables["stream"].sample(frac=1, random_state=0))
    attention, mlp, parts = panels(figure)[3:6]
    rows = tables["stream"].query("direction == 'answer' and position == 'prompt_last' and method == 'sft'")
    of_mlp = rows[rows["component"] == "mlp"]

    def curves(axes: Axes, line: str) -> list[np.ndarray]:
        colour = plotting.METHOD_COLOURS["sft"]
        return [x.get_xydata() for x in axes.lines if x.get_color() == colour and x.get_linestyle() == line]

    np.testing.assert_allclose(curves(mlp, "-")[0], of_mlp[["block", "write"]] + np.array((1, 0)))
    np.testing.assert_allclose(curves(parts, "-")[0], of_mlp[["block", "erasure"]] + np.array((1, 0)))
    np.testing.assert_allclose(curves(parts, "--")[0], of_mlp[["block", "bypass"]] + np.array((1, 0)))
    base = next(line for line in mlp.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(base.get_ydata(), of_mlp["write_base"])
    embedding = [curve for curve in curves(attention, "-") if len(curve) == 1]
    np.testing.assert_allclose(embedding, [[(0.0, 0.1)]])


def test_the_logit_lens_goes_up_from_the_embedding_with_the_base_dashed(tables: dict[str, pd.DataFrame]) -> None:
    shuffled = {"logit_lens": tables["logit_lens"].sample(frac=1, random_state=0), "trajectory": tables["trajectory"]}
    figure = plates.draw_figure("logit_lens", shuffled)  # a trajectory's step 0 is called base too
    unsafe = panels(figure)[0]
    base, sft = unsafe.lines[:2]
    assert (base.get_linestyle(), sft.get_linestyle()) == ("--", "-")
    np.testing.assert_allclose(base.get_xdata(), np.arange(0, LAST_BLOCK + 1.5, 0.5))
    rows = tables["logit_lens"].query("token == 'all' and token_set == 'unsafe' and method == 'base'")
    np.testing.assert_allclose(base.get_ydata(), rows["logit"])
    assert len([band for band in unsafe.collections if band.get_gid() == "interval"]) == 1 + len(TUNED)
    assert '" You", " Sure"' in unsafe.get_title()


def test_activations_on_the_same_and_on_ones_own_text_are_apart(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["toxic_activations"]
    same, own = panels(plot_toxic_activations(table))
    assert [axes.get_title().split("\n")[0] for axes in (same, own)] == [
        "all read the base's answer",
        "each reads its own answer",
    ]
    mean = table.query("text == 'own' and method == 'dinm'")["activation_base"].mean()
    assert f"base {mean:.2g}, SFT {mean / 4:.2g}, DPO {mean / 4:.2g}, DINM {mean:.2g}" in own.get_title()
    assert f"SFT {mean / 2:.2g}" in same.get_title()
    bars = [bar.get_height() for bar in own.patches]
    np.testing.assert_allclose(bars, table.query("text == 'own' and method == 'sft'")["activation_base"])
    drawn = own.collections[0].get_offsets()[:, 1]
    np.testing.assert_allclose(drawn, table.query("text == 'own' and method == 'sft'")["activation"])


def test_the_residual_shift_has_a_panel_for_every_cosine(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_residual_shift(tables["residual_shift"])
    assert len(panels(figure)) == 2 * 5
    length = panels(figure)[0].lines[0]
    rows = tables["residual_shift"].query("method == 'dinm' and position == 'prompt_last'")
    by_colour = {line.get_color(): line for line in panels(figure)[0].lines}
    np.testing.assert_allclose(by_colour[plotting.METHOD_COLOURS["dinm"]].get_ydata(), 100 * rows["relative_shift"])
    assert list(length.get_xdata()) == [1, 2, 3, 4, 5, 6]


def test_relapse_draws_defense_by_dose_and_the_controls_dashed(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["relapse"].sample(frac=1, random_state=0)
    figure = plot_relapse(table)
    assert [axes.get_title().split("\n")[0] for axes in panels(figure)][2] == "both"
    values = panels(figure)[1]
    dinm = next(line for line in values.lines if line.get_color() == plotting.METHOD_COLOURS["dinm"])
    rows = tables["relapse"].query("method == 'dinm' and treatment == 'values' and not control")
    np.testing.assert_allclose(dinm.get_ydata(), 100 * rows["defense"])
    assert [label.get_text() for label in values.get_xticklabels()] == ["0", "1", "2", "3", "6"]
    assert [label.get_text() for label in panels(figure)[3].get_xticklabels()] == ["0", "1", "5", "20"]
    assert [label.get_text() for label in panels(figure)[4].get_xticklabels()] == ["×1", "×2", "×5", "×10"]
    controls = [line for line in values.lines if line.get_gid() == "control"]
    assert {line.get_linestyle() for line in controls} == {"--"}
    assert len(controls) == len(TUNED)
    assert not [line for line in panels(figure)[2].lines if line.get_gid() == "control"]


def test_relapse_marks_the_groups_of_neurons_below(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_relapse(tables["relapse"].sample(frac=1, random_state=0))
    axes = panels(figure)[-1]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == [
        "toxic, less active",
        "anti-toxic, more active",
        "toxic, more active",
        "anti-toxic, less active",
    ]
    rows = tables["relapse"].query("method == 'sft'").set_index("treatment").loc[GROUPS]
    marks = {line.get_gid(): line for line in axes.lines if line.get_gid() != "control"}
    assert marks.keys() == {"start", "treated"}
    by_colour = {line.get_gid(): line for line in axes.lines if line.get_color() == plotting.METHOD_COLOURS["sft"]}
    treated, start = rows[(rows["dose"] > 0) & ~rows["control"]], rows[rows["dose"] == 0]
    np.testing.assert_allclose(by_colour["treated"].get_ydata(), 100 * treated["defense"])
    np.testing.assert_allclose(by_colour["start"].get_ydata(), 100 * start["defense"])
    np.testing.assert_allclose(np.round(by_colour["treated"].get_xdata()), range(4))
    controls = [line for line in axes.lines if line.get_gid() == "control"]
    assert len(controls) == len(TUNED)
    np.testing.assert_allclose(controls[0].get_ydata(), 100 * rows[rows["control"]]["defense"])
    ends = [100 * treated[f"defense_{end}"] for end in ("low", "high")]
    bars = [
        [tuple(part[:, 1]) for part in found.get_segments()]
        for found in axes.collections
        if to_hex(found.get_color()[0]) == plotting.METHOD_COLOURS["sft"].lower()
    ]
    np.testing.assert_allclose(bars, [list(zip(*ends, strict=True))])


def test_groups_alone_and_no_groups_are_drawn_too(tables: dict[str, pd.DataFrame]) -> None:
    of_groups = tables["relapse"]["treatment"].isin(GROUPS)
    assert len(panels(plot_relapse(tables["relapse"][of_groups]))) == 1
    assert len(panels(plot_relapse(tables["relapse"][~of_groups]))) == 5


def test_controls_are_averaged_over_draws(tables: dict[str, pd.DataFrame]) -> None:
    one = tables["relapse"].query("method == 'sft' and treatment == 'values'")
    other = one[one["control"]].assign(draw=2, defense=0.0)
    axes = panels(plot_relapse(pd.concat([one, other])))[0]
    control = next(line for line in axes.lines if line.get_gid() == "control")
    np.testing.assert_allclose(control.get_ydata(), 50 * one[one["control"]]["defense"])


def test_the_relapse_verdict_prints_both_verdicts(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["relapse_verdict"].assign(agrees=["yes", "no", "silent"])
    figure = plot_relapse_verdict(table)
    np.testing.assert_allclose(widths(panels(figure)[0]), 100 * table["by_activations"])
    np.testing.assert_allclose(intervals(panels(figure)[1]), 100 * table[["by_values_low", "by_values_high"]])
    assert "bypassed; decomposition:\nbypassed (agrees: no)" in texts(figure)


def test_the_certificate_shows_every_measure_at_every_depth(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_certificate(tables["certificate"])
    hidden, there = panels(figure)
    measures = [label.get_text() for label in hidden.get_yticklabels()]
    points = {line.get_label(): line.get_xdata() for line in hidden.lines if line.get_label().endswith("blocks")}
    assert list(points) == ["6 blocks", "12 blocks"]
    for found in points.values():
        by_measure = dict(zip(measures, found, strict=True))
        assert (by_measure["depth score"], by_measure["reduction of T"], by_measure["defense"]) == (1.0, 0.0, 0.5)
        assert np.isnan(by_measure["relapse, share by values"])
    assert {line.get_label() for line in there.lines} >= set(points)
    with pytest.raises(InputError, match="lacks the columns kind"):
        plot_certificate(tables["certificate"].drop(columns="kind"))


@pytest.mark.parametrize(
    "name", ["value_vectors", "neuron_groups", "neuron_curve", "stream", "toxic_activations", "residual_shift"]
)
def test_a_table_of_the_base_alone_is_an_input_error(name: str, tables: dict[str, pd.DataFrame]) -> None:
    with pytest.raises(InputError, match="has no tuned checkpoint"):
        plates.draw_figure(name, {name: tables[name].assign(method="base")})


@pytest.mark.parametrize(
    "name", [name for name, plate in plates.PLATES.items() if plate.optional and name not in ("diff", "certificate")]
)
def test_numbers_that_are_not_there_are_left_out(name: str, tables: dict[str, pd.DataFrame]) -> None:
    table = plates.PLATES[name].tables[0]
    kept = ("rank", "block", "edited", "neuron", "dose", "draw", "step", "share_of_neurons", "control")
    numbers = [column for column in tables[table].select_dtypes("number") if column not in kept]
    gaps = tables[table].assign(**dict.fromkeys(numbers, np.nan))
    figure = all_drawn(plates.draw_figure(name, tables | {table: gaps}))
    written = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert not [text for text in written if re.search(r"\bnan\b", text)]


@pytest.mark.parametrize("name", [name for name, plate in plates.PLATES.items() if plate.optional and name != "diff"])
def test_one_block_is_enough(name: str, tables: dict[str, pd.DataFrame]) -> None:
    table = tables[plates.PLATES[name].tables[0]]
    if "block" in table:
        table = table[table["block"].isna() | (table["block"] == 0)]
    all_drawn(plates.draw_figure(name, tables | {plates.PLATES[name].tables[0]: table}))


def test_probe_roc_states_its_area(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot_probe_roc(tables["probe_roc"])
    assert "0.960" in texts(figure)  # 0.1 * (0.7 + 0.95) / 2 + 0.9 * (0.95 + 1) / 2
    np.testing.assert_allclose(panels(figure)[0].lines[1].get_xydata(), tables["probe_roc"])


def test_a_method_has_the_same_colour_in_every_figure(tables: dict[str, pd.DataFrame]) -> None:
    for name in ("fig5_mechanism", "erase_or_bypass", "defense"):
        axes = panels(plates.draw_figure(name, tables))[0]
        assert plotting.METHOD_COLOURS["dpo"].lower() in {to_hex(bar.get_facecolor()) for bar in axes.patches}


def test_names_from_the_user_are_text_not_mathematics(rendered: Rendered) -> None:
    """What cannot be read as mathematics would have raised."""
    assert set(rendered.figures) == set(plates.PLATES)
    labels = panels(rendered.figures["defense"])[0].get_yticklabels()
    written = {"".join(label.get_text().split()) for label in labels}  # long names are broken into lines
    assert "".join(ODD[0].split()) in written


@pytest.mark.parametrize("name", plates.PLATES)
def test_one_checkpoint_is_enough(name: str) -> None:
    all_drawn(plates.draw_figure(name, make_tables(("mine",))))


@pytest.mark.parametrize("name", plates.PLATES)
def test_text_is_readable_at_column_width(name: str, rendered: Rendered) -> None:
    figure = rendered.figures[name]
    assert figure.get_figwidth() <= plotting.DOUBLE_COLUMN
    assert min(text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()) >= 7


@pytest.mark.parametrize("name", plates.PLATES)
def test_a_table_without_rows_or_columns_is_an_input_error(name: str, tables: dict[str, pd.DataFrame]) -> None:
    table = plates.PLATES[name].tables[0]
    with pytest.raises(InputError, match=rf"tables/{table}\.csv has no rows"):
        plates.draw_figure(name, tables | {table: tables[table].iloc[:0]})
    with pytest.raises(InputError, match=rf"tables/{table}\.csv lacks the columns"):
        plates.draw_figure(
            name, tables | {table: tables[table][["method"]] if "method" in tables[table] else pd.DataFrame()}
        )
    with pytest.raises(InputError, match=rf"figure {name} needs tables/{table}\.csv"):
        plates.draw_figure(name, {})


def test_an_unknown_figure_is_an_error_that_lists_the_figures(tables: dict[str, pd.DataFrame]) -> None:
    with pytest.raises(ValueError, match=r"must be one of .*fig5_mechanism.* got 'fig6'"):
        plates.draw_figure("fig6", tables)


def test_draw_all_writes_every_figure_and_leaves_matplotlib_as_it_was(rendered: Rendered) -> None:
    assert sorted(path.name for path in rendered.paths) == sorted(
        f"{n}.{kind}" for n in plates.PLATES for kind in ("pdf", "png")
    )
    assert sorted(rendered.paths) == sorted((rendered.run / "figures").glob("[!.]*"))
    before, after = rendered.settings
    assert after == before
    assert "matplotlib.pyplot" not in sys.modules or not matplotlib.pyplot.get_fignums()


def test_the_same_tables_give_the_same_bytes(rendered: Rendered, tmp_path: Path) -> None:
    again = plates.draw_figure("erase_or_bypass", plates.read_tables(rendered.run))
    for path in plates.save_figure(again, tmp_path, "erase_or_bypass"):
        assert path.read_bytes() == (rendered.run / "figures" / path.name).read_bytes()


@pytest.mark.usefixtures("quick_files")
def test_a_plain_comparison_draws_what_it_has_and_notes_the_rest(
    tmp_path: Path, tables: dict[str, pd.DataFrame], caplog: pytest.LogCaptureFixture
) -> None:
    few = {name: tables[name] for name in ("mechanism", "decomposition", "local_verdict", "validity")}
    run = make_run(tmp_path / "run", few)
    with caplog.at_level(logging.INFO, logger="mechinterp"):
        paths = plates.draw_all(run, tmp_path / "elsewhere")
    drawn = {path.stem for path in paths}
    assert drawn == {"erase_or_bypass", "blocks_prompt_last", "blocks_response", "fig5_mechanism"}
    assert {path.parent for path in paths} == {tmp_path / "elsewhere"}
    assert "figure defense not drawn: figure defense needs tables/defense.csv" in caplog.text


def test_a_damaged_table_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "run")
    (run / "tables" / "defense.csv").write_bytes(b"\xff\xfe\x00")
    (run / "tables" / "judge.csv").write_text("")
    read = plates.read_tables(run)
    assert "defense" not in read
    assert "judge" not in read
    assert "defense.csv: left out, it cannot be read as a table" in caplog.text


def test_a_checkpoint_may_be_called_none(tmp_path: Path) -> None:
    read = plates.read_tables(make_run(tmp_path / "run", make_tables(("None", "007"))))
    assert list(read["mechanism"]["method"]) == ["None", "007"]


def test_a_folder_without_tables_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tables"):
        plates.draw_all(tmp_path)
    with pytest.raises(InputError, match="no such run folder"):
        plates.draw_all(tmp_path / "absent")


@pytest.mark.usefixtures("quick_files")
@pytest.mark.parametrize("name", ["erase_or_bypass", "origins_blocks", "probe_roc"])
def test_the_script_draws_the_plate_of_a_name(
    name: str, tables: dict[str, pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", {table: tables[table] for table in plates.PLATES[name].tables})
    assert run_script(DRAW, name, run, "--out", tmp_path / "out") == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [tmp_path / "out" / f"{name}.{kind}" for kind in ("png", "pdf")]
    assert all(path.is_file() for path in printed)


def test_the_script_lists_every_plate_with_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(DRAW, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(plates.PLATES)
    assert all(plate.title in line for plate, line in zip(plates.PLATES.values(), lines, strict=True))


def test_the_gallery_has_every_plate_as_it_is_registered(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(DRAW, "--gallery") == 0
    printed = capsys.readouterr().out
    assert (DRAW.parent / "README.md").read_text(encoding="utf-8").endswith(f"\n\n{printed}")
    assert all(f"### {plate.title}\n" in printed and plate.caption in printed for plate in plates.PLATES.values())


def test_the_script_reports_bad_input_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(DRAW, "defense", tmp_path) == 2
    assert re.search(r"error: .*has no tables", capsys.readouterr().err)
    assert run_script(DRAW, "fig6", tmp_path) == 2
    assert re.search(r"error: .*invalid choice: 'fig6'.*fig5_mechanism", capsys.readouterr().err)


@pytest.mark.parametrize("plate", plates.PLATES.values(), ids=lambda plate: plate.name)
def test_a_plate_is_registered_by_its_name_and_says_what_it_shows(plate: Plate) -> None:
    assert plates.PLATES[plate.name] is plate
    assert plate.tables
    assert plate.title
    assert not plate.title.endswith(".")
    assert min(len(plate.caption), len(plate.alt)) > 40
    assert plate.caption.endswith(".")
    assert plate.alt.endswith(".")
