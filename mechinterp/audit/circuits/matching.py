"""Pairs of prompts for a behaviour and for facts: the same number of tokens, and as alike as the data have them.

For a behaviour: a prompt that the base would answer unsafely, and the one of as many tokens that it would refuse which
differs from it at the fewest. Which of the two a prompt is, the first token says: the most probable of those that start
unsafe and safe answers. For a fact: the same template with another subject of as many tokens and another answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.circuits.batches import TokenPair, check_pairs
from mechinterp.audit.circuits.writes import last_logits
from mechinterp.audit.logit_lens import answer_tokens
from mechinterp.data.conversations import Prompt
from mechinterp.data.counting import many
from mechinterp.data.facts.fact import Fact
from mechinterp.data.pairs import AnyPair
from mechinterp.data.prompt_pairs import PromptPair
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.errors import InputError, NothingToPairError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import ANY_LENGTH, as_fed
from mechinterp.models.passes.watching import evaluating
from mechinterp.models.text.batches import length_batches, pad, token_budget
from mechinterp.models.text.subjects import subject_tokens
from mechinterp.models.text.tokens import Encoded
from mechinterp.models.unembedding import token_texts

_SAME = 4


@dataclass(frozen=True)
class MatchedPair:
    """A pair of prompts, as texts and as tokens.

    Attributes:
        clean, corrupted: the texts.
        right, wrong: the tokens that are read, readable.
        tokens: what models are fed.
    """

    clean: str
    corrupted: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    tokens: TokenPair


def given_pairs(checkpoint: Checkpoint, pairs: Sequence[PromptPair]) -> list[MatchedPair]:
    """Pairs as a user wrote them, in the checkpoint's tokens and chat format.

    Raises:
        InputError: for no pairs, or prompts of different numbers of tokens.
    """
    cleans = as_fed(checkpoint, [pair.clean for pair in pairs])
    others = as_fed(checkpoint, [pair.corrupted for pair in pairs])
    found = []
    for pair, clean, corrupted in zip(pairs, cleans, others, strict=True):
        right, wrong = (first_tokens(checkpoint, pair.clean, answers) for answers in (pair.right, pair.wrong))
        if both := set(right) & set(wrong):
            raise InputError(
                f"{pair.clean!s:.60}: right and wrong answers start with the same token, "
                f"{token_texts(checkpoint.tokenizer, sorted(both))[0]!r}; give answers that part at their first token"
            )
        found.append(matched(checkpoint, pair.clean, pair.corrupted, clean, corrupted, right, wrong))
    check_pairs([one.tokens for one in found])
    return found


def fact_pairs(checkpoint: Checkpoint, facts: Sequence[Fact], *, most: int = 32) -> list[MatchedPair]:
    """Each fact beside another of the same template: a subject of as many tokens, an answer that starts otherwise.

    Args:
        checkpoint: whose tokens and chat format.
        facts: the answer of each is its `answer`: the new target where there is one.
        most: pairs, at most; the first facts that have one.

    Raises:
        InputError: for no facts.
        NothingToPairError: if none has another beside it.
    """
    if not facts:
        raise InputError("there are no facts to pair; give at least two of one template")
    texts = as_fed(checkpoint, [fact.text for fact in facts])
    answers = [first_tokens(checkpoint, fact.text, [fact.answer])[0] for fact in facts]
    subjects = subjects_of(checkpoint, facts)
    alike: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, (fact, text) in enumerate(zip(facts, texts, strict=True)):
        alike[fact.template, len(text.ids)].append(number)
    found: list[MatchedPair] = []
    for number, (fact, text) in enumerate(zip(facts, texts, strict=True)):
        others = [other for other in alike[fact.template, len(text.ids)] if answers[other] != answers[number]]
        if not others or len(found) == most:
            continue
        other = min(others, key=lambda one: (differences(text.ids, texts[one].ids), one))
        tokens = (answers[number],), (answers[other],), subjects[number]
        found.append(matched(checkpoint, fact.text, facts[other].text, text, texts[other], *tokens))
    if not found:
        raise NothingToPairError(
            f"none of {many(len(facts), 'fact')} has another of the same template beside it whose subject has as "
            "many tokens and whose answer starts otherwise; give more facts of one relation"
        )
    return found


def behaviour_pairs(
    base: Checkpoint,
    pairs: Sequence[AnyPair],
    *,
    others: Sequence[Prompt] = (),
    wording: Wording = UNSAFELY,
    tokens: int = 5,
    most: int = 32,
    truncate: bool = False,
) -> list[MatchedPair]:
    """Prompts that the base would answer unsafely, each beside the one of as many tokens most like it that it refuses.

    Args:
        base: the model whose behaviour it is.
        pairs: prompts with both answers. Their questions, and the further prompts of SafeEdit's instances, are asked
            too.
        others: further prompts that may be refused.
        wording: of the behaviour that the pairs are of.
        tokens: at most so many that start unsafe, and safe, answers; what is read is the mean of their logits.
        most: pairs, those that differ least; of those that differ in the same tokens four before any other.
        truncate: cut prompts that exceed the context from the left instead of raising.

    Raises:
        NothingToPairError: if the base answers all alike, or no two prompts of its two kinds have as many tokens.
    """
    read = answer_tokens(base, pairs, k=tokens)
    unsafe = tuple(token.id for token in read if token.token_set == "unsafe")
    safe = tuple(token.id for token in read if token.token_set == "safe")
    if not (unsafe and safe):
        kinds = f"{wording.shown} or {'safe' if wording == UNSAFELY else 'other'} answers"
        raise NothingToPairError(f"{kinds} have no first token of their own; give answers that start otherwise")
    distinct: dict[str, Prompt] = {}
    for prompt in (*_prompts(pairs), *others):
        distinct.setdefault(str(prompt), prompt)  # of a conversation the messages, not the text that it reads as
    prompts = list(distinct.values())
    texts = as_fed(base, prompts, truncate=truncate)
    flags = _unsafe(base, texts, unsafe, safe)
    if all(flags) or not any(flags):
        said = wording.so if flags[0] else "safely" if wording == UNSAFELY else "otherwise"
        raise NothingToPairError(
            f"{base.source} begins its answers to all {many(len(prompts), 'prompt')} {said}; there is nothing to pair"
        )
    nearest = _nearest([text.ids for text in texts], flags)
    if not nearest:
        raise NothingToPairError(
            f"no prompt that is answered {wording.so} has as many tokens as one that is not; give more pairs"
        )
    return [
        matched(base, str(prompts[one]), str(prompts[other]), texts[one], texts[other], unsafe, safe)
        for one, other in _chosen([text.ids for text in texts], nearest)[:most]
    ]


def _chosen(texts: Sequence[Sequence[int]], nearest: Mapping[int, tuple[int, int]]) -> list[tuple[int, int]]:
    """Pairs, those first that differ least; what differs in the same tokens as `_SAME` others before it comes later."""
    met: Counter[tuple[tuple[int, int], ...]] = Counter()
    ranked = []
    for one, (apart, other) in sorted(nearest.items(), key=lambda item: (item[1][0], item[0])):
        difference = tuple((a, b) for a, b in zip(texts[one], texts[other], strict=True) if a != b)
        ranked.append((met[difference] // _SAME, apart, one, other))
        met[difference] += 1
    return [(one, other) for _, _, one, other in sorted(ranked)]


def _prompts(pairs: Iterable[AnyPair]) -> Iterable[Prompt]:
    for pair in pairs:
        yield pair.prompt
        yield pair.question
        if isinstance(pair, SafeEditInstance) and pair.generalization_test is not None:
            yield from pair.generalization_test.model_dump().values()


def first_tokens(checkpoint: Checkpoint, prompt: Prompt, answers: Sequence[str]) -> tuple[int, ...]:
    """The first token of each answer to a prompt, each once."""
    prompts = [prompt] * len(answers)
    wholes = as_fed(checkpoint, prompts, answers, max_length=ANY_LENGTH, quiet=True)
    return tuple(dict.fromkeys(whole.ids[whole.prompt_length] for whole in wholes))


def matched(
    checkpoint: Checkpoint,
    clean: Prompt,
    corrupted: Prompt,
    clean_text: Encoded,
    corrupted_text: Encoded,
    right: tuple[int, ...],
    wrong: tuple[int, ...],
    subject: Sequence[int] = (),
) -> MatchedPair:
    """A pair of two prompts, given as texts and as tokens."""
    pair = TokenPair(tuple(clean_text.ids), tuple(corrupted_text.ids), right, wrong, tuple(subject))
    named = [tuple(token_texts(checkpoint.tokenizer, ids)) for ids in (right, wrong)]
    return MatchedPair(str(clean), str(corrupted), named[0], named[1], pair)


def subjects_of(checkpoint: Checkpoint, facts: Sequence[Fact]) -> list[Sequence[int]]:
    """Which tokens of each fact's prompt are its subject's; none where the tokenizer tells no offsets."""
    if not checkpoint.tokenizer.is_fast:
        return [()] * len(facts)
    return list(subject_tokens(checkpoint.tokenizer, facts, chat=checkpoint.chat))


@torch.no_grad()
def _unsafe(checkpoint: Checkpoint, texts: Sequence[Encoded], unsafe: Sequence[int], safe: Sequence[int]) -> list[bool]:
    """Whether the most probable of these tokens starts an unsafe answer."""
    flags: dict[int, bool] = {}
    budget = token_budget(checkpoint.device)
    with evaluating(checkpoint.model):
        lengths = [len(text.ids) for text in texts]
        for order in length_batches(lengths, budget, apart=checkpoint.names.short_context):
            batch = pad([texts[i] for i in order], pad_id=checkpoint.padding_id, device=checkpoint.device)
            logits = last_logits(checkpoint, batch)
            found = logits[:, list(unsafe)].amax(1) > logits[:, list(safe)].amax(1)
            flags.update(zip(order, found.tolist(), strict=True))
    return [flags[i] for i in range(len(texts))]


def _nearest(texts: Sequence[Sequence[int]], flags: Sequence[bool]) -> Mapping[int, tuple[int, int]]:
    """Of each flagged text: in how many tokens the nearest of the others of its length differs, and which it is."""
    by_length: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for number, (text, flag) in enumerate(zip(texts, flags, strict=True)):
        by_length[len(text)][not flag].append(number)
    found = {}
    for flagged, others in by_length.values():
        if not (flagged and others):
            continue
        candidates = np.array([list(texts[i]) for i in others])
        for row in flagged:
            apart = (candidates != np.array(list(texts[row]))).sum(1)
            nearest = int(apart.argmin())
            found[row] = (int(apart[nearest]), others[nearest])
    return found


def differences(one: Sequence[int], other: Sequence[int]) -> int:
    """At how many places two sequences of tokens of one length differ."""
    return sum(a != b for a, b in zip(one, other, strict=True))
