"""The look of every figure: sizes, colours, names; a method has one colour everywhere."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from mechinterp.data.counting import many
from mechinterp.methods.registry import METHODS

SINGLE_COLUMN, DOUBLE_COLUMN = 3.3, 7.0  # inches, as two-column papers set them
DIRECTIONS = {
    "probe": "probe direction",
    "answer": "answer direction",
    "class_means": "class means direction",
    "per_prompt": "per-prompt direction",
}
POSITIONS = {"prompt_last": "last prompt token", "response": "unsafe response"}
METHOD_LABELS = {"base": "Base", **{name: method.printed for name, method in METHODS.items()}}
METHOD_COLOURS = {
    "base": METHODS["vanilla"].colour,
    **{name: method.colour for name, method in METHODS.items() if method.colour},
}
OTHER_COLOURS = ("#D55E00", "#CC79A7", "#56B4E9", "#332288", "#882255", "#999933")
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
INK, FAINT, OFF = "#222222", "#777777", "#f1f1f1"


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """Give every method its colour: fixed where the registry gives it one, stable for any other name.

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
    return f"{many(int(number), 'greedy token')}, {'its own' if text == 'on_policy' else 'the base’s'}"


def layer_label(block: float) -> str:
    """Return both names of a block: the paper counts layers from 1, the code blocks from 0."""
    return f"layer {block + 1:.0f} (block {block:.0f})"


def p_value_label(p: float) -> str:
    """Return a p-value as figures and the report print it; nothing for no value."""
    if not np.isfinite(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
