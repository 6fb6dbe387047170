"""The command line: `mechinterp COMMAND`. Heavy imports wait until a command needs them, so that help is instant."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.data.safeedit import SafeEditInstance
    from mechinterp.judges import Judge
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.terminal import Terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Did a detoxified language model have its toxicity erased, or does it only walk around it?",
)
train_app = typer.Typer(no_args_is_help=True, help="Make a detoxified checkpoint through TRL.")
app.add_typer(train_app, name="train")


# click's class of every error of usage; typer carries click inside and gives it no public name
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]


class Dtype(StrEnum):
    """Precision in which a model is loaded; auto keeps that of the files."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Constraint(StrEnum):
    """The published DINM, or the one of the released code."""

    published = "published"
    released = "released"


class TextName(StrEnum):
    """Whose greedy tokens are measured."""

    fixed = "fixed"
    on_policy = "on_policy"
    both = "both"


class DistanceName(StrEnum):
    """Distances by which the toxic layer is located."""

    released = "released"
    residual = "residual"
    pooled = "pooled"
    relative = "relative"


Settings = TypeVar("Settings")
Model = Annotated[
    str,
    typer.Option(
        help="A transformers folder, an adapter's or edit's folder, a state-dict file, or a hub id (which alone needs "
        "the network)."
    ),
]
Data = Annotated[Path, typer.Option(help="SafeEdit instances, a JSON list.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random choice.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Precision of the weights; auto keeps that of the files.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
DeviceMap = Annotated[str | None, typer.Option(help="auto: spread the model over devices.")]
Base = Annotated[
    str | None, typer.Option(help="What an adapter, an edit or a bare state dict stands on; adapters may name it.")
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut texts that exceed the context on the left; otherwise an error.")
]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the checkpoint.")]
JudgeOption = Annotated[
    str | None, typer.Option(help="A sequence classifier of responses; else one made from the data.")
]
Lora = Annotated[int | None, typer.Option(help="Rank of LoRA adapters; full fine-tuning if not given.")]


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    handler = logging.StreamHandler()
    handler.addFilter(_Once())
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[handler])
    try:
        sys.exit(app(standalone_mode=False))
    except InputError as error:
        line = f"mechinterp: {' '.join(str(error).split())}"
        _say(line, err=True)
        if _rank() > 0:  # of this process's share alone, unless the main one ends all of them first
            time.sleep(3)
            typer.echo(f"[process {_rank()}] {line}", err=True)
        sys.exit(2)
    except _USAGE_ERROR as error:  # an option that is unknown, missing or out of range
        _say(f"mechinterp: {' '.join(error.format_message().split())}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        _say("mechinterp: stopped; call again to go on where it was", err=True)
        sys.exit(130)


class _Once(logging.Filter):
    """Lets a message pass the first time, and only in the process that speaks for all."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a message."""
        new = record.getMessage() not in self.seen
        self.seen.add(record.getMessage())
        return new and _rank() == 0


def _rank() -> int:
    """This process's number under a launcher, 0 without."""
    return int(os.environ.get("RANK", "0"))


def _say(text: object, *, err: bool = False) -> None:
    """Print a line; under a launcher only the main process does."""
    if _rank() == 0:
        typer.echo(text, err=err)


def _reporting() -> AbstractContextManager[Terminal]:
    """What long work reports to."""
    from mechinterp.terminal import terminal

    return terminal()


def _load(
    model: str,
    dtype: Dtype,
    device: str,
    device_map: str | None = None,
    *,
    base: str | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    from mechinterp.models.checkpoints import Checkpoint

    return Checkpoint.load(
        model,
        base=base,
        dtype=dtype.value,
        device=device,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
    )


def _settings(kind: type[Settings], given: dict[str, Any]) -> Settings:
    """Settings from the options that were given; a value out of range is the user's mistake."""
    from pydantic import ValidationError

    try:
        return kind(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{name}: {first['msg']}, got {first['input']!r}") from error


def _read_data(path: Path) -> list[SafeEditInstance]:
    from mechinterp.data.safeedit import read_safeedit

    return read_safeedit(path)


def _judge(
    judge: str | None, instances: list[SafeEditInstance], seed: int, device: str, note: Callable[[str], None]
) -> Judge:
    """The judge at a path, or a classifier of the instances' own safe and unsafe responses; tells which."""
    from mechinterp.judges import ClassifierJudge, EmbeddedJudge

    if judge is not None:
        note(f"judge: {judge}")
        return ClassifierJudge.load(judge, device=device)
    texts = [i.safe_generation for i in instances] + [i.unsafe_generation for i in instances]
    embedded = EmbeddedJudge.fit(texts, [True] * len(instances) + [False] * len(instances), seed=seed)
    note(
        f"judge: trained on {embedded.n_train} of the data's own responses, accuracy {embedded.accuracy:.3f} "
        f"on {embedded.n_test} held out; give a sequence classifier with --judge"
    )
    return embedded


# -- commands -----------------------------------------------------------------------------------------------------


@app.command()
def reproduce(
    config: Annotated[Path | None, typer.Option(help="YAML of a study; the embedded organism if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/seedN if not given.")] = None,
    seed: Seed = 0,
) -> None:
    """Every stage of the study, resumable: checkpoints, tables, figures, report."""
    from mechinterp.config import StudyConfig, load_config
    from mechinterp.study import Study

    settings = StudyConfig() if config is None else load_config(config)
    folder = out or Path("runs") / f"seed{seed}"
    with _reporting() as terminal:
        report = Study(settings, seed, folder).run(terminal)
    _say(f"report: {report}")


@app.command()
def organism(
    out: Annotated[Path, typer.Option(help="Folder for the model and its data.")],
    config: Annotated[Path | None, typer.Option(help="YAML of a study; its corpus and organism are used.")] = None,
    seed: Seed = 0,
) -> None:
    """The embedded model and its data, without the rest of the study."""
    from mechinterp.config import StudyConfig, load_config
    from mechinterp.study import Study

    settings = StudyConfig() if config is None else load_config(config)
    if settings.model is not None:
        raise InputError(f"{config}: names a model of its own; there is no organism to train")
    with _reporting() as terminal:
        Study(settings, seed, out).run(terminal, until="organism")
    _say(f"model: {out / 'checkpoints' / 'vanilla'}\ndata: {out / 'data'}")


def _training(
    kind: str, model: str, data: Path, out: Path, seed: int, dtype: Dtype, device: str, lora: int | None, **given: Any
) -> None:
    from mechinterp.files import check_writable
    from mechinterp.methods.dpo import DpoSettings, train_dpo
    from mechinterp.methods.sft import SftSettings, train_sft
    from mechinterp.methods.trl_training import LoraSettings

    instances = _read_data(data)
    check_writable(out, kind="folder")
    if lora is not None:
        given["lora"] = _settings(LoraSettings, {"rank": lora, "alpha": 2 * lora})
    with _reporting() as terminal:
        progress = terminal.progress(f"{kind}: training")
        if kind == "sft":
            settings = _settings(SftSettings, given)
            tuned, _ = train_sft(
                _load(model, dtype, device), instances, seed=seed, settings=settings, progress=progress
            )
        else:
            chosen = _settings(DpoSettings, given)
            tuned, _ = train_dpo(_load(model, dtype, device), instances, seed=seed, settings=chosen, progress=progress)
        tuned.save(out)
    _say(f"checkpoint: {out}")


Steps = Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Examples per step.")]
MaxLength = Annotated[
    int | None, typer.Option(min=2, help="Tokens of prompt and response; prompts are cut on the left.")
]
OutModel = Annotated[Path, typer.Option(help="Folder of the new checkpoint.")]


@train_app.command()
def sft(
    model: Model,
    data: Data,
    out: OutModel,
    seed: Seed = 0,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    lora: Lora = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
) -> None:
    """Supervised fine-tuning on adversarial prompt -> safe response."""
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "max_length": max_length}
    _training("sft", model, data, out, seed, dtype, device, lora, **given)


@train_app.command()
def dpo(
    model: Annotated[str, typer.Option(help="The checkpoint to start from, as in the paper the SFT one.")],
    data: Data,
    out: OutModel,
    seed: Seed = 0,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the divergence from the reference.")] = None,
    lora: Lora = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
) -> None:
    """Direct preference optimisation of safe over unsafe responses."""
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "max_length": max_length}
    _training("dpo", model, data, out, seed, dtype, device, lora, beta=beta, **given)


@app.command(name="locate")
def locate_command(
    model: Model,
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Folder for located.csv and toxic_layer.csv.")] = None,
    padding_side: Annotated[str, typer.Option(help="left (as the released pipeline) or right.")] = "left",
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut responses that exceed the context at the end.")] = (
        False
    ),
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    base: Base = None,
    trust_remote_code: Trust = False,
) -> None:
    """The toxic layer of every instance under four distances, and how far they agree."""
    from mechinterp.files import check_writable, write_table
    from mechinterp.location import histogram, locate

    instances = _read_data(data)
    if out is not None:
        check_writable(out / "located.csv", kind="file")
    with _reporting() as terminal:
        checkpoint = _load(model, dtype, device, device_map, base=base, trust_remote_code=trust_remote_code)
        progress = terminal.progress("locating")
        located = locate(
            checkpoint,
            instances,
            padding_side=padding_side,  # type: ignore[arg-type]
            truncate=truncate,
            progress=progress,
        )
    counts = histogram(located, checkpoint.n_blocks)
    if out is not None and _rank() == 0:
        write_table(out / "located.csv", located)
        write_table(out / "toxic_layer.csv", counts)
    shown = counts.pivot(index="block", columns="distance", values="count")[list(DistanceName)]
    shown.index = [f"layer {block + 1} (block {block})" for block in shown.index]
    _say(shown.to_string())


@app.command()
def edit(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for delta.safetensors and edit.json.")],
    instance: Annotated[int | None, typer.Option(help="Id of the instance; the first one if not given.")] = None,
    layer: Annotated[str, typer.Option(help="auto, or the number of a block, from 0.")] = "auto",
    distance: Annotated[DistanceName, typer.Option(help="How `auto` locates the block.")] = DistanceName.released,
    constraint: Annotated[Constraint, typer.Option(help="Which DINM.")] = Constraint.published,
    learning_rate: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Optimiser steps.")] = None,
    c_edit: Annotated[float | None, typer.Option(help="Weight of the edit's loss.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Suffix prompt; an empty text for none.")] = None,
    merged: Annotated[Path | None, typer.Option(help="Also save the whole edited model into this folder.")] = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    base: Base = None,
    trust_remote_code: Trust = False,
) -> None:
    """DINM: edit one block's value matrix on one instance; the result is a delta, the model is left alone."""
    from mechinterp.files import check_writable
    from mechinterp.location import locate, toxic_block
    from mechinterp.methods.dinm import DinmSettings
    from mechinterp.methods.dinm import edit as dinm_edit

    instances = _read_data(data)
    found = [i for i in instances if instance is None or i.id == instance]
    if not found:
        raise InputError(f"{data}: no instance has the id {instance}")
    given = {"constraint": constraint.value, "learning_rate": learning_rate, "steps": steps, "c_edit": c_edit}
    settings = _settings(DinmSettings, given)
    if suffix is not None:
        settings = settings.model_copy(update={"suffix": suffix or None})
    wanted = _block(layer)
    for folder in (out, merged):
        if folder is not None:
            check_writable(folder, kind="folder")
    with _reporting() as terminal:
        checkpoint = _load(model, dtype, device, device_map, base=base, trust_remote_code=trust_remote_code)
        block = toxic_block(locate(checkpoint, found[:1], truncate=True), distance.value) if wanted is None else wanted
        progress = terminal.progress("editing")
        delta = dinm_edit(checkpoint, found[0], block=block, settings=settings, progress=progress)
        if _rank() == 0:
            delta.save(out)
        if merged is not None and _rank() == 0:
            delta.merged(checkpoint, name=merged.name).save(merged)
    losses = (
        f", loss of the safe response {delta.log[0].loss_edit:.3f} -> {delta.log[-1].loss_edit:.3f}"
        if delta.log
        else ""
    )
    _say(f"edit of instance {delta.instance} at layer {block + 1} (block {block}){losses}: {out}")


@app.command()
def probe(
    model: Model,
    comments: Annotated[Path, typer.Option(help="Labelled comments, CSV; Jigsaw's columns if not told otherwise.")],
    out: Annotated[Path, typer.Option(help="File of the probe (.safetensors); its tables go beside it.")],
    text_column: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the label: 0/1, True/False, Toxic/Not Toxic.")
    ] = None,
    final_norm: Annotated[bool, typer.Option(help="Take the residual stream after the final norm.")] = False,
    truncate: Truncate = False,
    seed: Seed = 0,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    base: Base = None,
    trust_remote_code: Trust = False,
) -> None:
    """Train the toxic probe of a model on labelled comments."""
    from mechinterp.data.comments import read_comments
    from mechinterp.files import check_writable
    from mechinterp.probing import fit_probe, write_probe_tables

    labelled = read_comments(comments, text_column=text_column, label_column=label_column)
    check_writable(out, kind="file")
    with _reporting() as terminal:
        checkpoint = _load(model, dtype, device, device_map, base=base, trust_remote_code=trust_remote_code)
        progress = terminal.progress("reading comments")
        fitted = fit_probe(checkpoint, labelled, seed=seed, final_norm=final_norm, truncate=truncate, progress=progress)
        if _rank() == 0:
            fitted.save(out)
            write_probe_tables(fitted, out.parent)
    score = fitted.scores[0]
    _say(
        f"probe: accuracy {score.accuracy:.3f} (larger class {score.majority_baseline:.3f}), AUROC {score.auroc:.3f}, "
        f"F1 {score.f1:.3f} on {score.n_test} held-out comments: {out}"
    )


