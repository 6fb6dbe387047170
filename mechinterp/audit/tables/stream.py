"""The whole residual stream, base against tuned: what each part of it writes, and how far the stream moved."""

from __future__ import annotations

import pandas as pd

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.tables.decomposition import decompose_blocks
from mechinterp.measures.stream import StreamShift, change_intervals, stream_parts
from mechinterp.models.names import attn_out, mlp_out, resid_post, resid_pre


def stream(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame | None:
    """A row for each direction, place and part; None for an architecture whose parts do not add up to the stream.

    Over the parts, `write` sums to `total`, the write of the stream before the final norm, and so does `change` to its
    change.
    """
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
                    "change": part.change,
                    "change_low": ends[component, block][0],
                    "change_high": ends[component, block][1],
                    "erasure": part.erasure,
                    "bypass": part.bypass,
                    "bias": part.bias,
                    "total_base": total_base,
                    "total": total,
                }
                for (component, block), part in parts.items()
            ]
    return pd.DataFrame(rows).astype({"block": "Int64"}) if rows else None


def residual_shift(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame | None:
    """How far the mean stream after each block moved, and whereto; None for an architecture without these hook points.

    `relative_shift` is over the length of the base's mean stream there. Cosines are empty where nothing moved.
    """
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
        }
        columns |= {f"cosine_{'with_' * (name == 'toxic_block')}{name}": c.tolist() for name, c in cosines.items()}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True) if tables else None
