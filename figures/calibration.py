"""The verdict on checkpoints whose truth is known by construction: expected against found."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("calibration", __doc__)
