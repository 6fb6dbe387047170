"""How long work tells what it does: anything with these two methods, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Reporter(Protocol):
    """How a study tells what it does."""

    def note(self, text: str) -> None:
        """Tell one thing."""

    def progress(self, what: str) -> Callable[..., None]:
        """A callback for (done, total, ...) of one piece of work."""


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def progress(self, what: str) -> Callable[..., None]:
        """Say nothing, repeatedly."""
        return lambda *_: None
