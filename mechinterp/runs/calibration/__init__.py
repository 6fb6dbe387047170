"""Does the instrument tell the truth? Every measure on checkpoints whose truth is known by construction.

    settings    which checkpoints are made, and how they are measured
    twins       further models that never learnt
    subjects    the checkpoints, made one at a time
    measuring   every measure of one of them
    running     all of one study, each kept as soon as it is there

What is true of each, and what follows: `audit.certificate`; `analyses/meta_evaluation.py` runs it at several depths.
"""
