"""Recording: means of activations at named hook points, streamed over inputs through the model's own forward pass.

    a = mean over inputs x of h(x),      h(x) = mean over the measured positions of x

One pass answers for any number of hook points and positions, and ends as soon as the last wanted module has been seen.
Similar lengths share a batch, and the batches share a budget of tokens. Memory does not grow with the number of inputs:
sums are kept for a fixed number of groups of inputs (input i belongs to group i mod n), so that intervals over inputs
can be had by resampling groups; with no more inputs than groups each input is its own. Under a launcher every process
reads its share of the batches, and the sums are joined once (`mechinterp.models.processes`).

A recording describes activations; that they cause anything is not established by it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from mechinterp.data.conversations import Prompt
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.first_token import check_first_token
from mechinterp.models.passes.middle_stream import check_middle_stream
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.sequences import Window, readings
from mechinterp.models.passes.sinks import Sinks
from mechinterp.models.passes.tally import Tally
from mechinterp.models.passes.watching import Progress, evaluating, run_until_seen, watching
from mechinterp.models.text.batches import length_batches, pad, token_budget
from mechinterp.models.text.tokens import Encoded, Position


def record(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    hooks: Sequence[str],
    *,
    position: Position = "last",
    **settings: Any,
) -> Recording:
    """Record mean activations of texts at hook points; `settings` are the keyword arguments of `record_positions`."""
    return record_positions(checkpoint, prompts, hooks, [position], **settings)[position]


def record_all(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], hooks: Sequence[str], **settings: Any
) -> dict[str, Float[Tensor, "input d"]]:
    """The per-input values of a recording, for small sets of inputs or small hooks (the probe's features, Fig 8)."""
    return dict(record(checkpoint, prompts, hooks, keep=hooks, groups=1, **settings).inputs)


def record_positions(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    hooks: Sequence[str],
    positions: Sequence[Position],
    *,
    responses: Sequence[str] | None = None,
    continuations: Sequence[Encoded] | None = None,
    keep: Sequence[str] | Mapping[Position, Sequence[str]] = (),
    project: Mapping[str, Float[Tensor, "d k"]] | None = None,
    together: Collection[str] = (),
    lengths: Collection[str] = (),
    groups: int = 128,
    max_tokens: int | None = None,
    max_batch: int = 256,
    padding_side: Literal["left", "right"] = "right",
    truncate: bool = False,
    without_sinks: bool | Sinks = False,
    called: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[Position, Recording]:
    """Record mean activations of texts at hook points and positions, all in one pass.

    Args:
        checkpoint: the model; left exactly as it was.
        prompts: texts, or conversations in a chat format.
        hooks: TransformerLens names, see `HookNames.site`.
        positions: of `last` (the last prompt token, in a chat format of the answer's header), `content` (the last token
            of the user's text), `post:-K` (the K-th last prompt token behind that text), `mean` (all prompt tokens, in
            a chat format those of the user's text), `response` (all tokens of the
            response), `generated:N` (the first N tokens of the continuation), `all`; a mean over tokens of each input.
        responses: texts teacher-forced after the prompts, the same for every checkpoint that is compared.
        continuations: the prompts with tokens after them, from `generation.continue_greedily`: the base's for every
            checkpoint (the same text, so that a change is the model's), or each one's own. Instead of `responses`.
        keep: those of the hook points whose per-input values are wanted too, at every position or by position (memory
            grows with the inputs).
        project: matrices P by hook point: every input's h(x) P is kept, k numbers an input.
        together: those of the hook points of which the mean over all inputs is enough, without groups.
        lengths: those of the hook points at which lengths are wanted too: a number an input.
        groups: at most this many groups of inputs.
        max_tokens: padded tokens per batch; similar lengths share a batch. By default what keeps the device busy: 2,048
            on a CPU, whose caches more would overflow, and 8,192 elsewhere.
        max_batch: sequences per batch.
        padding_side: where padding goes; it changes nothing but rounding.
        truncate: cut prompts that exceed the context from the left instead of raising.
        without_sinks: leave tokens at which a massive activation stands after any block out of every mean and length,
            but where a position has no other: this model's, found by a pass of its own, or those given, of these texts.
        called: what each input is called in errors; by default "prompt" and its number.
        progress: called with (texts done, texts in all) of this process's share.

    Returns:
        A recording for each position.

    Raises:
        InputError: for unknown hook points or positions, empty or too long prompts, or a hook point the architecture
            lacks.
    """
    if not prompts:
        raise InputError("there are no prompts to record")
    if groups < 1:
        raise InputError(f"there must be at least one group of inputs, got {groups}")
    hooks = list(dict.fromkeys(hooks))
    kept = {p: keep.get(p, ()) if isinstance(keep, Mapping) else keep for p in positions}
    if unknown := {hook for wanted in (*kept.values(), project or {}, together, lengths) for hook in wanted} - set(
        hooks
    ):
        raise InputError(
            f"keep, project, together or lengths names {sorted(unknown)}, which are not among the recorded hook points"
        )
    sites = [checkpoint.names.site(hook) for hook in hooks]
    if any(hook.endswith("hook_resid_mid") for hook in hooks):
        check_middle_stream(checkpoint)
    texts: dict[str, Any] = {"responses": responses, "continuations": continuations}
    read = readings(checkpoint, prompts, positions, **texts, truncate=truncate, called=called)
    check_first_token(checkpoint, prompts, read)
    tallies = {p: Tally(len(prompts), groups, kept[p], dict(project or {}), together, lengths) for p in positions}
    sinks = Sinks.of(checkpoint, (r.encoded for r in read)) if without_sinks is True else without_sinks
    leave_out = sinks.at if sinks else None
    windows: dict[Position, Window] = {}

    def see(hook: str, values: Tensor) -> None:
        for position, window in windows.items():
            tallies[position].add(hook, window.mean(values))
            if hook in lengths:
                tallies[position].measure(hook, window.mean_length(values), window.entry_share(values))

    if max_tokens is None:
        max_tokens = token_budget(checkpoint.device)
    sizes = [len(r.encoded.ids) for r in read]
    batches = processes.share(list(length_batches(sizes, max_tokens, max_batch, apart=checkpoint.names.short_context)))
    pad_id, done, total = checkpoint.padding_id, 0, sum(len(order) for order in batches)
    with evaluating(checkpoint.model), watching(checkpoint.model, sites, see):
        for order in batches:
            chosen = [read[i] for i in order]
            batch = pad([r.encoded for r in chosen], pad_id=pad_id, side=padding_side, device=checkpoint.device)
            windows.clear()
            found = {p: Window.of(chosen, p, batch, leave_out) for p in positions}
            windows.update({p: window for p, window in found.items() if window is not None})
            for position, window in windows.items():
                tallies[position].expect(window.inputs)
            with reading(batch):
                run_until_seen(checkpoint.model, **batch.inputs())
            done += len(order)
            if progress is not None:
                progress(done, total)
    recordings = {position: tally.recording(hooks, position, checkpoint) for position, tally in tallies.items()}
    return {p: replace(recording, without_sinks=bool(sinks)) for p, recording in recordings.items()}
