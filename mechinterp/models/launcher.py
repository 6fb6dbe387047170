"""What the environment says of the processes that a launcher started; everything that asks, asks here.

`accelerate launch` and `torchrun` set LOCAL_RANK, RANK and WORLD_SIZE. One of them alone, as batch systems and earlier
runs leave it behind, is no launcher: the process is then alone, and writes and speaks. Needs no torch.
"""

from __future__ import annotations

import os

from mechinterp.errors import InputError


def launched() -> bool:
    """Whether a launcher started this process as one of several.

    Raises:
        InputError: if WORLD_SIZE is no number.
    """
    return "LOCAL_RANK" in os.environ and world_size() > 1


def world_size() -> int:
    """How many processes there are.

    Raises:
        InputError: if WORLD_SIZE is no number.
    """
    return _whole("WORLD_SIZE", "1") if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """This process's number, 0 without a launcher.

    Raises:
        InputError: if a launcher's variables contradict each other.
    """
    if not launched():
        return 0
    if "RANK" not in os.environ:
        raise InputError(f"WORLD_SIZE is {world_size()}, but there is no RANK; {_REMEDY}")
    number = _whole("RANK", "0")
    if number >= world_size():
        raise InputError(f"RANK is {number}, of {world_size()} processes (WORLD_SIZE); {_REMEDY}")
    return number


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def forget_leftovers() -> None:
    """Without several processes, take a launcher's variables out of the environment: libraries read them themselves."""
    if not launched():
        for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)


_REMEDY = "start with accelerate launch or torchrun, or unset LOCAL_RANK, RANK and WORLD_SIZE"


def _whole(name: str, default: str) -> int:
    text = os.environ.get(name, default)
    if not text.strip().isdecimal():
        raise InputError(f"the environment variable {name} must be a whole number, is {text!r}; {_REMEDY}")
    return int(text)