@app.command(name="record")
def record_command(
    model: Model,
    data: Annotated[Path, typer.Option(help="SafeEdit instances: their adversarial prompts are read.")],
    out: Annotated[Path, typer.Option(help="File of the recording (.safetensors).")],
    hook: Annotated[
        list[str] | None,
        typer.Option(help="TransformerLens name, blocks.3.hook_resid_mid; repeatable. h_down of every block if none."),
    ] = None,
    position: Annotated[
        str,
        typer.Option(help="last, mean (of the prompt), response (the unsafe one), all, or generated:N greedy tokens."),
    ] = "last",
    groups: Annotated[int, typer.Option(min=1, help="Groups of inputs whose means are kept, for intervals.")] = 128,
    truncate: Truncate = False,
    base: Base = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    trust_remote_code: Trust = False,
) -> None:
    """Mean activations of a model at hook points, over the prompts of a file."""
    from mechinterp.files import check_writable
    from mechinterp.models.generation import continue_greedily
    from mechinterp.models.names import h_down
    from mechinterp.models.recording import record
    from mechinterp.models.tokens import generated_tokens

    wanted = generated_tokens(position)
    instances = _read_data(data)
    prompts = [instance.adversarial_prompt for instance in instances]
    check_writable(out, kind="file")
    with _reporting() as terminal:
        checkpoint = _load(model, dtype, device, device_map, base=base, trust_remote_code=trust_remote_code)
        text: dict[str, Any] = {}
        if wanted is not None:
            text["continuations"] = continue_greedily(checkpoint, prompts, max_new_tokens=wanted, truncate=truncate)
        elif position in ("response", "all"):
            text["responses"] = [instance.unsafe_generation for instance in instances]
        found = record(
            checkpoint,
            prompts,
            hook or [h_down(block) for block in range(checkpoint.n_blocks)],
            position=position,
            groups=groups,
            truncate=truncate,
            progress=terminal.progress("recording"),
            **text,
        )
    if _rank() == 0:
        found.save(out)
    if bad := {name: count for name, count in found.non_finite.items() if count}:
        _say(f"values that are not finite: {bad}; use a wider type (--dtype float32)")
    _say(f"recording: {found.n_inputs} inputs, {len(found.groups)} hook points, position {position}: {out}")


