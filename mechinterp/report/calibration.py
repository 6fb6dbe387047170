"""The instrument's certificate: verdicts on checkpoints whose truth is known by construction, as found."""

from __future__ import annotations

from collections.abc import Iterator


def calibration_rows() -> Iterator[list[str]]:
    """A row per kind of checkpoint and direction: truth, expected, and how often each verdict was found."""
    yield from ()


def calibration_notes() -> Iterator[str]:
    """Sensitivity and specificity in words."""
    yield from ()
