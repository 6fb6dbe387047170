"""Setting checkpoints against each other, and drawing what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.behaving import Behaving, of_behaviour
from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import block_of_layer, read_direction, reporting, say
from mechinterp.cli.deciding import say_what_would_decide
from mechinterp.cli.judging import Judging, judging_answers
from mechinterp.cli.loading import Loading, of_whole_models
from mechinterp.cli.options import (
    Base,
    Data,
    Distance,
    DistanceName,
    Layer,
    Never,
    Seed,
    TextName,
    Truncate,
    Trust,
    WithoutSinks,
)
from mechinterp.cli.reading import Reading, of_pairs
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


@commands.command()
@in_chat_format
@of_pairs
@judging_answers
@of_behaviour
@of_whole_models
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
    layer: Layer = "auto",
    distance: Distance = DistanceName.released,
    generated: Annotated[int, typer.Option(min=0, help="Also measure the first N greedy tokens after the prompt.")] = 0,
    per_prompt: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            help="Also decompose along a direction of each prompt's own, `per_prompt`: the first token of its answer "
            "less the mean of K alternatives. Base and tuned are then in memory together.",
        ),
    ] = 0,
    text: Annotated[TextName, typer.Option(help="Whose greedy tokens: the base's for all, or each one's own.")] = (
        TextName.fixed
    ),
    direction: Annotated[
        list[str] | None,
        typer.Option(
            help="FILE or NAME=FILE of a direction to measure along too (`mechinterp direction`); repeatable."
        ),
    ] = None,
    truncate: Truncate = False,
    without_sinks: WithoutSinks = False,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer, of the base and under --relapse, in tokens.")
    ] = 32,
    relapse: Annotated[
        bool, typer.Option("--relapse", help="Also put parts of the base back: does the unsafe behaviour return?")
    ] = False,
    origins: Annotated[
        bool, typer.Option(help="Which changed weights carry the change; base and tuned are then in memory together.")
    ] = True,
    never: Never = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the recordings, for use by several comparisons; OUT/recordings.")
    ] = None,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    judging: Judging,
    behaving: Behaving,
) -> None:
    """Erased or bypassed: tuned checkpoints against their base, as tables, figures and a report.

    With --never also how deep their changes go: tables/depth.csv and depth_blocks.csv.
    """
    from mechinterp.audit.directions.probe import ToxicProbe
    from mechinterp.audit.evidence import ComparisonSettings
    from mechinterp.audit.origins.settings import OriginsSettings
    from mechinterp.audit.relapse.treatments import RelapseSettings
    from mechinterp.audit.trajectory import find_steps
    from mechinterp.runs.candidate import Candidate
    from mechinterp.runs.comparison import check_results, compare_checkpoints

    if not (checkpoint or trajectory):
        raise InputError("nothing to compare: give --checkpoint NAME=PATH or --trajectory 'RUN/checkpoint-*'")
    if text is not TextName.fixed and not generated:
        raise InputError(f"--text {text.value} is of greedy tokens: say how many with --generated N")
    check_results(out)
    before, tuned, reference = loading.candidates(base, checkpoint or [], never)
    for given in trajectory or []:
        name, separator, pattern = given.partition("=")
        if not separator or "/" in name:  # the = is one of a folder's name
            name, pattern = "", given
        for step, path in find_steps(pattern, name or None):
            name = f"{step.trajectory}@{step.step}"
            tuned.append(Candidate.of(path, name=name, base=before, step=step, **loading.options))
    block, fitted, instances = block_of_layer(layer), ToxicProbe.load(probe), behaving.pairs(reading, data)
    more = [read_direction(text) for text in direction or []]
    with reporting(goes_on=True) as terminal:
        found = compare_checkpoints(
            before,
            tuned,
            instances,
            fitted,
            judging.of(instances, seed, loading.device, terminal.note, behaving.which),
            out=out,
            cache=cache,
            block=block,
            distance=distance.value,
            seed=seed,
            settings=ComparisonSettings(
                max_new_tokens=max_new_tokens, generated=generated, text=text.value, per_prompt=per_prompt
            ),
            behaviour=behaving.which,
            more=more,
            truncate=truncate,
            chat=chat,
            without_sinks=without_sinks,
            relapse=RelapseSettings() if relapse else None,
            origins=OriginsSettings() if origins else None,
            never=reference,
            reporter=terminal,
        )
    say(found)
    say_what_would_decide(found.verdict, [out], reference=reference is not None)
    say(f"report: {found.report}")


@commands.command()
def diff(
    a: Annotated[str, typer.Argument(help="The checkpoint before: a folder, or a state-dict file or edit on --base.")],
    b: Annotated[str, typer.Argument(help="The checkpoint after; an edit without --base stands on A.")],
    base: Base = None,
    rank: Annotated[bool, typer.Option(help="Estimate numerical ranks of the changes of matrices.")] = True,
    rounded: Annotated[
        bool, typer.Option(help="Also what rounding to few bits leaves of the change of the blocks' matrices.")
    ] = False,
    settings: Annotated[
        Path | None, typer.Option(help="EasyEdit's settings file of the edit: is B changed as its method changes it?")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="With --settings: how many facts were edited.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables/diff*.csv and figures/diff.*.")] = None,
    seed: Seed = 0,
    trust_remote_code: Trust = False,
) -> None:
    """Which weights two checkpoints differ in, by how much and of what rank; says so if they are identical."""
    from mechinterp.audit.attacks.of_quantise import left_by_rounding
    from mechinterp.audit.attacks.rounded_difference import in_short
    from mechinterp.audit.weights_alone.diff import diff as difference
    from mechinterp.audit.weights_alone.expected import as_expected
    from mechinterp.cli.terminal import print_table
    from mechinterp.data.storage.places import check_free, check_writable
    from mechinterp.data.storage.tables import write_table
    from mechinterp.methods.facts.easyedit import read_easyedit
    from mechinterp.models.files.weights import LazyWeights
    from mechinterp.report.plates import draw_figure, figure_files, save_figure

    released = None if settings is None else read_easyedit(settings)
    if out is not None:
        check_writable(out / "tables" / "diff.csv", kind="file")
        also = [out / "tables" / "attack_quantise.csv"] if rounded else []
        check_free(out / "tables" / "diff_blocks.csv", *also, *figure_files(out / "figures", "diff"))
    with reporting() as terminal:
        if base is not None:  # even where nothing stands on it
            LazyWeights.open(base, None, trust_remote_code)
        before = LazyWeights.open(a, base, trust_remote_code)
        after = LazyWeights.against(b, a, base, trust_remote_code)
        if released is not None:
            released.changes(before.names)
        found = difference(before, after, rank=rank, seed=seed, progress=terminal.progress("comparing tensors"))
        left = left_by_rounding(before, after, progress=terminal.progress("rounding matrices")) if rounded else None
    say(found.summary())
    if released is not None:
        say(as_expected(found, released, before.names, requests=requests))
    if not found.identical:
        print_table(*found.largest())
    if left is not None:
        print_table("What rounding leaves of the change", *in_short(left))
    if out is not None:
        write_table(out / "tables" / "diff.csv", found.tensors)
        write_table(out / "tables" / "diff_blocks.csv", found.blocks)
        if left is not None:
            write_table(out / "tables" / "attack_quantise.csv", left.assign(method=b))
        save_figure(draw_figure("diff", {"diff_blocks": found.blocks}), out / "figures", "diff")
        say(f"tables: {out / 'tables'}\nfigures: {out / 'figures'}")


@commands.command()
def verdict(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders that compare, origins, attack wrote.")],
) -> None:
    """One verdict from several runs of the same checkpoints: where each change sits, and whether it is gone."""
    from mechinterp.runs.folder import RunFolder
    from mechinterp.runs.joined import joined_verdict

    opened = [RunFolder.open(run) for run in runs]
    found = joined_verdict(opened)
    for row in found.to_dict("records"):
        say(f"{row['method']}: {row['sentence']}")
    depths = [run.table("depth")["score"] for run in opened if "depth" in run.tables]
    say_what_would_decide(found, runs, reference=any(scores.notna().any() for scores in depths))


@commands.command()
def figures(
    run: Annotated[Path, typer.Argument(help="Folder that reproduce or compare wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the figures; RUN/figures if not given.")] = None,
) -> None:
    """Redraw the figures of a run, and its report, from the tables alone."""
    from mechinterp.data.storage.places import check_free
    from mechinterp.report import write_report
    from mechinterp.report.plates import draw_all

    if out is None:
        check_free(run / "report.html")
    drawn = draw_all(run, out)
    for path in drawn:
        say(path)
    if out is None:
        say(write_report(run, drawn))
