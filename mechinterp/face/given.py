"""Plain arguments that the face is given, checked before any work."""

from __future__ import annotations

from mechinterp.errors import InputError


def check_seed(seed: object) -> None:
    """Raise `InputError` for a seed that is no whole number from 0 on."""
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"`seed` is {seed!r:.60}; give a whole number from 0 on")


def check_given(name: str, value: object, kinds: type | tuple[type, ...], remedy: str) -> None:
    """Raise `InputError` for an argument that is of none of some types, unless it was left out (None)."""
    if value is not None and not isinstance(value, kinds):
        raise InputError(f"`{name}` is {value!r:.60}; give {remedy}")
