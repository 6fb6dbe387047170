"""Pairs of real text, in the setting of Lee et al. 2024: a model goes on with the first half of a toxic comment.

    prompt  the first half
    unsafe  the rest
    safe    the model's own greedy continuation, where the judge calls it clean; otherwise there is no pair

The model reads plain text, in no chat format. What the judge cannot tell is no pair either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mechinterp.answers.judges import EmbeddedJudge, Judge
from mechinterp.answers.responses import ResponseLog, labels_of
from mechinterp.answers.safety import safe
from mechinterp.answers.scoring import score_responses
from mechinterp.data.comments import Comment
from mechinterp.data.half_comments import HalfComment, halved
from mechinterp.data.pair_files import read_pairs, write_pairs
from mechinterp.data.pairs import AnyPair, Pair, distinct_pairs
from mechinterp.data.safeedit import SPLITS
from mechinterp.data.storage.files import write_json, write_json_lines
from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.errors import InputError
from mechinterp.measures.statistics import seeded_order
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.watching import Progress
from mechinterp.runs.workspace import fingerprint_of_judge

WORDS = 60
"""Of a longer comment so many are read."""

_logger = logging.getLogger(__name__)


def judge_of_comments(comments: Sequence[Comment], *, seed: int, note: Callable[[str], None]) -> EmbeddedJudge:
    """A judge made of labelled comments: clean is safe."""
    made = EmbeddedJudge.fit([one.text for one in comments], [not one.toxic for one in comments], seed=seed)
    note(f"judge: trained on {made.n_train} comments; {made.scores_said}")
    return made


def pairs_from_comments(
    checkpoint: Checkpoint,
    comments: Sequence[Comment],
    judge: Judge,
    out: Path,
    *,
    max_new_tokens: int = 32,
    words: int = WORDS,
    limit: int | None = None,
    progress: Progress | None = None,
) -> list[AnyPair]:
    """Let a model go on with toxic comments, and keep pairs where it does so cleanly.

    Args:
        checkpoint: the model, in no chat format; left as it was.
        comments: labelled ones.
        judge: of its continuations.
        out: file of the pairs, `.jsonl`. The continuations are kept beside it as they come, and a run that was killed
            goes on where it was.
        max_new_tokens: longest continuation.
        words: of a longer comment so many are read.
        limit: only the first so many toxic comments.
        progress: called with (comments done, comments in all).

    Returns:
        The pairs, numbered as the comments in their file.

    Raises:
        InputError: if a place is taken by what this did not write, the file is of other settings, or no pair is left.
    """
    if checkpoint.chat is not None:
        raise InputError("comments are gone on with as plain text: load the model with `chat=none`")
    halves = halved(comments, words=words)[:limit]
    log = ResponseLog.open(out, _settings(checkpoint, halves, judge, max_new_tokens))
    if log.complete:
        return read_pairs(out)
    had = log.of(None)
    prompts = [half.prompt for half in halves]

    def keep(new: Mapping[int, str]) -> None:
        log.add(None, {prompts[row]: text for row, text in new.items()})

    answers = generate(
        checkpoint,
        prompts,
        max_new_tokens=max_new_tokens,
        truncate=True,
        known={row: had[prompt] for row, prompt in enumerate(prompts) if prompt in had},
        see=keep,
        progress=progress,
    )
    pairs = _clean(halves, answers, judge)
    if processes.is_main():
        write_pairs(pairs, out)
        write_json(labels_of(out), {"settings": log.settings, "complete": True})
    log.close()
    return [*pairs]


def _settings(
    checkpoint: Checkpoint, halves: Sequence[HalfComment], judge: Judge, max_new_tokens: int
) -> dict[str, object]:
    """What the pairs depend on."""
    return {
        "weights": checkpoint.fingerprint,
        "tokenizer": checkpoint.tokenizer_fingerprint,
        "comments": digest([[half.number, half.prompt, half.rest] for half in halves]),
        "judge": fingerprint_of_judge(judge),
        "max_new_tokens": max_new_tokens,
        "code": code_of("mechinterp.models.passes.generation"),
    }


def _clean(halves: Sequence[HalfComment], answers: Sequence[str], judge: Judge) -> list[Pair]:
    """Pairs of those continuations that the judge calls clean; a line says how many there are."""
    scores = score_responses(judge, answers, [half.prompt for half in halves])
    clean = safe(scores)
    pairs = [
        Pair(id=half.number, prompt=half.prompt, unsafe=half.rest, safe=answer)
        for half, answer, good in zip(halves, answers, clean, strict=True)
        if good
    ]
    if not pairs:
        raise InputError(
            f"none of the model's {len(halves)} continuations is clean by the judge {judge.name}: give another judge, "
            "or another model"
        )
    toxic, neutral = sum(score is not None for score in scores) - sum(clean), sum(score is None for score in scores)
    _logger.warning(
        "%d toxic comments: %d continuations are clean and make a pair, %d are toxic, %d cannot be told",
        len(halves),
        len(pairs),
        toxic,
        neutral,
    )
    return distinct_pairs(pairs, "the continuations")


def split_files(out: Path) -> dict[str, Path]:
    """What `write_split` makes beside a file of pairs: the splits, and the labelled responses of a judge."""
    return {name: out.with_name(f"{out.stem}-{name}.jsonl") for name in (*SPLITS, "labelled")}


def write_split(pairs: Sequence[AnyPair], comments: Sequence[Comment], out: Path, *, seed: int) -> dict[str, Path]:
    """Pairs in three files for a study, half of them to train on, and what its judge may be made of.

    That is every labelled comment but those of validation and test pairs, clean as safe.

    Args:
        pairs: numbered as the comments in their file.
        comments: all of the file's.
        out: the file of all pairs, beside which these stand.
        seed: of the split.

    Raises:
        InputError: for fewer than eight pairs.
    """
    if len(pairs) < 8:
        raise InputError(f"{out}: {len(pairs)} pairs are too few to split; give more comments")
    order, quarter = seeded_order(len(pairs), seed), len(pairs) // 4
    parts = {"validation": order[:quarter], "test": order[quarter : 2 * quarter], "train": order[2 * quarter :]}
    files = split_files(out)
    for name, rows in parts.items():
        write_pairs([pairs[row] for row in sorted(rows)], files[name])
    held = {pairs[row].id for name in ("validation", "test") for row in parts[name]}
    labelled = [
        {"response": comment.text, "safe": not comment.toxic}
        for number, comment in enumerate(comments, 1)
        if number not in held
    ]
    write_json_lines(files["labelled"], labelled)
    return files
