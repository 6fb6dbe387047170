"""Edits in each other's way, and edits taken back, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

_P = "mean over the edit’s prompts of exp(mean log-probability of the answer’s tokens)"

CONFLICTS = Table(
    name="conflicts",
    title="Two edits, one on top of the other",
    row="a conflict: two edits of the unedited model, and the second of them alone",
    keys=("method", "record"),
    columns={
        "kind, rule": "how the two are at odds, and by which rule",
        "first_prompt, first_answer, second_prompt, second_answer": "what the edits are made of",
        "first_before, first_alone, first_both": (
            f"probability of the first edit’s answer before it, after it alone, and after both: {_P}"
        ),
        "second_alone, second_both": "the same of the second’s, after it alone on the unedited model, and after both",
        "implied_both": "of what the first edit implies once both are made, in the place of the second’s",
        "cs, cs_implied": "whether second_both (implied_both) is above first_both: 1 or 0",
        "cm": "share of first_alone that is lost after both, at least -1: 1 gone, 0 intact",
        "tfd, tfd_second": "share that the tied prompts’ answers lose by both edits, and by the second alone",
        "succ": "whether the second edit alone brings its answer above the first’s",
    },
    decides=("cs", "cm"),
    optional=True,
    printed=False,
    reported=False,
)
EDITS_IN_TURN = Table(
    name="edits_in_turn",
    title="Edit on top of edit: what is left of each?",
    row="an edit, after itself and after each later one",
    keys=("method",),
    columns={
        "edit, after": "number of the edit, from 1, and of the last one made when it is asked",
        "prompt, answer": "what it is asked",
        "before, probability": "of its answer, before any edit and then: exp(mean log-probability of its tokens)",
        "cm": "share of the probability right after the edit that is lost since, at least -1",
    },
    decides=("probability", "cm"),
    optional=True,
    printed=False,
    reported=False,
)
ROUND_TRIP = Table(
    name="round_trip",
    title="Edit, and edit back",
    row="a round trip, asked at a place: itself, or prompts that were not edited (generalisation, benign)",
    keys=("method", "record"),
    columns={
        "kind, prompt, true, new": "of the record; the answer that is edited away and back, and the one between",
        "on": "where it is asked",
        "answers": "candidates, the edited true one first; here and below the mean over the prompts of a place",
        "true_before, true_away, true_back": "of the first candidate: before, after the first edit, after both",
        "jsd_away, jsd": "bits between the candidates’ normalised probabilities: before and away, before and back",
        "jsd_left": "jsd / jsd_away: 0 behaves as before, 1 as if never edited back; empty where nothing had moved",
        "d": "jsd as released: nats, divided by the number of candidates",
        "ir, fr": "share of the other candidates less probable than before; whether more than half are",
        "succ": "half for the new answer above the true one after the first edit, half for the converse after both",
        "weights_left": "Frobenius norm of both changes added up over that of the first: 0 undone, 1 nothing undone",
        "write_left": "share of the first edit’s change of its blocks’ write that stands after both",
        "erasure_left": "the same of what its value vectors made of it",
        "undone": "undone (both at most a quarter), covered up (the write is back, the erasure stands) or not undone",
    },
    decides=("jsd_left", "weights_left", "undone"),
    optional=True,
    printed=False,
    reported=False,
)
ROUND_TRIP_BLOCKS = Table(
    name="round_trip_blocks",
    title="Edit, and edit back: the write of each changed block",
    row="a changed block of a round trip",
    keys=("method", "record", "block"),
    columns={
        "write, write_away, write_back": (
            "what its MLP writes along the unit direction in which the base prefers the true answer, where "
            "its tokens part from the new one’s: before, after the first edit, after both"
        ),
        "erasure_away, bypass_away": "what value vectors, and what flows into them, made of write_away - write",
        "erasure_back, bypass_back": "the same of write_back - write",
    },
    decides=("erasure_back", "bypass_back"),
    optional=True,
    printed=False,
    reported=False,
)
EDITS_SUMMARY = Table(
    name="edits_summary",
    title="Edits in conflict, edits taken back",
    row="a quantity of conflicts or round_trip, over the records of a kind (conflicts) or place (round trips)",
    keys=("method", "quantity", "n"),
    columns={
        "kind": "of conflict, or where a round trip is asked",
        "value": "mean over the records for which it is defined; of the ratios jsd_left to erasure_left the median",
        "undefined": "records for which it is not",
        "unit": "share, bits or nats",
    },
    intervals=("value",),
    decides=("value",),
    optional=True,
    reported=False,
)
