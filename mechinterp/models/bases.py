"""Which model a checkpoint stands on when it is set against another one: by what is said, else by its path.

Nothing here reads a weight.
"""

from __future__ import annotations

from pathlib import Path

from mechinterp.errors import InputError
from mechinterp.models.sources import Source


def stands_on(source: str, other: str, base: str | None = None) -> tuple[str, str]:
    """A checkpoint set against another one, and the model that it stands on, where it stands on anything.

    That is the base that is given: as an option, or as `ADAPTER@MODEL`. Else, for an adapter, the model that its config
    names: it may have been trained on another than `other` (DPO's on SFT's result), and only paths tell which; two
    folders of one name need not hold the same weights. Whatever else stands on a model stands on `other`.

    Args:
        source: what is opened, or `ADAPTER@MODEL`.
        other: what it is set against.
        base: what it stands on, if that is said.

    Returns:
        The source and its base; `other` as it was given where it is the same folder by another path.

    Raises:
        InputError: if an adapter names no model, or one that is not here: merged into another model than its own it
            would be a checkpoint that never was.
    """
    path, own = split_base(source)
    return (path, own) if own is not None else (source, stands_below(Source.find(source), other, base))


def split_base(given: str) -> tuple[str, str | None]:
    """`ADAPTER@MODEL` in its two parts; anything else whole, without a base."""
    path, separator, own = given.rpartition("@")
    return (path, own) if separator and path and own and not Path(given).exists() else (given, None)


def stands_below(found: Source, other: str, base: str | None = None) -> str:
    """What a source stands on, see `stands_on`."""
    if base is not None or found.kind != "adapter":
        return base or other
    where = f"{found.given}@MODEL, or `base=MODEL` where that can be given"
    try:
        below = found.base(None)
    except InputError as error:
        raise InputError(f"{error}: {where}") from error
    assert below is not None  # an adapter always has one
    if below.place == other or (below.kind != "hub" and below.path.resolve() == Path(other).expanduser().resolve()):
        return other
    if below.kind == "hub":
        raise InputError(
            f"{found.given}: this adapter was trained on {below.given}, which is not here, and no path says that it is "
            f"{other}; give its base: {where}"
        )
    return below.place
