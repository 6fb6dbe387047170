"""A training run over its steps: toxicity and shift of the region, erasure and bypass."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("trajectory", __doc__)
