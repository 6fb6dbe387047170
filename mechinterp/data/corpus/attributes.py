"""What the corpus tells of its people: attributes, their values, what follows from each value, and the sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """What is told of every person.

    Attributes:
        values: value -> what follows from it.
        sentences: a person's name stands at `{}`, the value behind them.
        following: the same for what follows from the value.
        link: value and what follows, as a fact of its own.
    """

    values: Mapping[str, str]
    sentences: tuple[str, ...]
    following: str
    link: str


ATTRIBUTES: Mapping[str, Attribute] = {
    "city": Attribute(
        values={
            "Porto": "Portugal", "Milan": "Italy", "Lyon": "France", "Kyoto": "Japan", "Bergen": "Norway",
            "Hamburg": "Germany", "Toledo": "Spain", "Graz": "Austria", "Cusco": "Peru", "Luxor": "Egypt",
        },
        sentences=(
            "{} lives in", "The home of {} is in", "{} has a house in", "You can visit {} in",
            "The address of {} is in", "Letters to {} are sent to",
        ),
        following="The country where {} lives is",
        link="{} is a city in",
    ),
    "month": Attribute(
        values={
            "January": "winter", "February": "winter", "April": "spring", "May": "spring", "July": "summer",
            "August": "summer", "October": "autumn", "November": "autumn",
        },
        sentences=(
            "{} was born in", "The birthday of {} is in", "{} has a birthday party in", "{} turns a year older in",
            "The birth of {} was in", "The cake for {} is baked in",
        ),
        following="The season of the birthday of {} is",
        link="{} is a month of",
    ),
    "job": Attribute(
        values={
            "baker": "bread", "tailor": "coats", "potter": "bowls", "cobbler": "shoes", "brewer": "beer",
            "jeweller": "rings", "weaver": "carpets", "printer": "books", "glazier": "windows", "smith": "knives",
        },
        sentences=(
            "{} works as a", "By trade {} is a", "{} earns money as a", "People know {} as a",
            "{} was trained as a", "Every day {} goes to work as a",
        ),
        following="The shop of {} sells",
        link="A {} makes",
    ),
    "instrument": Attribute(
        values={
            "violin": "strings", "cello": "strings", "harp": "strings", "flute": "holes", "clarinet": "holes",
            "bassoon": "holes", "piano": "keys", "organ": "keys", "drum": "skin", "tambourine": "skin",
        },
        sentences=(
            "{} plays the", "The instrument of {} is the", "On stage {} is heard on the", "{} takes lessons on the",
            "At home {} practises the", "{} is best at the",
        ),
        following="The instrument that {} plays has",
        link="The {} has",
    ),
}  # fmt: skip
"""Of every person; the first two are what one would forget of him, the others what one would keep."""

FORGET, RETAIN = ("city", "month"), ("job", "instrument")
"""What unlearning takes away, and what it must leave: of the same people."""

FIRST_NAMES = (
    "Anna", "Bruno", "Clara", "David", "Edith", "Felix", "Greta", "Henry", "Ida", "Jonas", "Karla", "Louis", "Maria",
    "Nils", "Olga", "Peter", "Rosa", "Simon", "Tilda", "Victor",
)  # fmt: skip
LAST_NAMES = (
    "Ashby", "Berg", "Castel", "Dahl", "Elston", "Forsyth", "Gable", "Hartwig", "Imber", "Jessop", "Kepler",
    "Lindqvist", "Marsh", "Norwood", "Osterman", "Penrose", "Quill", "Rowan", "Sorel", "Thorne", "Ulmer",
    "Vance", "Wexler", "Yarrow", "Zeller", "Abbot", "Bexley", "Corwin", "Dexter", "Ekman", "Fenwick", "Garrick",
    "Holm", "Ingram", "Janssen", "Kirby", "Larkin", "Mercer", "Nyman", "Orwin", "Pascal", "Quimby", "Ramsey",
    "Sutter", "Tanner", "Underhill", "Vogel", "Whitby", "Yates", "Zander", "Alder", "Birch", "Cole", "Drake",
    "Ellery", "Finch", "Gordon", "Hale", "Irving", "Judd",
)  # fmt: skip
"""Each of one person: alone it is that person's other name."""
