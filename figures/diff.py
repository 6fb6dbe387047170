"""Where two checkpoints differ: the norm of the change, by block and component."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("diff", __doc__)
