"""An estimate with its interval, and the columns that it has in a table: `NAME`, `NAME_low`, `NAME_high`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """The three columns of a table's row."""
        low, high = ends(name)
        return {name: self.value, low: self.low, high: self.high}

    @property
    def percent(self) -> str:
        """As a sentence tells a share: 20% [18%, 22%]."""
        return f"{self.value:z.0%} [{self.low:z.0%}, {self.high:z.0%}]"


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
