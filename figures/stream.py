"""What embedding, attention and MLPs write along each direction, over depth, base against tuned."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("stream", __doc__)
