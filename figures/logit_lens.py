"""The logit lens of the first tokens of unsafe and safe answers over depth, after Lee et al."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("logit_lens", __doc__)
