"""Comparisons of the command line made quick: it has no options for how many draws, inputs and nodes there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from mechinterp.audit.evidence import ComparisonSettings
from mechinterp.audit.origins.settings import OriginsSettings

FEW = ComparisonSettings(steering_inputs=2, middle_inputs=2, top_neurons=2, null_draws=8)


class FewOrigins(OriginsSettings):
    """As `OriginsSettings`, which the face wants it to be, of little."""

    prompts: int = 2
    tokens: int = 2
    nodes: int = 1
    most_nodes: int = 3


@contextmanager
def quick_comparisons() -> Iterator[None]:
    """What a command or the face is given counts; the rest is little."""
    with (
        patch("mechinterp.face.comparing.OriginsSettings", FewOrigins),  # first: it imports the real ones
        patch("mechinterp.audit.evidence.ComparisonSettings", lambda **given: FEW.model_copy(update=given)),
        patch("mechinterp.audit.origins.settings.OriginsSettings", FewOrigins),
    ):
        yield
