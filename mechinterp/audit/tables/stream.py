"""The whole residual stream, base against tuned: what each part of it writes, and how far the stream moved."""

from __future__ import annotations

import pandas as pd

from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.decomposition import decompose_blocks
from mechinterp.audit.tables.table import Table
from mechinterp.measures.intervals import Interval
from mechinterp.measures.massive import dimension_share
from mechinterp.measures.stream import StreamShift, change_intervals, stream_parts
from mechinterp.models.names import attn_out, mlp_out, resid_post, resid_pre


def stream(contrast: Contrast) -> pd.DataFrame | None:
    """A row for each direction, place and part; None for an architecture whose parts do not add up to the stream.

    Over the parts, `write` sums to `total`, the write of the stream before the final norm, and so does `change` to its
    change.
    """
    method, baseline, evidence = contrast.method, contrast.baseline, contrast.evidence
    rows = []
    for place in baseline.inputs.places:
        both = [part.stream.get(place.name) for part in (baseline.evidence, evidence)]
        base, tuned = (found.writes if found is not None else {} for found in both)
        if not (base and tuned):
            continue
        sizes = baseline.evidence.recordings[place.name].group_sizes
        weights = sizes / sizes.sum()
        for column, direction in enumerate(baseline.inputs.directions):

            def written(hook: str, column: int = column) -> tuple:
                return base[hook][:, column], tuned[hook][:, column]  # noqa: B023 - called within the loop

            blocks = range(len(baseline.evidence.readouts[direction]))
            parts = stream_parts(
                written(resid_pre(0)),
                [written(attn_out(block)) for block in blocks],
                decompose_blocks(baseline.evidence, evidence, direction, place.name),
                sizes,
                mlp_out=[written(mlp_out(block)) for block in blocks] if mlp_out(0) in base else None,
            )
            ends = change_intervals(parts, sizes, seed=baseline.inputs.seed)
            total_base, total = (float(weights @ part) for part in written(resid_post(blocks[-1])))
            rows += [
                {
                    "method": method,
                    "direction": direction,
                    "position": place.name,
                    "component": component,
                    "block": block,
                    "write_base": part.write_base,
                    "write": part.write,
                    **Interval(part.change, *ends[component, block]).columns("change"),
                    "erasure": part.erasure,
                    "bypass": part.bypass,
                    "bias": part.bias,
                    "total_base": total_base,
                    "total": total,
                }
                for (component, block), part in parts.items()
            ]
    return pd.DataFrame(rows).astype({"block": "Int64"}) if rows else None


def residual_shift(contrast: Contrast) -> pd.DataFrame | None:
    """How far the mean stream after each block moved, and whereto; None for an architecture without these hook points.

    `relative_shift` is over the length of the base's mean stream there. Cosines are empty where nothing moved.
    """
    method, baseline, evidence = contrast.method, contrast.baseline, contrast.evidence
    tables = []
    for place in baseline.inputs.places:
        base, tuned = (part.stream.get(place.name) for part in (baseline.evidence, evidence))
        if base is None or tuned is None:
            continue
        shift = StreamShift.of(base.means, tuned.means)
        cosines = {"toxic_block": shift.cosines(shift.vectors[baseline.inputs.block])}
        cosines |= {name: shift.cosines(direction) for name, direction in baseline.inputs.directions.items()}
        columns = {
            "method": method,
            "position": place.name,
            "block": range(len(shift.shift)),
            "shift": shift.shift.tolist(),
            "relative_shift": shift.relative.tolist(),
            "dimension_share": dimension_share(shift.vectors).tolist(),
        }
        columns |= {f"cosine_{'with_' * (name == 'toxic_block')}{name}": c.tolist() for name, c in cosines.items()}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True) if tables else None


STREAM = Table(
    name="stream",
    title="The whole stream",
    row="a part of the residual stream, for each tuned checkpoint, direction and position",
    keys=("method", "direction", "position", "block"),
    columns={
        "component": "embedding, attention, MLP, and what a norm after the MLP changes, where there is one",
        "write_base, write": "what the part writes along the direction, before and after",
        "change": "of the write, in units of the residual stream",
        "erasure, bypass": "of the MLP’s change",
        "bias": "change of the MLP’s output bias along the direction",
        "total_base, total": "the write of the stream before the final norm: what all parts sum to",
    },
    intervals=("change",),
    optional=True,
    stage="compare",
    make=stream,
)
RESIDUAL_SHIFT = Table(
    name="residual_shift",
    title="Residual shift",
    row="a block of a tuned checkpoint, for each position",
    keys=("method", "position", "block"),
    columns={
        "shift": "length of the mean shift of the stream after the block",
        "relative_shift": "length of the mean shift over the mean length in the base",
        "dimension_share": (
            "the share that one dimension makes of the squared length of the shift: near 1 it is a massive activation’s"
        ),
        "cosine_with_toxic_block": "of the shift with that at the toxic layer; empty where nothing moved",
        "cosine_*": "of the shift with each direction; empty where nothing moved",
    },
    optional=True,
    stage="compare",
    make=residual_shift,
)
