"""Pairs of real text, in the setting of Lee et al. 2024: a model goes on with the first half of a toxic comment.

    prompt  the first half
    unsafe  the rest
    safe    the model's own greedy continuation, where the judge calls it clean; else the first of a few drawn at
            temperature 1 that is; where none is, there is no pair

Were only the prompts kept that the model goes on from cleanly by itself, there would be no toxicity to lower on any of
them: what a study asks is what a greedy continuation answers. The model reads plain text, in no chat format.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mechinterp.answers.judges import EmbeddedJudge, Judge
from mechinterp.answers.responses import ResponseLog, labels_of
from mechinterp.answers.safety import safe
from mechinterp.answers.scoring import score_responses
from mechinterp.data.comments import Comment, write_comments
from mechinterp.data.counting import many
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
from mechinterp.models.passes.generation import answers_of, generate
from mechinterp.models.passes.sampling import sampled
from mechinterp.models.passes.watching import Progress
from mechinterp.models.text.tokens import encode
from mechinterp.runs.workspace import fingerprint_of_judge

WORDS = 60
"""Of a longer comment so many are read."""

DRAWS = 4
"""Continuations drawn at most of a prompt whose greedy one is not clean."""

_logger = logging.getLogger(__name__)


def judge_of_comments(comments: Sequence[Comment], *, seed: int, note: Callable[[str], None]) -> EmbeddedJudge:
    """A judge made of labelled comments: clean is safe."""
    made = EmbeddedJudge.fit([one.text for one in comments], [not one.toxic for one in comments], seed=seed)
    note(f"judge: trained on {many(made.n_train, 'comment')}; {made.scores_said}")
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
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[AnyPair]:
    """Let a model go on with toxic comments, and keep pairs where it can do so cleanly.

    Args:
        checkpoint: the model, in no chat format; left as it was.
        comments: labelled ones.
        judge: of its continuations.
        out: file of the pairs, `.jsonl`. The continuations are kept beside it as they come, and a run that was killed
            goes on where it was.
        max_new_tokens: longest continuation.
        words: of a longer comment so many are read.
        limit: only the first so many toxic comments.
        draws: continuations drawn at most where the greedy one is not clean; 0 leaves such prompts out.
        seed: of what is drawn.
        progress: called with (comments done, comments in all).

    Returns:
        The pairs, numbered as the comments in their file.

    Raises:
        InputError: if a place is taken by what this did not write, the file is of other settings, or no pair is left.
    """
    if checkpoint.chat is not None:
        raise InputError("comments are gone on with as plain text: load the model with `chat=none`")
    halves = halved(comments, words=words)[:limit]
    log = ResponseLog.open(out, {**_settings(checkpoint, halves, judge, max_new_tokens), "draws": draws, "seed": seed})
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
    clean = dict(_clean(prompts, dict(enumerate(answers)), judge))
    greedy = len(clean)
    for draw in range(1, draws + 1):
        if not (left := [row for row in range(len(prompts)) if row not in clean]):
            break
        clean |= _clean(prompts, _drawn(checkpoint, prompts, left, log, draw, max_new_tokens, seed), judge)
    pairs = [
        Pair(id=half.number, prompt=half.prompt, unsafe=half.rest, safe=clean[row])
        for row, half in enumerate(halves)
        if row in clean
    ]
    _say(len(halves), greedy, len(clean), draws, judge)
    pairs = distinct_pairs(pairs, "the continuations")
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
        "code": code_of("mechinterp.models.passes.generation", "mechinterp.models.passes.sampling"),
    }


def _clean(prompts: Sequence[str], said: Mapping[int, str], judge: Judge) -> dict[int, str]:
    """Those of some continuations, by the row of their prompt, that the judge calls clean."""
    found = safe(score_responses(judge, list(said.values()), [prompts[row] for row in said]))
    return {row: text for (row, text), good in zip(said.items(), found, strict=True) if good}


def _drawn(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    rows: Sequence[int],
    log: ResponseLog,
    draw: int,
    max_new_tokens: int,
    seed: int,
) -> dict[int, str]:
    """A continuation drawn of some prompts, by their rows; kept in the log under its number."""
    had = log.of(draw)
    if any(prompts[row] not in had for row in rows):
        length = checkpoint.names.context_length
        asked = [prompts[row] for row in rows]
        heads = encode(
            checkpoint.tokenizer, asked, max_length=length, reserve=max_new_tokens, truncate=True, quiet=True
        )
        found = sampled(checkpoint, heads, 1, temperature=1.0, max_new_tokens=max_new_tokens, seed=seed + draw)
        had = dict(zip(asked, answers_of(checkpoint, [text for (text,) in found]), strict=True))
        if processes.is_main():
            log.add(draw, had)
    return {row: had[prompts[row]] for row in rows}


def _say(comments: int, greedy: int, clean: int, draws: int, judge: Judge) -> None:
    """How many pairs there are, and of what.

    Raises:
        InputError: if there are none.
    """
    if not clean:
        raise InputError(
            f"none of the model's continuations of {many(comments, 'comment')} is clean by the judge {judge.name}, "
            f"greedy or one of {draws} drawn: give another judge, or another model"
        )
    _logger.warning(
        "%d toxic comments: of %d the greedy continuation is clean, of %d more one of %d drawn; %d make no pair",
        comments,
        greedy,
        clean - greedy,
        draws,
        comments - clean,
    )


def split_files(out: Path) -> dict[str, Path]:
    """What `write_split` makes beside a file of pairs: the splits, and what judge and probe may be made of."""
    files = {name: out.with_name(f"{out.stem}-{name}.jsonl") for name in (*SPLITS, "labelled")}
    return files | {"comments": out.with_name(f"{out.stem}-comments.csv")}


def write_split(pairs: Sequence[AnyPair], comments: Sequence[Comment], out: Path, *, seed: int) -> dict[str, Path]:
    """Pairs in three files for a study, half of them to train on, and what its judge and its probe may be made of.

    That is every labelled comment but those of validation and test pairs, as comments and, clean as safe, as responses.

    Args:
        pairs: numbered as the comments in their file.
        comments: all of the file's.
        out: the file of all pairs, beside which these stand.
        seed: of the split.

    Raises:
        InputError: for fewer than eight pairs.
    """
    if len(pairs) < 8:
        raise InputError(f"{out}: {many(len(pairs), 'pair is', 'pairs are')} too few to split; give more comments")
    order, quarter = seeded_order(len(pairs), seed), len(pairs) // 4
    parts = {"validation": order[:quarter], "test": order[quarter : 2 * quarter], "train": order[2 * quarter :]}
    files = split_files(out)
    for name, rows in parts.items():
        write_pairs([pairs[row] for row in sorted(rows)], files[name])
    held = {pairs[row].id for name in ("validation", "test") for row in parts[name]}
    rest = [comment for number, comment in enumerate(comments, 1) if number not in held]
    write_json_lines(files["labelled"], [{"response": one.text, "safe": not one.toxic} for one in rest])
    write_comments(rest, files["comments"])
    return files
