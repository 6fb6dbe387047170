"""Where the toxic layer lies, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

TOXIC_LAYER = Table(
    name="toxic_layer",
    title="Toxic layer",
    row="a block, under each distance",
    keys=("block",),
    columns={
        "distance": "released, residual, pooled or relative: see the figure",
        "count": "instances for which this block is the toxic one under this distance",
        "sinks": (
            "those of the count whose layer is the sink’s: massive activations, mostly one dimension at the first "
            "token, make more than half of the squared distance"
        ),
    },
    stage="locate",
)
LOCATED = Table(
    name="located",
    title="The toxic layer of every instance",
    row="a test instance, under each distance",
    keys=("instance", "category", "block"),
    columns={
        "distance": "released, residual, pooled or relative",
        "value": "distance between the safe and the unsafe response at that block",
        "margin": "how far the second largest lies below it, as a share of it, between 0 and 1",
        "entry_share": (
            "largest share of the squared distance that one dimension at one position makes (pooled, relative: one "
            "dimension)"
        ),
        "position, dimension": "where that is: position in the response, from 0, below it in padding on its left",
        "sink_share": (
            "share of the squared distance of all positions with massive activations; above 0.5 the layer is the sink’s"
        ),
    },
    printed=False,
    reported=False,
    stage="locate",
)
