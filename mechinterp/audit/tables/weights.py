"""What the weights alone tell, as tables: of `mechinterp diff` and of `mechinterp measure`."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

_CHANGED = {
    "elements, changed": "how many numbers there are, and how many differ",
    "norm_a, change_norm": "Frobenius norms of A and of the change",
    "relative_change": "change_norm over norm_a",
    "largest_change": "of one element, in absolute value",
    "rank, rank_at_least": "numerical rank of the change, the largest of several; whether it is a lower bound",
}
DIFF_BLOCKS = Table(
    name="diff_blocks",
    title="Which weights differ, by block",
    row="a component of a block, over its tensors",
    keys=("block",),
    columns={
        "component": "its place in the block, as the model names it",
        "tensors, differing, unpaired": "how many there are, differ, and have no counterpart of the same shape",
        **_CHANGED,
        "nonfinite_a, nonfinite_b": "numbers that are not finite",
    },
    optional=True,
    printed=False,
)
DIFF = Table(
    name="diff",
    title="Which weights differ, by tensor",
    row="a parameter",
    keys=("block",),
    columns={
        "parameter, component": "its name, and its place in the block",
        "status": "same, type, rounded, changed, shape, only A or only B",
        "shape_a, shape_b, dtype_a, dtype_b": "shapes and types",
        **_CHANGED,
        "stable_rank": "squared Frobenius norm over the squared largest singular value",
        "nonfinite_a, nonfinite_b": "numbers that are not finite",
    },
    optional=True,
    printed=False,
)
REGION = Table(
    name="region",
    title="Toxicity of every block’s value vectors",
    row="a block of a checkpoint, the base among them",
    keys=("checkpoint", "layer"),
    columns={
        "toxicity": "T, the mean cosine between the block’s value vectors and the toxic direction",
        "toxicity_z, toxicity_p": "T against that along random directions: z-score and two-sided p",
        "top*_toxicity": "T of the most toxic value vectors alone",
        "n_value_vectors": "of the block",
        "toxicity_base, base_top*_toxicity": "of the base; of the vectors that are the base’s most toxic",
        "toxicity_reduction_rate": "(T base − T) / |T base|",
        "change_z, change_p": "T’s change against the same change along random directions",
        "ill_conditioned": "whether T base cannot be told from zero",
    },
    intervals=("toxicity", "toxicity_reduction_rate"),
    optional=True,
    printed=False,
)
REGION_VECTORS = Table(
    name="region_vectors",
    title="The base’s most toxic value vectors in every checkpoint",
    row="a value vector in a checkpoint",
    keys=("checkpoint", "block", "neuron"),
    columns={"rank": "in the base, 1 the most toxic", "cosine": "with the toxic direction"},
    optional=True,
    printed=False,
)
ERASURE = Table(
    name="erasure",
    title="Erasure at the base’s activations",
    row="a block of a tuned checkpoint, for each direction",
    keys=("checkpoint", "direction", "position", "block"),
    columns={
        "write_base": "mean toxic write of the base’s block",
        "erasure, bias": "what the changed weights and the changed bias take from it at the base’s own inflow",
        "n_inputs": "prompts recorded",
    },
    intervals=("erasure",),
    optional=True,
    printed=False,
)
