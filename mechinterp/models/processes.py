"""Several processes, each with its share of the inputs, under `accelerate launch` or `torchrun`.

Every process holds the whole model and makes the same calls; inside, `record`, `generate` and `locate` do their share
of the batches and join the results once, so that all of them go on with the same numbers, those of one process. Only
the main one writes. What one process alone can see, such as whether a file can be read on its machine, none decides
alone: it would go on to other calls than the others, and their exchanges would be taken for each other. Started
without a launcher there is one process, and nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.models.launcher import is_main as is_main
from mechinterp.models.launcher import launched as launched
from mechinterp.models.launcher import rank as rank

Item = TypeVar("Item")


def _state() -> PartialState | None:
    return PartialState(cpu=not torch.cuda.is_available()) if launched() else None


def default_device() -> str:
    """CUDA when there is one, each process its own."""
    if not torch.cuda.is_available():
        return "cpu"
    state = _state()
    return "cuda" if state is None else str(state.device)


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's share: every N-th item, so that long and short batches are dealt out evenly."""
    state = _state()
    return items if state is None else items[state.process_index :: state.num_processes]


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in place.

    Raises:
        RuntimeError: from the backend, if the processes disagree about the tensors.
    """
    state = _state()
    if state is None:
        return
    for tensor in tensors:
        # gloo reduces on the CPU, nccl on the GPU of the process
        there = tensor.to(state.device)
        torch.distributed.all_reduce(there)
        if there is not tensor:
            tensor.copy_(there)


def gather(items: list[Item]) -> list[Item]:
    """The items of all processes, in the order of the processes; must be picklable."""
    return items if _state() is None else gather_object(items)


def from_main(value: Item) -> Item:
    """The main process's value, in every process: for decisions that all must take alike."""
    if _state() is None:
        return value
    return broadcast_object_list([value])[0]


def decided(find: Callable[[], Item]) -> Item:
    """What the main process finds, in every process, be it an `InputError`: for looks at files that change meanwhile.

    Raises:
        InputError: that of the main process.
    """
    if not launched():
        return find()
    found: Item | InputError | None = None
    if is_main():
        try:
            found = find()
        except InputError as error:
            found = error
    found = from_main(found)
    if isinstance(found, InputError):
        raise found
    return found  # type: ignore[return-value]  # the main process's


def all_of(here: bool) -> bool:
    """Whether something holds in every process; all of them are told the same."""
    return all(gather([here]))


def wait() -> None:
    """Wait until every process is here."""
    if (state := _state()) is not None:
        state.wait_for_everyone()
