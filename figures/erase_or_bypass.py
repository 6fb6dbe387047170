"""The change of the toxic write of every method, split into erasure and bypass."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("erase_or_bypass", __doc__)
