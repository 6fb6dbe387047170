"""Calibration of the instrument: the verdict on checkpoints whose truth is known by construction.

    table     what is expected and why; sensitivity and specificity from what was found
    running   the constructions of one study made, recorded, asked and judged

The checkpoints themselves are made in `methods.constructed`. `calibration.csv`, of the embedded organisms, comes with
the package, so that every report can give the instrument's rates; `analyses/calibration.py` writes it.
"""
