"""The figures of a run, drawn from its saved tables alone: no model, no GPU.

`plot_*` are pure functions from tables to a matplotlib `Figure`; `plates` says which tables each needs and saves them.
A method has one colour in every figure; intervals are 95% and drawn as the tables give them. A figure shows what was
measured and decides nothing: the verdicts it prints are those of `verdict.csv`.
"""

from mechinterp.report.plotting.calibration import plot_calibration
from mechinterp.report.plotting.decomposition import plot_blocks, plot_erase_or_bypass
from mechinterp.report.plotting.defense import DEFENSE_RATES, plot_defense
from mechinterp.report.plotting.difference import plot_difference
from mechinterp.report.plotting.logit_lens import plot_logit_lens
from mechinterp.report.plotting.mechanism import plot_mechanism
from mechinterp.report.plotting.middle_shift import LEVELS, plot_middle_shift
from mechinterp.report.plotting.neuron_curve import plot_neuron_curve
from mechinterp.report.plotting.neuron_groups import plot_neuron_groups
from mechinterp.report.plotting.probe_roc import plot_probe_roc
from mechinterp.report.plotting.relapse import plot_relapse, plot_relapse_verdict
from mechinterp.report.plotting.residual_shift import plot_residual_shift
from mechinterp.report.plotting.stream import plot_stream
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
from mechinterp.report.plotting.toxic_activations import plot_toxic_activations
from mechinterp.report.plotting.toxic_layer import DISTANCES, plot_toxic_layer
from mechinterp.report.plotting.trajectory import plot_trajectory
from mechinterp.report.plotting.value_vectors import plot_value_vectors

__all__ = [
    "DEFENSE_RATES",
    "DIRECTIONS",
    "DISTANCES",
    "DOUBLE_COLUMN",
    "LEVELS",
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
    "plot_blocks",
    "plot_calibration",
    "plot_defense",
    "plot_difference",
    "plot_erase_or_bypass",
    "plot_logit_lens",
    "plot_mechanism",
    "plot_middle_shift",
    "plot_neuron_curve",
    "plot_neuron_groups",
    "plot_probe_roc",
    "plot_relapse",
    "plot_relapse_verdict",
    "plot_residual_shift",
    "plot_stream",
    "plot_toxic_activations",
    "plot_toxic_layer",
    "plot_trajectory",
    "plot_value_vectors",
    "position_label",
]
