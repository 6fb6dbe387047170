"""The figures of a run, drawn from its saved tables alone: no model, no GPU.

`plot_*` are pure functions from tables to a matplotlib `Figure`; `plates` says which tables each needs and saves them.
A method has one colour in every figure; intervals are 95% and drawn as the tables give them. A figure shows what was
measured and decides nothing: the verdicts it prints are those of `verdict.csv`.
"""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap, LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mechinterp.errors import InputError

SINGLE_COLUMN, DOUBLE_COLUMN = 3.3, 7.0  # inches, as two-column papers set them
DIRECTIONS = {"probe": "probe direction", "answer": "answer direction", "class_means": "class means direction"}
POSITIONS = {"prompt_last": "last prompt token", "response": "unsafe response"}
_PARTS = {"erasure": "-", "bypass": "--"}
DISTANCES = ("released", "residual", "pooled", "relative")
DEFENSE_RATES = {
    "ds": "DS",
    "dg_only_q": "DG only question",
    "dg_other_a": "DG other attack",
    "dg_other_q": "DG other question",
    "dg_other_aq": "DG both other",
}
METHOD_LABELS = {
    "vanilla": "Vanilla",
    "base": "Base",
    "suffix": "Suffix only",
    "sft": "SFT",
    "dpo": "DPO",
    "dinm": "DINM",
}
METHOD_COLOURS = {
    "vanilla": "#555555",
    "base": "#555555",
    "suffix": "#aaaaaa",
    "sft": "#0072B2",
    "dpo": "#E69F00",
    "dinm": "#009E73",
}
# The rest of Okabe and Ito's colours that read on white, then three of Tol's.
OTHER_COLOURS = ("#D55E00", "#CC79A7", "#56B4E9", "#332288", "#882255", "#999933")
LEVELS = {0: ("low", "#d0d0d0"), 1: ("middle", "#fbb4d9"), 2: ("high", "#c51b8a")}  # thirds of the points
STYLE = {
    "axes.axisbelow": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a checkpoint may be called a$b$
    "xtick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 8,
    "ytick.major.width": 0.6,
}
_INK, _FAINT, _OFF = "#222222", "#777777", "#f1f1f1"


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """Give every method its colour: fixed for the paper's methods, stable for any other name.

    Args:
        methods: names, repeated or not.

    Returns:
        A hex colour per name. Another name's colour follows from the name alone, unless two of the names given would
        share one; then the later in the alphabet takes the next free colour. Colours repeat past six other names.
    """
    colours: dict[str, str] = {}
    for method in sorted(set(methods)):
        start = zlib.crc32(method.encode()) % len(OTHER_COLOURS)
        candidates = OTHER_COLOURS[start:] + OTHER_COLOURS[:start]
        free = (colour for colour in candidates if colour not in colours.values())
        colours[method] = METHOD_COLOURS.get(method) or next(free, candidates[0])
    return colours


def method_label(method: str) -> str:
    """Return a method's name as figures and the report print it."""
    return METHOD_LABELS.get(method, method)


def position_label(position: str) -> str:
    """Return a position's name as figures and the report print it."""
    kind, _, rest = position.partition(":")
    if kind != "generated":
        return POSITIONS.get(position, position)
    number, _, text = rest.partition(":")
    return f"{number} greedy tokens, {'its own' if text == 'on_policy' else 'the base’s'}"


def layer_label(block: float) -> str:
    """Return both names of a block: the paper counts layers from 1, the code blocks from 0."""
    return f"layer {block + 1:.0f} (block {block:.0f})"


