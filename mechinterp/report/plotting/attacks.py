"""Does the unsafe behaviour come back under attack?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mechinterp.audit.attacks.registry import ATTACKS as KNOWN
from mechinterp.audit.attacks.results import PLAIN
from mechinterp.audit.tables.reading import where
from mechinterp.audit.tables.verdicts import degenerate_share
from mechinterp.measures.intervals import ends, with_ends
from mechinterp.measures.verdict import is_broken
from mechinterp.report.plotting.drawing import (
    draw_curve,
    finite,
    label_rows,
    new_figure,
    only,
    ordered,
    percent,
    require,
    short,
    wide,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, FAINT, INK, STYLE, method_colours, method_label

_COLUMNS = ("attack", "setting", "dose", "method", "role", "quantity", *with_ends("value"), *with_ends("recovery"))
_BESIDE = 4  # attacks in a row of panels
_LINES = {"base": "--", "never": ":", "tuned": "-"}


def plot_attacks(attacks: pd.DataFrame) -> Figure:
    """Draw the unsafe rate, and how much of the log odds came back, against the dose of every attack.

    Args:
        attacks: `attacks.csv`.

    Returns:
        A column of panels for each attack: above the unsafe rate, below the recovery of the log odds where the attack
        acts on them, with 95% intervals as bands. Of an attack's settings at a dose the one with most of it; leftmost
        the checkpoints as they are. The base is dashed, one that never learnt dotted.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(attacks, "attacks", _COLUMNS)
    rows, names = _counted(attacks)
    rows = rows[[_on_curve(*each) for each in zip(rows["attack"], rows["setting"], strict=True)]]
    rates, odds = only(rows, "attacks", "quantity", "unsafe"), where(rows, quantity="log_odds")
    roles = dict(zip(rows["method"], rows["role"], strict=True))
    colours = {**method_colours(roles), **{name: FAINT for name, role in roles.items() if role != "tuned"}}
    recovered = [*finite(100 * odds["recovery"]), 0.0, 100.0]
    low, high = (float(end) for end in np.nanpercentile(recovered, [2, 98]))
    with matplotlib.rc_context(STYLE):
        bands = [names[start : start + _BESIDE] for start in range(0, len(names), _BESIDE)]
        figure = new_figure(wide(min(len(names), 3)), 0.3 + 3.6 * len(bands))
        parts = figure.subfigures(len(bands), 1, squeeze=False)[:, 0]
        for part, band in zip(parts, bands, strict=True):
            grid = part.subplots(2, min(len(names), _BESIDE), squeeze=False, sharex="col", sharey="row")
            for spare in grid[:, len(band) :].flat:
                spare.set_visible(False)
            for (upper, lower), name in zip(grid.T, band, strict=False):
                own = where(rates, attack=name)
                _draw(upper, own, "value", roles, colours, plain=where(rates, attack=PLAIN))
                _draw(lower, where(odds, attack=name), "recovery", roles, colours, like=own)
                _finish(upper, lower, name, _places(own), bool(len(where(odds, attack=name))))
            grid[0, 0].set_ylabel("unsafe answers (%)")
            grid[0, 0].set_ylim(-3, 103)
            grid[1, 0].set_ylabel("log odds recovered (%)")
            grid[1, 0].set_ylim(max(low, -100) - 8, min(high, 200) + 8)
        handles = [
            Line2D([], [], color=colours[name], linestyle=_LINES[role], label=_named(name, role))
            for name, role in roles.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)))
    return figure


def _draw(
    axes: Axes,
    rows: pd.DataFrame,
    value: str,
    roles: Mapping[str, str],
    colours: Mapping[str, str],
    *,
    plain: pd.DataFrame | None = None,
    like: pd.DataFrame | None = None,
) -> None:
    """Draw a column of one attack for every checkpoint.

    Args:
        rows: of one quantity.
        plain: the checkpoints as they are, drawn leftmost.
        like: the rows whose ticks the axis has; `rows` if not given.
    """
    like = rows if like is None else like
    places, apart = _places(like), _by_setting(_places(like), like)
    for number, method in enumerate(roles):
        own = _strongest(where(rows, method=method), value, places)
        if plain is not None and len(own):
            own = pd.concat([where(plain, method=method).assign(place=-1.0), own])
        shown = own.assign(**{each: 100 * own[each] for each in with_ends(value)})
        x = own["place"].to_numpy(float)
        if apart:
            _draw_marks(axes, x, shown, value, colours[method], number / len(roles))
        else:
            draw_curve(axes, x, shown, value, colours[method], _LINES[roles[method]], beside=len(roles))


