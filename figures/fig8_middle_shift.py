"""Figure 8 of the paper: the middle stream of 30 adversarial inputs before and after tuning."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("fig8_middle_shift", __doc__)
