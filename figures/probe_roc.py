"""The receiver operating characteristic of the toxic probe on held-out comments."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("probe_roc", __doc__)
