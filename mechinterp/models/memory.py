"""How much memory this process has taken: resident on a CPU (as the kernel counts it), allocated by torch on a GPU."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def reset_peak_memory(device: torch.device | str = "cpu") -> int:
    """Begin a new peak, and return the bytes that are taken now.

    Where the system forbids it (anything but Linux), the peak stays that of the process's whole life.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def peak_bytes(device: torch.device | str = "cpu") -> int:
    """The most bytes taken since the last reset."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _resident("VmHWM")


def _resident(field: str) -> int:
    """Resident memory in bytes: `VmRSS` now, `VmHWM` at its peak."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
