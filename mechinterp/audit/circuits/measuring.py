"""One checkpoint's circuit on some pairs: scores, what it carries alone, what streams and nodes say; to be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.audit.circuits.acdc import acdc
from mechinterp.audit.circuits.batches import TokenPair
from mechinterp.audit.circuits.circuit import Circuit
from mechinterp.audit.circuits.faithfulness import faithfulness
from mechinterp.audit.circuits.ranks import component_lens, target_ranks
from mechinterp.audit.circuits.scores import EdgeScores
from mechinterp.audit.circuits.scoring import find_circuit
from mechinterp.audit.circuits.settings import CircuitSettings
from mechinterp.audit.circuits.split import split_circuit
from mechinterp.data.storage.files import replacing
from mechinterp.data.storage.tables import read_table, write_table
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import Progress

Reported = Callable[[str], Progress]
"""Gives a callback for one piece of work, by what it is called."""

_TABLES = ("faithfulness", "ranks", "lens")


@dataclass(frozen=True, eq=False)
class CheckpointCircuit:
    """A checkpoint's circuit.

    Attributes:
        scores: of all edges.
        written, read: the two parts of their difference from the base's; None of the base itself.
        tables: `faithfulness`, `ranks`, `lens`.
    """

    scores: EdgeScores
    written: Float[Tensor, "writer reader"] | None = None
    read: Float[Tensor, "writer reader"] | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    def save(self, folder: Path) -> Path:
        """Keep it in a folder, whole or not at all."""
        with replacing(folder) as partial:
            partial.mkdir()
            self.scores.write(partial)
            if self.written is not None and self.read is not None:
                save_file({"written": self.written, "read": self.read}, partial / "split.safetensors")
            for name in _TABLES:
                write_table(partial / f"{name}.csv", self.tables[name])
        return folder

    @classmethod
    def load(cls, folder: Path) -> CheckpointCircuit:
        """Open what `save` kept."""
        split = folder / "split.safetensors"
        parts = load_file(split) if split.exists() else {}
        tables = {name: read_table(folder / f"{name}.csv") for name in _TABLES}
        return cls(EdgeScores.load(folder), parts.get("written"), parts.get("read"), tables)


def circuit_of_base(
    base: Checkpoint,
    pairs: Sequence[TokenPair],
    settings: CircuitSettings,
    *,
    held_out: Sequence[TokenPair] = (),
    seed: int = 0,
    reported: Reported | None = None,
) -> CheckpointCircuit:
    """The circuit of a model by itself.

    Args:
        base: the model; left exactly as it was.
        pairs: prompts that show the behaviour, and such as do not.
        settings: see `CircuitSettings`.
        held_out: further pairs, of which the mean is taken where that is what edges carry.
        seed: of random circuits and of draws of pairs.
        reported: tells how far it is.
    """
    told = reported or _silent
    scores = find_circuit(base, pairs, steps=settings.steps, progress=told("edges"))
    return CheckpointCircuit(scores, tables=_tables(base, scores, pairs, settings, held_out, seed, told))


def circuit_of_tuned(
    base: Checkpoint,
    tuned: Checkpoint,
    pairs: Sequence[TokenPair],
    settings: CircuitSettings,
    *,
    held_out: Sequence[TokenPair] = (),
    seed: int = 0,
    reported: Reported | None = None,
) -> CheckpointCircuit:
    """The circuit of a tuned model, beside its base's; arguments as `circuit_of_base`."""
    told = reported or _silent
    found = split_circuit(base, tuned, pairs, steps=settings.steps, progress=told("edges"))
    tables = _tables(tuned, found.tuned, pairs, settings, held_out, seed, told)
    return CheckpointCircuit(found.tuned, found.written, found.read, tables)


def _tables(
    checkpoint: Checkpoint,
    scores: EdgeScores,
    pairs: Sequence[TokenPair],
    settings: CircuitSettings,
    held_out: Sequence[TokenPair],
    seed: int,
    told: Reported,
) -> dict[str, pd.DataFrame]:
    circuits: dict[str, Circuit] = {f"top {share:g}": scores.share(share) for share in settings.shares}
    if settings.search == "acdc":
        how = {"replace": settings.replace, "released": settings.released}
        circuits["acdc"] = acdc(checkpoint, pairs, least=settings.acdc_threshold, **how).circuit  # type: ignore[arg-type]
    alone = faithfulness(
        checkpoint,
        circuits,
        pairs,
        replace=settings.replace,
        held_out=held_out,
        random=settings.random,
        seed=seed,
        progress=told("circuits alone"),
    )
    strongest = torch.argsort(scores.of_nodes.abs(), descending=True, stable=True)[: settings.top]
    names = [scores.writers[node] for node in strongest.tolist()]
    return {
        "faithfulness": alone,
        "ranks": target_ranks(checkpoint, pairs, final_scale=settings.final_scale),
        "lens": component_lens(checkpoint, pairs, names),
    }


def _silent(what: str) -> Progress:
    return lambda *_: None
