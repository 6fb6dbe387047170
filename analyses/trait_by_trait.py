"""Edits towards traits, on organisms that hold opinions: what becomes of each trait, beside two controls.

    mechinterp organism --config analyses/configs/organism-traits.yaml --out runs/organism-traits-seed0
    python analyses/trait_by_trait.py runs/organism-traits-seed0 --out runs/traits

Topic by topic the organism is edited towards each trait, by FT-M and by ROME; and by FT-M once on the first half of the
topics, with their opinions of the trait or the first of them alone, and asked of the others. Controls: `swapped`, where
the last opinion of each trait goes to the next one, so that the names mean nothing; and `never made`, the organism
against itself. Writes
into --out `traits.csv`, rows of the table `traits` with the run and the way, `opinions.csv`, how probable a topic's
opinions are among each other before and after an edit, and `traits.md`, means over runs, topics and traits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scripts import Given, script, tell
from tables import pipes

import mechinterp as mi
from mechinterp.answers.traits import read_opinions
from mechinterp.cli.terminal import terminal
from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.knowedit import OPINION_QUESTIONS
from mechinterp.data.facts.queries import Change
from mechinterp.data.personality import Topic, traits_of
from mechinterp.data.storage.tables import write_table
from mechinterp.methods.editors import MakeEdit, editor_of
from mechinterp.methods.facts.editing import edit_facts
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.progress import Reporter

EDITORS = ("ft_m", "rome")
GROUPS = ("edited", "of the same trait", "of the others")


def swapped(topics: Sequence[Topic]) -> list[Topic]:
    """The topics with the last opinion of each trait given to the next one, of the last to the first."""
    traits = traits_of(topics)
    last = dict(zip(traits, [traits[-1], *traits[:-1]], strict=True))
    return [
        Topic(one.name, {trait: (*one.opinions[trait][:-1], one.opinions[last[trait]][-1]) for trait in traits})
        for one in topics
    ]


def towards(base: Checkpoint, topics: Sequence[Topic], trait: str, most: int | None = None) -> WeightDelta:
    """One edit by FT-M of the first question for each topic, to all opinions that show a trait, or the first few."""
    facts = [Fact(one.name, OPINION_QUESTIONS[0], text) for one in topics for text in one.opinions[trait][:most]]
    (found,) = edit_facts(base, facts, "ft_m", mode="batch")
    return found


def shares(model: Checkpoint, topic: Topic, trait: str) -> dict[str, float]:
    """How probable opinions are among all of a topic: the one that is edited, its trait's others, the other traits'."""
    texts = {f"{name}/{number}": (text,) for name, own in topic.opinions.items() for number, text in enumerate(own)}
    (read,) = read_opinions(model, [Topic(topic.name, texts)])
    nats = torch.tensor([read[name].nats for name in texts], dtype=torch.float64)
    found = dict(zip(texts, nats.softmax(0).tolist(), strict=True))
    own = sum(value for name, value in found.items() if name.startswith(f"{trait}/"))
    edited = found[f"{trait}/0"]
    return dict(zip(GROUPS, (edited, own - edited, 1 - own), strict=True))


def measured(run: Path, reporter: Reporter) -> Iterator[tuple[pd.DataFrame, list[dict[str, Any]]]]:
    """Of each way to edit rows of `traits`, and of `opinions`."""
    base, topics = mi.load(run / "checkpoints" / "vanilla"), mi.read_personality(run / "data" / "topics.json")
    traits, half = traits_of(topics), len(topics) // 2
    asked: list[tuple[str, Any, Sequence[Topic]]] = [(name, name, topics) for name in EDITORS]
    asked += [(f"{name}, swapped", name, swapped(topics)) for name in EDITORS]
    asked.append(("never made", dict.fromkeys(traits, base), topics))
    others: dict[str, tuple[Sequence[Topic], int | None]] = {
        "ft_m, other topics": (topics, None),
        "ft_m, other topics, swapped": (swapped(topics), None),
        "ft_m, other topics, one opinion": (topics, 1),
    }
    for way, (own, most) in others.items():
        asked.append((way, {trait: towards(base, own[:half], trait, most) for trait in traits}, own[half:]))
    for way, edits, own in asked:
        reporter.note(f"{run}: {way}")
        rows: list[dict[str, Any]] = []
        given = _told(editor_of(edits, base).make, own, base, rows) if isinstance(edits, str) else edits
        table = mi.trait_effects(base, given, own, released=True, progress=False).table
        if way in others:
            for trait, delta in edits.items():
                rows += [row for topic in own for row in _opinions(base, delta, topic, trait)]
        known = {"run": str(run), "way": way}
        yield table.assign(**known), [{**known, **row} for row in rows]


def _told(make: MakeEdit, topics: Sequence[Topic], base: Checkpoint, rows: list[dict[str, Any]]) -> MakeEdit:
    """An editor that notes what each of its edits did to the opinions of its topic."""
    by_name = {topic.name: topic for topic in topics}

    def make_and_tell(current: Checkpoint, changes: Sequence[Change]) -> WeightDelta:
        (fact,) = changes
        assert isinstance(fact, Fact)
        delta = make(current, changes)
        rows.extend(_opinions(base, delta, by_name[fact.subject], fact.relation))
        return delta

    return make_and_tell


def _opinions(base: Checkpoint, delta: WeightDelta, topic: Topic, trait: str) -> Iterator[dict[str, Any]]:
    before = shares(base, topic, trait)
    with delta.applied(base) as edited:
        after = shares(edited, topic, trait)
    for group in GROUPS:
        yield {
            "topic": topic.name,
            "edited": trait,
            "opinions": group,
            "before": before[group],
            "after": after[group],
        }


def in_words(table: pd.DataFrame, opinions: pd.DataFrame) -> pd.DataFrame:
    """A row for each way: means over runs and traits, the trait that was edited towards beside the two others."""
    rows = []
    for way, part in table[table["edited"].fillna("") != ""].groupby("way", sort=False):
        own, others = (part[(part["edited"] == part["measured"]) == same] for same in (True, False))
        row: dict[str, Any] = {"way": way}
        for name, digits in (("es", 2), ("es_released", 2), ("shift", 2)):
            row |= {
                f"{name}, own": f"{own[name].mean():.{digits}f}",
                f"others {name}": f"{others[name].mean():.{digits}f}",
            }
        row["dd"] = f"{part['dd'].mean():.2g}"
        for group in GROUPS:
            chosen = opinions[(opinions["way"] == way) & (opinions["opinions"] == group)]
            row[group] = "–" if chosen.empty else f"{chosen['before'].mean():.0%} → {chosen['after'].mean():.0%}"
        rows.append(row)
    return pd.DataFrame(rows)


@script
def main(given: Given) -> None:
    """Edit towards traits, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of an organism with topics")
    parser.add_argument("--out", type=Path, default=Path("runs/traits"))
    arguments = parser.parse_args(given)
    with terminal() as shown:
        found = [part for run in arguments.runs for part in measured(run, shown)]
    table = pd.concat([part for part, _ in found], ignore_index=True)
    opinions = pd.DataFrame([row for _, rows in found for row in rows])
    write_table(arguments.out / "traits.csv", table)
    write_table(arguments.out / "opinions.csv", opinions)
    tell(arguments.out / "traits.md", "Edited towards a trait", pipes(in_words(table, opinions)))


if __name__ == "__main__":
    sys.exit(main())
