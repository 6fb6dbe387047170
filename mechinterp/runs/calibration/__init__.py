"""Calibration of the instrument: the verdicts on checkpoints whose truth is known by construction.

    table     what is expected and why; sensitivity and specificity from what was found
    treating  the relapse test of the constructions
    running   the constructions of one study made, recorded, asked and judged

The checkpoints themselves are made in `methods.constructed`. `calibration.csv`, of the embedded organisms, comes with
the package, so that every report can give the instrument's rates; `analyses/calibration.py` writes it.
"""