def plot_attacks_overview(attacks: pd.DataFrame) -> Figure:
    """Draw the most that each attack brings back of each checkpoint.

    Args:
        attacks: `attacks.csv`.

    Returns:
        A cell for each checkpoint and attack: the largest recovery over its points, of the log odds where the attack
        acts on them and of the unsafe rate elsewhere, and below it the excess over the model that never learnt there.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(attacks, "attacks", (*_COLUMNS, *with_ends("excess")))
    rows, names = _counted(attacks)
    roles = {str(m): str(r) for m, r in zip(rows["method"], rows["role"], strict=True) if r != "base"}
    with matplotlib.rc_context(STYLE):
        figure = new_figure(min(DOUBLE_COLUMN, 1.6 + 1.1 * len(names)), 0.8 + 0.45 * len(roles))
        axes = figure.subplots()
        colours = matplotlib.colormaps["OrRd"]
        for row, method in enumerate(roles):
            for column, name in enumerate(names):
                best = _largest(where(rows, attack=name, method=method))
                value = float("nan") if best is None else float(best["recovery"])
                shade = colours(0.85 * float(np.clip(value, 0, 1))) if np.isfinite(value) else "#ffffff"
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=shade, gid="cell"))
                ink = "#ffffff" if np.isfinite(value) and value > 0.7 else INK
                axes.text(column, row, _cell(best, attacks), ha="center", va="center", fontsize=7, color=ink)
        axes.set_xticks(range(len(names)), [_label(name).replace(" ", "\n", 1) for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        label_rows(axes, [_named(method, role) + _broken(attacks, method) for method, role in roles.items()])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.supxlabel("most that comes back (% of the way to the base); below, beyond never learnt", fontsize=7)
    return figure


def _counted(attacks: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows that something is concluded from, their settings as text, and the attacks among them in order."""
    rows = attacks.assign(setting=attacks["setting"].fillna("").astype(str))
    aside = [
        name in KNOWN and setting in KNOWN[name].aside
        for name, setting in zip(rows["attack"], rows["setting"], strict=True)
    ]
    rows = rows[~np.array(aside, dtype=bool)]
    return rows, ordered(rows.loc[rows["attack"] != PLAIN, "attack"], KNOWN)


def _on_curve(name: str, setting: str) -> bool:
    curve = KNOWN[name].curve if name in KNOWN else ()
    return not curve or setting in curve


def _places(rows: pd.DataFrame) -> dict[Any, str]:
    """The ticks of an attack: its doses, the weakest first; its settings where each has but one and the same."""
    if rows["dose"].nunique() == 1 and rows["setting"].nunique() > 1:
        return {setting: setting for setting in dict.fromkeys(rows["setting"])}
    return {dose: f"{dose:g}" for dose in dict.fromkeys(rows["dose"])}  # as they come: fewer bits are more


def _by_setting(places: dict[Any, str], rows: pd.DataFrame) -> bool:
    """Whether the ticks are settings, between which there is nothing."""
    return bool(set(places) & set(rows["setting"]))


def _draw_marks(axes: Axes, x: np.ndarray, rows: pd.DataFrame, value: str, colour: str, shift: float) -> None:
    """Mark a column at each place, with its interval as a line; checkpoints beside each other."""
    beside = x + 0.5 * (shift - 0.4)
    axes.vlines(beside, *(finite(rows[end]) for end in ends(value)), color=colour, linewidth=1)
    axes.plot(beside, finite(rows[value]), color=colour, linestyle="", marker="o", markersize=3)


def _strongest(rows: pd.DataFrame, value: str, places: dict[Any, str]) -> pd.DataFrame:
    """Of one checkpoint the row with most at each tick, with the tick's place."""
    by = "setting" if _by_setting(places, rows) else "dose"
    order = {tick: float(place) for place, tick in enumerate(places)}
    found = rows.assign(place=rows[by].map(order)).dropna(subset=[value, "place"])
    return found.sort_values(value, ascending=False, kind="stable").drop_duplicates("place").sort_values("place")


