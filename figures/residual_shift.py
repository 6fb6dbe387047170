"""The shift of the residual stream over depth, after Lee et al."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("residual_shift", __doc__)
