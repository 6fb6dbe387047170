"""One checkpoint attacked: what it answers is judged, and what it holds to is read, in one way for every attack.

Every point is kept as soon as it is there, by a key of all that it depends on, so that work that was stopped goes on
at the next point.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from mechinterp.answers.flags import FIRST_WORDS, flags_of, shares_of
from mechinterp.answers.judges import Judge
from mechinterp.answers.refusals import RefusalClassifier, RefusalDetector
from mechinterp.answers.safety import unsafe
from mechinterp.answers.scoring import score_responses
from mechinterp.answers.two_judges import second_of
from mechinterp.audit.attacks.attack import Attack, Attacked, Known, Point
from mechinterp.audit.attacks.results import PLAIN, READOUTS, Measured
from mechinterp.audit.readouts import ReadoutTexts, read, unsafe_logprob
from mechinterp.audit.store import Store
from mechinterp.data.pairs import Pair
from mechinterp.data.storage.provenance import code_of
from mechinterp.measures.fluency import knows
from mechinterp.measures.leak import leak_at
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.answer_ends import end_tokens
from mechinterp.models.passes.generation import answers_of, continue_greedily, generate
from mechinterp.models.passes.watching import Progress
from mechinterp.models.text.batches import token_budget
from mechinterp.models.text.tokens import Encoded


@dataclass(frozen=True)
class Examiner:
    """Asks, judges and reads a checkpoint, whatever was done to it.

    Attributes:
        known: whose prompts are asked.
        judge: of the answers.
        knowledge: (question, answer) pairs; may be empty.
        detector: tells refusals of `known.benign` from answers; None where those are not asked.
    """

    known: Known
    judge: Judge
    knowledge: tuple[tuple[str, str], ...] = ()
    detector: RefusalDetector | None = None

    def plain(self, checkpoint: Checkpoint) -> Measured:
        """A checkpoint as it is."""
        return self.measure(PLAIN, Attacked(Point("", 0.0), checkpoint), None, time.perf_counter())

    def measure(self, name: str, attacked: Attacked, plain: Measured | None, since: float) -> Measured:
        """A checkpoint under an attack.

        Args:
            name: of the attack.
            attacked: what it gives.
            plain: the same checkpoint as it is, for what an attack on answers alone cannot change.
            since: when the attack began, by `time.perf_counter`.
        """
        known, checkpoint = self.known, attacked.checkpoint
        own = attacked.answers
        also = [] if attacked.same_model and plain is not None else self._also
        asking: dict[str, Any] = {"max_new_tokens": known.max_new_tokens, "truncate": known.truncate}
        asking["max_tokens"] = attacked.max_tokens
        if own is None:
            prompts = known.prompts if attacked.prompts is None else attacked.prompts
            answers = [[text] for text in continue_greedily(checkpoint, prompts, **asking)]
        else:
            answers = [list(each) for each in own()]
        values, flags, responses = self._judged(checkpoint, answers, attacked.drawn)
        if attacked.prompts is not None or not (attacked.same_model and plain is not None):
            values |= self._read(checkpoint, attacked)
        if not also and plain is not None:
            knowledge, refused = plain.knowledge, plain.refused
        else:
            knowledge, refused = self._kept_up(generate(checkpoint, also, **asking) if also else [])
        seconds = round(time.perf_counter() - since, 1)
        return Measured(name, attacked.point, values, flags, knowledge, refused, seconds, responses)

    @property
    def _also(self) -> list[str]:
        """What is asked besides the prompts."""
        benign = [] if self.detector is None else [one.prompt for one in self.known.benign]
        return [*(question for question, _ in self.knowledge), *benign]

    def _judged(
        self, checkpoint: Checkpoint, answers: Sequence[Sequence[Encoded]], drawn: int
    ) -> tuple[dict[str, tuple[float, ...]], dict[str, float], tuple[tuple[str, ...], ...]]:
        """Rates of each prompt, shares of flags over all answers, and the answers in words."""
        flat = [text for each in answers for text in each]
        words, ends = answers_of(checkpoint, flat), end_tokens(checkpoint)
        prompts: list[Any] = [prompt for prompt, each in zip(self.known.prompts, answers, strict=True) for _ in each]
        scores, other = score_responses(self.judge, words, prompts), second_of(self.judge)
        second = None if other is None else score_responses(other, words, prompts)
        cut = [text.ids[-1] not in ends for text in flat]
        flags = flags_of(prompts, words, scores=scores, second=second, judge=self.judge, cut=cut)
        bad: dict[str, list[bool | None]] = {"unsafe": list(unsafe(scores))}
        for beginning in (f"unsafe_first_{n}" for n in FIRST_WORDS):
            first = flags.pop(beginning)
            if any(value is not None for value in first):  # of an answer that has no more words, as the whole
                bad[beginning] = [a if b is None else b for a, b in zip(bad["unsafe"], first, strict=True)]
        ends_at = [0]
        for each in answers:
            ends_at.append(ends_at[-1] + len(each))
        spans = [slice(a, b) for a, b in pairwise(ends_at)]
        values = {
            name: tuple(leak_at(drawn, s.stop - s.start, sum(map(bool, each[s]))) for s in spans)
            for name, each in bad.items()
        }
        return values, shares_of(flags), tuple(tuple(words[s]) for s in spans)

    def _read(self, checkpoint: Checkpoint, attacked: Attacked) -> dict[str, tuple[float, ...]]:
        texts = self._texts if attacked.prompts is None else self._texts_of(attacked.prompts)
        tokens = min(token_budget(checkpoint.device), attacked.max_tokens)
        bad = read(checkpoint, texts, unsafe_logprob, max_tokens=tokens)
        good = read(checkpoint, ReadoutTexts(texts.safe, texts.unsafe), unsafe_logprob, max_tokens=tokens)
        return dict(zip(READOUTS, (tuple((bad - good).tolist()), tuple(bad.tolist())), strict=True))

    @cached_property
    def _texts(self) -> ReadoutTexts:
        return self._texts_of(self.known.prompts)

    def _texts_of(self, prompts: Sequence[Any]) -> ReadoutTexts:
        """The prompts in some form, with the base's own unsafe answers and the data's safe ones."""
        known = self.known
        pairs = [
            Pair(id=i, prompt=prompt, unsafe=pair.unsafe, safe=pair.safe)
            for i, (prompt, pair) in enumerate(zip(prompts, known.pairs, strict=True))
        ]
        return ReadoutTexts.of(known.base, pairs, unsafe=known.answers, truncate=known.truncate)

    def _kept_up(self, answers: Sequence[str]) -> tuple[tuple[bool, ...], tuple[bool | None, ...]]:
        """Of the answers to `_also`: what is known, and what is refused."""
        n = len(self.knowledge)
        knowledge = tuple(knows(said, word) for said, (_, word) in zip(answers[:n], self.knowledge, strict=True))
        spoken = [i for i, text in enumerate(answers[n:]) if text]
        if self.detector is None or not spoken:
            return knowledge, tuple(None for _ in answers[n:])
        texts, asked = [answers[n + i] for i in spoken], [self.known.benign[i].prompt for i in spoken]
        detect = self.detector
        told = detect(texts, asked) if isinstance(detect, RefusalClassifier) else detect(texts)
        found = {i: None if refusal != refusal else bool(refusal) for i, refusal in zip(spoken, told, strict=True)}
        return knowledge, tuple(found.get(i) for i in range(len(answers) - n))


def attacked_points(
    target: Checkpoint,
    examiner: Examiner,
    attack: Attack,
    options: Any,
    plain: Measured,
    *,
    store: Store,
    key: Any,
    progress: Progress | None = None,
) -> list[Measured]:
    """One checkpoint at every point of an attack that can be given.

    Args:
        target: what is attacked; its weights are what they were afterwards.
        examiner: asks and reads it.
        attack, options: the attack and its settings.
        plain: the target as it is.
        store: where points are kept.
        key: everything the points depend on besides attack, options and code: target, base, data, judge.
        progress: called with (points done, points in all).
    """
    points = list(attack.points(options, target.n_blocks))
    made = [key, attack.name, options.model_dump(mode="json"), code_of(attack.module, __name__)]
    keys: Mapping[Point, Any] = {point: [made, asdict(point)] for point in points}
    found = {point: store.find("attacks", keys[point], load=Measured.load) for point in points}
    missing = [point for point in points if found[point] is None]
    if missing:
        since = time.perf_counter()
        with closing(attack.run(target, examiner.known, options, missing)) as run:
            for done, attacked in enumerate(run, 1):
                measured = examiner.measure(attack.name, attacked, plain, since)
                found[attacked.point] = store.add("attacks", keys[attacked.point], measured)
                if progress is not None:
                    progress(len(points) - len(missing) + done, len(points))
                since = time.perf_counter()
    return [one for point in points if (one := found[point]) is not None]
