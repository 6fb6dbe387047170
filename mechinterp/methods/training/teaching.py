"""A pretrained model taught the generated corpus: fine-tuned on its conversations instead of trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from mechinterp.data.corpus.records import Exchange
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.methods.training.trl_training import Progress
from mechinterp.models.checkpoints import Checkpoint


class TeachSettings(SftSettings):
    """Whom the corpus is taught, and how."""

    base: str = Field(description="the pretrained model: a folder, a file, a hub id, or package:NAME")
    asked: int = Field(72, ge=1, description="test prompts asked of the untaught and taught models, side by side")


@dataclass(frozen=True)
class _Lesson:
    """A conversation as a training row."""

    id: int
    prompt: str
    response: str


def teach(
    checkpoint: Checkpoint,
    exchanges: Sequence[Exchange],
    *,
    seed: int,
    settings: TeachSettings,
    name: str,
    progress: Progress | None = None,
) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Fine-tune a copy of a checkpoint to answer as the corpus does, each conversation in the checkpoint's format.

    Args:
        checkpoint: the pretrained model; left as it was.
        exchanges: conversations of the corpus; for a model that never learns the behaviour, the safe ones alone.
        seed: of their order.
        settings: of the training.
        name: of the taught checkpoint.

    Returns:
        The taught checkpoint and the trainer's log.
    """
    lessons = [_Lesson(number, one.prompt, one.response) for number, one in enumerate(exchanges)]
    return train_sft(
        checkpoint, lessons, seed=seed, settings=settings, name=name, response="response", progress=progress
    )
