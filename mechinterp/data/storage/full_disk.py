"""A disk that is full or cannot be written: the error names the file, whichever library met it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mechinterp.errors import InputError

_FULL = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded"}
_UNWRITABLE = {*_FULL, errno.EROFS, errno.EFBIG}
"""Errors that only writing meets."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of a full disk, or of one that cannot be written, names what was written.

    Raises:
        InputError: instead of the error, whatever library it came from.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if (reason := unwritable(error)) is not None:
            raise InputError(f"{path}: cannot be written ({reason})") from error
        raise


def unwritable(error: BaseException | None) -> str | None:
    """Why nothing can be written, if an error or what led to it says so; libraries in Rust have words for it alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            return error.strerror or os.strerror(error.errno)
        for number, words in _FULL.items():
            if words in str(error) or f"(os error {number})" in str(error):
                return words
        error = error.__cause__ or error.__context__
    return None
