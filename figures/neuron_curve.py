"""The change of the toxic write summed over more and more neurons."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("neuron_curve", __doc__)
