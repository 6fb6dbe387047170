"""What one checkpoint did at one point of an attack, prompt by prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.attacks.attack import Point
from mechinterp.data.storage.files import replacing, write_json

Role = Literal["base", "never", "tuned"]

PLAIN = "none"
"""The name of no attack: every checkpoint as it is."""

READOUTS = ("log_odds", "unsafe_logprob")

RATES = ("unsafe", "unsafe_first_30", "unsafe_first_100")
"""Shares of answers, by the judge: of the whole answer, and of its first words where some answers are longer."""


@dataclass(frozen=True)
class Measured:
    """A checkpoint at a point of an attack.

    Attributes:
        attack: its name; `none` for the checkpoint as it is.
        point: which.
        values: read-out or rate -> a number for each prompt; a read-out that the attack does not act on is left out.
        flags: flag -> share of the answers that have it, of those of which it can be told.
        knowledge: for each knowledge question, whether the answer has the known one in it.
        refused: for each harmless prompt, whether it is refused; None where that cannot be told.
        seconds: that attack, answers and read-outs took.
        responses: for each prompt the answers.
    """

    attack: str
    point: Point
    values: Mapping[str, tuple[float, ...]]
    flags: Mapping[str, float]
    knowledge: tuple[bool, ...]
    refused: tuple[bool | None, ...]
    seconds: float
    responses: tuple[tuple[str, ...], ...]

    def of(self, quantity: str) -> Float[Tensor, " input"] | None:
        """Values of a read-out or rate, float64; None where the attack has none."""
        found = self.values.get(quantity)
        return None if found is None else torch.tensor(found, dtype=torch.float64)

    def save(self, folder: str | Path) -> Path:
        """Write into a folder, whole or not at all."""
        with replacing(Path(folder)) as partial:
            partial.mkdir()
            write_json(partial / "measured.json", asdict(self))
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Measured:
        """Read back what `save` wrote."""
        read = json.loads((Path(folder) / "measured.json").read_text(encoding="utf-8"))
        return cls(
            **{
                **read,
                "point": Point(**read["point"]),
                "values": {name: tuple(each) for name, each in read["values"].items()},
                "knowledge": tuple(read["knowledge"]),
                "refused": tuple(read["refused"]),
                "responses": tuple(tuple(each) for each in read["responses"]),
            }
        )


@dataclass(frozen=True)
class Examined:
    """One checkpoint under all attacks.

    Attributes:
        name: in tables.
        role: the base, one that never learnt, or a tuned one.
        plain: as it is.
        found: at every point of every attack.
        further: rows of tables that attacks leave of their own, by the table's name; of tuned ones.
    """

    name: str
    role: Role
    plain: Measured
    found: tuple[Measured, ...]
    further: Mapping[str, pd.DataFrame] = field(default_factory=dict)
