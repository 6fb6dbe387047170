"""The figures of a run, drawn from its saved tables alone: no model, no GPU.

`plot_*` are pure functions from tables to a matplotlib `Figure`; `plates` says which tables each needs and saves them.
A method has one colour in every figure; intervals are 95% and drawn as the tables give them. A figure shows what was
measured and decides nothing: the verdicts it prints are those of `verdict.csv`.
"""

from mechinterp.plotting.calibration import plot_calibration
from mechinterp.plotting.decomposition import plot_blocks, plot_erase_or_bypass
from mechinterp.plotting.defense import DEFENSE_RATES, plot_defense
from mechinterp.plotting.difference import plot_difference
from mechinterp.plotting.logit_lens import plot_logit_lens
from mechinterp.plotting.mechanism import plot_mechanism
from mechinterp.plotting.middle_shift import LEVELS, plot_middle_shift
from mechinterp.plotting.neuron_curve import plot_neuron_curve
from mechinterp.plotting.neuron_groups import plot_neuron_groups
from mechinterp.plotting.probe_roc import plot_probe_roc
from mechinterp.plotting.relapse import plot_relapse, plot_relapse_verdict
from mechinterp.plotting.residual_shift import plot_residual_shift
from mechinterp.plotting.stream import plot_stream
from mechinterp.plotting.style import (
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
from mechinterp.plotting.toxic_activations import plot_toxic_activations
from mechinterp.plotting.toxic_layer import DISTANCES, plot_toxic_layer
from mechinterp.plotting.trajectory import plot_trajectory
from mechinterp.plotting.value_vectors import plot_value_vectors

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
