"""The change of the toxic write by group of neurons: what the neuron writes up or down."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("neuron_groups", __doc__)
