"""What several stages of a study read: the models, the judge, the chat format, the user's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mechinterp.answers.choosing import EMBEDDED, KEYWORDS, judges_of
from mechinterp.errors import InputError
from mechinterp.models.files.stored_checkpoint import StoredCheckpoint
from mechinterp.models.packages import PACKAGE
from mechinterp.runs.sections import CommentsFile
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.splits import SPLITS


@dataclass(frozen=True)
class Given:
    """Something that several stages read, as part of what each depends on.

    Attributes:
        needs: files of the run.
        reads: files of the user's own.
        settings: names of the settings that decide it.
        code: modules that run for it, besides those that a stage's own imports.
    """

    needs: str = ""
    reads: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    settings: str = ""
    code: tuple[str, ...] = ()


BEHAVIOURS = "mechinterp.answers.behaviour"
"""Runs in a study of another behaviour than unsafe answers, and in no other."""


def vanilla_of(run: Run) -> Given:
    """The vanilla model: the run's, the user's, or one from the hub."""
    model = run.config.model
    return Given(needs="checkpoints/vanilla") if model is None else model_at(model, "model")


def untaught_of(run: Run) -> Given:
    """The model that is taught; nothing where there is none."""
    return Given() if run.config.teach is None else model_at(run.config.teach.base, "teach.base")


def never_of(run: Run) -> Given:
    """The reference that never learnt to answer unsafely: the run's, the user's; nothing where there is none."""
    never = run.config.never
    if isinstance(never, str):
        return model_at(never, "never")
    return Given(needs="checkpoints/never") if run.config.has_never else Given()


def model_at(place: str, setting: str) -> Given:
    """A user's model, or one from the hub, which a setting names."""
    if not (Path(place).exists() or place.startswith(PACKAGE)):
        return Given(settings=setting)
    try:
        return Given(reads={setting: StoredCheckpoint.find(place).files})
    except InputError:  # not whole; whoever opens it says why
        return Given(reads={setting: (Path(place),)})


def chat_of(run: Run) -> Given:
    """The chat format; of plain text there is nothing to depend on."""
    chat = run.config.chat
    if chat is None:
        return Given()
    if chat.file is None:
        return Given(settings="chat")
    return Given(reads={"chat": (chat.file,)}, settings="chat.system chat.thinking chat.date")


def judge_of(run: Run) -> Given:
    """The judge or the two: fitted on the run's responses with its seed, the user's, keywords, or one from the hub.

    Of another behaviour it is made of the run's instances.
    """
    if run.config.behaviour is not None:
        needs = " ".join(f"data/{split}.json" for split in SPLITS)
        return Given(needs=needs, settings="behaviour seed", code=(BEHAVIOURS,))
    judges = [str(judge) for judge in judges_of(run.config.judge, run.config.judge_responses)]
    fitted = EMBEDDED in judges
    places = [Path(judge.removeprefix(f"{KEYWORDS}:")) for judge in judges]
    settings = ["seed"] if fitted else []
    if len(judges) > 1 or not (fitted or places[0].exists()):
        settings.append("judge")
    if run.config.judge_safe_label is not None:
        settings.append("judge_safe_label")
    return Given(
        needs="data/responses.json" if fitted else "",
        reads={"judge": own} if (own := tuple(place for place in places if place.exists())) else {},
        settings=" ".join(settings),
    )


def comments_of(run: Run) -> Given:
    """The real comments of the second probe; nothing where there are none."""
    own = run.config.comments
    settings = [f"comments.{name}" for name in CommentsFile.model_fields if name != "file"]
    return Given() if own is None else Given(reads={"comments": (own.file,)}, settings=" ".join(settings))


def data_of(run: Run) -> Given:
    """The data: generated, or the user's files; the seed only where something is drawn."""
    own, labelled = run.config.data, run.config.judge_responses
    judged = {} if labelled is None else {"judge_responses": (labelled,)}
    about, code = ("", ()) if run.config.behaviour is None else (" behaviour", (BEHAVIOURS,))
    if own is None:
        return Given(reads=judged, settings=f"corpus seed{about}", code=code)
    reads = judged | {name: (path,) for name, path in vars(own).items() if isinstance(path, Path)}
    settings = "data.text_column data.label_column data.max_comments"
    return Given(reads=reads, settings=f"{settings}{about}{'' if own.max_comments is None else ' seed'}", code=code)
