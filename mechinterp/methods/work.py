"""What making a checkpoint takes, in units that know no machine: by it a plan tells memory, disk and time.

An order of magnitude: every batch is taken to be full, every answer to be as long as it may be.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Texts:
    """How many texts a study has, and how many tokens each has on average.

    Attributes:
        n_training: training instances.
        n_instances: test instances that are edited or defended.
        prompt: tokens of an adversarial prompt.
        safe, unsafe: of a response.
        constraint: of a general-knowledge pair.
    """

    n_training: int
    n_instances: int
    prompt: float
    safe: float
    unsafe: float
    constraint: float


@dataclass(frozen=True)
class Work:
    """What a piece of work takes.

    Attributes:
        does: in words and counts.
        tokens: read by the whole model; a backward pass counts as two more.
        calls: of the model, counted likewise.
        models: times the weights are in memory, what an optimiser keeps of them included.
        adapted: numbers that are kept for each feature that adapters of rank 1 would have.
        held: tokens whose activations are held for a backward pass.
        held_share: share of the blocks that hold them; 0 where they are computed again.
        scored: tokens whose logits are held, times how often they are.
        answers, asked, new: prompts that are answered, tokens of each, and of an answer at most.
        batches: calls of generation among which they fall, at least.
        values: copies of one block's W_V in memory, in float32.
        models_kept, values_kept, bytes_kept: on the disk, whole weights, matrices W_V in float32, and bytes.
        opened: models that are read from the disk.
        seconds: that it takes on any machine.
    """

    does: str
    tokens: float = 0
    calls: float = 0
    models: float = 1
    adapted: float = 0
    held: float = 0
    held_share: float = 1
    scored: float = 0
    answers: float = 0
    asked: float = 0
    new: int = 0
    batches: float = 1
    values: float = 0
    models_kept: float = 0
    values_kept: float = 0
    bytes_kept: float = 0
    opened: float = 1
    seconds: float = 0
