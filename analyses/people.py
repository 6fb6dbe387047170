"""What an organism that is told of made-up people answers before anything is edited, way by way of asking.

    python analyses/people.py runs/organism-facts-seed0

A line for each way: in sentences that were told of a person, in those that never were, under the last name alone, and
what follows from the value (the country of the city), where that was told of the person and where it must be put
together from two facts. Shares of right answers with intervals over people, then by attribute.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scripts import Given, script

import mechinterp as mi
from mechinterp.audit.tables.reading import counted, interval_of
from mechinterp.data.corpus.attributes import ATTRIBUTES
from mechinterp.data.corpus.people import Person

WAYS = ("told", "never told", "last name", "follows, told", "follows")


def asked(facts: Sequence[mi.Fact]) -> Mapping[str, list[mi.Fact]]:
    """Every fact asked in every way; the answers are those that were told.

    Args:
        facts: of `data/facts.jsonl`, person by person.
    """
    found: dict[str, list[mi.Fact]] = {way: [] for way in WAYS}
    numbers = {subject: number for number, subject in enumerate(dict.fromkeys(fact.subject for fact in facts))}
    for fact in facts:
        person = Person(fact.subject, {fact.relation: fact.ground_truth}, numbers[fact.subject])
        for way, prompt, answer in _ways(person, fact.relation):
            found[way].append(mi.Fact(person.name, prompt, ground_truth=answer, relation=fact.relation))
    return found


def _ways(person: Person, attribute: str) -> Iterator[tuple[str, str, str]]:
    about, value = ATTRIBUTES[attribute], person.values[attribute]
    for way, sentences in (("told", person.told(attribute)), ("never told", person.untold(attribute))):
        yield from ((way, sentence.format(person.name), value) for sentence in sentences)
    yield "last name", person.told(attribute)[0].format(person.last_name), value
    way = "follows, told" if person.followed else "follows"
    yield way, about.following.format(person.name), about.values[value]


@script
def main(given: Given) -> None:
    """Ask the organism of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a study whose corpus has people")
    run = parser.parse_args(given).run
    facts = mi.read_facts(run / "data" / "facts.jsonl")
    model = mi.load(run / "checkpoints" / "vanilla", chat="none")
    for way, own in asked(facts).items():
        whole, *by_attribute = mi.known_facts(model, own).table.to_dict("records")
        more = ", ".join(f"{row['relation']} {interval_of(row, 'known').percent}" for row in by_attribute)  # type: ignore[arg-type]
        print(f"{way}: {counted(whole, 'known')}; {more}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
