"""The device that a name means on this machine."""

from __future__ import annotations

import torch

from mechinterp.errors import InputError
from mechinterp.models import processes


def resolve_device(device: str) -> torch.device:
    """The device of that name; `auto` means CUDA when there is one, under a launcher the process's own.

    Raises:
        InputError: for a name that torch does not know, or a device that this machine lacks.
    """
    if device == "auto":
        device = processes.default_device()
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]})") from error
    return found
