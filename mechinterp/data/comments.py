"""Comments labelled toxic or clean: what the toxic probe is trained on.

Read from CSV: the columns of the Jigsaw challenge by default, any other file given the names of its two columns. The
labels are the annotators' and are taken as they are; nothing here measures how far annotators agree.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechinterp.data.counting import many
from mechinterp.data.csv_rows import read_columns
from mechinterp.data.storage.files import replacing
from mechinterp.errors import InputError

TEXT_COLUMN = "comment_text"
LABEL_COLUMN = "toxic"
TOXIC_LABELS = ("1", "1.0", "true", "toxic")
CLEAN_LABELS = ("0", "0.0", "false", "not toxic")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comment:
    """A comment and whether its annotators call it toxic."""

    text: str
    toxic: bool


def read_comments(
    path: str | Path, *, text_column: str | None = None, label_column: str | None = None
) -> list[Comment]:
    """Read labelled comments from a CSV file with a header.

    A comment without text carries nothing a probe could learn from: it is skipped, and a warning counts the skipped.

    Args:
        path: the user's file, UTF-8; blanks around the names in its header do not count.
        text_column: the column of texts; Jigsaw's `comment_text` if not given.
        label_column: the column of labels; Jigsaw's `toxic` if not given. A label is one of 1, 1.0, True, Toxic or one
            of 0, 0.0, False, Not Toxic, in upper or lower case.

    Returns:
        The comments in the file's order, with both classes among them.

    Raises:
        InputError: the file is missing, empty or no CSV, a column is missing, a label is none of the above, or all
            comments are of one class. Rows are counted from 1 below the header.
    """
    path = Path(path)
    text_column = TEXT_COLUMN if text_column is None else text_column
    label_column = LABEL_COLUMN if label_column is None else label_column
    comments, skipped = [], 0
    columns = [(text_column, "text_column"), (label_column, "label_column")]
    for number, (text, label) in list(read_columns(path, columns, what="labelled comment")):
        if not text.strip():
            skipped += 1
            continue
        comments.append(Comment(text, _parse_label(label, path=path, number=number, column=label_column)))
    if skipped:
        _logger.warning("%s: skipped %s without text, kept %d", path, many(skipped, "comment"), len(comments))
    _require_both_classes(comments, path=path, label_column=label_column)
    return comments


def write_comments(comments: Iterable[Comment], path: str | Path) -> None:
    """Write comments as CSV with Jigsaw's columns and labels 0 and 1; `read_comments` gives them back.

    Args:
        comments: what to write, in order.
        path: the file to make or replace, whole or not at all; its folder is made too.

    Raises:
        InputError: the place cannot be written.
    """
    with replacing(Path(path)) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow((TEXT_COLUMN, LABEL_COLUMN))
        writer.writerows((comment.text, int(comment.toxic)) for comment in comments)


def share_of(comments: Sequence[Comment], most: int | None, seed: int) -> list[Comment]:
    """At most so many of the comments, or all: a seeded share with as much of each class."""
    from sklearn.model_selection import train_test_split

    if most is None or most >= len(comments):
        return list(comments)
    labels = [comment.toxic for comment in comments]
    return train_test_split(list(comments), train_size=most, random_state=seed, stratify=labels)[0]


def _parse_label(label: str, *, path: Path, number: int, column: str) -> bool:
    normalised = label.strip().lower()
    if normalised in TOXIC_LABELS:
        return True
    if normalised in CLEAN_LABELS:
        return False
    raise InputError(
        f"{path}: row {number}, column {column!r}: the label {label!r:.60} is none of "
        f"{', '.join(TOXIC_LABELS)} (toxic) or {', '.join(CLEAN_LABELS)} (clean)"
    )


def _require_both_classes(comments: list[Comment], *, path: Path, label_column: str) -> None:
    if not comments:
        raise InputError(f"{path}: has no comments; give a CSV file with a header and a comment per row")
    n_toxic = sum(comment.toxic for comment in comments)
    if n_toxic in (0, len(comments)):
        one = "toxic" if n_toxic else "clean"
        which = "its one comment is" if len(comments) == 1 else f"all {many(len(comments), 'comment')} are"
        raise InputError(
            f"{path}: {which} {one} by column {label_column!r}; "
            "a probe needs toxic and clean ones, give a file with both"
        )
