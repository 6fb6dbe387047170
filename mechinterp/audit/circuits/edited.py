"""The circuit of an edited fact: which edges carry the new object, beside those that carried the old one before.

    metric  logit of the new object's first token - that of the old one's, at the last token of the fact's prompt;
            the corrupted prompt is the same about another subject of as many tokens, whose answer is neither

In the base the old object wins, in the edited model the new one. The base's scores turned around are those of the old
object, so that both are set side by side: rank correlation 1 says that the new object takes the edges of the old one.
All that is written into the stream adds up before the logits, so that the edges into them make up the whole change of
the metric (to what the integration leaves out):

    direct                 from the MLP of the edited block itself
    heads, mlps            from heads and MLPs after it, which read a changed stream
    rest                   from what comes before, which writes what it did: nothing of it is what is written
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from mechinterp.audit.circuits.batches import TokenPair, pair_batches
from mechinterp.audit.circuits.comparison import compare_circuits, overlaps
from mechinterp.audit.circuits.matching import MatchedPair, differences, first_tokens, matched, subjects_of
from mechinterp.audit.circuits.places import Places
from mechinterp.audit.circuits.ranks import ranks_of_pairs
from mechinterp.audit.circuits.scores import EdgeScores
from mechinterp.audit.circuits.split import EdgeSplit, split_circuit
from mechinterp.audit.circuits.writes import last_logits
from mechinterp.data.facts.fact import Fact
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.changing import changing
from mechinterp.models.names import resid_post
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.passes.watching import evaluating

PARTS = ("direct", "heads", "mlps", "rest")


@dataclass(frozen=True)
class EditedCircuit:
    """What an edit did to the circuit of its fact.

    Attributes:
        values: quantity -> value, see `quantities`.
        ranks: of the new (right) and the old (wrong) object over depth, `ranks_of_pairs` of the edited model.
    """

    values: Mapping[str, float]
    ranks: pd.DataFrame


def edit_pairs(checkpoint: Checkpoint, facts: Mapping[int, Fact]) -> dict[int, MatchedPair]:
    """Of each fact its prompt beside one of another subject, right the new object and wrong the old one.

    Args:
        checkpoint: whose tokens and chat format.
        facts: with a new target and a ground truth, by number; the others are candidates for a fact's corrupted prompt.

    Returns:
        By number; a fact has none whose two objects start with the same token, or that no other stands beside: of the
        same template, with as many tokens, and a ground truth that starts with neither object.
    """
    numbers = list(facts)
    texts = dict(zip(numbers, as_fed(checkpoint, [fact.text for fact in facts.values()]), strict=True))
    subjects = dict(zip(numbers, subjects_of(checkpoint, list(facts.values())), strict=True))
    answers = {
        number: [first_tokens(checkpoint, fact.text, [one])[0] for one in (fact.target_new, fact.ground_truth)]
        for number, fact in facts.items()
    }
    alike: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, fact in facts.items():
        alike[fact.template, len(texts[number].ids)].append(number)
    found = {}
    for number, fact in facts.items():
        new, old = answers[number]
        own = texts[number]
        others = [one for one in alike[fact.template, len(own.ids)] if answers[one][1] not in (new, old)]
        if new == old or not others:
            continue
        other = min(others, key=lambda one: (differences(own.ids, texts[one].ids), one))
        tokens = (new,), (old,), subjects[number]
        found[number] = matched(checkpoint, fact.text, facts[other].text, own, texts[other], *tokens)
    return found


def edited_circuit(
    base: Checkpoint, edited: Checkpoint, pair: TokenPair, block: int, *, steps: int = 5, share: float = 0.05
) -> EditedCircuit:
    """Set the circuit of an edited fact beside that of the fact before.

    Args:
        base, edited: in memory together; left as they were.
        pair: of the fact, as `edit_pairs` gives it.
        block: the edited one.
        steps: of the integration.
        share: of all edges: the circuits that are set side by side.
    """
    split = split_circuit(base, edited, [pair], steps=steps, quiet=True)
    return EditedCircuit(quantities(split, block, share), ranks_of_pairs(edited, [pair]))


def quantities(split: EdgeSplit, block: int, share: float) -> dict[str, float]:
    """What is told of a base's and an edited model's scores of one fact.

    Returns:
        gap_before (of the old object over the new in the base) and gap_after (of the new over the old in the edited
        model), in logits; spearman, jaccard, jaccard_chance and strength of the new object's circuit beside the old
        one's; completeness of the edited model's scores; to_logits, the change of all edges into the logits, and its
        parts direct, heads, mlps and rest; written, what of to_logits is that something else is written.
    """
    before = turned(split.base)
    compared, overlap = compare_circuits(before, split.tuned, share=share), overlaps(before, split.tuned, [share])
    graph = split.base.graph
    into = split.tuned.scores[:, -1] - split.base.scores[:, -1]
    parts = dict.fromkeys(PARTS, 0.0)
    for node, value in enumerate(into.tolist()):
        parts[_part(graph.kind_of(node), graph.block_of(node), block)] += value
    return {
        "gap_before": before.gap,
        "gap_after": split.tuned.gap,
        "spearman": float(str(compared["spearman_edges"])),
        "jaccard": float(overlap["jaccard"].iloc[0]),
        "jaccard_chance": float(overlap["chance"].iloc[0]),
        "strength": float(str(compared["strength"])),
        "completeness": split.tuned.completeness,
        "to_logits": float(into.sum()),
        **parts,
        "written": float(split.written[:, -1].sum()),
    }


@torch.no_grad()
def carried_by_subject(checkpoint: Checkpoint, pairs: Sequence[TokenPair], block: int) -> list[float]:
    """What the subject's last token carries of the answer after a block: the most that an edit there can take away.

    The share of the metric between the two prompts that goes when the stream there, in the clean prompt, is that of the
    corrupted one. The rest of the answer has left the subject before, or comes from its other tokens.

    Args:
        checkpoint: left as it was.
        pairs: with subjects.
        block: after which it is swapped.
    """
    graph, hook = Places.of(checkpoint).graph, resid_post(block)
    found: dict[int, float] = {}
    for batch in pair_batches(checkpoint, graph, pairs):
        n, width = batch.shape
        into = torch.tensor([row * width + pair.subject[-1] for row, pair in enumerate(batch.pairs)])

        def swap(values: Tensor, into: Tensor = into, apart: int = n * width) -> Tensor:
            new, places = values.clone(), into.to(values.device)
            new[places] = values[places + apart]
            return new

        with evaluating(checkpoint.model):
            whole = last_logits(checkpoint, batch.both)
            with changing(checkpoint, [hook], {hook: swap}, at="all"):
                swapped = batch.metric(last_logits(checkpoint, batch.both)[:n])
        clean, corrupted = batch.metric(whole[:n]), batch.metric(whole[n:])
        found |= zip(batch.numbers, ((clean - swapped) / (clean - corrupted)).tolist(), strict=True)
    return [value for _, value in sorted(processes.gather(list(found.items())))]


def turned(scores: EdgeScores) -> EdgeScores:
    """The scores of the metric with right and wrong the other way round."""
    clean, corrupted = (tuple(-value for value in values) for values in (scores.clean, scores.corrupted))
    return replace(scores, scores=-scores.scores, clean=clean, corrupted=corrupted)


def _part(kind: str, at: int | None, block: int) -> str:
    if at is None or at < block or (at == block and kind != "mlp"):
        return "rest"
    if at == block:
        return "direct"
    return "heads" if kind == "attention" else "mlps"
