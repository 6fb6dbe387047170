"""What every method of unlearning does alike: its texts, the copy that is trained, and the treatment that it gives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mechinterp.data.counting import many
from mechinterp.data.scopes import FORGET, RETAIN, Question, Scopes
from mechinterp.errors import InputError
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.unlearning.opened import open_copy
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.methods.unlearning.training import Term, train
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.whole_answers import answers_as_tokens, ended
from mechinterp.models.text.tokens import Encoded

Own = TypeVar("Own", bound=UnlearningSettings)
Own_co = TypeVar("Own_co", bound=UnlearningSettings, covariant=True)


@dataclass(frozen=True)
class Learning(Generic[Own_co]):
    """What the losses of a method are made of.

    Attributes:
        checkpoint: the copy that is trained.
        reference: the model as it is before.
        forget, retain: prompts with whole answers.
        settings: the method's.
        seed: of what it draws.
    """

    checkpoint: Checkpoint
    reference: Checkpoint
    forget: Sequence[Encoded]
    retain: Sequence[Encoded]
    settings: Own_co
    seed: int


def unlearned(
    name: str,
    checkpoint: Checkpoint,
    task: Task,
    kind: type[Own],
    terms: Callable[[Learning[Own]], Sequence[Term]],
    *,
    keeps: Callable[[Own], bool] = lambda settings: True,
    region: Callable[[Checkpoint, Scopes, Own, Task], Collection[str] | None] = lambda *_: None,
) -> Iterator[Treatment]:
    """One checkpoint for all of a task's instances, which forgets some answers and keeps others.

    Args:
        name: of the method.
        checkpoint: left as it was.
        task: what is to be forgotten and kept: its `more`, else what its training instances have (`Scopes.of_pairs`).
        kind: of the method's settings.
        terms: the loss.
        keeps: whether with these settings there must be something to keep.
        region: names of the tensors that alone are trained; None for all that the settings leave.

    Raises:
        InputError: for nothing to forget, or to keep where the method needs it; texts that are too long.
    """
    tuned, log = task.made.get(name), list[dict[str, float]]()
    if tuned is None:
        settings = task.settings_of(name, kind)
        scopes = scopes_of(name, task)
        kept = scopes.kept(name) if keeps(settings) else ()
        said = f"{many(len(scopes.forget), 'answer')} to forget, {len(kept)} to keep, {many(settings.steps, 'step')}"
        task.note(f"{name}: training on {said}")
        chosen = region(checkpoint, scopes, settings, task)
        opened = open_copy(checkpoint, settings, seed=task.seed, region=chosen)
        forget = texts_of(checkpoint, scopes.forget, settings, FORGET)
        retain = texts_of(checkpoint, kept, settings, RETAIN)
        learning = Learning(opened.checkpoint, opened.reference, forget, retain, settings, task.seed)
        progress = task.progress(f"{name}: training")
        tuned, log = train(opened, terms(learning), settings, name=name, seed=task.seed, progress=progress)
    yield Treatment(name, tuple(task.instances), checkpoint=tuned, log=tuple(log))


def scopes_of(name: str, task: Task) -> Scopes:
    """What a task's `more` says is to be forgotten and kept; else its training instances say it.

    Raises:
        InputError: if nothing is to be forgotten, or the same as is to be kept; names the method.
    """
    try:
        if FORGET in task.more:
            return Scopes(tuple(task.more[FORGET]), tuple(task.more.get(RETAIN, ())))
        return Scopes.of_pairs(task.training, task.more.get(RETAIN, ()))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def texts_of(
    checkpoint: Checkpoint, questions: Sequence[Question], settings: UnlearningSettings, called: str
) -> list[Encoded]:
    """Prompts with whole answers, as they are trained on; prompts that are too long are cut from the left."""
    return ended(checkpoint, unended_texts_of(checkpoint, questions, settings, called))


def unended_texts_of(
    checkpoint: Checkpoint, questions: Sequence[Question], settings: UnlearningSettings, called: str
) -> list[Encoded]:
    """The same without the token that ends an answer."""
    return answers_as_tokens(
        checkpoint,
        questions,
        separator=settings.separator,
        max_length=settings.max_length,
        truncate=True,
        called=f"`{called}`: entry",
    )


def work_of(settings: UnlearningSettings, texts: Texts, *, sets: int, references: int) -> Work:
    """What a run takes.

    Args:
        settings: of the method.
        texts: of a study.
        sets: of texts that a step has a batch of.
        references: how often the model before reads them too.
    """
    length = min(settings.max_length, texts.prompt + max(texts.unsafe, texts.safe))
    whole = settings.lora is None and settings.adapter is None
    return Work(
        f"{many(settings.steps, 'step')} of {settings.batch_size} answers to "
        f"forget{' and to keep' if sets > 1 else ''}",
        tokens=settings.steps * settings.batch_size * length * (3 * sets + references),
        models=5 if whole else 2,
        held=settings.max_tokens,
        models_kept=1,
    )
