"""Large arithmetic shared out to threads, each of which works alone.

torch shares every single operation out to its threads and waits for all of them after each. For hundreds of small
operations in a row that gains little on an idle machine, and on a busy one every wait is for a thread that is not
running. A few large tasks, one thread each, wait once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def share_out(task: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Results of a task for every part, in their order, on as many threads as torch may use.

    A single part is done as if there were no threads of ours, so with all of torch's own.
    """
    allowed = torch.get_num_threads()
    if allowed == 1 or len(parts) == 1:
        return [task(part) for part in parts]
    workers = min(allowed, len(parts))
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(task, parts))
    finally:
        torch.set_num_threads(allowed)  # the setting of new threads, which the workers changed
