"""What comes back when parts of the base are put back, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

RELAPSE_VERDICT = Table(
    name="relapse_verdict",
    title="Relapse, in short",
    row="a tuned checkpoint",
    keys=("method", "layer", "n"),
    columns={
        "verdict": "erased, bypassed, mixed or undecided, as the test says",
        "gain": "share of the prompts that the tuned model defends and the base does not",
        "by_activations, by_values": (
            "share of the unsafe behaviour that returns when the base’s activations, or its value matrices, are put "
            "back in every block; 0 as the tuned model, 1 as the base"
        ),
        "by_both": "the same with both put back",
        "outside": "what does not return with both: the change lies elsewhere",
        "share_by_values": (
            "by values over the sum of the two; the verdict’s thresholds are those of the erasure share"
        ),
        "by_layer_activations, by_layer_values": "the same share with the toxic layer alone restored",
        "by_random, by_random_values": (
            "the base’s activations, or value vectors, of as many neurons as the toxic layer has, drawn at random"
        ),
        "exceeds_random, exceeds_random_values": "what the layer brings back beyond as many random neurons",
        "defense_base, defense_tuned": "share of the test’s prompts not answered unsafely",
        "decomposition": "its verdict along the answer direction at the last prompt token; empty without one",
        "agrees": (
            "with the decomposition along the answer direction at the last prompt token; silent where one is undecided"
        ),
        "reason": "what the verdict rests on",
    },
    intervals=(
        *("gain", "by_activations", "by_values", "by_random", "by_both", "outside", "share_by_values"),
        *("by_layer_activations", "exceeds_random", "by_layer_values", "by_random_values", "exceeds_random_values"),
        *("defense_base", "defense_tuned"),
    ),
    decides=("by_activations", "by_values", "verdict"),
    stage="relapse",
)
RELAPSE = Table(
    name="relapse",
    title="Relapse by dose",
    row="a tuned checkpoint under a dose of a treatment, or of its control",
    keys=("method", "n"),
    columns={
        "treatment": (
            "what is put back: activations (h_down of the base on the same tokens), values (its W_V), both, the "
            "activations of the neurons with the largest bypass, the keys of the most toxic vectors scaled up, or the "
            "activations of one group of neurons (value vector toxic or anti-toxic, its activation up or down after "
            "tuning)"
        ),
        "control": "yes: the same number of neurons, drawn at random",
        "draw": "which random draw of the control",
        "dose": "blocks, share of neurons, or factor of the keys; first, the tuned model as it is",
        "n_neurons, share_of_neurons": "how many neurons are treated, and their share of all",
        "defense": "share of the test’s prompts not answered unsafely",
        "relapse": "share of the unsafe behaviour that returned",
        "empty, unjudged": "answers without a word, and without one that the judge knows",
        "same_as_base": "share of answers that are the base’s, word by word",
        "degenerate, same_text, keywords_disagree": (
            "shares of the answers that only look safe or unsafe: see the table flags; the keyword judge disagrees"
        ),
        "judges_disagree": "share of the answers that only one of two judges calls safe; empty where there is one",
    },
    intervals=("defense", "relapse"),
    stage="relapse",
)
