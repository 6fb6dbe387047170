"""Facts by what a user calls them: a file, or `common`."""

from __future__ import annotations

from pathlib import Path

from mechinterp.data.facts.common import common_facts
from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.files import read_facts

COMMON = "common"
"""The name of the facts of our own, where no file is called so."""


def named_facts(path: str | Path) -> list[Fact]:
    """Those of a file of any kind, or our own sixty.

    Raises:
        InputError: as `read_facts`.
    """
    return common_facts() if str(path) == COMMON and not Path(path).exists() else read_facts(path)
