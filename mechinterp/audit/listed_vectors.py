"""The value vectors closest to some directions as two tables: what each says, and what became of it in tuned models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mechinterp.audit.top_vectors import Weights, find_vectors, subspace_table, vector_table, vectors_at
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.kept_tables import keep_tables, open_tables
from mechinterp.measures.value_vectors import RANKINGS, Ranking


@dataclass(frozen=True, eq=False)
class VectorTables:
    """Tidy tables of value vectors.

    Attributes:
        source: what the base was opened from.
        value_vectors: see `top_vectors.vector_table`.
        toxic_subspace: see `top_vectors.subspace_table`.
    """

    source: str
    value_vectors: pd.DataFrame
    toxic_subspace: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """The vectors, `value_vectors`."""
        return self.value_vectors

    def save(self, folder: str | Path) -> Path:
        """Keep them in a folder."""
        tables = {"value_vectors": self.value_vectors, "toxic_subspace": self.toxic_subspace}
        return keep_tables(folder, "vectors", tables, {"source": self.source})

    @classmethod
    def load(cls, folder: str | Path) -> VectorTables:
        """Open what `save` kept.

        Raises:
            InputError: if it is not there or damaged.
        """
        tables, labels = open_tables(folder, "vectors")
        return cls(labels["source"], tables["value_vectors"], tables["toxic_subspace"])

    def __repr__(self) -> str:
        return one_line(self, f"of {self.source}", many(len(self.value_vectors), "row"))

    def _repr_html_(self) -> str:
        wanted = ("method", "direction", "ranking", "rank", "block", "neuron", "cosine", "drift_relative", "tokens")
        table = self.value_vectors[[column for column in wanted if column in self.value_vectors]]
        return shown(f"value vectors of {self.source}", {}, table)


def list_vectors(
    weights: Weights,
    directions: Mapping[str, Float[Tensor, " d_model"]],
    *,
    tuned: Mapping[str, Weights] | None = None,
    top: int = 128,
    tokens: int = 10,
    rankings: Sequence[Ranking] = RANKINGS,
    final_norm: bool = False,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VectorTables:
    """Find the value vectors of a base (`top_vectors.find_vectors`), and follow them into tuned checkpoints.

    Args:
        weights: the base: a model, or the files of one.
        directions: name -> direction, of any length.
        tuned: label -> weights of the same architecture and size.
        top: vectors in each list.
        tokens: of each vector at either end; 0 for none.
        rankings: of `cosine` and `projection`.
        final_norm: whether vectors pass the final norm's gain before the unembedding.
        tokenizer: for files, which have none of their own.
        progress: called with (blocks done, blocks in all).

    Raises:
        InputError: as `find_vectors` and `vectors_at`.
    """
    top_vectors = find_vectors(
        weights,
        directions,
        top=top,
        tokens=tokens,
        rankings=rankings,
        final_norm=final_norm,
        tokenizer=tokenizer,
        progress=progress,
    )
    places = top_vectors.places
    blocks, neurons = [block for block, _ in places], [neuron for _, neuron in places]
    found = {
        name: dict(zip(places, vectors_at(other, blocks, neurons), strict=True))
        for name, other in (tuned or {}).items()
    }
    return VectorTables(weights.names.source, vector_table(top_vectors, found), subspace_table(top_vectors))
