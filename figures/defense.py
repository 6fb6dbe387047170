"""Defense success on the five kinds of prompt, before and after."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("defense", __doc__)
