"""What a command says when it is stopped: whether the next call goes on, or starts anew."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Stopping:
    """Of the command that runs.

    Attributes:
        goes_on: what it has done so far is kept, and the next call goes on from there.
    """

    goes_on: bool = False

    @property
    def told(self) -> str:
        """The line."""
        return f"mechinterp: stopped; call again to {'go on where it was' if self.goes_on else 'start anew'}"


STOPPING = Stopping()
"""That of this process."""
