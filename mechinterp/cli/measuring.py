"""Probing, recording, and what weights alone tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import label_and_path, rank, reporting, say
from mechinterp.cli.loading import Loading, of_a_model
from mechinterp.cli.options import LabelColumn, Model, Prompts, Seed, TextColumn, Truncate, Trust, WithoutSinks
from mechinterp.cli.reading import Reading, of_pairs
from mechinterp.data.counting import many
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


@commands.command()
@in_chat_format
@of_a_model
def probe(
    model: Model,
    comments: Annotated[Path, typer.Option(help="Labelled comments, CSV; Jigsaw's columns if not told otherwise.")],
    out: Annotated[
        Path, typer.Option(help="File of the probe, NAME.safetensors; its tables go beside it, NAME.probe.csv.")
    ],
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    final_norm: Annotated[bool, typer.Option(help="Take the residual stream after the final norm.")] = False,
    truncate: Truncate = False,
    without_sinks: WithoutSinks = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
) -> None:
    """Train the toxic probe of a model on labelled comments."""
    from mechinterp.audit.directions.probe_training import fit_probe, probe_tables_of, write_probe_tables
    from mechinterp.data.comments import read_comments
    from mechinterp.data.storage.places import check_free, check_writable

    labelled = read_comments(comments, text_column=text_column, label_column=label_column)
    check_writable(out, kind="file")
    check_free(*probe_tables_of(out))
    with reporting() as terminal:
        checkpoint = loading.of(model, chat)
        fitted = fit_probe(
            checkpoint,
            labelled,
            seed=seed,
            final_norm=final_norm,
            truncate=truncate,
            without_sinks=without_sinks,
            progress=terminal.progress("reading comments"),
        )
        if rank() == 0:
            fitted.save(out)
            write_probe_tables(fitted, *probe_tables_of(out))
    score = fitted.scores[0]
    say(
        f"probe: accuracy {score.accuracy:.3f} (larger class {score.majority_baseline:.3f}), AUROC {score.auroc:.3f}, "
        f"F1 {score.f1:.3f} on {many(score.n_test, 'held-out comment')}: {out}"
    )


@commands.command(name="record")
@in_chat_format
@of_pairs
@of_a_model
def record_command(
    model: Model,
    out: Annotated[Path, typer.Option(help="File of the recording (.safetensors).")],
    data: Annotated[Path | None, typer.Option(help="Pairs, as every --data; their prompts are read.")] = None,
    prompts: Prompts = None,
    hook: Annotated[
        list[str] | None,
        typer.Option(help="TransformerLens name, blocks.3.hook_resid_mid; repeatable. h_down of every block if none."),
    ] = None,
    position: Annotated[
        str,
        typer.Option(
            help="last, content (of the user's text), post:-K (behind it), mean (of the prompt), response (the unsafe "
            "one, or the answer in --prompts), all, or generated:N greedy tokens."
        ),
    ] = "last",
    groups: Annotated[int, typer.Option(min=1, help="Groups of inputs whose means are kept, for intervals.")] = 128,
    truncate: Truncate = False,
    without_sinks: WithoutSinks = False,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
) -> None:
    """Mean activations of a model at hook points, over the prompts of a file."""
    if (data is None) == (prompts is None):
        raise InputError("give the prompts: --data FILE with pairs, or --prompts FILE")
    from mechinterp.data.benign import read_benign
    from mechinterp.data.storage.places import check_writable
    from mechinterp.models.names import h_down
    from mechinterp.models.passes.generation import continue_greedily
    from mechinterp.models.passes.recording import record
    from mechinterp.models.text.tokens import generated_tokens

    wanted = generated_tokens(position)
    if data is not None:
        instances = reading.of(data)
        texts, answers = [one.prompt for one in instances], [one.unsafe for one in instances]
        called = [f"instance {one.id}" for one in instances]
    else:
        listed = read_benign(str(prompts), what="prompts")
        texts, answers = [one.prompt for one in listed], [one.answer or "" for one in listed]
        called = [f"{prompts}: prompt {number}" for number in range(1, len(texts) + 1)]
    check_writable(out, kind="file")
    with reporting() as terminal:
        checkpoint = loading.of(model, chat)
        text: dict[str, Any] = {}
        if wanted is not None:
            text["continuations"] = continue_greedily(checkpoint, texts, max_new_tokens=wanted, truncate=truncate)
        elif position == "response" or (position == "all" and any(answers)):
            text["responses"] = answers
        found = record(
            checkpoint,
            texts,
            hook or [h_down(block) for block in range(checkpoint.n_blocks)],
            position=position,
            groups=groups,
            truncate=truncate,
            without_sinks=without_sinks,
            called=called,
            progress=terminal.progress("recording"),
            **text,
        )
    if rank() == 0:
        found.save(out)
    if bad := {name: count for name, count in found.non_finite.items() if count}:
        say(f"values that are not finite: {bad}; use a wider type (--dtype float32)")
    say(
        f"recording: {many(found.n_inputs, 'input')}, {many(len(found.groups), 'hook point')}, position "
        f"{position}: {out}"
    )


@commands.command()
def region(
    model: Annotated[str, typer.Option(help="The base: a folder of weights; no model is built.")],
    probe: Annotated[Path, typer.Option(help="The base's probe, from `mechinterp probe`.")],
    against: Annotated[
        list[str] | None, typer.Option(help="A tuned checkpoint, PATH or NAME=PATH, or an edit's folder; repeatable.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="What edits and bare files of weights stand on; --model if not given.")
    ] = None,
    layer: Annotated[str, typer.Option(help="all, or the number of a block, from 0.")] = "all",
    top: Annotated[int, typer.Option(min=1, help="Most toxic value vectors listed, over all blocks.")] = 20,
    recording: Annotated[
        Path | None, typer.Option(help="Saved recording of the base: erasure at its own activations.")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Random directions of the null; most of the time.")] = 1000,
    check: Annotated[
        bool | None, typer.Option(help="Hash the weights to see whether the probe is theirs; by size if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; the tables go into its `tables`.")] = None,
    seed: Seed = 0,
    trust_remote_code: Trust = False,
) -> None:
    """Toxicity of regions from the weights alone, read one block at a time."""
    from mechinterp.audit.directions.probe import SELECTIONS, ToxicProbe
    from mechinterp.audit.weights_alone.belonging import check_edit, check_origin, read_recording, tokenizer_of
    from mechinterp.audit.weights_alone.regions import RegionTables, measure_regions
    from mechinterp.data.storage.places import check_free, check_writable
    from mechinterp.models.equality import equal_weights, notes_of_equal
    from mechinterp.models.files.weights import LazyWeights

    if not (layer == "all" or layer.isdecimal()):
        raise InputError(f"--layer is all or the number of a block, got {layer!r}")
    if recording is not None and not against:
        raise InputError("--recording is for the erasure in tuned checkpoints; name one with --against")
    named = [label_and_path(text) for text in against or []]
    if repeated := {name for name, _ in named if [n for n, _ in named].count(name) > 1}:
        raise InputError(f"--against: the names {sorted(repeated)} occur twice; give NAME=PATH")
    fitted = ToxicProbe.load(probe)
    recorded = None if recording is None else read_recording(recording)
    if out is not None:
        check_writable(out / "tables" / "region.csv", kind="file")
        check_free(*RegionTables.places(out / "tables"))
    with reporting() as terminal:
        weights = LazyWeights.open(model, base, trust_remote_code)
        for _, path in named if base is None else []:
            check_edit(path, fitted)
        tuned = {name: LazyWeights.against(path, model, base, trust_remote_code) for name, path in named}
        opened = {"base": weights, **tuned}
        for note in notes_of_equal("base", list(tuned), lambda a, b: equal_weights(opened[a], opened[b])):
            terminal.note(note)
        tokenizer = tokenizer_of(model, base, trust_remote_code=trust_remote_code)
        if left_out := check_origin(weights, fitted, recorded, hash_weights=check, tokenizer=tokenizer):
            terminal.note(left_out)
        tables = measure_regions(
            weights,
            fitted.direction,
            tuned=tuned,
            blocks=None if layer == "all" else [int(layer)],
            top=top,
            recording=recorded,
            directions={("probe" if s == SELECTIONS[0] else s): fitted.direction_by(s) for s in SELECTIONS},
            seed=seed,
            draws=draws,
            progress=terminal.progress("reading blocks"),
        )
    say(tables.summary())
    if out is not None:
        tables.save(out / "tables")
        say(f"tables: {out / 'tables'}")
