"""Texts through a checkpoint: recording, generation, scoring, and the probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mechinterp.answers.fed_tokens import FedTokens, fed_tokens
from mechinterp.answers.judges import Judge
from mechinterp.answers.spoken import Responses, ResponseScores
from mechinterp.audit.directions import probe_training
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.data.comments import Comment
from mechinterp.data.conversations import Prompt, prompt_of
from mechinterp.errors import InputError
from mechinterp.face.given import check_seed
from mechinterp.face.loading import CheckpointLike, comments_of, load
from mechinterp.face.progress import watched
from mechinterp.models.names import h_down
from mechinterp.models.passes import generation, recording, scoring
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.scoring import Reduction
from mechinterp.models.text.tokens import Position


def record(
    checkpoint: CheckpointLike,
    prompts: Sequence[Prompt],
    hooks: Sequence[str] | None = None,
    *,
    position: Position = "last",
    responses: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    project: Mapping[str, Float[Tensor, "d k"]] | None = None,
    truncate: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> Recording:
    """Record mean activations of texts at hook points, in one pass that ends at the last of them.

    Args:
        checkpoint: in memory, or a source that `mi.load` takes; left as it was.
        prompts: texts, or conversations: lists of `{"role": ..., "content": ...}`.
        hooks: TransformerLens names (`mi.h_down(3)`, `mi.resid_post(3)`, ...); `h_down` of every block if not given.
        position: `last` (the last prompt token), `content` (the last of the user's text), `post:-K` (the K-th last
            prompt token behind it), `mean` (all tokens of the user's text), `response`, `all`, or `generated:N`.
        responses: texts after the prompts, for `response` and `all`.
        keep: those of the hook points whose value of every single input is wanted too (`.inputs`).
        project: matrices by hook point, whose products with every input are kept.
        truncate: cut prompts that exceed the context from the left instead of raising.
        progress: whether a bar is shown; None: in a notebook or on a terminal.
        settings: further ones of `models.passes.recording.record_positions`.

    Returns:
        The recording: `.mean(hook)`, `.inputs[hook]`, `.table`, `.save(path)`.

    Raises:
        InputError: for unknown hook points or positions, and empty or too long texts.

    Example:
        >>> before = mi.record("BASE", ["How do I pick a lock?"], [mi.h_down(5)])
        >>> before.mean(mi.h_down(5)).norm()
    """
    checkpoint = load(checkpoint)
    with watched(progress) as shown:
        return recording.record(
            checkpoint,
            texts_of(prompts),
            [h_down(block) for block in range(checkpoint.n_blocks)] if hooks is None else hooks,
            position=position,
            responses=responses,
            keep=keep,
            project=project,
            truncate=truncate,
            progress=shown.progress("recording"),
            **settings,
        )


def generate(
    checkpoint: CheckpointLike,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 32,
    judge: Judge | None = None,
    prefix: str | None = None,
    suffix: str | None = None,
    truncate: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> Responses:
    """Answer prompts greedily.

    Args:
        checkpoint: in memory, or a source that `mi.load` takes; interventions that are active on it act.
        prompts: texts, or conversations: lists of `{"role": ..., "content": ...}`.
        max_new_tokens: longest response, in tokens.
        judge: of the responses; then `.unsafe` is the share of unsafe ones.
        prefix, suffix: put around every prompt.
        truncate: cut prompts that leave no room for the response from the left instead of raising.
        progress: whether a bar is shown; None: in a notebook or on a terminal.
        settings: further ones of `models.passes.generation.continue_greedily`.

    Returns:
        The responses, a sequence of texts: `.table`, `.unsafe`, `.judged(judge)`, `.save(folder)`.

    Raises:
        InputError: for prompts that are too long.

    Example:
        >>> with mi.steer(base, direction, block=3, alpha=-4.0):
        ...     mi.generate(base, ["How do I pick a lock?"])
    """
    checkpoint, texts = load(checkpoint), texts_of(prompts)
    with watched(progress) as shown:
        said = generation.generate(
            checkpoint,
            texts,
            max_new_tokens=max_new_tokens,
            prefix=prefix,
            suffix=suffix,
            truncate=truncate,
            progress=shown.progress("answering"),
            **settings,
        )
        responses = Responses(checkpoint.name, tuple(texts), tuple(said))
        return responses if judge is None else responses.judged(judge)


def score(
    checkpoint: CheckpointLike,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    reduce: Reduction = "mean",
    truncate: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> ResponseScores:
    """Log-probability of given responses after their prompts.

    Args:
        checkpoint: in memory, or a source that `mi.load` takes; interventions that are active on it act.
        prompts: texts, or conversations: lists of `{"role": ..., "content": ...}`.
        responses: one per prompt.
        reduce: `mean` or `sum` over the tokens of the response, or the `first` one alone.
        truncate: cut prompts that exceed the context from the left instead of raising.
        progress: whether a bar is shown; None: in a notebook or on a terminal.
        settings: further ones of `models.passes.scoring.score`.

    Returns:
        The scores: `.values` in nats, `.mean`, `.table`, `.save(folder)`.

    Raises:
        InputError: for an unknown reduction, no response, or an empty or too long text.

    Example:
        >>> mi.score("BASE", ["How do I pick a lock?"], ["I am sorry, I cannot help."]).mean
    """
    checkpoint, texts = load(checkpoint), texts_of(prompts)
    with watched(progress) as shown:
        values = scoring.score(
            checkpoint,
            texts,
            responses,
            reduce=reduce,
            truncate=truncate,
            progress=shown.progress("scoring"),
            **settings,
        )
    return ResponseScores(checkpoint.name, tuple(texts), tuple(responses), values, reduce)


def show_tokens(
    checkpoint: CheckpointLike,
    prompt: Prompt,
    response: str | None = None,
    *,
    prefix: str | None = None,
    suffix: str | None = None,
    truncate: bool = False,
) -> FedTokens:
    """What a checkpoint is fed of a prompt, token by token, and the first token that it answers.

    Args:
        checkpoint: in memory, or a source that `mi.load` takes; `mi.load(..., chat=)` chooses its chat format.
        prompt: a text, or a conversation: a list of `{"role": ..., "content": ...}`.
        response: one that is put after it.
        prefix, suffix: put around the user's text.
        truncate: cut a prompt that exceeds the context from the left instead of raising.

    Returns:
        The tokens: `.table` with the part of each (template, user, suffix, response) and the positions that it is
        (`last`, `content`, `post:-K`), `.first`, `.save(folder)`.

    Raises:
        InputError: for an empty or too long text, or one that the chat template refuses.

    Example:
        >>> mi.show_tokens("BASE", "How do I pick a lock?")
    """
    return fed_tokens(
        load(checkpoint),
        prompt_of(prompt, "the prompt"),
        response,
        prefix=prefix,
        suffix=suffix,
        truncate=truncate,
    )


def fit_probe(
    base: CheckpointLike,
    comments: Sequence[Comment] | str | Path,
    *,
    seed: int = 0,
    final_norm: bool = False,
    truncate: bool = False,
    without_sinks: bool = False,
    progress: bool | None = None,
) -> ToxicProbe:
    """Train the toxic probe of a model on labelled comments, a tenth of them held out for its scores.

    Args:
        base: in memory, or a source that `mi.load` takes; left as it was.
        comments: from `mi.read_comments`, or the CSV file with Jigsaw's columns.
        seed: of the split.
        final_norm: take the residual stream after the final norm.
        truncate: cut comments that exceed the context from the left instead of raising.
        without_sinks: leave tokens with massive activations out of every comment's mean.
        progress: whether a bar is shown; None: in a notebook or on a terminal.

    Returns:
        The probe: `.direction`, `.scores`, `.table`, `.save(path)`; it belongs to these weights.

    Raises:
        InputError: if a class has fewer than two comments, or activations are not finite.

    Example:
        >>> probe = mi.fit_probe("BASE", mi.read_comments("jigsaw.csv"))
    """
    check_seed(seed)
    checkpoint = load(base)
    with watched(progress) as shown:
        return probe_training.fit_probe(
            checkpoint,
            comments_of(comments),
            seed=seed,
            final_norm=final_norm,
            truncate=truncate,
            without_sinks=without_sinks,
            progress=shown.progress("reading comments"),
        )


def texts_of(prompts: Sequence[Prompt]) -> Sequence[str]:
    """Texts, of which one alone would be read letter by letter, and conversations.

    Raises:
        InputError: for one text that is no list, or one conversation.
    """
    if isinstance(prompts, str):
        raise InputError(f"prompts is one text, not a list of them; give [{prompts[:40]!r}]")
    if prompts and isinstance(prompts[0], Mapping):
        raise InputError("prompts is one conversation, not a list of them; give [messages]")
    return [prompt_of(prompt, f"prompt {row}") for row, prompt in enumerate(prompts)]
