"""Circuits of a base and of tuned models, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

CIRCUITS = Table(
    name="circuits",
    title="Which edges carry the behaviour, and what still flows through them",
    row="a checkpoint, the base first",
    keys=("method", "n"),
    columns={
        "clean, corrupted": "mean metric of the two prompts of pairs: logit of the right less of the wrong tokens",
        "gap": "clean less corrupted",
        "completeness": "what the edges out of the input add up to, over the gap; near 1 if steps are enough",
        "edges": "of the base’s circuit: the share of all edges with the largest |score|",
        "gap_share": "the gap over the base’s",
        "spearman_edges, spearman_nodes": "rank correlation of all scores with the base’s",
        "strength": "sum of the scores over the base’s circuit, over the base’s own: what still flows through it",
        "written, read": (
            "the two parts of strength less 1: what is written changed, and how it is read changed; they may cancel"
        ),
        "new": "edges of its own circuit that the base’s does not have",
        "note": "where the gap is too small to divide by or to rank, or scores are not complete",
    },
    intervals=("gap",),
    decides=("gap", "strength", "note"),
    optional=True,
    stage="circuits",
)
CIRCUIT_OVERLAP = Table(
    name="circuit_overlap",
    title="Are they the same edges?",
    row="a share of all edges of a tuned checkpoint",
    keys=("method",),
    columns={
        "share": "of all edges, those of largest |score|",
        "edges": "how many these are",
        "jaccard": "with the base’s: edges in both over edges in either",
        "chance": "of two random choices of as many",
        "new": "of its own that are not the base’s",
    },
    optional=True,
    printed=False,
    stage="circuits",
)
CIRCUIT_FAITHFULNESS = Table(
    name="circuit_faithfulness",
    title="What a circuit does alone",
    row="a circuit of a checkpoint; all other edges carry the replacement",
    keys=("method", "n"),
    columns={
        "circuit": "top: a share of all edges, those of largest |score|; acdc: what cutting edges one by one left",
        "edges, share, nodes": "its size: edges, their share of all, and nodes at their ends",
        "clean, corrupted, alone": "mean metric of the whole model on both, and of the circuit on the clean prompts",
        "recovered": "(alone - corrupted) / (clean - corrupted), means divided: 1 all of the behaviour, 0 none",
        "random, random_least, random_most": "the same of random circuits of as many edges: mean, least and most",
    },
    intervals=("recovered",),
    decides=("recovered", "random"),
    optional=True,
    stage="circuits",
)
CIRCUIT_EDGES = Table(
    name="circuit_edges",
    title="The strongest edges",
    row="one of the edges of largest |score| of the checkpoint or of the base",
    keys=("method",),
    columns={
        "writer": "input, a head a{block}.h{head}, or an MLP m{block}",
        "reader": "a query <q>, key <k> or value <v> of a head (keys and values by key head), an MLP, or logits",
        "score": "what the metric loses, to first order, when the edge carries the corrupted prompt’s write",
        "base_score": "of the same edge in the base",
        "written, read": "the two parts of score less base_score: what is written changed, and how it is read",
        "in_circuit, in_base": "whether the edge is in its own circuit, and in the base’s",
    },
    decides=("score", "base_score"),
    optional=True,
    printed=False,
    stage="circuits",
)
CIRCUIT_NODES = Table(
    name="circuit_nodes",
    title="The nodes of the circuit",
    row="a node of a checkpoint that writes into the residual stream",
    keys=("method", "block"),
    columns={
        "node, kind": "input, attention (a head) or mlp",
        "score": "sum of the edges out of it",
        "base_score": "the same in the base",
        "in_circuit": "whether an edge of its own circuit ends there",
        "edges": "of its own circuit that leave it",
        "rank": (
            "of the strongest nodes: median rank of the right token in what is written at the last token, through the "
            "unembedding"
        ),
        "tokens": "that its mean write promotes most (JSON list)",
    },
    decides=("score", "base_score"),
    optional=True,
    printed=False,
    stage="circuits",
)
CIRCUIT_RANKS = Table(
    name="circuit_ranks",
    title="How soon the answer comes up",
    row="a point of a checkpoint’s residual stream on the clean prompts, a position and a set of tokens",
    keys=("method", "block", "n"),
    columns={
        "position": "last (token of the prompt) or, of facts, subject (the best of its tokens)",
        "tokens": "right (what the clean prompt calls for) or wrong",
        "rank, rank_first, rank_third": "best rank of the set in the vocabulary: median over pairs, and quartiles",
        "probability": "of the set together, mean over pairs; each stream through its own norm, unless set otherwise",
    },
    optional=True,
    printed=False,
    stage="circuits",
)
CIRCUIT_PAIRS = Table(
    name="circuit_pairs",
    title="The pairs of prompts that circuits are of",
    row="a pair: two prompts of the same number of tokens",
    keys=(),
    columns={
        "pair": "its number",
        "clean, corrupted": "the prompt that shows the behaviour, and one as like it as there is that does not",
        "tokens, differences": "of each prompt, and positions at which they differ",
        "right, wrong": "tokens whose logits are read (JSON list)",
        "clean_metric, corrupted_metric": "of the base",
    },
    optional=True,
    printed=False,
    stage="circuits",
)
