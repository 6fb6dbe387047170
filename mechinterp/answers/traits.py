"""How probable opinions are to a model, trait by trait: what an edit towards a trait did, and to the other traits.

    es     sigmoid(lp+ - lp-) min(1, exp(lp+ - lp+ before)): of the measured trait's opinions against all others
    shift  lp+ - lp+ before, in nats a token
    dd     mean over the tokens of another topic's opinions of KL(before || after), in nats

lp is the mean log-probability of all tokens of a topic's opinions, asked for by one question (`measures.personality`).
As released, the text is "Question: Q\\n </s> Answer: A" and each token is scored by the logits at itself: `released`;
of the released mask only the answer's own tokens count here. The other topic is the next one, of the last the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mechinterp.answers.divergence import Opened, next_token_divergence
from mechinterp.data.personality import Topic
from mechinterp.measures.personality import edit_success
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.scoring import answer_logits, in_batches, widened
from mechinterp.models.text.batches import to_device
from mechinterp.models.text.tokens import Encoded, encode

RELEASED_FORM = "Question: {}\n </s> Answer:"
"""How the released code asks."""


@dataclass(frozen=True)
class Sum:
    """Log-probabilities of the tokens of some texts.

    Attributes:
        nats: of all of them.
        lengths: tokens of each text.
    """

    nats: float = 0.0
    lengths: tuple[int, ...] = ()

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.nats + other.nats, self.lengths + other.lengths)

    @property
    def mean(self) -> float:
        """Of a token, in nats; nan for none."""
        return self.nats / sum(self.lengths) if self.lengths else math.nan


Opinions = Mapping[str, Sum]
"""Trait -> the tokens of a topic's opinions that show it."""


@torch.no_grad()
def read_opinions(
    checkpoint: Checkpoint,
    topics: Sequence[Topic],
    *,
    released: bool = False,
    truncate: bool = False,
    **batching: Any,
) -> list[Opinions]:
    """Read every opinion of some topics after a question for it.

    Args:
        checkpoint: the model; left as it was.
        topics: any number of them.
        released: ask and score as the released code, see the module.
        truncate: cut prompts that exceed the context from the left instead of raising.
        batching: as `scoring.score` takes it.

    Returns:
        By topic.

    Raises:
        InputError: for a text that is too long.
    """
    asked = [
        (number, trait, text)
        for number, one in enumerate(topics)
        for trait, opinions in one.opinions.items()
        for text in opinions
    ]
    form = RELEASED_FORM if released else "{}"
    texts = encode(
        checkpoint.tokenizer,
        [form.replace("{}", topics[number].questions()[0]) for number, _, _ in asked],
        [text for _, _, text in asked],
        max_length=checkpoint.names.context_length - 1,  # as released one token more is fed
        chat=None if released else checkpoint.chat,
        truncate=truncate,
        quiet=released,  # its form spells a special token
    )
    read = in_batches(checkpoint, texts, partial(_sums, checkpoint, own_place=released), **batching)
    found: list[dict[str, Sum]] = [dict.fromkeys(one.opinions, Sum()) for one in topics]
    for (number, trait, _), each in zip(asked, read, strict=True):
        found[number][trait] += each
    return list(found)


def _sums(checkpoint: Checkpoint, texts: Sequence[Encoded], *, own_place: bool) -> list[Sum]:
    """Of each text of a batch; scored by the logits at the token itself where that is asked for."""
    fed = [Encoded.of([*one.ids, one.ids[-1]], one.prompt_length + 1) for one in texts] if own_place else texts
    logits, _ = answer_logits(checkpoint, fed)
    answers = [list(one.ids[one.prompt_length :]) for one in texts]
    labels = to_device(torch.tensor([token for answer in answers for token in answer]), logits.device)
    parts = [wide.gather(1, wanted[:, None])[:, 0] - wide.logsumexp(1) for wide, wanted in widened(logits, labels)]
    values = torch.cat(parts).double().cpu().split([len(answer) for answer in answers])
    return [Sum(float(one.sum()), (len(one),)) for one in values]


def success_of(trait: str, after: Opinions, before: Opinions) -> float:
    """ES of a trait on one topic."""
    other = sum((value for name, value in after.items() if name != trait), Sum())
    return edit_success(after[trait].mean, other.mean, before[trait].mean)


def drawdowns(
    open_base: Opened, open_tuned: Opened, topics: Sequence[Topic], read: Sequence[Opinions], **options: Any
) -> list[float]:
    """DD on the opinions of each topic, in nats.

    Args:
        open_base, open_tuned: give the two models, see `divergence.Opened`.
        topics: what is asked, by their first question.
        read: of the topics, for the lengths of their texts.
        options: `truncate`, `memory` and `progress` of `next_token_divergence`.
    """
    asked = [(topic.questions()[0], text) for topic in topics for texts in topic.opinions.values() for text in texts]
    prompts, answers = zip(*asked, strict=True)
    values = next_token_divergence(
        open_base, open_tuned, prompts, answers, position="response", kind="kl", **options
    ).values.tolist()
    found, at = [], 0
    for each in read:
        lengths = [length for one in each.values() for length in one.lengths]
        own, at = values[at : at + len(lengths)], at + len(lengths)
        found.append(sum(value * n for value, n in zip(own, lengths, strict=True)) / sum(lengths))
    return found