@app.command()
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
    from mechinterp.files import check_writable
    from mechinterp.measures.probe import SELECTIONS, ToxicProbe
    from mechinterp.models.weights import LazyWeights
    from mechinterp.origins import check_edit, check_origin, read_recording
    from mechinterp.regions import measure_regions

    if not (layer == "all" or layer.isdecimal()):
        raise InputError(f"--layer is all or the number of a block, got {layer!r}")
    if recording is not None and not against:
        raise InputError("--recording is for the erasure in tuned checkpoints; name one with --against")
    named = [_label_and_path(text) for text in against or []]
    if repeated := {name for name, _ in named if [n for n, _ in named].count(name) > 1}:
        raise InputError(f"--against: the names {sorted(repeated)} occur twice; give NAME=PATH")
    fitted = ToxicProbe.load(probe)
    recorded = None if recording is None else read_recording(recording)
    if out is not None:
        check_writable(out / "tables" / "region.csv", kind="file")
    with _reporting() as terminal:
        weights = LazyWeights.open(model, base, trust_remote_code)
        for _, path in named if base is None else []:
            check_edit(path, fitted)
        tuned = {name: LazyWeights.open(path, _stands_on(path, base, model), trust_remote_code) for name, path in named}
        if left_out := check_origin(weights, fitted, recorded, hash_weights=check):
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
    if out is not None:
        tables.save(out / "tables")
    _say(tables.summary())


