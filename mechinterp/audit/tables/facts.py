"""What checkpoints make of facts, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

FACTS = Table(
    name="facts",
    title="Facts, one by one",
    row="a fact, asked of a checkpoint, the base first; of many edits each is asked its own",
    keys=("method", "fact"),
    columns={
        "subject, relation, prompt, answer": "of the fact; the answer that should come",
        "success, success_all": "share of the new answer’s tokens that are the most probable ones, teacher-forced; all",
        "truth, truth_all": "the same of the answer before",
        "target_logprob, truth_logprob": "mean log-probability of the new answer’s tokens, and of the one’s before",
        "rephrase, rephrase_all": "success on the prompt in other words",
        "portability, portability_all": "the same on what follows from it: mean over kinds of means over prompts",
        "locality, locality_all": (
            "share of the tokens of answers that the fact leaves alone at which the most probable token is what it was "
            "in the base; all; empty without a base"
        ),
        "said_target": "whether the answer occurs in what the checkpoint says itself; empty where nothing is said",
        "same_answer": "share of the tokens that the base said itself which it still says in the same place",
        "fluency": "weighted entropy of word bigrams and trigrams of prompt and drawn answer, in bits",
    },
    decides=("success", "rephrase", "portability", "locality"),
    optional=True,
    printed=False,
    reported=False,
)
FACTS_SUMMARY = Table(
    name="facts_summary",
    title="Facts",
    row="a quantity of the table facts, over all facts of a checkpoint that have it, or those of a kind or relation",
    keys=("method", "quantity", "n"),
    columns={
        "kind": "of portability or locality; empty for all",
        "relation": "the facts of one relation; empty for all",
        "subjects": "different ones, over which the interval is: Wilson’s of a share, else a bootstrap",
        "value": "mean over the facts",
        "unit": "share, nats or bits",
    },
    intervals=("value",),
    decides=("value",),
    optional=True,
    reported=False,
)
