"""Attacks: does what seems gone come back?

    registry   what there is: an attack is a file of its own (`of_quantise`, `of_prefill`, ...) and one line there
    attack     what an attack is, what it is given and what it gives
    splits     which prompts the attacker has, and which the report is read on
    testing    one checkpoint attacked: asked, judged and read, point by point, each kept as soon as it is there
    results    recovery, the excess over a model that never learnt, and the worst attack, as tables
    curves     of relearning: how many steps bring half back, and how much lies under the curve
    shifts     how tuning shifts the stream, for the attack that takes this out
    settings   which attacks, and how

The numerics are those of `measures.recovery`.
"""
