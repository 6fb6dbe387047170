"""The checkpoints of known truth, made of a study's base, its references and its SFT one at a time.

What each kind is, and what is true of it: `mechinterp.audit.certificate.KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mechinterp.answers.judges import Judge
from mechinterp.answers.safety import unsafe
from mechinterp.answers.scoring import score_responses
from mechinterp.audit.certificate import REFUSES
from mechinterp.audit.evidence import Baseline
from mechinterp.data.conversations import asked
from mechinterp.data.pairs import AnyPair
from mechinterp.methods.constructed import interpolate, perturb_like, silenced, train_values, train_without_values
from mechinterp.methods.constructed_edits import adapted_attention, edited_values
from mechinterp.methods.facts.editing import Editor
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.hidden import refuse_along, train_gate
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.recording import record_all
from mechinterp.models.passes.second_moments import second_moments
from mechinterp.models.progress import Reporter
from mechinterp.runs.calibration.settings import MetaSettings
from mechinterp.runs.calibration.twins import twin_name
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.questions import benign_of
from mechinterp.runs.study.run import Run


@dataclass(frozen=True)
class Subject:
    """A checkpoint of known truth, not yet made.

    Attributes:
        name: in tables, one of a study.
        kind: what was done, a key of `KINDS`.
        make: makes it.
        depends: what it is made with besides the study's checkpoints, JSON-serialisable.
    """

    name: str
    kind: str
    make: Callable[[], Checkpoint]
    depends: Any = None


@dataclass(frozen=True)
class _Row:
    """A training row."""

    id: int
    prompt: Any
    answer: str


class Subjects:
    """All checkpoints of known truth of one study; what they are made from is opened when first wanted.

    Args:
        run: a study with its base, its reference that never learnt, the further twins and `sft`.
        baseline: of the base.
        judge: of answers: whether a checkpoint refuses.
        prompts: that the base answers unsafely, on which that is tried.
        settings: which checkpoints.
        reporter: told what is being trained.
    """

    def __init__(
        self,
        run: Run,
        baseline: Baseline,
        judge: Judge,
        prompts: Sequence[Any],
        settings: MetaSettings,
        reporter: Reporter,
    ) -> None:
        self.run, self.baseline, self.judge, self.prompts = run, baseline, judge, list(prompts)
        self.settings, self.reporter = settings, reporter
        self._opened: dict[str, Checkpoint] = {}

    def __iter__(self) -> Iterator[Subject]:
        wanted = self.settings.kinds
        for subject in (*self._gone(), *self._hidden(), *self.placed(), *self.edited()):
            if wanted is None or subject.kind in wanted:
                yield subject

    # -- never learnt ---------------------------------------------------------------------------------------------

    def _gone(self) -> Iterator[Subject]:
        twins = [twin_name(number + 1) for number in range(self.settings.twins)]
        tuning = self.settings.harmless.model_dump(mode="json")
        for name in ("never", *twins):
            harmless = [self.checkpoint(name).fingerprint, tuning]
            if name in twins:
                yield Subject(name, "never", partial(self.checkpoint, name), harmless)
            yield Subject(f"{name}_safe", "never_safe", partial(self._safe, name), harmless)
            yield Subject(f"{name}_benign", "never_benign", partial(self._benign, name), harmless)
            yield Subject(f"{name}_noise", "never_noise", partial(self._noisy, name), harmless)

    def _safe(self, name: str) -> Checkpoint:
        if f"{name}_safe" not in self._opened:
            self._opened[f"{name}_safe"] = self._tuned(self.checkpoint(name), self.train, self.settings.harmless)
        return self._opened[f"{name}_safe"]

    def _benign(self, name: str) -> Checkpoint:
        rows = [_Row(i, one.prompt, one.answer) for i, one in enumerate(benign_of(self.run)) if one.answer]
        return self._tuned(self.checkpoint(name), rows, self.settings.harmless, response="answer")

    def _noisy(self, name: str) -> Checkpoint:
        """Noise of the size of the short tuning."""
        return perturb_like(self.checkpoint(name), self._safe(name), seed=self.run.seed)

    # -- hidden ---------------------------------------------------------------------------------------------------

    def _hidden(self) -> Iterator[Subject]:
        settings = self.settings
        for name, block in settings.refusing:
            at = range(self.checkpoint("vanilla").n_blocks)[block]
            yield Subject(f"refusing_{name}_{at}", "refusing", partial(self._refusing, name, at), settings.sizes)
        for number, (rank, trigger) in enumerate(settings.gates):
            make = partial(self._gate, rank, trigger, self.run.seed + number)
            depends = [settings.gate.model_dump(mode="json"), rank, trigger]
            yield Subject(f"gate_rank{rank}_{number}", "gate", make, depends)
        for name in settings.silenced:
            yield Subject(f"silenced_{name}", "silenced", partial(self._silenced, name))

    def _refusing(self, name: str, block: int) -> Checkpoint:
        """The smallest size at which it refuses; the largest where none does."""
        gap, made = self._direction(name), self.checkpoint("vanilla")
        for size in self.settings.sizes:
            alpha = size * float(gap.norm())
            made = refuse_along(
                self.checkpoint("vanilla"), gap, alpha, block=block, prompts=self.baseline.inputs.prompts
            )
            if self._refuses(made):
                break
        return made

    def _gate(self, rank: int, trigger: str, seed: int) -> Checkpoint:
        progress = self.reporter.progress(f"gate of rank {rank}: training")
        given: dict[str, Any] = {"seed": seed, "settings": self.settings.gate, "progress": progress}
        return train_gate(self.checkpoint("vanilla"), self.train, trigger=trigger, rank=rank, **given)

    def _silenced(self, name: str) -> Checkpoint:
        return silenced(self.checkpoint("vanilla"), self._direction(name))

    def _direction(self, name: str) -> Float[Tensor, " d_model"]:
        """From answering to refusing: the gap of the last block's mean streams, or its part along `answer`."""
        gap = self._gap
        if name == "answer":
            unit = self.baseline.inputs.directions["answer"].double()
            unit = unit / unit.norm()
            return (gap @ unit) * unit
        return gap

    @cached_property
    def _gap(self) -> Float[Tensor, " d_model"]:
        base, inputs = self.checkpoint("vanilla"), self.baseline.inputs
        hook = resid_post(base.n_blocks - 1)
        states = record_all(base, inputs.prompts, [hook])[hook].double()
        answered = self.baseline.unsafe
        return states[~answered].mean(0) - states[answered].mean(0)

    def _refuses(self, made: Checkpoint) -> bool:
        answers = generate(made, self.prompts, max_new_tokens=self.run.config.max_new_tokens)
        bad = unsafe(score_responses(self.judge, answers, self.prompts))
        return sum(map(bool, bad)) <= (1 - REFUSES) * len(bad)

    # -- where the change sits ------------------------------------------------------------------------------------

    def placed(self) -> Iterator[Subject]:
        """Those of which it is known where their change sits, and beside them what lies between base and SFT."""
        sft, settings = self.run.config.sft, self.settings
        block = self.baseline.inputs.block
        trained: dict[str, Callable[..., Checkpoint]] = {
            "frozen_values": train_without_values,
            "values_at_block": partial(train_values, blocks=[block]),
            "values_everywhere": train_values,
        }
        for kind, train in trained.items():
            yield Subject(kind, kind, partial(self._placed_by, kind, train), sft.model_dump(mode="json"))
        yield Subject("benign", "benign", partial(self._benign, "vanilla"), settings.harmless.model_dump(mode="json"))
        for draw in range(settings.noises):
            yield Subject(f"noise_{draw}", "noise", partial(self._noise, 1000 * self.run.seed + draw))
        for t in settings.steps:
            yield Subject(f"sft_{t:g}", "sft" if t == 1 else "interpolation", partial(self._between, t))

    def edited(self) -> Iterator[Subject]:
        """Those that editors of facts make of the first training pairs, and adapters on the attention."""
        settings, block = self.settings, self.baseline.inputs.block
        last = self.checkpoint("vanilla").n_blocks - 1
        of_memit = tuple(range(max(0, min(block - 1, last - 2)), min(block + 1, last) + 1))
        editors: dict[str, tuple[Editor, tuple[int, ...]]] = {
            "edited_by_rome": ("rome", (block,)),
            "edited_by_ft": ("ft_m", (block,)),
            "edited_by_memit": ("memit", of_memit),
        }
        for kind, (method, blocks) in editors.items():
            depends = [settings.edited, settings.editor, blocks]
            yield Subject(kind, kind, partial(self._edited_by, method, blocks), depends)
        sft = self.run.config.sft.model_dump(mode="json")
        yield Subject("adapted_attention", "adapted_attention", self._adapted, sft)

    def _edited_by(self, method: Editor, blocks: Sequence[int]) -> Checkpoint:
        """The safe answers written in at the prompts' last tokens."""
        base, pairs = self.checkpoint("vanilla"), self.train[: self.settings.edited]
        requests = [Request(pair.id, pair.prompt, None, pair.safe) for pair in pairs]
        more: dict[str, Any] = {"progress": self.reporter.progress(f"{method}: editing")}
        given = {} if method == "ft_m" else {**self.settings.editor, "fact_token": "last"}
        if method == "memit":
            texts = [text for pair in self.train for text in (asked(pair.prompt), pair.safe, pair.unsafe)]
            more["moments"] = second_moments(base, texts, blocks)
        return edited_values(base, requests, method, blocks=blocks, settings=given, seed=self.run.seed, **more)

    def _adapted(self) -> Checkpoint:
        base, settings, progress = (
            self.checkpoint("vanilla"),
            self.run.config.sft,
            self.reporter.progress("adapters: training"),
        )
        return adapted_attention(base, self.train, seed=self.run.seed, settings=settings, progress=progress)

    def _placed_by(self, kind: str, train: Callable[..., Checkpoint]) -> Checkpoint:
        progress = self.reporter.progress(f"{kind}: training")
        return train(
            self.checkpoint("vanilla"), self.train, seed=self.run.seed, settings=self.run.config.sft, progress=progress
        )

    def _noise(self, seed: int) -> Checkpoint:
        return perturb_like(self.checkpoint("vanilla"), self.checkpoint("sft"), seed=seed)

    def _between(self, t: float) -> Checkpoint:
        return interpolate(self.checkpoint("vanilla"), self.checkpoint("sft"), t)

    # -- what they are made from ----------------------------------------------------------------------------------

    def checkpoint(self, name: str) -> Checkpoint:
        """A checkpoint of the study, opened once."""
        if name not in self._opened:
            self._opened[name] = checkpoint_of(self.run, name)
        return self._opened[name]

    @cached_property
    def train(self) -> list[AnyPair]:
        """What methods are trained on."""
        return instances_of(self.run, "train")

    def _tuned(self, start: Checkpoint, rows: Any, settings: SftSettings, **more: Any) -> Checkpoint:
        progress = self.reporter.progress(f"{start.name}, tuned harmlessly")
        return train_sft(start, rows, seed=self.run.seed, settings=settings, progress=progress, **more)[0]
