"""The histogram of the toxic layer under the four distances."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("toxic_layer", __doc__)
