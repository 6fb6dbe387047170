"""What this machine has, and what a stage's work takes on it: memory, disk and time, as an order of magnitude.

The machine's speed is measured by a short trial; how much of it a model gets is assumed (`UTILISATION`). Reading a
token takes two operations a parameter; writing one moves the weights and what is kept of earlier tokens through memory,
or multiplies, whichever takes longer; a call costs at least `CALL` a block, however small the model.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch

from mechinterp.methods.work import Work
from mechinterp.runs.planning.sizes import Shape

UTILISATION = 0.4
"""Share of a large matrix product's speed that a model's forward or backward pass gets."""

CALL = 4e-4
"""Seconds that a block takes to be called at all, forward or backward: Python, and starting its kernels."""

OPENING = 5e8
"""Bytes of weights a second that are read from the disk, checked and hashed."""

LIBRARIES = 0.75 * 2**30
"""Bytes that Python and the libraries take."""

READ_TOKENS, WRITTEN_TOKENS, ROWS = 2048, 16384, 128  # of a batch that is read or written, and its rows

_TRIAL = 0.2  # seconds for each of the two measurements


@dataclass(frozen=True)
class Cost:
    """What one stage takes: seconds (None where the machine's speed is not known), bytes in memory and on the disk."""

    seconds: float | None
    memory: float
    disk: float


@dataclass(frozen=True)
class Machine:
    """What a study would run on.

    Attributes:
        device: where models go.
        memory: bytes that models may take there: free ones of a GPU (of all with `device_map`), all of the main memory
            on a CPU.
        multiplications: floating-point operations per second of a large matrix product in the study's type.
        bandwidth: bytes per second that the device moves, read and written.
    """

    device: torch.device
    memory: float
    multiplications: float
    bandwidth: float

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype, *, all_devices: bool = False) -> Machine:
        """Try this machine for less than a second; a little memory is taken for it and given back."""
        memory: float = main_memory()
        if device.type == "cuda":
            numbers = range(torch.cuda.device_count()) if all_devices else [device]
            memory = sum(torch.cuda.mem_get_info(number)[0] for number in numbers)
        side = 8192 if device.type == "cuda" else 2048  # smaller ones measure how threads are woken
        matrix = torch.full((side, side), 0.5, dtype=dtype, device=device)
        product, source = torch.empty_like(matrix), torch.ones(2**27 if device.type == "cuda" else 2**24, device=device)
        target = torch.empty_like(source)
        rounds = _rounds_per_second(lambda: torch.mm(matrix, matrix, out=product), device)
        copies = _rounds_per_second(lambda: target.copy_(source), device)
        return cls(device, memory, 2.0 * side**3 * rounds, 8.0 * len(source) * copies)


def cost(work: Work, shape: Shape, machine: Machine | None, *, on_cpu: bool) -> Cost:
    """What a work takes on a machine; no seconds where there is no machine."""
    size, kept = shape.dtype.itemsize, shape.key_values * shape.dtype.itemsize
    # what enters each block and one block at a time where activations are computed again, else those of the blocks
    features = shape.adapted_features * work.held_share or (
        shape.n_blocks * shape.residual + shape.adapted_features / shape.n_blocks
    )
    memory = work.models * shape.weights + size * work.adapted * shape.adapted_features + size * work.held * features
    memory += 4 * (work.scored * shape.vocabulary + work.values * shape.value_matrix)
    memory += WRITTEN_TOKENS * kept if work.answers else 0
    disk = work.models_kept * shape.weights + 4 * work.values_kept * shape.value_matrix + work.bytes_kept
    if machine is None:
        return Cost(None, memory + (LIBRARIES if on_cpu else 0), disk)

    def seconds(rows: float, calls: float, moved: float) -> float:
        multiplied = 2 * shape.multiplied * rows / (UTILISATION * machine.multiplications)
        return max(multiplied, calls * moved / machine.bandwidth) + calls * shape.n_blocks * CALL

    asked = work.answers * work.asked
    taken = work.seconds + work.opened * shape.weights / OPENING
    read = max(work.calls, ceil(work.tokens / READ_TOKENS)) + ceil(asked / READ_TOKENS)
    taken += seconds(work.tokens + asked, read, shape.weights)
    if work.answers:
        length = work.asked + work.new
        rows = max(1.0, min(ROWS, WRITTEN_TOKENS / length, work.answers / work.batches))
        taken += seconds(
            work.answers * work.new, ceil(work.answers / rows) * work.new, shape.weights + kept * rows * length
        )
    return Cost(taken, memory + (LIBRARIES if on_cpu else 0), disk)


def _rounds_per_second(work: Callable[[], object], device: torch.device) -> float:
    """By the fastest round, which others' work on the machine has disturbed least; the first one sets things up."""
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < _TRIAL:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return 1 / min(taken[1:])


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
