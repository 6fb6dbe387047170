"""The memory, disk and time that each stage of a study takes: an order of magnitude, from sizes and counts alone.

    reading a token            2 x parameters operations; training on one 6 x
    writing one                the weights and the kept keys and values through memory, or 2 x parameters operations
                               a row of the batch, whichever takes longer
    a call of the model        at least `CALL` seconds a block, however small the model
    training all weights       a copy, its gradients and Adam's two means beside the model that it started from
    training adapters          a copy, and four numbers for each of the adapters' parameters

The speed of the machine is measured (`machine`); how much of it a model gets is assumed (`UTILISATION`). Every answer
is taken to be as long as it may be, every batch to be full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from mechinterp.audit.relapse.registry import TREATMENTS
from mechinterp.audit.relapse.treatments import outline
from mechinterp.methods.training.trl_training import TrainingSettings
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.machine import Machine
from mechinterp.runs.planning.quantities import DIRECTIONS, PLACES, Amounts, Shape

UTILISATION = 0.4
"""Share of a large matrix product's speed that a model's forward or backward pass gets."""

CALL = 4e-4
"""Seconds that a block takes to be called at all, forward or backward: Python, and starting its kernels."""

OPENING = 5e8
"""Bytes of weights a second that are read from the disk, checked and hashed."""

VALUE_ELEMENT = 5e-8
"""Seconds for each element of W_V to compare an edited region with its null and its bootstrap, on the CPU."""

LIBRARIES = 0.75 * 2**30
"""Bytes that Python and the libraries take."""

LOGITS = 8
"""Times that a training step in TRL holds its logits in float32: their loss, gradient and entropy too; measured."""

FIGURES = 8.0
"""Seconds for the figures and the report, whatever the model."""

ABOVE = 0.25
"""Share of the blocks above an edited one: Wang et al. find the toxic layer among the last four of 32."""

BATCH_TOKENS, BATCH = 16384, 128  # of `generation`


@dataclass(frozen=True)
class Cost:
    """What one stage takes.

    Attributes:
        seconds: None where the machine's speed is not known.
        memory: bytes on the device of the models (on a CPU with the libraries').
        disk: bytes that it leaves in the run folder.
    """

    seconds: float | None
    memory: float
    disk: float


@dataclass(frozen=True)
class Costs:
    """The costs of the stages of one study.

    Attributes:
        config: of the study.
        shape: of its model.
        amounts: of its texts.
        machine: what it would run on; None if its device is not there.
        on_cpu: whether models lie in main memory.
    """

    config: StudyConfig
    shape: Shape
    amounts: Amounts
    machine: Machine | None
    on_cpu: bool

    def stages(self) -> dict[str, Cost]:
        """The cost of every stage, by its name."""
        amounts = self.amounts
        makers: dict[str, Callable[[], Cost]] = {
            "data": lambda: self._cost(1, 0, 5.0 * 2**10 * (amounts.n_train + amounts.n_validation + amounts.n_test)),
            "vanilla": self._vanilla,
            "organism": self._organism,
            "sft": self._sft,
            "dpo": self._dpo,
            "probe": self._probe,
            "locate": self._locate,
            "dinm": self._dinm,
            "record": self._record,
            "compare": self._compare,
            "defend": self._defend,
            "relapse": self._relapse,
            "report": lambda: self._cost(FIGURES, 0, 2**21),
        }
        return {name: make() for name, make in makers.items()}

    # -- what models do, in seconds ---------------------------------------------------------------------------------

    def _cost(self, seconds: float, memory: float, disk: float) -> Cost:
        known = self.machine is not None
        return Cost(seconds if known else None, memory + (LIBRARIES if self.on_cpu else 0), disk)

    def _reading(self, tokens: float, calls: float, *, passes: float = 1.0) -> float:
        """Seconds to read tokens in a number of calls; training takes three passes for one."""
        if self.machine is None:
            return 0.0
        work = 2 * self.shape.multiplied * tokens * passes / (UTILISATION * self.machine.multiplications)
        return max(work, calls * passes * self.shape.weights / self.machine.bandwidth) + (
            calls * passes * self.shape.n_blocks * CALL
        )

    def _batches(self, tokens: float, n: float) -> float:
        """Calls for n texts of so many tokens; recording takes fewer tokens a batch on a CPU."""
        return ceil(n * tokens / (2048 if self.on_cpu else 8192))

    def _writing(self, n: float, tokens: float, new: int) -> float:
        """Seconds to answer n prompts with `new` tokens each."""
        if self.machine is None or not n:
            return 0.0
        batch = self._rows(tokens, new)
        steps = ceil(n / batch) * new
        kept = self.shape.key_values * self.shape.dtype.itemsize * batch * (tokens + new / 2)
        moved = (self.shape.weights + kept) / self.machine.bandwidth
        multiplied = 2 * self.shape.multiplied * min(batch, n) / (UTILISATION * self.machine.multiplications)
        return self._reading(n * tokens, ceil(n / batch)) + steps * (
            max(moved, multiplied) + self.shape.n_blocks * CALL
        )

    def _rows(self, tokens: float, new: int) -> int:
        return max(1, min(BATCH, int(BATCH_TOKENS / (tokens + new))))

    def _opening(self, models: float) -> float:
        return models * self.shape.weights / OPENING

    # -- memory -----------------------------------------------------------------------------------------------------

    @cached_property
    def _answering(self) -> float:
        """The model with the keys and values of a full batch."""
        return self.shape.weights + BATCH_TOKENS * self.shape.key_values * self.shape.dtype.itemsize

    def _training(self, settings: TrainingSettings, *, sequences: int, references: int) -> float:
        """Bytes to train: the model it started from, the copy, what the optimiser keeps, activations, logits."""
        shape, size = self.shape, self.shape.dtype.itemsize
        tokens = settings.batch_size * sequences * settings.max_length
        if settings.lora is None:
            kept = shape.weights * (2 + 3 + references)
        else:
            kept = 2 * shape.weights + 4 * size * settings.lora.rank * shape.adapted_features
        return kept + self._activations(tokens, _checkpointed(settings)) + (LOGITS * 4 * tokens * shape.vocabulary)

    def _activations(self, tokens: float, checkpointed: bool) -> float:
        shape, size = self.shape, self.shape.dtype.itemsize
        if checkpointed:  # what enters each block, and one block at a time
            return tokens * size * (shape.n_blocks * shape.residual + shape.block_features)
        return tokens * size * shape.n_blocks * shape.block_features

    # -- the stages -------------------------------------------------------------------------------------------------

    def _vanilla(self) -> Cost:
        trained = self.config.organism
        tokens = trained.batch_size * trained.sequence_length
        seconds = self._reading(trained.steps * tokens, trained.steps, passes=3)
        return self._cost(seconds, 4 * self.shape.weights + self._activations(tokens, False), self.shape.weights)

    def _organism(self) -> Cost:
        amounts, new = self.amounts, self.config.max_new_tokens
        seconds = self._opening(1) + self._writing(amounts.n_test, amounts.prompt, new)
        seconds += self._writing(amounts.n_questions + amounts.n_knowledge, amounts.question, new)
        return self._cost(seconds, self._answering, 2**11)

    def _sft(self) -> Cost:
        return self._tuning(self.config.sft, self.amounts.safe, sequences=1, passes=3, references=0)

    def _dpo(self) -> Cost:
        longer = max(self.amounts.safe, self.amounts.unsafe)
        # a pair of responses, and the reference's opinion of both
        return self._tuning(self.config.dpo, longer, sequences=2, passes=4, references=1)

    def _tuning(
        self, settings: TrainingSettings, response: float, *, sequences: int, passes: int, references: int
    ) -> Cost:
        rows = settings.steps * settings.batch_size * settings.gradient_accumulation * sequences
        length = min(settings.max_length, self.amounts.prompt + response)
        calls = settings.steps * settings.gradient_accumulation
        passes += _checkpointed(settings)  # whose blocks are run once more
        seconds = self._opening(2) + self._reading(rows * length, calls, passes=passes)
        memory = self._training(settings, sequences=sequences, references=references)
        return self._cost(seconds, memory, self.shape.weights)

    def _probe(self) -> Cost:
        n, tokens = self.amounts.n_comments, self.amounts.comment
        seconds = self._opening(1) + self._reading(n * tokens, self._batches(tokens, n))
        return self._cost(seconds, self.shape.weights, 2**14)

    def _locate(self) -> Cost:
        n, tokens = self.amounts.n_test, 2 * max(self.amounts.safe, self.amounts.unsafe)
        # at most a pair at a time, and a second pass for pairs with padding
        seconds = self._opening(1) + self._reading(2 * n * tokens, 2 * n)
        return self._cost(seconds, self.shape.weights, 400.0 * n)

    def _dinm(self) -> Cost:
        settings, shape, amounts = self.config.dinm, self.shape, self.amounts
        target = min(amounts.prompt, settings.max_input_tokens) + min(amounts.safe, settings.max_output_tokens)
        tokens = target + amounts.constraint
        once = self._reading(tokens, 3)
        step = ABOVE * self._reading(tokens, 2, passes=3)
        copies = 6 * 4 * shape.value_matrix  # W_V, its gradient, Adam's two means, the cast, the change
        scored = 3 * 4 * (settings.max_output_tokens + amounts.constraint) * shape.vocabulary
        longest = settings.max_input_tokens + settings.max_output_tokens
        memory = shape.weights + copies + scored + ABOVE * self._activations(longest, False)
        seconds = self._opening(1) + amounts.n_edits * (once + settings.steps * step)
        return self._cost(seconds, memory, 4.0 * amounts.n_edits * shape.value_matrix)

    def _record(self) -> Cost:
        shape, amounts, settings = self.shape, self.amounts, self.config.comparison
        asked = ((amounts.n_test, 1), (amounts.n_validation, 1), (amounts.n_steered, 2 * DIRECTIONS * PLACES))
        written = sum(times * self._writing(n, amounts.prompt, settings.max_new_tokens) for n, times in asked)
        if after := max(settings.generated, settings.first_tokens):
            models = 1 if settings.text == "fixed" and not settings.first_tokens else 4
            written += models * self._writing(amounts.n_test, amounts.prompt, after)
        tokens = amounts.prompt + amounts.unsafe
        passes = 4 + (7 if settings.first_tokens else 0)  # the base's own text is the fixed one
        read = passes * self._reading(amounts.n_test * tokens, self._batches(tokens, amounts.n_test))
        read += self._reading(
            amounts.n_validation * amounts.prompt, self._batches(amounts.prompt, amounts.n_validation)
        )
        groups = 8 * min(amounts.n_test, 128) * shape.n_blocks * shape.d_mlp * len(settings.places)
        inputs = 4 * amounts.n_test * (shape.d_mlp + shape.residual)
        null = 4 * settings.null_draws * shape.n_blocks * shape.d_mlp
        disk = 4.0 * (groups + inputs + null + shape.value_matrix * shape.dtype.itemsize)
        return self._cost(self._opening(5) + written + read, max(self._answering, 2 * shape.weights), disk)

    def _compare(self) -> Cost:
        seconds = self._opening(1) + (self.amounts.n_edits + 3) * self.shape.value_matrix * VALUE_ELEMENT + 1
        return self._cost(seconds, self.shape.weights, 2**20)

    def _relapse(self) -> Cost:
        relapse, new = self.config.relapse, self.config.comparison.max_new_tokens
        wanted = dict.fromkeys(relapse.treatments, 0)
        for name, _, controls in outline(relapse, self.shape.n_blocks):
            wanted[name] += 1 + controls
        # while it is patched, the base reads and writes the same tokens beside the tuned model
        twice = sum(n for name, n in wanted.items() if TREATMENTS[name].beside)
        answered = 1 + 3 * (1 + sum(wanted.values()) + twice)
        seconds = answered * self._writing(min(relapse.prompts, self.amounts.n_test), self.amounts.prompt, new)
        disk = 1.0 * 2**10 * relapse.prompts * 3 * (2 + sum(wanted.values()))
        return self._cost(self._opening(5) + seconds, self.shape.weights + 2 * self._answering, disk)

    def _defend(self) -> Cost:
        amounts, new = self.amounts, self.config.max_new_tokens
        together = 4 * self._writing(amounts.n_asked, amounts.prompt, new)
        apart = amounts.n_edits * self._writing(5, amounts.prompt, new)
        return self._cost(self._opening(4) + together + apart, self._answering, 2.0 * 2**10 * 5 * amounts.n_asked)


def _checkpointed(settings: TrainingSettings) -> bool:
    """Whether activations are computed again instead of kept."""
    return bool(settings.extra.get("gradient_checkpointing"))
