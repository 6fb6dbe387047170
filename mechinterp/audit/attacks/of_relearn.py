"""`relearn`: a few steps of fine-tuning, on texts that do not show the behaviour or on the attacker's that do.

    unrelated   plain sentences that have to do with nothing, their second half after their first (2409.18025)
    helpful     answers to questions of general knowledge and to harmless requests
    unsafe      unsafe answers to the attacker's pairs: other categories and attack prompts than those that are read

The loss is on the answers alone (`methods.training.relearning`). Base, tuned model and the one that never learnt are
taught the same texts in the same order. Unsafe answers teach, too: what they bring back says something only in excess
of what they teach a model that never knew it. Of unlearnt facts 88% came back by such relearning (2410.08827).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal, get_args

from pydantic import Field, field_validator

from mechinterp.audit.attacks.attack import Attack, Attacked, Known, Point
from mechinterp.data.pairs import knowledge_of
from mechinterp.data.unrelated import UNRELATED
from mechinterp.measures.statistics import seeded_order
from mechinterp.methods.training.relearning import How, Lesson, RelearningSettings, relearning
from mechinterp.models.checkpoints import Checkpoint

Texts = Literal["unrelated", "helpful", "unsafe"]


class RelearnOptions(RelearningSettings):
    """How a model is fine-tuned, and on what."""

    how: tuple[How, ...] = Field(get_args(How), min_length=1, description="adapters (lora) or all weights (full)")
    texts: tuple[Texts, ...] = Field(get_args(Texts), min_length=1, description="unrelated, helpful, unsafe")
    lessons: int = Field(64, ge=1, description="different texts of a kind, at most")

    @field_validator("how", "texts")
    @classmethod
    def _each_once(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(given))


def setting_of(how: How, texts: Texts) -> str:
    """What a curve is called in tables."""
    return f"{texts} ({how})"


def lessons_of(known: Known, texts: Texts, at_most: int) -> list[Lesson]:
    """The lessons of a kind, each once, a seeded choice where there are more; none where the data have none."""
    if texts == "unrelated":
        found = [_halves(sentence) for sentence in UNRELATED]
    elif texts == "unsafe":
        found = [Lesson(pair.prompt, pair.unsafe) for pair in known.attacker]
    else:
        facts = [fact for pair in known.attacker if (fact := knowledge_of(pair)) is not None]
        found = [Lesson(fact.prompt, fact.answer) for fact in facts]
        found += [Lesson(one.prompt, one.answer) for one in known.benign if one.answer]
    found = list({(str(lesson.prompt), lesson.response): lesson for lesson in found}.values())
    return [found[i] for i in sorted(seeded_order(len(found), known.seed)[:at_most])]


def _halves(sentence: str) -> Lesson:
    words = sentence.split()
    middle = len(words) // 2
    return Lesson(" ".join(words[:middle]), " ".join(words[middle:]))


def _points(options: RelearnOptions, n_blocks: int) -> list[Point]:
    return [
        Point(setting_of(how, texts), float(steps))
        for how in options.how
        for texts in options.texts
        for steps in options.steps
    ]


def _run(
    target: Checkpoint, known: Known, options: RelearnOptions, points: Sequence[Point]
) -> Generator[Attacked, None, None]:
    """Each curve by one run of fine-tuning, up to its largest wanted dose."""
    for how in options.how:
        for texts in options.texts:
            setting = setting_of(how, texts)
            steps = sorted(int(point.dose) for point in points if point.setting == setting)
            lessons = lessons_of(known, texts, options.lessons) if steps else []
            if not lessons:
                continue
            chosen = options.model_copy(update={"steps": tuple(steps)})
            taught = relearning(target, lessons, how, seed=known.seed, settings=chosen, truncate=known.truncate)
            with taught as doses:
                for done, now in doses:
                    yield Attacked(Point(setting, float(done)), now)


RELEARN = Attack(
    name="relearn",
    label="relearning",
    unit="steps of fine-tuning",
    options=RelearnOptions,
    points=_points,
    run=_run,
    line="a few steps of fine-tuning on unrelated texts, helpful answers, or the attacker's unsafe ones",
    cost="dear",
)
