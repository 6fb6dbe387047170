"""The drawings of a run's figures, from its saved tables alone: no model, no GPU; and the names and colours they share.

A file has the drawing of a figure, a pure function from tables to a matplotlib `Figure`, and its `Plate`; `plates`
names all and saves them. A method has one colour in every figure; intervals are 95% and drawn as the tables give them.
A figure shows what was measured and decides nothing: the verdicts it prints are those of the tables.
"""

from mechinterp.report.plotting.style import (
    DIRECTIONS,
    DOUBLE_COLUMN,
    METHOD_COLOURS,
    METHOD_LABELS,
    OTHER_COLOURS,
    POSITIONS,
    SINGLE_COLUMN,
    STYLE,
    layer_label,
    method_colours,
    method_label,
    p_value_label,
    position_label,
)

__all__ = [
    "DIRECTIONS",
    "DOUBLE_COLUMN",
    "METHOD_COLOURS",
    "METHOD_LABELS",
    "OTHER_COLOURS",
    "POSITIONS",
    "SINGLE_COLUMN",
    "STYLE",
    "layer_label",
    "method_colours",
    "method_label",
    "p_value_label",
    "position_label",
]
