"""Making a direction in the residual stream."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import rank, reporting, say
from mechinterp.cli.loading import Loading, of_a_model
from mechinterp.cli.options import RankingName, Truncate, WithoutSinks
from mechinterp.cli.reading import Reading, of_pairs
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.audit.directions.toxic_direction import ToxicDirection
    from mechinterp.data.concepts import Concept
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


class KindName(StrEnum):
    """How a direction is made."""

    probe = "probe"
    means = "means"
    svd = "svd"
    effective = "effective"
    file = "file"


class SelectionName(StrEnum):
    """Which direction of a probe."""

    toxic_minus_clean = "toxic_minus_clean"
    toxic_row = "toxic_row"
    class_means = "class_means"


class PositionName(StrEnum):
    """Which tokens of a text."""

    last = "last"
    mean = "mean"


_TEXTS = {"positive", "negative", "comments", "data"}
_MEANS = (
    _TEXTS
    | {*vars(Reading())}
    | {"text_column", "label_column", "layer", "position", "dtype", "device", "device_map", "truncate", "without_sinks"}
)
_SOURCE = {"probe", "selection", "direction"}
_TAKES = {
    "probe": {"probe", "selection"},
    "means": _MEANS,
    "svd": _SOURCE | {"by", "top", "component"},
    "effective": _SOURCE,
    "file": {"direction"},
}
"""The options that each kind of direction takes; another one would do nothing, so it is refused."""


@commands.command()
@in_chat_format
@of_pairs
@of_a_model
def direction(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="The model that the direction is of; for means it is run.")],
    kind: Annotated[
        KindName,
        typer.Option(
            help="probe: one of a probe's. means: of texts with a concept, less texts without. svd: of the value "
            "vectors along --probe or --direction. effective: --probe or --direction pulled back through the "
            "final norm's gain. file: a bare one."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File of the direction (.safetensors).")],
    name: Annotated[str | None, typer.Option(help="Name in tables.")] = None,
    probe: Annotated[Path | None, typer.Option(help="A probe, from `mechinterp probe`.")] = None,
    selection: Annotated[SelectionName, typer.Option(help="Which direction of the probe.")] = (
        SelectionName.toxic_minus_clean
    ),
    direction: Annotated[Path | None, typer.Option(help="File of a direction (.safetensors, .npy, .pt).")] = None,
    positive: Annotated[Path | None, typer.Option(help="Texts with the concept, one a line.")] = None,
    negative: Annotated[Path | None, typer.Option(help="Texts without it, one a line.")] = None,
    comments: Annotated[Path | None, typer.Option(help="Labelled texts, CSV; label 1 has the concept.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    data: Annotated[Path | None, typer.Option(help="Pairs: unsafe responses against safe ones.")] = None,
    layer: Annotated[str, typer.Option(help="last, or the block, from 0, after which the stream is read.")] = ("last"),
    position: Annotated[PositionName, typer.Option(help="The last token of each text, or the mean over all.")] = (
        PositionName.last
    ),
    by: Annotated[RankingName, typer.Option(help="How value vectors are ranked.")] = RankingName.cosine,
    top: Annotated[int, typer.Option(min=1, help="Value vectors of the SVD.")] = 128,
    component: Annotated[int, typer.Option(min=1, help="Which singular vector, from 1.")] = 1,
    truncate: Truncate = False,
    without_sinks: WithoutSinks = False,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
) -> None:
    """Make a direction of a model, for `vectors` and `compare`."""
    from mechinterp.audit.directions.making import effective_direction, means_direction, svd_direction
    from mechinterp.audit.weights_alone.belonging import tokenizer_of
    from mechinterp.data.storage.places import check_writable
    from mechinterp.models.files.weights import LazyWeights

    _check_options(context, kind.value)
    if layer != "last" and not layer.isdecimal():
        raise InputError(f"--layer is last or the number of a block, got {layer!r}")
    if out.suffix not in (".safetensors", ".st"):
        raise InputError(f"--out {out}: a direction is saved as .safetensors; name the file so")
    with reporting() as terminal:
        if kind is KindName.means:
            concept = _concept(positive, negative, comments, text_column, label_column, data, reading)
            check_writable(out, kind="file")
            checkpoint = loading.of(model, chat)
            block = None if layer == "last" else int(layer)
            progress = terminal.progress("reading texts")
            made = means_direction(
                checkpoint,
                concept,
                block=block,
                position=position.value,
                truncate=truncate,
                without_sinks=without_sinks,
                progress=progress,
            )
        else:
            source = _one_direction(kind.value, probe, selection.value, direction)
            check_writable(out, kind="file")
            weights = LazyWeights.open(model, loading.base, loading.trust_remote_code)
            source.check_width(weights.names.d_model, weights.source)
            reads = tokenizer_of(model, loading.base, trust_remote_code=loading.trust_remote_code)
            source.check(weights.fingerprint, weights.source, reads)
            if kind is KindName.svd:
                progress = terminal.progress("reading blocks")
                made = svd_direction(weights, source, component=component, top=top, by=by.value, progress=progress)
            elif kind is KindName.effective:
                made = effective_direction(weights, source)
            else:  # the user's word that it belongs to this model is kept with it
                made = replace(source, fingerprint=weights.fingerprint, tokenizer=reads or "")
    if name is not None:
        made = made.named(name)
    if rank() == 0:
        made.save(out)
    say(f"direction {made.name!r} ({made.kind}): {len(made.vector)} dimensions, length {made.vector.norm():.4g}: {out}")


def _check_options(context: typer.Context, kind: str) -> None:
    """Refuse options that this kind of direction does not take."""
    optional = set().union(*_TAKES.values()) - _TAKES[kind]
    given = {p for p in optional if getattr(context.get_parameter_source(p), "name", "") == "COMMANDLINE"}
    if given:
        options = ", ".join(f"--{parameter.replace('_', '-')}" for parameter in sorted(given))
        takes = ", ".join(f"--{parameter.replace('_', '-')}" for parameter in sorted(_TAKES[kind]))
        raise InputError(f"--kind {kind} takes no {options}; it takes {takes}")


def _one_direction(kind: str, probe: Path | None, selection: str, direction: Path | None) -> ToxicDirection:
    from mechinterp.audit.directions.probe import ToxicProbe
    from mechinterp.audit.directions.toxic_direction import ToxicDirection

    if (probe is None) == (direction is None):
        wanted = " or ".join(f"--{option}" for option in ("probe", "direction") if option in _TAKES[kind])
        raise InputError(f"--kind {kind} needs {wanted}{', not both' if probe is not None else ''}")
    if direction is not None:
        return ToxicDirection.load(direction)
    chosen: Any = selection
    return ToxicDirection.from_probe(ToxicProbe.load(str(probe)), chosen)


def _concept(
    positive: Path | None,
    negative: Path | None,
    comments: Path | None,
    text_column: str | None,
    label_column: str | None,
    data: Path | None,
    reading: Reading,
) -> Concept:
    from mechinterp.data.concepts import Concept

    if (positive is None) != (negative is None) or [positive, comments, data].count(None) != 2:
        raise InputError("--kind means needs texts: --positive and --negative, or --comments, or --data; one of these")
    if comments is None and (text_column or label_column):
        raise InputError("--text-column and --label-column are of --comments")
    if data is None and reading != Reading():
        raise InputError("options of columns and --safe-log are of --data")
    if comments is not None:
        return Concept.read_table(comments, text_column=text_column, label_column=label_column)
    if data is not None:
        return Concept.of_instances(reading.of(data))
    return Concept.read(str(positive), str(negative))
