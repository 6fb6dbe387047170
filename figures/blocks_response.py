"""Erasure and bypass block by block, over the unsafe response."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("blocks_response", __doc__)
