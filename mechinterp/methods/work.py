"""What making a checkpoint takes, in units that know no machine: by it a plan tells memory, disk and time.

An order of magnitude: every batch is taken to be full, every answer to be as long as it may be.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Texts:
    """How many texts a study has of each kind, and how many tokens one has on average.

    Attributes:
        train, validation, test: instances.
        edited: test instances that are edited and defended.
        questions: different ones among the test instances.
        knowledge: questions of general knowledge.
        comments: labelled ones.
        kinds: prompts that an instance is asked: SafeEdit's five, one of a plain pair.
        prompt, safe, unsafe, comment: tokens of an adversarial prompt, of its responses, and of a comment.
    """

    train: int
    validation: int
    test: int
    edited: int
    questions: int
    knowledge: int
    comments: int
    prompt: float
    safe: float
    unsafe: float
    comment: float
    kinds: int = 5


@dataclass(frozen=True)
class Work:
    """What a piece of work takes.

    Attributes:
        does: in words and counts.
        tokens: read by the whole model; a backward pass counts as two more.
        answers, new: prompts that are answered, and tokens of an answer at most.
        batches: calls of generation among which they fall, at least.
        models: times the weights are in memory, what an optimiser keeps of them included.
        held: tokens whose activations and logits are held for a backward pass.
        held_share: share of the blocks that hold them.
        models_kept, values_kept, bytes_kept: on the disk, whole weights, matrices W_V in float32, and bytes.
        seconds: that it takes on any machine.
    """

    does: str
    tokens: float = 0
    answers: float = 0
    new: int = 0
    batches: float = 1
    models: float = 1
    held: float = 0
    held_share: float = 1
    models_kept: float = 0
    values_kept: float = 0
    bytes_kept: float = 0
    seconds: float = 0
