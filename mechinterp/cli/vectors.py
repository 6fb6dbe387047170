"""The value vectors that lie along a direction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.common import label_and_path, rank, read_direction, reporting, say
from mechinterp.cli.options import RankingName, Trust
from mechinterp.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.audit.directions.toxic_direction import ToxicDirection

commands = typer.Typer()


@commands.command()
def vectors(
    model: Annotated[str, typer.Option(help="The base: a folder of weights; no model is built.")],
    probe: Annotated[Path | None, typer.Option(help="The base's probe, from `mechinterp probe`.")] = None,
    direction: Annotated[
        list[str] | None,
        typer.Option(help="FILE or NAME=FILE of a direction (.safetensors, .npy, .pt); repeatable."),
    ] = None,
    by: Annotated[RankingName, typer.Option(help="The ranking that is printed; the table has both.")] = (
        RankingName.cosine
    ),
    top: Annotated[int, typer.Option(min=1, help="Value vectors in each list, over all blocks.")] = 128,
    against: Annotated[
        list[str] | None,
        typer.Option(help="A tuned checkpoint, PATH or NAME=PATH, or an edit's folder: drift; repeatable."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=0, help="Top tokens of each vector; 0 for none.")] = 10,
    final_norm: Annotated[
        bool, typer.Option("--final-norm", help="Apply the final norm's gain before the unembedding.")
    ] = False,
    shown: Annotated[int, typer.Option(min=1, help="Vectors printed for each direction.")] = 10,
    base: Annotated[
        str | None, typer.Option(help="What edits and bare files of weights stand on; --model if not given.")
    ] = None,
    check: Annotated[
        bool | None, typer.Option(help="Hash the weights to see whether the direction is theirs; by size if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; the tables go into its `tables`.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """The value vectors closest to a direction: what they say, their common subspace, their drift in tuned models."""
    from mechinterp.audit.listed_vectors import list_vectors
    from mechinterp.audit.weights_alone.belonging import check_edit, check_origin, tokenizer_of
    from mechinterp.audit.weights_alone.erasure import check_shape
    from mechinterp.data.storage.places import check_free, check_writable
    from mechinterp.data.storage.tables import write_table
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.equality import equal_weights, notes_of_equal
    from mechinterp.models.files.weights import LazyWeights

    if final_norm and not tokens:
        raise InputError("--final-norm is for the top tokens, and --tokens 0 asks for none")
    wanted = _directions(probe, direction)
    named = [label_and_path(text) for text in against or []]
    if repeated := {name for name, _ in named if [n for n, _ in named].count(name) > 1}:
        raise InputError(f"--against: the names {sorted(repeated)} occur twice; give NAME=PATH")
    if "base" in dict(named):
        raise InputError("--against: give it another name than 'base', which is the base's own")
    if out is not None:
        check_writable(out / "tables" / "value_vectors.csv", kind="file")
        check_free(out / "tables" / "toxic_subspace.csv")
    with reporting() as terminal:
        weights = LazyWeights.open(model, base, trust_remote_code)
        for _, path in named if base is None else []:
            for each in wanted.values():
                check_edit(path, each)
        for each in wanted.values():
            each.check_width(weights.names.d_model, weights.source)
        tuned = {name: LazyWeights.against(path, model, base, trust_remote_code) for name, path in named}
        for other in tuned.values():
            for block in range(weights.names.n_blocks):
                check_shape(other, weights, block, weights.names.d_model)
        opened = {"base": weights, **tuned}
        for note in notes_of_equal("base", list(tuned), lambda a, b: equal_weights(opened[a], opened[b])):
            terminal.note(note)
        reads = tokenizer_of(model, base, trust_remote_code=trust_remote_code)
        for each in wanted.values():
            if left_out := check_origin(weights, each, None, hash_weights=check, tokenizer=reads):
                terminal.note(left_out)
        tokenizer = None
        if tokens:
            tokenizer = Checkpoint.skeleton(model, base=base, trust_remote_code=trust_remote_code).tokenizer
        listed = list_vectors(
            weights,
            {name: each.vector for name, each in wanted.items()},
            tuned=tuned,
            top=top,
            tokens=tokens,
            final_norm=final_norm,
            tokenizer=tokenizer,
            progress=terminal.progress("reading blocks"),
        )
    table, spans = listed.value_vectors, listed.toxic_subspace
    if out is not None and rank() == 0:
        write_table(out / "tables" / "value_vectors.csv", table)
        write_table(out / "tables" / "toxic_subspace.csv", spans)
    if rank() == 0:
        _print(table, spans, by.value, shown)
    if out is not None:
        say(f"tables: {out / 'tables'}")


def _directions(probe: Path | None, given: list[str] | None) -> dict[str, ToxicDirection]:
    """The directions that the options name, by their names."""
    from mechinterp.audit.directions.probe import ToxicProbe
    from mechinterp.audit.directions.toxic_direction import ToxicDirection

    found = [] if probe is None else [ToxicDirection.from_probe(ToxicProbe.load(probe))]
    found += [read_direction(text) for text in given or []]
    if not found:
        raise InputError("there is no direction: give --probe FILE or --direction FILE")
    names = [each.name for each in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"--direction: the names {repeated} occur twice; give NAME=FILE")
    return dict(zip(names, found, strict=True))


def _print(table: pd.DataFrame, spans: pd.DataFrame, by: str, shown: int) -> None:
    """The first vectors of each list with their drift, and the first components."""
    from mechinterp.cli.terminal import print_table

    labels = [label for label in table["method"].unique() if label != "base"]

    def words(tokens: object, n: int = 6) -> str:
        return (
            " ".join(repr(token)[1:-1] or "''" for token in json.loads(tokens)[:n]) if isinstance(tokens, str) else ""
        )

    for direction in table["direction"].unique():
        rows = table[(table["direction"] == direction) & (table["ranking"] == by) & (table["rank"] <= shown)]
        first = rows[rows["method"] == table["method"].iloc[0]]
        moved = {name: rows[rows["method"] == name].set_index("rank")["drift_relative"] for name in labels}
        headings = ["layer", "neuron", "cosine", "projection", *(f"drift {name}" for name in labels), "says"]
        cells = [
            [
                f"{row.block + 1} (block {row.block})",
                str(row.neuron),
                f"{row.cosine:.4f}",
                f"{row.projection:.4g}",
                *(f"{moved[name].loc[row.rank]:.4f}" for name in labels),
                words(row.tokens),
            ]
            for row in first.itertuples()
        ]
        print_table(f"value vectors along {direction}, by {by}", headings, cells)
        components = spans[spans["direction"] == direction]
        cells = [
            [
                str(row.component),
                f"{row.variance_share:.1%}",
                f"{row.cosine_with_direction:.4f}",
                words(row.tokens),
                words(row.tokens_opposite),
            ]
            for row in components.head(3).itertuples()
        ]
        n = int(table.loc[(table["direction"] == direction) & (table["ranking"] == "cosine"), "rank"].max())
        title = f"singular vectors of the {n} value vectors closest to {direction} by cosine"
        print_table(title, ["component", "variance", "cosine", "says", "opposite"], cells)