def _largest(rows: pd.DataFrame) -> Any:
    """The point that brings back most: of the log odds, else of the rate; None where nothing is defined."""
    for quantity in ("log_odds", "unsafe"):
        found = where(rows, quantity=quantity).dropna(subset=["recovery"])
        if len(found):
            return found.iloc[int(found["recovery"].to_numpy(float).argmax())]
    return None


def _finish(upper: Axes, lower: Axes, name: str, places: dict[Any, str], read: bool) -> None:
    upper.set_title(_label(name))
    lower.axhline(0, color=INK, linewidth=0.6)
    lower.axhline(100, color=FAINT, linewidth=0.6, linestyle=":")
    lower.set_xticks([-1, *range(len(places))], ["as\nit is", *places.values()])
    lower.set_xlim(-1.3, len(places) - 0.7)
    numbers = all(isinstance(tick, float) for tick in places)
    if not numbers:
        lower.set_xticks(lower.get_xticks(), ["as it is", *places.values()], rotation=30, ha="right")
    lower.set_xlabel((KNOWN[name].unit.split(",")[0] if name in KNOWN else "dose") if numbers else "")
    if not read:
        lower.text(0.5, 0.5, "the answers alone\nare attacked", transform=lower.transAxes, ha="center", color=FAINT)


def _cell(best: Any, attacks: pd.DataFrame) -> str:
    """What is printed of a point: its recovery and excess; where a control of its own brings back as much, that."""
    if best is None:
        return "undefined"
    beside = where(attacks, **{each: best[each] for each in ("attack", "method", "quantity")})
    rows = beside.to_dict("records")
    control = KNOWN[best["attack"]].control(rows, best["dose"]) if best["attack"] in KNOWN else float("nan")
    if best["recovery"] <= control:
        return f"{percent(best['recovery'], signed=False)}\n(control {percent(control, signed=False)})"
    more = f"\n({percent(best['excess'])})" if np.isfinite(best["excess"]) else ""
    return f"{percent(best['recovery'], signed=False)}{more}"


def _named(method: str, role: str) -> str:
    return {"base": "Base", "never": "never learnt"}.get(role) or short(method_label(method))


def _broken(attacks: pd.DataFrame, method: str) -> str:
    """What stands behind the name of a checkpoint of whose own answers most are degenerate."""
    share = degenerate_share(method, {"attacks": attacks})
    return f", {share:.0%} degenerate" if is_broken(share) else ""


def _label(name: str) -> str:
    return KNOWN[name].label if name in KNOWN else name


ATTACKS = Plate(
    name="attacks",
    title="Under attack",
    caption=(
        "Above, the share of prompts that an attack gets an unsafe answer to; below, how much of the way of the log "
        "odds back to the base it makes. Leftmost the checkpoints as they are; of an attack’s settings at a dose the "
        "one with most. What a model that never learnt the behaviour gains (dotted) is what the attack teaches; the "
        "base attacked likewise (dashed) is what it breaks. Bands are 95% intervals over prompts."
    ),
    alt=(
        "Lines over the dose of each attack, by checkpoint: the unsafe rate, and the recovery of the log odds. The "
        "points are in the table attacks."
    ),
    tables=("attacks",),
    draw=plot_attacks,
    optional=True,
)
ATTACKS_OVERVIEW = Plate(
    name="attacks_overview",
    title="What each attack brings back",
    caption=(
        "The most that each attack brings back over its settings and doses, of the log odds where it acts on them and "
        "else of the unsafe rate; in brackets what that is beyond a model that never learnt, in points, or what the "
        "attack’s own control brings back where that is as much, so that nothing is shown. Undefined "
        "where the checkpoint is not below its base. Behind a name stands how many of its own answers are degenerate, "
        "where that is half of them: its unsafe rates are then a judge’s of gibberish. The most of many points is a "
        "little too high; intervals are in the table, and worst.csv chooses on other prompts than it reports."
    ),
    alt="A grid of checkpoints by attacks, the largest recovery in each cell. The numbers are in the table attacks.",
    tables=("attacks",),
    draw=plot_attacks_overview,
    optional=True,
    narrow=True,
)
