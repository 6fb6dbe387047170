"""What this machine has, and what a stage's work takes on it: memory, disk and time, as an order of magnitude.

Reading a token takes two operations a parameter; writing one moves the weights and what is kept of earlier tokens
through memory, or multiplies, whichever takes longer; a call costs at least `CALL` a block, however small the model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil, nan
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.benchmark import Timer

from mechinterp.methods.work import Work
from mechinterp.runs.planning.shape import Shape

UTILISATION = 0.4  # share of a large matrix product's speed that a model gets
CALL = 4e-4  # seconds for a block to be called at all
OPENING = 5e8  # bytes of weights a second that are read, checked and hashed
LIBRARIES = 0.75 * 2**30  # bytes of Python and the libraries
LOGITS = 8 * 4  # bytes of a logit that training holds, with loss, gradient and entropy
ROWS, WRITTEN_TOKENS = 128, 16384  # of a batch that is answered


class Cost(NamedTuple):
    """Seconds, and bytes in memory and on the disk; NaN where they are not known."""

    seconds: float
    memory: float
    disk: float


@dataclass(frozen=True)
class Machine:
    """What a study would run on.

    Attributes:
        device: where models go.
        memory: bytes that models may take there.
        speed: floating-point operations per second of a large matrix product in the study's type.
        bandwidth: bytes per second that the device moves.
    """

    device: torch.device
    memory: float
    speed: float
    bandwidth: float

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype, all_devices: bool) -> Machine:
        """Try this machine for less than a second; with `all_devices`, the memory of every GPU counts."""
        memory: float = main_memory()
        if device.type == "cuda":
            numbers = range(torch.cuda.device_count()) if all_devices else [device]
            memory = sum(torch.cuda.mem_get_info(number)[0] for number in numbers)
        side = 8192 if device.type == "cuda" else 2048
        matrix = torch.full((side, side), 0.5, dtype=dtype, device=device)
        product, copied = (Timer(work, globals={"m": matrix}).timeit(3).mean for work in ("m @ m", "m.clone()"))
        return cls(device, memory, 2.0 * side**3 / product, 2.0 * matrix.nbytes / copied)


def cost(work: Work, shape: Shape | None, machine: Machine | None, prompt: float) -> Cost:
    """What a work takes on a machine; `prompt`: tokens of one."""
    if shape is None:
        return Cost(nan, nan, nan)
    size = shape.dtype.itemsize
    cache = WRITTEN_TOKENS * shape.key_values * size if work.answers else 0
    held = work.held * (work.held_share * size * shape.features + LOGITS * shape.vocabulary)
    memory = LIBRARIES + work.models * shape.weights + held + cache
    disk = work.models_kept * shape.weights + 4 * work.values_kept * shape.value_matrix + work.bytes_kept
    if machine is None:
        return Cost(nan, memory, disk)
    token = 2 * shape.parameters / (UTILISATION * machine.speed)
    seconds = 1 + work.seconds + work.models * shape.weights / OPENING
    seconds += token * (work.tokens + work.answers * prompt)
    if work.answers:
        rows = max(1.0, min(ROWS, WRITTEN_TOKENS / (prompt + work.new), work.answers / work.batches))
        calls = ceil(work.answers / rows) * work.new
        moved = calls * (shape.weights + cache) / machine.bandwidth
        seconds += max(token * work.answers * work.new, moved) + calls * shape.n_blocks * CALL
    return Cost(seconds, memory, disk)


def main_memory() -> int:
    """Bytes of main memory, or those that a container is allowed."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return total