def p_value_label(p: float) -> str:
    """Return a p-value as figures and the report print it; nothing for no value."""
    if not np.isfinite(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def plot_mechanism(mechanism: pd.DataFrame) -> Figure:
    """Draw the paper's Figure 5: how far the region's toxicity fell, and how far its activations moved.

    A rate marked † is ill-conditioned: the base toxicity it is relative to cannot be told from zero. Where an interval
    is far wider than the bars it is cut at the panel's edge and ends in an arrow.

    Args:
        mechanism: `mechanism.csv`, a row per tuned checkpoint.

    Returns:
        Two panels of horizontal bars in per cent, with 95% intervals.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    rates = ("toxicity_reduction_rate", "activation_shift_rate")
    bounds = [f"{rate}_{end}" for rate in rates for end in ("low", "high")]
    _require(mechanism, "mechanism", ("method", "layer", *rates, *bounds, "null_p", "ill_conditioned"))
    flagged = _truths(mechanism["ill_conditioned"])
    one_layer = mechanism["layer"].nunique() == 1
    with matplotlib.rc_context(STYLE):
        figure = _figure(DOUBLE_COLUMN, 1.15 + 0.36 * len(mechanism))
        reduction_axes, shift_axes = figure.subplots(1, 2, sharey=True)
        _draw_rates(reduction_axes, mechanism, rates[0], hatched=flagged)
        _draw_rates(shift_axes, mechanism, rates[1])
        labels = [
            method_label(method) + ("" if one_layer else f" {layer_label(block)}")
            for method, block in zip(mechanism["method"], mechanism["layer"], strict=True)
        ]
        _label_rows(reduction_axes, labels)
        region = f" of {layer_label(mechanism['layer'].iloc[0])}" if one_layer else ""
        reduction_axes.set_xlabel(f"toxicity reduction rate{region} (%)")
        shift_axes.set_xlabel("activation shift rate (%)")
        notes = [
            f"{_percent(rate)}{'†' if flag else ''}   {p_value_label(p)}"
            for rate, flag, p in zip(mechanism[rates[0]], flagged, mechanism["null_p"], strict=True)
        ]
        _annotate_rows(reduction_axes, notes)
        _annotate_rows(shift_axes, [_percent(rate, signed=False) for rate in mechanism[rates[1]]])
        legend = "p: against the same change along random directions; bars: 95% intervals"
        if any(flagged):
            legend += "\n† hatched: ill-conditioned, the base toxicity cannot be told from zero"
        figure.supxlabel(legend, fontsize=7, color=_FAINT)
    return figure


def plot_middle_shift(middle_shift: pd.DataFrame) -> Figure:
    """Draw the paper's Figure 8: where each input's middle stream lies before and after tuning.

    Args:
        middle_shift: `middle_shift.csv`, for each method a row per input and checkpoint (`base` and the method).

    Returns:
        One panel per method; a dotted line joins the two points of an input.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("method", "checkpoint", "input", "shift_component", "first_component", "toxic_activation_level")
    _require(middle_shift, "middle_shift", columns)
    methods = list(dict.fromkeys(middle_shift["method"]))
    n_columns = min(3, len(methods))
    n_rows = -(-len(methods) // n_columns)
    with matplotlib.rc_context(STYLE):
        figure = _figure(max(SINGLE_COLUMN, DOUBLE_COLUMN * n_columns / 3), 0.65 + 2.1 * n_rows)
        grid = figure.subplots(n_rows, n_columns, squeeze=False).flat
        for axes, method in zip(grid, methods, strict=False):
            _draw_shift(axes, middle_shift[middle_shift["method"] == method], method)
        for axes in figure.axes[len(methods) :]:
            axes.set_axis_off()
        figure.supxlabel("shift component (standardised)", fontsize=8)
        figure.supylabel("first principal component (standardised)", fontsize=8)
        markers = [_marker("base", "o", "white"), _marker("tuned", "^", "white")]
        levels = [_marker(f"{name} toxic activation", "s", colour) for name, colour in LEVELS.values()]
        figure.legend(handles=[*markers, *levels], loc="outside upper center", ncols=5, handletextpad=0.1)
    return figure


def plot_toxic_layer(toxic_layer: pd.DataFrame) -> Figure:
    """Draw how often each layer is the toxic one, under each of the four distances.

    Args:
        toxic_layer: `toxic_layer.csv`, a count of instances per distance and block.

    Returns:
        One histogram per distance, on shared axes.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    _require(toxic_layer, "toxic_layer", ("distance", "block", "count"))
    distances = _ordered(toxic_layer["distance"], DISTANCES)
    with matplotlib.rc_context(STYLE):
        figure = _figure(DOUBLE_COLUMN, 1.9)
        panels = figure.subplots(1, len(distances), sharex=True, sharey=True, squeeze=False)[0]
        for axes, distance in zip(panels, distances, strict=True):
            rows = toxic_layer[toxic_layer["distance"] == distance]
            axes.bar(rows["block"] + 1, rows["count"], width=0.8, color="#4c6a8a")
            axes.set_title(distance)
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        panels[0].set_xlim(0.3, toxic_layer["block"].max() + 1.7)
        panels[0].set_ylabel("instances")
        figure.supxlabel("toxic layer (= block + 1)", fontsize=8)
    return figure


def plot_erase_or_bypass(decomposition: pd.DataFrame, verdict: pd.DataFrame) -> Figure:
    """Draw the change of the toxic write, split into erasure and bypass, per direction, position and method.

    The two parts are signed: parts of one sign follow each other, parts of opposite sign start from zero; the diamond
    is their sum, with its 95% interval where the verdicts have one. A grey panel is a direction not in play at that
    position. The term of MLP output biases counts as erasure.

    Args:
        decomposition: `decomposition.csv`, a row per method, direction, position and block.
        verdict: `verdict.csv`, whose share, interval and verdict are printed above each bar.

    Returns:
        A row of panels per position, a column per direction, each with its own scale.

    Raises:
        InputError: a table is empty or lacks a column.
    """

    _require(decomposition, "decomposition", ("method", "direction", "position", "block", "erasure", "bypass"))
    shares = ("erasure_share", "erasure_share_low", "erasure_share_high")
    _require(verdict, "verdict", ("method", "direction", "position", *shares, "verdict"))
    totals = _with_bias(decomposition).groupby(["direction", "position", "method"])[["erasure", "bypass"]].sum()
    methods = list(dict.fromkeys(decomposition["method"]))
    directions = _ordered(decomposition["direction"], DIRECTIONS)
    positions = _ordered(decomposition["position"], POSITIONS)
    with matplotlib.rc_context(STYLE):
        size = (
            max(SINGLE_COLUMN, DOUBLE_COLUMN * len(directions) / 3),
            0.7 + (0.55 + 0.42 * len(methods)) * len(positions),
        )
        figure = _figure(*size)
        grid = figure.subplots(len(positions), len(directions), sharey=True, squeeze=False)
        for row, position in enumerate(positions):
            for column, direction in enumerate(directions):
                axes = grid[row, column]
                here = verdict[(verdict["direction"] == direction) & (verdict["position"] == position)]
                parts = totals.loc[[key for key in totals.index if key[:2] == (direction, position)]]
                _draw_parts(axes, parts.droplevel([0, 1]).reindex(methods), here)
                axes.set_title(f"{DIRECTIONS.get(direction, direction)}\n{position_label(position)}")
        _label_rows(grid[0, 0], [method_label(method) for method in methods])
        note = "above a bar: verdict and erasure share with its 95% interval; grey: the direction is not in play"
        figure.supxlabel(f"change of the toxic write, base to tuned, summed over blocks\n{note}", fontsize=7)
        handles = [
            Patch(facecolor=_FAINT, edgecolor=_INK, linewidth=0.5, label="erasure: weights changed"),
            Patch(facecolor="white", edgecolor=_FAINT, hatch="////", label="bypass: inflow changed"),
            _marker("sum, with its 95% interval" if "change_low" in verdict else "sum", "D", _INK),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def plot_blocks(decomposition: pd.DataFrame, *, position: str) -> Figure:
    """Draw where in depth the toxic write changed, by erasure and by bypass.

    Args:
        decomposition: `decomposition.csv`.
        position: the position to draw, one of the table's.

    Returns:
        A row of two heat maps per direction, methods by layers, on one colour scale that is symmetric about zero. The
        scales of the directions differ, as their units do.

    Raises:
        InputError: the table is empty, lacks a column, or has no such position.
    """
    import seaborn as sns  # seconds, and only heat maps want it

    _require(decomposition, "decomposition", ("method", "direction", "position", "block", "erasure", "bypass"))
    rows = _with_bias(decomposition[decomposition["position"] == position])
    if rows.empty:
        raise InputError(f"tables/decomposition.csv has no position {position!r}, it has {_names(decomposition)}")
    methods = list(dict.fromkeys(rows["method"]))
    directions = _ordered(rows["direction"], DIRECTIONS)
    with matplotlib.rc_context(STYLE):
        figure = _figure(DOUBLE_COLUMN, 0.6 + (0.4 + 0.26 * len(methods)) * len(directions))
        grid = figure.subplots(len(directions), 2, sharex=True, sharey=True, squeeze=False)
        for panels, direction in zip(grid, directions, strict=True):
            here = rows[rows["direction"] == direction]
            limit = np.nanmax(np.abs(here[["erasure", "bypass"]].to_numpy(float))) or 1.0
            for axes, part in zip(panels, ("erasure", "bypass"), strict=True):
                cells = here.pivot_table(index="method", columns="block", values=part).reindex(methods)
                cells = cells.rename(index=method_label, columns=lambda block: block + 1)
                sns.heatmap(cells, ax=axes, cmap="RdBu_r", vmin=-limit, vmax=limit, cbar=False, linewidths=0.4)
                axes.set(title=f"{DIRECTIONS.get(direction, direction)}: {part}", xlabel="", ylabel="")
                axes.tick_params(labelrotation=0, left=part == "erasure")
            figure.colorbar(panels[0].collections[0], ax=list(panels), pad=0.01, aspect=12).ax.tick_params(labelsize=7)
        figure.supxlabel(f"layer (= block + 1); change of the write at the {position_label(position)}", fontsize=8)
    return figure


def plot_defense(defense: pd.DataFrame) -> Figure:
    """Draw how often each checkpoint answers safely, on the five kinds of prompt.

    Args:
        defense: `defense.csv`, a row per checkpoint, rates between 0 and 1; `vanilla` is the reference.

    Returns:
        One panel per rate, in per cent with 95% intervals; the dashed line is the vanilla model; a hatched bar had the
        suffix prompt appended to every query.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    bounds = [f"{rate}_{end}" for rate in DEFENSE_RATES for end in ("low", "high")]
    _require(defense, "defense", ("method", *DEFENSE_RATES, *bounds))
    suffixed = _truths(defense["suffix"]) if "suffix" in defense else [False] * len(defense)
    with matplotlib.rc_context(STYLE):
        figure = _figure(DOUBLE_COLUMN, 0.95 + 0.3 * len(defense))
        panels = figure.subplots(1, len(DEFENSE_RATES), sharex=True, sharey=True)
        for axes, (rate, title) in zip(panels, DEFENSE_RATES.items(), strict=True):
            _draw_bars(axes, defense, rate, hatched=suffixed)
            for vanilla in defense.loc[defense["method"] == "vanilla", rate].head(1):
                axes.axvline(100 * vanilla, color=METHOD_COLOURS["vanilla"], linestyle="--", linewidth=0.8)
            axes.set_title(title)
        panels[0].set_xlim(0, 102)
        panels[0].set_xticks((0, 50, 100))
        names = [
            method_label(method) + (" + suffix" if suffix and method != "suffix" else "")
            for method, suffix in zip(defense["method"], suffixed, strict=True)
        ]
        _label_rows(panels[0], names)
        figure.supxlabel("responses judged safe (%), with 95% intervals; dashed: vanilla", fontsize=8)
    return figure


def plot_probe_roc(probe_roc: pd.DataFrame) -> Figure:
    """Draw the probe's receiver operating characteristic on its held-out comments.

    Args:
        probe_roc: `probe_roc.csv`, the curve's points in order.

    Returns:
        One square panel; the diagonal is chance.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    _require(probe_roc, "probe_roc", ("false_positive_rate", "true_positive_rate"))
    false_positives, true_positives = probe_roc["false_positive_rate"], probe_roc["true_positive_rate"]
    area = float(np.trapezoid(true_positives, false_positives))
    with matplotlib.rc_context(STYLE):
        figure = _figure(SINGLE_COLUMN, 3.1)
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), linestyle="--", linewidth=0.8, color=_FAINT)
        axes.plot(false_positives, true_positives, color="#0072B2", linewidth=1.5)
        axes.text(0.97, 0.06, f"area under the curve {area:.3f}", ha="right", fontsize=8)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel("clean comments called toxic (rate)")
        axes.set_ylabel("toxic comments called toxic (rate)")
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def plot_trajectory(trajectory: pd.DataFrame) -> Figure:
    """Draw a training run over its steps: toxicity and shift of the region above, erasure and bypass below.

    Step 0 is the base. Erasure is solid, bypass dashed, both summed over blocks, with their 95% intervals as bands.

    Args:
        trajectory: `trajectory.csv`, a row per step, quantity, direction and position.

    Returns:
        Two panels of the region, then a row per position and a column per direction.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("trajectory", "step", "quantity", "direction", "position", "value", "low", "high")
    _require(trajectory, "trajectory", columns)
    parts = trajectory[trajectory["quantity"].isin(["erasure", "bypass"])]
    directions, positions = _ordered(parts["direction"], DIRECTIONS), _ordered(parts["position"], POSITIONS)
    colours = method_colours(trajectory["trajectory"].astype(str))
    with matplotlib.rc_context(STYLE):
        width = max(2, len(directions))
        figure = _figure(max(SINGLE_COLUMN, DOUBLE_COLUMN * width / 3), 0.4 + 1.55 * (1 + len(positions)))
        grid = figure.subplots(1 + len(positions), width, squeeze=False)
        for axes in grid.flat[2:width]:
            axes.set_axis_off()
        for axes, quantity, label in (
            (grid[0, 0], "toxicity", "toxicity T of the region"),
            (grid[0, 1], "activation_shift_rate", "activation shift rate"),
        ):
            _draw_over_steps(axes, trajectory[trajectory["quantity"] == quantity], colours, "-")
            axes.set_title(label)
        for row, position in enumerate(positions, 1):
            for axes, direction in zip(grid[row], directions, strict=False):
                here = parts[(parts["direction"] == direction) & (parts["position"] == position)]
                for quantity, line in _PARTS.items():
                    _draw_over_steps(axes, here[here["quantity"] == quantity], colours, line)
                axes.axhline(0, color=_INK, linewidth=0.6)
                axes.set_title(f"{DIRECTIONS.get(direction, direction)}\n{position_label(position)}")
            grid[row, 0].set_ylabel("change of write")
        for axes in grid.flat:
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        lines = [Line2D([], [], color=_INK, linestyle=line, label=name) for name, line in _PARTS.items()]
        lines += [Line2D([], [], color=colour, label=_short(name)) for name, colour in colours.items()]
        figure.legend(handles=lines, loc="outside upper center", ncols=min(4, len(lines)))
        figure.supxlabel("training step (0 is the base)", fontsize=8)
    return figure


def plot_difference(diff_blocks: pd.DataFrame) -> Figure:
    """Draw where two checkpoints differ, and by how much for the size of the weights there.

    Args:
        diff_blocks: `diff_blocks.csv`, a row per block and component.

    Returns:
        A heat map, components by layers, of the norm of the change in per cent of A's norm on a logarithmic scale, and
        beside it what lies outside the blocks. Unchanged is grey; a cross marks tensors without a counterpart.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    _require(diff_blocks, "diff_blocks", ("block", "component", "relative_change", "unpaired"))
    relative = 100 * diff_blocks["relative_change"].to_numpy(float)
    positive = relative[np.isfinite(relative) & (relative > 0)]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    centre = np.sqrt(low * high)
    # At least a decade, so that small differences do not look like large ones.
    scale = LogNorm(min(low, centre / np.sqrt(10)), max(high, centre * np.sqrt(10)), clip=True)
    inside, outside = (diff_blocks[where] for where in (diff_blocks["block"].notna(), diff_blocks["block"].isna()))
    blocks = sorted(int(block) for block in inside["block"].unique())
    components = list(dict.fromkeys(inside["component"]))
    n_rows = max(len(components), len(outside), 1)
    with matplotlib.rc_context(STYLE):
        figure = _figure(DOUBLE_COLUMN if len(blocks) > 16 else SINGLE_COLUMN, 0.95 + 0.17 * n_rows)
        ratios = (max(len(blocks), 1), max(1.0, len(blocks) / 12))
        main, beside = figure.subplots(1, 2, width_ratios=ratios)
        places = [
            (components.index(component), blocks.index(int(block)))
            for block, component in zip(inside["block"], inside["component"], strict=True)
        ]
        _draw_changes(main, (n_rows, max(len(blocks), 1)), places, inside, scale)
        mesh = _draw_changes(beside, (n_rows, 1), [(row, 0) for row in range(len(outside))], outside, scale)
        main.set_yticks(np.arange(len(components)) + 0.5, [_short(name) for name in components])
        main.set_xticks(np.arange(len(blocks)) + 0.5, [str(block + 1) for block in blocks])
        if len(blocks) > 16:
            main.set_xticks(main.get_xticks()[3::4], [str(block + 1) for block in blocks[3::4]])
        main.set_xlabel("layer (= block + 1)")
        beside.set_xticks([])
        beside.yaxis.tick_right()
        beside.set_yticks(np.arange(len(outside)) + 0.5, [_short(name) for name in outside["component"]])
        bar = figure.colorbar(mesh, ax=[main, beside], location="top", aspect=40, pad=0.02)
        bar.set_label("norm of the change, % of the norm of A", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.xaxis.set_minor_formatter(NullFormatter())
        note = "grey: unchanged" + ("; ×: no counterpart" if diff_blocks["unpaired"].sum() else "")
        figure.supxlabel(note, fontsize=7)
    return figure


def _draw_changes(
    axes: Axes, shape: tuple[int, int], places: list[tuple[int, int]], rows: pd.DataFrame, scale: LogNorm
) -> QuadMesh:
    """Colour the cells at `places` by relative change; where there is no row the paper stays white."""
    cells, unchanged = np.full(shape, np.nan), np.full(shape, np.nan)
    for place, relative, unpaired in zip(places, rows["relative_change"], rows["unpaired"], strict=True):
        if relative == 0:
            unchanged[place] = 0.0
        else:
            cells[place] = 100 * relative
        if unpaired:
            axes.text(place[1] + 0.5, place[0] + 0.5, "×", ha="center", va="center", fontsize=7, color="#D55E00")
    style: dict[str, Any] = {"edgecolors": "white", "linewidth": 0.5}
    axes.pcolormesh(unchanged, cmap=ListedColormap(["#dddddd"]), **style)
    cells[np.isposinf(cells)] = scale.vmax  # nothing there before
    mesh = axes.pcolormesh(np.ma.masked_invalid(cells), norm=scale, **style)
    mesh.set_cmap("viridis_r")
    axes.set_ylim(shape[0], 0)
    axes.set_frame_on(False)
    axes.tick_params(length=0)
    return mesh


def _draw_over_steps(axes: Axes, rows: pd.DataFrame, colours: dict[str, str], line: str) -> None:
    for name, run in rows.groupby(rows["trajectory"].astype(str)):
        run = run.sort_values("step")
        steps, value, low, high = (_finite(run[column]) for column in ("step", "value", "low", "high"))
        axes.plot(steps, value, color=colours[str(name)], linestyle=line, marker="o", markersize=2.5)
        axes.fill_between(steps, low, high, color=colours[str(name)], alpha=0.15, linewidth=0, gid="interval")


def _require(table: pd.DataFrame, name: str, columns: Iterable[str]) -> None:
    if missing := [column for column in columns if column not in table]:
        raise InputError(f"tables/{name}.csv lacks the columns {', '.join(missing)}; make the table again")
    if table.empty:
        raise InputError(f"tables/{name}.csv has no rows; make the table again")


def _truths(column: pd.Series) -> list[bool]:
    return [str(value).lower() in ("true", "1", "1.0") for value in column]


def _finite(column: pd.Series) -> np.ndarray:
    values = column.to_numpy(float)
    return np.where(np.isfinite(values), values, np.nan)


def _ordered(column: pd.Series, known: Iterable[str]) -> list[str]:
    present = set(column)
    first = [name for name in known if name in present]
    return first + sorted(present - set(first))


def _names(table: pd.DataFrame) -> str:
    return ", ".join(_ordered(table["position"], POSITIONS)) or "none"


def _with_bias(decomposition: pd.DataFrame) -> pd.DataFrame:
    if "bias" not in decomposition:
        return decomposition
    return decomposition.assign(erasure=decomposition["erasure"] + decomposition["bias"].fillna(0))


def _percent(rate: float, *, signed: bool = True) -> str:
    if not np.isfinite(rate):
        return "no value"
    if rate == 0:
        return "0% exactly"
    text = f"{100 * rate:+.3g}%" if signed else f"{100 * rate:.3g}%"
    return text.replace("-", "−")


def _tint(colour: str, strength: float) -> tuple[float, ...]:
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def _marker(label: str, marker: str, colour: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, markersize=5, color=colour, mec=_INK, mew=0.5, label=label)


def _short(label: str) -> str:
    # The middle goes: checkpoints of one series share their beginning.
    return label if len(label) <= 34 else f"{label[:16]}…{label[-17:]}"


def _label_rows(axes: Axes, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), [textwrap.fill(_short(label), 18) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)


def _annotate_rows(axes: Axes, notes: list[str]) -> None:
    for row, note in enumerate(notes):
        axes.text(1.02, row, note, transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=_INK)


def _draw_bars(axes: Axes, table: pd.DataFrame, rate: str, *, hatched: list[bool]) -> None:
    """Draw a horizontal bar in per cent per row of the table, with its interval."""
    colours = method_colours(table["method"])
    values, low, high = (100 * _finite(table[name]) for name in (rate, f"{rate}_low", f"{rate}_high"))
    rows = np.arange(len(table))
    bars = axes.barh(rows, values, height=0.6, color=[colours[method] for method in table["method"]])
    for bar, method, hatch in zip(bars, table["method"], hatched, strict=True):
        if hatch:
            bar.set(facecolor=_tint(colours[method], 0.35), edgecolor=colours[method], hatch="////")
    for row, left, right in zip(rows, low, high, strict=True):
        axes.plot((left, right), (row, row), color=_INK, linewidth=1.0, marker="|", markersize=4, gid="interval")


def _draw_rates(axes: Axes, mechanism: pd.DataFrame, rate: str, *, hatched: list[bool] | None = None) -> None:
    _draw_bars(axes, mechanism, rate, hatched=hatched or [False] * len(mechanism))
    axes.axvline(0, color=_INK, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    largest = 100 * np.nanmax(np.abs(_finite(mechanism[rate])), initial=0)
    bounds = 100 * mechanism[[f"{rate}_low", f"{rate}_high"]].to_numpy(float)
    edge = 4 * largest
    if edge == 0 or not (np.abs(bounds) > edge).any():
        return
    axes.set_xlim(-edge, edge)
    for row, (low, high) in enumerate(bounds):
        for end in (low, high):
            if abs(end) > edge:
                marker = ">" if end > 0 else "<"
                axes.plot(np.sign(end) * edge, row, marker=marker, markersize=4, color=_INK, clip_on=False)


def _draw_shift(axes: Axes, rows: pd.DataFrame, method: str) -> None:
    base = rows[rows["checkpoint"] == "base"].set_index("input")
    tuned = rows[rows["checkpoint"] != "base"].set_index("input")
    coordinates = ["shift_component", "first_component"]
    for name in base.index.intersection(tuned.index):
        start, end = base.loc[name, coordinates], tuned.loc[name, coordinates]
        axes.plot(
            (start.iloc[0], end.iloc[0]), (start.iloc[1], end.iloc[1]), ":", color="#999999", linewidth=0.7, zorder=1
        )
    for points, marker, size in ((base, "o", 28), (tuned, "^", 14)):
        colours = [LEVELS[int(level)][1] for level in points["toxic_activation_level"]]
        x, y = points["shift_component"], points["first_component"]
        axes.scatter(x, y, s=size, c=colours, marker=marker, edgecolors=_INK, linewidths=0.5, zorder=2)
    axes.set_title(_short(method_label(method)))
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _draw_parts(axes: Axes, parts: pd.DataFrame, verdict: pd.DataFrame) -> None:
    """Draw a row per method: erasure solid, bypass hatched, their sum a diamond, the verdict above them."""
    colours = method_colours(parts.index)
    in_play = "in_play" not in verdict or any(_truths(verdict["in_play"]))
    if not in_play:
        axes.set_facecolor(_OFF)
    for row, (method, erasure, bypass) in enumerate(parts.itertuples()):
        start = erasure if erasure * bypass > 0 else 0.0
        style: dict[str, Any] = {"height": 0.32, "edgecolor": colours[method], "linewidth": 0.6}
        axes.barh(row + 0.12, erasure, color=colours[method], **style)
        axes.barh(row + 0.12, bypass, left=start, color=_tint(colours[method], 0.15), hatch="////", **style)
        axes.plot(erasure + bypass, row + 0.12, marker="D", markersize=3.5, color=_INK)
        for verdict_row in verdict[verdict["method"] == method].head(1).itertuples():
            note = _verdict_note(verdict_row, in_play=in_play)
            if "change_low" in verdict:
                ends = (verdict_row.change_low, verdict_row.change_high)
                axes.plot(ends, (row + 0.12,) * 2, color=_INK, linewidth=1.0, marker="|", markersize=4, gid="interval")
            axes.text(0.01, row - 0.12, note, transform=axes.get_yaxis_transform(), va="bottom", fontsize=7, color=_INK)
    axes.axvline(0, color=_INK, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.margins(x=0.08)


def _verdict_note(row: Any, *, in_play: bool) -> str:
    if not in_play:
        return "not in play"
    if not np.isfinite(row.erasure_share):
        return str(row.verdict)
    return f"{row.verdict} {row.erasure_share:.2f} [{row.erasure_share_low:.2f}, {row.erasure_share_high:.2f}]"
