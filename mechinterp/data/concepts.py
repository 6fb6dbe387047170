"""A concept: texts that have something and texts that lack it, such as toxic and clean, refusing and complying.

Whatever is measured for toxicity is measured for any concept: a probe is trained on its texts, a direction taken from
the difference of their means. What else sets the two sets of texts apart (length, topic, wording) is measured with it:
texts that differ in nothing else are the user's to choose.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechinterp.data.benign import read_benign
from mechinterp.data.comments import Comment, read_comments
from mechinterp.data.pairs import AnyPair
from mechinterp.data.showing import one_line
from mechinterp.data.texts import read_text_lines
from mechinterp.errors import InputError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Concept:
    """Texts with and without something.

    Attributes:
        name: in tables.
        positive: texts that have it.
        negative: texts that lack it.

    Raises:
        InputError: if one of the two is empty, or a text blank.
    """

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]

    def __post_init__(self) -> None:
        for kind, texts in (("positive", self.positive), ("negative", self.negative)):
            if not texts:
                raise InputError(f"the concept {self.name!r} has no {kind} texts; it needs texts of both kinds")
            if blank := [number for number, text in enumerate(texts, start=1) if not text.strip()]:
                raise InputError(f"the concept {self.name!r}: {kind} text {blank[0]} is blank; leave it out")

    def __repr__(self) -> str:
        return one_line(self, self.name, f"{len(self.positive)} positive and {len(self.negative)} negative texts")

    @classmethod
    def of_comments(cls, comments: Iterable[Comment], *, name: str = "toxicity") -> Concept:
        """Labelled comments; the toxic ones are positive."""
        comments = list(comments)
        return cls(
            name,
            tuple(comment.text for comment in comments if comment.toxic),
            tuple(comment.text for comment in comments if not comment.toxic),
        )

    @classmethod
    def of_instances(cls, instances: Sequence[AnyPair], *, name: str = "unsafe") -> Concept:
        """SafeEdit's unsafe generations against its safe ones."""
        return cls(
            name,
            tuple(instance.unsafe for instance in instances),
            tuple(instance.safe for instance in instances),
        )

    @classmethod
    def read(cls, positive: str | Path, negative: str | Path, *, name: str | None = None) -> Concept:
        """Two files with one text a line; called by the first file's name if no name is given.

        Raises:
            InputError: if a file is missing, not UTF-8 or has no text.
        """
        return cls(name or Path(positive).stem, read_lines(positive), read_lines(negative))

    @classmethod
    def read_table(
        cls,
        path: str | Path,
        *,
        text_column: str | None = None,
        label_column: str | None = None,
        name: str | None = None,
    ) -> Concept:
        """A CSV file of labelled texts, see `read_comments`; label 1 is positive."""
        comments = read_comments(path, text_column=text_column, label_column=label_column)
        return cls.of_comments(comments, name=name or Path(path).stem)

    def comments(self) -> list[Comment]:
        """The texts as labelled comments, positive ones as toxic: what `fit_probe` trains on."""
        return [Comment(text, True) for text in self.positive] + [Comment(text, False) for text in self.negative]

    def shuffled(self, seed: int) -> Concept:
        """The same texts with labels drawn anew, as many of each: the negative control, without a concept in it."""
        texts, n = [*self.positive, *self.negative], len(self.positive)
        random.Random(seed).shuffle(texts)
        return Concept(f"{self.name} (labels shuffled)", tuple(texts[:n]), tuple(texts[n:]))


def read_lines(path: str | Path) -> tuple[str, ...]:
    """The lines of a UTF-8 file, one text each; blank lines are skipped, and a warning counts them.

    A file named .jsonl or .json holds texts or conversations, as `read_benign` takes them.

    Raises:
        InputError: if the file is missing, not UTF-8, or has no text.
    """
    if Path(path).suffix in (".json", ".jsonl"):
        return tuple(one.prompt for one in read_benign(path, what="texts"))
    found = read_text_lines(path, "a file with one text a line")
    n_lines, texts = found[-1][0], tuple(text for _, text in found)
    if skipped := n_lines - len(texts):
        _logger.warning("%s: skipped %d blank lines, kept %d", path, skipped, len(texts))
    return texts
