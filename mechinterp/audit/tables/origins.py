"""Which changed weights carry the change of behaviour, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

_READOUT = (
    "what is read of both models on the same texts: log_odds of the unsafe against the safe answer (nats, over the "
    "first tokens of each), unsafe_logprob, or the write along a direction"
)
_SHARES = {
    "phi": "contribution to the change of the read-out, in its units",
    "share": (
        "the contribution over the sum of all groups’ sizes, below 0 where it works against the change; empty where "
        "the interval of the change contains 0"
    ),
    "share_of_change": "the contribution over the change; of all groups together 1 (of a path: its completeness)",
}

ORIGINS = Table(
    name="origins",
    title="Which weights carry the change",
    row="a group of weights of a tuned checkpoint, by one way of sharing the change out",
    keys=("method", "n"),
    columns={
        "readout": _READOUT,
        "way": (
            "exact game: Shapley values over hybrids with some groups of the tuned model; sampled game: the same over "
            "random orders; path: gradients along the line from the base to the tuned weights"
        ),
        "group": (
            "embed (with the unembedding), attention, mlp.in (with the gate), mlp.out (W_V and its bias, the toxic "
            "regions), norm; tied weights once"
        ),
        "own_answers": "prompts whose unsafe answer is the base’s own; of the others it is the data’s",
        "change": "of the read-out, base to tuned, mean over prompts",
        **_SHARES,
        "completeness": "what the contributions add up to, over the change: 1 for a game",
        "note": "why there are no shares, where there are none",
        "alone, last": "change that the group makes alone in the base, and that it makes as the last one (games only)",
        "standard_error": "of the contribution, left by sampling; 0 for an exact game",
        "models": "hybrids that were read, or nodes of the path: more where fewer missed the change by 2%",
    },
    intervals=("change", "phi", "share"),
    decides=("group", "share"),
    stage="origins",
)
ORIGINS_BLOCKS = Table(
    name="origins_blocks",
    title="Which blocks carry the change",
    row="a group of weights in a block of a tuned checkpoint, along the path",
    keys=("method", "block"),
    columns={"readout": _READOUT, "group": "as in origins", **_SHARES},
    intervals=("phi", "share"),
    printed=False,
    stage="origins",
)
ORIGINS_NEURONS = Table(
    name="origins_neurons",
    title="Which neurons and heads carry the change",
    row="one of the neurons or heads whose weights contribute most, whichever way, along the path",
    keys=("method", "block"),
    columns={
        "readout": _READOUT,
        "part": "neuron: its value vector, a row of W_V; head: its rows of the attention’s output matrix",
        "number": "of the neuron or head in its block, counted from 0",
        **_SHARES,
    },
    intervals=("phi", "share"),
    printed=False,
    stage="origins",
)
ORIGINS_CONTROLS = Table(
    name="origins_controls",
    title="What origins say where there is nothing to say",
    row="something known beforehand of a tuned checkpoint and a read-out, and what was found",
    keys=("method", "quantity", "n"),
    columns={
        "readout": _READOUT,
        "control": (
            "random groups: the value vectors of the changed W_V dealt out at random into groups of as many, along the "
            "path; shuffled labels: which answer of a question counts as the unsafe one is drawn (log_odds only); base "
            "against base: the base in the tuned model’s place"
        ),
        "found": (
            "share of group …: of what all those value vectors contribute; change: of the read-out, of labels as drawn "
            "once; changes that pass for one: of 200 draws, the share whose interval does not contain 0"
        ),
        "expected": "what is expected where the method adds nothing of its own",
        "spread": "of a random group’s share: standard deviation over all ways to deal them out",
        "note": "why there is nothing, where there is not",
    },
    intervals=("found",),
    decides=("found", "expected"),
    printed=False,
    stage="origins",
)
