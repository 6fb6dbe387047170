"""Settings that suit the embedded model, whose answers are short and whose rates are higher."""

from __future__ import annotations

from typing import Any

ORGANISM: dict[str, Any] = {"steps": 60, "batch_size": 8, "learning_rate": 3e-4, "max_length": 256}
"""Those of its SFT: as many steps of as many answers at the same rate."""
