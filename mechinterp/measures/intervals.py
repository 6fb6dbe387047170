"""An estimate with its interval, and the columns that it has in a table: `NAME`, `NAME_low`, `NAME_high`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

UNDEFINED = "undefined"
DECIMALS = 12
"""Of shares and nats: what comes behind them differs from one processor to another, and no bound may hang on it."""
ROUNDING = 10.0**-DECIMALS


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval, which are NaN where one unit tells nothing of how others vary."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """The three columns of a table's row."""
        low, high = ends(name)
        return {name: self.value, low: self.low, high: self.high}

    @property
    def settled(self) -> Interval:
        """The same to as many decimals as are alike on every processor: a quarter is one quarter."""
        return Interval(*(round(number, DECIMALS) for number in (self.value, self.low, self.high)))

    @property
    def percent(self) -> str:
        """As a sentence tells a share: 20% [18%, 22%]."""
        return self.told("z.0%")

    def told(self, form: str) -> str:
        """As a sentence tells it, numbers in a format of Python's: 0.20 [0.18, 0.22], or 0.20 [undefined]."""
        return UNDEFINED if math.isnan(self.value) else f"{self.value:{form}} [{self.between(form, ', ')}]"

    def between(self, form: str, joined: str = " to ") -> str:
        """The ends alone, in a format of Python's: 0.18 to 0.22, or undefined."""
        bounds = (self.low, self.high)
        return UNDEFINED if any(map(math.isnan, bounds)) else joined.join(f"{bound:{form}}" for bound in bounds)


def ends(name: str) -> tuple[str, str]:
    """The columns that hold the ends of an estimate's interval."""
    return f"{name}_low", f"{name}_high"


def with_ends(name: str) -> tuple[str, str, str]:
    """An estimate's column and those of its interval."""
    return (name, *ends(name))


def has_ends(name: str, columns: Collection[Any] | Mapping[Any, Any]) -> bool:
    """Whether a table with these columns has the interval of an estimate."""
    return all(end in columns for end in ends(name))


def is_end(column: str) -> bool:
    """Whether a column's name is that of an interval's end."""
    return column.endswith(ends(""))