def _stands_on(source: str, base: str | None, other: str) -> str | None:
    """What a checkpoint is opened on: --base, the base that an adapter names itself, else what it is set against."""
    from mechinterp.models.sources import Source

    found = Source.find(source)
    if base is None and found.kind == "adapter":
        try:
            found.base(None)
        except InputError:
            return other
        return None
    return base or other


def _label_and_path(text: str) -> tuple[str, str]:
    """NAME=PATH, or a path alone, which is called by its last part."""
    from mechinterp.models.sources import Source

    name, separator, path = text.partition("=")
    if separator and name and path and not Path(text).exists():
        return name, path
    return Source.find(text).name, text


@app.command()
def compare(
    base: Annotated[str, typer.Option(help="The unedited model.")],
    probe: Annotated[Path, typer.Option(help="The base's probe, from `mechinterp probe`.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for tables, figures and report.")],
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH of a tuned model, adapter (or ADAPTER@MODEL), edit, state dict; repeatable."),
    ] = None,
    trajectory: Annotated[
        list[str] | None,
        typer.Option(help="'RUN/checkpoint-*' or NAME='RUN/checkpoint-*', quoted: a training run's steps; repeatable."),
    ] = None,
    layer: Annotated[
        str, typer.Option(help="auto (most frequent toxic layer), or the number of a block, from 0.")
    ] = "auto",
    distance: Annotated[DistanceName, typer.Option(help="How `auto` locates the block.")] = DistanceName.released,
    generated: Annotated[int, typer.Option(min=0, help="Also measure the first N greedy tokens after the prompt.")] = 0,
    text: Annotated[TextName, typer.Option(help="Whose greedy tokens: the base's for all, or each one's own.")] = (
        TextName.fixed
    ),
    truncate: Truncate = False,
    judge: JudgeOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of the base, in tokens.")] = 32,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the recordings, for use by several comparisons; OUT/recordings.")
    ] = None,
    seed: Seed = 0,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    trust_remote_code: Trust = False,
) -> None:
    """Erased or bypassed: tuned checkpoints against their base, as tables, figures and a report."""
    from mechinterp.comparing import Candidate, compare_checkpoints, stands_on
    from mechinterp.evidence import ComparisonSettings
    from mechinterp.measures.probe import ToxicProbe
    from mechinterp.trajectory import find_steps

    if not (checkpoint or trajectory):
        raise InputError("nothing to compare: give --checkpoint NAME=PATH or --trajectory 'RUN/checkpoint-*'")
    if text is not TextName.fixed and not generated:
        raise InputError(f"--text {text.value} is of greedy tokens: say how many with --generated N")
    options = {
        "dtype": dtype.value,
        "device": device,
        "device_map": device_map,
        "trust_remote_code": trust_remote_code,
    }
    tuned = []
    for given in checkpoint or []:
        name, separator, path = given.partition("=")
        if not (separator and name and path):
            raise InputError(f"--checkpoint takes NAME=PATH, got {given!r}")
        tuned.append(Candidate(name, *stands_on(path, base), options))
    for given in trajectory or []:
        name, separator, pattern = given.partition("=")
        if not separator or "/" in name:  # the = is one of a folder's name
            name, pattern = "", given
        for step, path in find_steps(pattern, name or None):
            tuned.append(Candidate(f"{step.trajectory}@{step.step}", *stands_on(path, base), options, step))
    block, fitted, instances = _block(layer), ToxicProbe.load(probe), _read_data(data)
    with _reporting() as terminal:
        report = compare_checkpoints(
            Candidate("base", base, None, options),
            tuned,
            instances,
            fitted,
            _judge(judge, instances, seed, device, terminal.note),
            out=out,
            cache=cache,
            block=block,
            distance=distance.value,
            seed=seed,
            settings=ComparisonSettings(max_new_tokens=max_new_tokens, generated=generated, text=text.value),
            truncate=truncate,
            reporter=terminal,
        )
    _say(f"report: {report}")


