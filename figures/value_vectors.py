"""The most toxic value vectors of the base: cosine before and after tuning, and drift."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("value_vectors", __doc__)
