"""`TopVectors` as tensors and labels, for the folder of a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.top_vectors import TopVectors
from mechinterp.measures.value_vectors import RankedVectors, Subspace
from mechinterp.models.unembedding import TopTokens


def to_tensors(top: TopVectors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `from_tensors` makes the vectors of again; the directions are left out."""
    tensors, lists = {}, []
    for (direction, by), ranked in top.ranked.items():
        lists.append([direction, by, [vars(said) for said in top.tokens[direction, by]]])
        for part in fields(ranked):
            if part.name != "by":
                tensors[f"{direction}/{by}/{part.name}"] = getattr(ranked, part.name)
    for direction, subspace in top.subspaces.items():
        for part in fields(subspace):
            tensors[f"{direction}/subspace/{part.name}"] = getattr(subspace, part.name)
    components = {name: [vars(each) for each in said] for name, said in top.subspace_tokens.items()}
    return tensors, {"source": top.source, "lists": lists, "components": components}


def from_tensors(
    tensors: Mapping[str, Tensor], labels: Mapping[str, Any], directions: Mapping[str, Float[Tensor, " d_model"]]
) -> TopVectors:
    """The vectors that `to_tensors` took apart, and the directions that belong to them."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    def said(entries: list[dict[str, Any]]) -> tuple[TopTokens, ...]:
        return tuple(TopTokens(**{name: tuple(values) for name, values in entry.items()}) for entry in entries)

    return TopVectors(
        source=labels["source"],
        directions=dict(directions),
        ranked={(name, by): RankedVectors(by=by, **part(f"{name}/{by}/")) for name, by, _ in labels["lists"]},
        tokens={(name, by): said(entries) for name, by, entries in labels["lists"]},
        subspaces={name: Subspace(**part(f"{name}/subspace/")) for name in labels["components"]},
        subspace_tokens={name: said(entries) for name, entries in labels["components"].items()},
    )
