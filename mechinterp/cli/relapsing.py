"""The relapse test without a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.behaving import Behaving, of_behaviour
from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import block_of_layer, reporting, say, settings_of
from mechinterp.cli.judging import Judging, judging_answers
from mechinterp.cli.loading import Loading, of_whole_models
from mechinterp.cli.options import Data, Distance, DistanceName, Layer, Never, Seed, Truncate
from mechinterp.cli.reading import Reading, of_pairs

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


@commands.command()
@in_chat_format
@of_pairs
@judging_answers
@of_behaviour
@of_whole_models
def relapse(
    base: Annotated[str, typer.Option(help="The unedited model.")],
    checkpoint: Annotated[
        list[str], typer.Option(help="NAME=PATH of a tuned model, adapter, edit or state dict; repeatable.")
    ],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for tables, figures and the answers.")],
    layer: Layer = "auto",
    distance: Distance = DistanceName.released,
    probe: Annotated[
        Path | None, typer.Option(help="The base's probe: also scale the keys of the most toxic value vectors.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=2, help="At most so many prompts that the base answers unsafely.")] = 40,
    draws: Annotated[int, typer.Option(min=0, help="Random controls of each dose.")] = 1,
    treatments: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a treatment; repeatable. All if not given; an unknown name is answered by the known."
        ),
    ] = None,
    never: Never = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    judging: Judging,
    behaving: Behaving,
) -> None:
    """Put parts of the base back into tuned checkpoints: does the unsafe behaviour return, and by which part?

    --out gets tables/relapse.csv (a row per treatment and dose), tables/relapse_verdict.csv (a row per checkpoint),
    their figures, and in answers every answer with the judge's score. `compare --relapse` also treats the neurons that
    the decomposition ranks and groups, and sets the verdicts side by side. A model given by --never is treated too, as
    `never`: what comes to it is not coming back.
    """
    from mechinterp.audit.directions.probe import ToxicProbe
    from mechinterp.audit.relapse.treatments import RelapseSettings
    from mechinterp.runs.relapse import treat_checkpoints

    before, tuned, reference = loading.candidates(base, checkpoint, never)
    fitted = None if probe is None else ToxicProbe.load(probe)
    settings = settings_of(RelapseSettings, {"prompts": prompts, "draws": draws, "treatments": treatments or None})
    block, instances = block_of_layer(layer), behaving.pairs(reading, data)
    with reporting(goes_on=True) as terminal:
        found = treat_checkpoints(
            before,
            tuned,
            instances,
            judging.of(instances, seed, loading.device, terminal.note, behaving.which),
            out=out,
            probe=fitted,
            block=block,
            distance=distance.value,
            settings=settings,
            behaviour=behaving.which,
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            never=reference,
            chat=chat,
            reporter=terminal,
        )
    say(found)
    say(f"tables: {out / 'tables'}")
