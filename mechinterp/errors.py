"""The one exception for a user's mistake, shown as one line, without a traceback, exit code 2; and what was meant."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """An input is missing, malformed or does not fit another; the message says which, why, and what to do."""


class NothingUnsafeError(InputError):
    """The base answers none of the prompts unsafely, so that nothing could come back."""


class NothingToPairError(InputError):
    """There are no two prompts of as many tokens of which one calls for the answer and the other does not."""


def near(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'verdict'?`: the end of a message about a name that is not known, if one that is comes near."""
    from difflib import get_close_matches  # which an import of the face does without

    names = list(known)
    begun = [each for each in names if name and each.startswith(str(name))]
    found = get_close_matches(str(name), names, n=1) or begun
    return f"; did you mean {found[0]!r}?" if found else ""