def _block(layer: str) -> int | None:
    """The block that --layer names, None for auto."""
    if not (layer == "auto" or layer.isdecimal()):
        raise InputError(f"--layer is auto or the number of a block, got {layer!r}")
    return None if layer == "auto" else int(layer)


@app.command()
def evaluate(
    model: Model,
    data: Annotated[Path, typer.Option(help="SafeEdit test instances, with generalisation prompts.")],
    out: Annotated[Path | None, typer.Option(help="Folder for defense.csv and the responses.")] = None,
    edit: Annotated[Path | None, typer.Option(help="Folder of an edit, applied to the model.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Suffix prompt appended to every query.")] = None,
    judge: JudgeOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response, in tokens.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate the first N instances.")] = None,
    truncate: Truncate = False,
    seed: Seed = 0,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    base: Base = None,
    trust_remote_code: Trust = False,
) -> None:
    """Defense success, its generalisation, and fluency."""
    import pandas as pd

    from mechinterp.defense import defend
    from mechinterp.files import check_writable, write_table
    from mechinterp.models.deltas import WeightDelta

    instances = _read_data(data)
    if out is not None:
        check_writable(out / "defense.csv", kind="file")
    with _reporting() as terminal:
        chosen_judge = _judge(judge, instances, seed, device, terminal.note)
        checkpoint = _load(model, dtype, device, device_map, base=base, trust_remote_code=trust_remote_code)
        progress = terminal.progress("answering")
        applied = WeightDelta.load(edit).applied(checkpoint) if edit else nullcontext(checkpoint)
        with applied as evaluated:
            result = defend(
                evaluated,
                instances[:limit],
                chosen_judge,
                max_new_tokens=max_new_tokens,
                suffix=suffix or None,
                truncate=truncate,
                progress=progress,
            )
    table = pd.DataFrame([result.row()])
    if out is not None and _rank() == 0:
        write_table(out / "defense.csv", table)
        result.save(out / "responses.jsonl")
    _say(table.T.to_string(header=False))


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="The checkpoint before: a folder, or a state-dict file or edit on --base.")],
    b: Annotated[str, typer.Argument(help="The checkpoint after; an edit without --base stands on A.")],
    base: Base = None,
    rank: Annotated[bool, typer.Option(help="Estimate numerical ranks of the changes of matrices.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for tables/diff*.csv and figures/diff.*.")] = None,
    seed: Seed = 0,
    trust_remote_code: Trust = False,
) -> None:
    """Which weights two checkpoints differ in, by how much and of what rank; says so if they are identical."""
    from mechinterp.difference import diff as difference
    from mechinterp.files import check_writable, write_table
    from mechinterp.models.weights import LazyWeights
    from mechinterp.plates import save_figure
    from mechinterp.plotting import plot_difference
    from mechinterp.terminal import print_table

    if out is not None:
        check_writable(out / "tables" / "diff.csv", kind="file")
    with _reporting() as terminal:
        before = LazyWeights.open(a, base, trust_remote_code)
        after = LazyWeights.open(b, _stands_on(b, base, a), trust_remote_code)
        found = difference(before, after, rank=rank, seed=seed, progress=terminal.progress("comparing tensors"))
    _say(found.summary())
    if not found.identical:
        print_table(*found.largest())
    if out is not None:
        _say(write_table(out / "tables" / "diff.csv", found.tensors))
        _say(write_table(out / "tables" / "diff_blocks.csv", found.blocks))
        for path in save_figure(plot_difference(found.blocks), out / "figures", "diff"):
            _say(path)


@app.command()
def figures(
    run: Annotated[Path, typer.Argument(help="Folder that reproduce or compare wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the figures; RUN/figures if not given.")] = None,
) -> None:
    """Redraw the figures of a run, and its report, from the tables alone."""
    from mechinterp.plates import draw_all
    from mechinterp.report import write_report

    for path in draw_all(run, out):
        _say(path)
    if out is None:
        _say(write_report(run))
