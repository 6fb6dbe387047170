"""The change of the toxic write by group of neurons: activation up or down."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("neuron_groups_activation_change", __doc__)
