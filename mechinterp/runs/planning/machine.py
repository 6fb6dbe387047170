"""What this machine has: memory, free disk, and how fast it multiplies and moves numbers, by one short trial."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_TRIAL = 0.2  # seconds for each of the two measurements


@dataclass(frozen=True)
class Machine:
    """What a study would run on.

    Attributes:
        device: where models go.
        memory: bytes that models may take there: free ones of a GPU (of all with `device_map`), all of the main memory
            on a CPU.
        main_memory: bytes of the main memory.
        multiplications: floating-point operations per second of a large matrix product in the study's type.
        bandwidth: bytes per second that the device moves, read and written.
    """

    device: torch.device
    memory: float
    main_memory: float
    multiplications: float
    bandwidth: float

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype, *, all_devices: bool = False) -> Machine:
        """Try this machine for less than a second; a little memory is taken for it and given back."""
        main = main_memory()
        memory: float = main
        if device.type == "cuda":
            numbers = range(torch.cuda.device_count()) if all_devices else [device]
            memory = sum(torch.cuda.mem_get_info(number)[0] for number in numbers)
        side = 8192 if device.type == "cuda" else 2048  # smaller ones measure how threads are woken
        matrix = torch.full((side, side), 0.5, dtype=dtype, device=device)
        product = torch.empty_like(matrix)
        rounds = _rounds_per_second(lambda: torch.mm(matrix, matrix, out=product), device)
        count = (2**29 if device.type == "cuda" else 2**26) // 4
        source = torch.ones(count, device=device)
        target = torch.empty_like(source)
        copies = _rounds_per_second(lambda: target.copy_(source), device)
        return cls(device, memory, main, 2.0 * side**3 * rounds, 8.0 * count * copies)


def _rounds_per_second(work: Callable[[], object], device: torch.device) -> float:
    """By the fastest round, which others' work on the machine has disturbed least."""

    def seconds() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    seconds()  # the first one sets things up
    taken = [seconds()]
    while sum(taken) < _TRIAL:
        taken.append(seconds())
    return 1 / min(taken)


def main_memory() -> int:
    """Bytes of main memory, or those that a container is allowed."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return total


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def free_disk(folder: Path) -> int:
    """Free bytes where a folder is or would be."""
    return shutil.disk_usage(existing(folder)).free


def writing_problem(folder: Path) -> str | None:
    """Why a run folder cannot be made or written, as far as its permissions tell; nothing is written to find out."""
    above = existing(folder)
    if not above.is_dir():
        what = "it" if above == folder.absolute() else str(above)
        return f"{folder}: cannot be written ({what} is a file); choose another folder"
    if not os.access(above, os.W_OK | os.X_OK):
        return f"{folder}: cannot be written (no permission in {above}); choose another folder"
    return None
