"""Circuits of a base and of tuned models on the same pairs, as tables of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from mechinterp.audit.circuits.comparison import SHARES, compare_circuits, overlaps
from mechinterp.audit.circuits.matching import MatchedPair
from mechinterp.audit.circuits.measuring import CheckpointCircuit
from mechinterp.audit.circuits.scores import EdgeScores
from mechinterp.audit.circuits.settings import CircuitSettings
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import bootstrap

BASE = "base"


def circuit_tables(
    base: CheckpointCircuit,
    tuned: Mapping[str, CheckpointCircuit],
    pairs: Sequence[MatchedPair],
    settings: CircuitSettings,
    *,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """All tables: `circuits`, and `circuit_` `overlap`, `faithfulness`, `edges`, `nodes`, `ranks`, `pairs`.

    Args:
        base: of the unedited model.
        tuned: by name.
        pairs: on which all of them were measured.
        settings: how.
        seed: of draws of pairs.
    """
    every = {BASE: base, **tuned}
    own = {
        name: [_with_method(name, found.tables[table]) for name, found in every.items()]
        for name, table in (("circuit_faithfulness", "faithfulness"), ("circuit_ranks", "ranks"))
    }
    found = {
        "circuits": pd.DataFrame([_row(name, base, each, settings, seed) for name, each in every.items()]),
        "circuit_faithfulness": pd.concat(own["circuit_faithfulness"], ignore_index=True),
        "circuit_edges": pd.concat([_edges(name, base, each, settings) for name, each in every.items()]),
        "circuit_nodes": pd.concat([_nodes(name, base, each, settings) for name, each in every.items()]),
        "circuit_ranks": pd.concat(own["circuit_ranks"], ignore_index=True),
        "circuit_pairs": _pairs(pairs, base.scores),
    }
    if tuned:
        shares = sorted({*SHARES, settings.share})
        parts = [_with_method(name, overlaps(base.scores, each.scores, shares)) for name, each in tuned.items()]
        found["circuit_overlap"] = pd.concat(parts, ignore_index=True)
    return {name: table.reset_index(drop=True) for name, table in found.items()}


def _row(
    method: str, base: CheckpointCircuit, found: CheckpointCircuit, settings: CircuitSettings, seed: int
) -> dict[str, object]:
    scores, kept = found.scores, base.scores.share(settings.share)
    own = float(base.scores.scores[kept.edges].sum())
    parts = {
        name: math.nan if values is None or not own else float(values[kept.edges].sum()) / own
        for name, values in (("written", found.written), ("read", found.read))
    }
    if found is base:
        parts = {"written": 0.0, "read": 0.0}
    compared = compare_circuits(base.scores, scores, share=settings.share)
    note = str(compared.pop("note"))
    compared.pop("gap")
    return {
        "method": method,
        "n": len(scores.clean),
        "clean": sum(scores.clean) / len(scores.clean),
        "corrupted": sum(scores.corrupted) / len(scores.corrupted),
        **_gap(scores, seed).columns("gap"),
        "completeness": scores.completeness,
        "edges": len(kept),
        **compared,
        **parts,
        "note": "; ".join(filter(None, [note, "" if scores.complete else "scores are not complete"])),
    }


def _gap(scores: EdgeScores, seed: int) -> Interval:
    between = torch.tensor(scores.clean, dtype=torch.float64) - torch.tensor(scores.corrupted, dtype=torch.float64)
    return bootstrap(lambda weights: weights @ between, len(between), seed=seed)


def _edges(method: str, base: CheckpointCircuit, found: CheckpointCircuit, settings: CircuitSettings) -> pd.DataFrame:
    """The strongest edges of the base and of the checkpoint."""
    graph, scores = base.scores.graph, found.scores
    listed = base.scores.top(settings.top).edges | scores.top(settings.top).edges
    in_base, in_own = (each.share(settings.share).edges for each in (base.scores, scores))
    rows = []
    for writer, reader in listed.nonzero().tolist():
        place = (writer, reader)
        parts = {
            name: math.nan if values is None else float(values[place])
            for name, values in (("written", found.written), ("read", found.read))
        }
        rows.append(
            {
                "method": method,
                "writer": graph.writers[writer],
                "reader": graph.readers[reader],
                "score": float(scores.scores[place]),
                "base_score": float(base.scores.scores[place]),
                **({"written": 0.0, "read": 0.0} if found is base else parts),
                "in_circuit": bool(in_own[place]),
                "in_base": bool(in_base[place]),
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values("score", key=abs, ascending=False, kind="stable")


def _nodes(method: str, base: CheckpointCircuit, found: CheckpointCircuit, settings: CircuitSettings) -> pd.DataFrame:
    graph, kept = found.scores.graph, found.scores.share(settings.share)
    table = found.scores.nodes()
    lens = found.tables["lens"].set_index("node")
    return _with_method(
        method,
        table.assign(
            base_score=base.scores.of_nodes.tolist(),
            in_circuit=kept.in_circuit[: len(graph.writers)].tolist(),
            edges=kept.edges.sum(1).tolist(),
            rank=table["node"].map(lens["rank"]),
            tokens=table["node"].map(lens["tokens"]).fillna(""),
        ),
    )


def _pairs(pairs: Sequence[MatchedPair], scores: EdgeScores) -> pd.DataFrame:
    rows = [
        {
            "pair": number,
            "clean": pair.clean,
            "corrupted": pair.corrupted,
            "tokens": len(pair.tokens.clean),
            "differences": pair.tokens.differences,
            "right": json.dumps(list(pair.right), ensure_ascii=False),
            "wrong": json.dumps(list(pair.wrong), ensure_ascii=False),
            "clean_metric": scores.clean[number],
            "corrupted_metric": scores.corrupted[number],
        }
        for number, pair in enumerate(pairs)
    ]
    return pd.DataFrame(rows)


def _with_method(method: str, table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"method": [method] * len(table)}), table.reset_index(drop=True)], axis=1)
