"""Activation of the most toxic value vectors over the first 20 generated tokens, after Lee et al."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("toxic_activations", __doc__)
