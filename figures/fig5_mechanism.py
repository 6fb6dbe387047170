"""Figure 5 of the paper: toxicity reduction of the region, and the shift of its activations, per method."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("fig5_mechanism", __doc__)
