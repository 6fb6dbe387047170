"""Every attack by its name: the one place, besides its own file, that adding one touches.

From here settings, tables, figures, the report and the command line take what attacks there are, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping

from mechinterp.audit.attacks.attack import Attack
from mechinterp.audit.attacks.of_ablate_difference import ABLATE_DIFFERENCE
from mechinterp.audit.attacks.of_in_context import IN_CONTEXT
from mechinterp.audit.attacks.of_prefill import PREFILL
from mechinterp.audit.attacks.of_quantise import QUANTISE
from mechinterp.audit.attacks.of_relearn import RELEARN
from mechinterp.audit.attacks.of_restore import RESTORE
from mechinterp.audit.attacks.of_sample import SAMPLE
from mechinterp.audit.attacks.of_transplant import TRANSPLANT
from mechinterp.errors import InputError, near

_ALL = (QUANTISE, PREFILL, SAMPLE, RESTORE, IN_CONTEXT, RELEARN, ABLATE_DIFFERENCE, TRANSPLANT)

ATTACKS: Mapping[str, Attack] = {attack.name: attack for attack in _ALL}

CHEAP = tuple(name for name, attack in ATTACKS.items() if attack.cost == "cheap")


def find_attack(name: str) -> Attack:
    """The attack of that name.

    Raises:
        InputError: if there is none, with the known ones.
    """
    if name not in ATTACKS:
        raise InputError(f"unknown attack {name!r}; known are {', '.join(ATTACKS)}{near(name, ATTACKS)}")
    return ATTACKS[name]
