"""Circuits: which edges carry a behaviour or a fact, and what is left of them in tuned checkpoints."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.behaving import Behaving, of_behaviour
from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import reporting, say, settings_of
from mechinterp.cli.loading import Loading, of_whole_models
from mechinterp.cli.options import Seed, Truncate
from mechinterp.cli.reading import Reading, of_pairs_under
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


class SearchName(StrEnum):
    """How a circuit is searched."""

    eap = "eap"
    acdc = "acdc"


class ReplacementName(StrEnum):
    """What edges outside a circuit carry."""

    corrupted = "corrupted"
    mean = "mean"
    zero = "zero"


@commands.command()
@in_chat_format
@of_pairs_under("--pairs")
@of_behaviour
@of_whole_models
def circuit(
    base: Annotated[str, typer.Option(help="The unedited model.")],
    out: Annotated[Path, typer.Option(help="Folder for tables, figures and the scores of all edges.")],
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH of a tuned model, adapter, edit or state dict; repeatable.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Prompts with an unsafe and a safe answer, as compare takes them, of which pairs are matched; or JSON "
            "lines of clean, corrupted, right, wrong."
        ),
    ] = None,
    facts: Annotated[
        Path | None, typer.Option(help="Facts, instead of --pairs: each is set beside another of the same template.")
    ] = None,
    truth: Annotated[
        bool, typer.Option("--truth", help="Of facts the answer before their change, not the new one.")
    ] = False,
    most: Annotated[int, typer.Option(min=1, help="At most so many pairs of prompts.")] = 32,
    tokens: Annotated[int, typer.Option(min=1, help="First tokens of unsafe, and of safe, answers, at most.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Of the integration (EAP-IG); 1 is plain EAP.")] = 5,
    share: Annotated[float, typer.Option(help="Of all edges: the circuit that strength and nodes are of.")] = 0.05,
    random: Annotated[int, typer.Option(min=0, help="Random circuits of each size, run alone as a control.")] = 20,
    replace: Annotated[
        ReplacementName,
        typer.Option(
            help="What other edges carry when a circuit runs alone; mean: of half of the pairs, held out for it."
        ),
    ] = ReplacementName.corrupted,
    search: Annotated[
        SearchName, typer.Option(help="acdc: search by cutting one edge after the other too, a pass an edge.")
    ] = SearchName.eap,
    acdc_threshold: Annotated[
        float, typer.Option(help="How much worse the answer must get for ACDC to keep an edge, nats.")
    ] = 0.02,
    released: Annotated[bool, typer.Option("--released", help="ACDC as the released code does it.")] = False,
    final_scale: Annotated[
        bool, typer.Option("--final-scale", help="Probabilities over depth by the last stream's scale, as released.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Edges, and nodes, that are listed of each checkpoint.")] = 30,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    behaving: Behaving,
) -> None:
    """Which edges between embedding, heads and MLPs carry a behaviour, and what still flows through them once tuned?

    --out gets tables/circuits.csv (a row per checkpoint), circuit_faithfulness.csv (circuits alone, beside random
    ones), circuit_overlap.csv, circuit_edges.csv, circuit_nodes.csv, circuit_ranks.csv, circuit_pairs.csv, their
    figures, and in circuits the scores of all edges.
    """
    from mechinterp.audit.circuits.finding import Asked
    from mechinterp.audit.circuits.settings import CircuitSettings
    from mechinterp.data.facts.named import named_facts
    from mechinterp.data.prompt_pairs import has_prompt_pairs, read_prompt_pairs
    from mechinterp.report.circuits_in_words import circuits_in_words
    from mechinterp.runs.circuits import asked_about, check_behaviour, find_circuits

    if (pairs is None) == (facts is None):
        raise InputError("give --pairs or --facts, one of the two")
    if truth and facts is None:
        raise InputError("--truth is of facts; give --facts, or leave it out")
    named: dict[str, Any] = {
        "pairs": most,
        "tokens": tokens,
        "steps": steps,
        "share": share,
        "random": random,
        "top": top,
    }
    named |= {"replace": replace.value, "search": search.value}
    named |= {"acdc_threshold": acdc_threshold, "released": released, "final_scale": final_scale}
    settings = settings_of(CircuitSettings, named)
    before, tuned, _ = loading.candidates(base, checkpoint or [])
    asked: Asked
    if facts is not None:
        check_behaviour(behaving.which, facts=True)
        asked = named_facts(facts)
        if truth:
            asked = [fact.unchanged for fact in asked if fact.ground_truth]
    else:
        assert pairs is not None
        if behaving.which.of_pairs and has_prompt_pairs(pairs):
            check_behaviour(behaving.which, facts=False)
            asked = read_prompt_pairs(pairs)
        elif behaving.which.of_pairs:
            asked = behaving.pairs(reading, pairs)
        else:
            behaving.check(reading)
            asked = asked_about(behaving.which, pairs)
    with reporting(goes_on=True) as terminal:
        found = find_circuits(
            before,
            tuned,
            asked,
            out=out,
            settings=settings,
            behaviour=behaving.which,
            seed=seed,
            truncate=truncate,
            chat=chat,
            reporter=terminal,
        )
    for line in circuits_in_words(found.table("circuits"), found.table("circuit_faithfulness")):
        say(line)
    say(f"tables: {out / 'tables'}")
