"""Erasure and bypass block by block, at the last prompt token."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("blocks_prompt_last", __doc__)
