"""Circuits of a base and of tuned checkpoints on the same pairs: matched once, each kept as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.circuits.matching import MatchedPair, behaviour_pairs, fact_pairs, given_pairs
from mechinterp.audit.circuits.means import held_apart
from mechinterp.audit.circuits.measuring import CheckpointCircuit, circuit_of_base, circuit_of_tuned
from mechinterp.audit.circuits.settings import CircuitSettings
from mechinterp.audit.circuits.tables import BASE, circuit_tables
from mechinterp.audit.store import Store
from mechinterp.data.counting import many
from mechinterp.data.facts.fact import Fact
from mechinterp.data.pairs import AnyPair
from mechinterp.data.prompt_pairs import PromptPair
from mechinterp.data.storage.provenance import code_of, digest, library_versions
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import Progress
from mechinterp.models.progress import Reporter

Asked = Sequence[AnyPair] | Sequence[PromptPair] | Sequence[Fact]
"""What circuits are of: a behaviour, pairs of prompts as they were written, or facts."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What the circuits of a base and of tuned checkpoints are found with.

    Attributes:
        base: the unedited model, in memory.
        pairs, held_out: of prompts: those that are measured, and those that the mean is of.
        settings: how.
        store: keeps each circuit.
        key: what all of them depend on.
        seed: of random circuits, and of draws of pairs.
        reporter: told what is being done.
    """

    base: Checkpoint
    pairs: Sequence[MatchedPair]
    held_out: Sequence[MatchedPair]
    settings: CircuitSettings
    store: Store
    key: Any
    seed: int
    reporter: Reporter

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        asked: Asked,
        *,
        settings: CircuitSettings,
        store: Store,
        identity: Any,
        reporter: Reporter,
        wording: Wording = UNSAFELY,
        seed: int = 0,
        truncate: bool = False,
    ) -> Finding:
        """Match pairs of prompts of what is asked, in the base's tokens and by its behaviour.

        Args:
            base: in whose behaviour pairs are matched.
            asked: pairs of a prompt with both answers, of which pairs of prompts are matched; these; or facts.
            identity: of the base, JSON-serialisable.
            wording: of the behaviour that pairs with both answers are of.
            truncate: cut prompts that exceed the context from the left, or raise.
            settings, store, reporter, seed: as they are kept.

        Raises:
            NothingToPairError: if there are no such pairs.
            InputError: for prompts that cannot be a pair.
        """
        pairs, held_out = _split(base, asked, settings, wording=wording, truncate=truncate)
        beside = f"; the mean is of {many(len(held_out), 'other')}" if held_out else ""
        reporter.note(f"{many(len(pairs), 'pair')} of prompts, {_apart(pairs)}{beside}")
        tokens = digest([[asdict(pair.tokens) for pair in some] for some in (pairs, held_out)])
        code = [library_versions(), code_of("mechinterp.audit.circuits.measuring")]
        key = [code, settings.model_dump(mode="json"), seed, tokens, identity]
        return cls(base, pairs, held_out, settings, store, key, seed, reporter)

    def circuit(self, name: str, identity: Any, opened: Callable[[], Checkpoint] | None = None) -> CheckpointCircuit:
        """The circuit of a checkpoint; what was measured before is not again.

        Args:
            name: of the checkpoint.
            identity: of its weights, JSON-serialisable.
            opened: gives it, where it has to be measured; None: it is the base.
        """

        def make() -> CheckpointCircuit:
            measured, others = ([pair.tokens for pair in some] for some in (self.pairs, self.held_out))
            how: dict[str, Any] = {"held_out": others, "seed": self.seed}
            how["reported"] = partial(_reported, self.reporter, name)
            if opened is None:
                return circuit_of_base(self.base, measured, self.settings, **how)
            return circuit_of_tuned(self.base, opened(), measured, self.settings, **how)

        own = [self.key, identity, opened is None]
        kept = self.store.keep("circuits", own, load=CheckpointCircuit.load, make=make)
        own_name = self.base.name if opened is None else name
        return replace(kept, scores=replace(kept.scores, checkpoint=own_name))  # it may be kept of another name

    def tables(self, found: Mapping[str, CheckpointCircuit]) -> dict[str, pd.DataFrame]:
        """The tables of all circuits, by the checkpoints' names; see `circuit_tables`."""
        tuned = {name: each for name, each in found.items() if name != BASE}
        return circuit_tables(found[BASE], tuned, self.pairs, self.settings, seed=self.seed)


def _split(
    base: Checkpoint, asked: Asked, settings: CircuitSettings, **more: Any
) -> tuple[Sequence[MatchedPair], Sequence[MatchedPair]]:
    """Pairs of prompts, and those held out for the mean where that is what edges carry."""
    held = settings.replace == "mean"
    found = _matched(base, asked, tokens=settings.tokens, most=2 * settings.pairs if held else settings.pairs, **more)
    if not held:
        return found, []
    apart = held_apart([pair.tokens for pair in found])
    measured, others = ([pair for pair, out in zip(found, apart, strict=True) if out is of] for of in (False, True))
    return measured, others


def _matched(base: Checkpoint, asked: Asked, *, tokens: int, most: int, **more: Any) -> list[MatchedPair]:
    facts = [each for each in asked if isinstance(each, Fact)]
    if facts:
        return fact_pairs(base, facts, most=most)
    given = [each for each in asked if isinstance(each, PromptPair)]
    if given:
        return given_pairs(base, given[:most])
    pairs = [each for each in asked if not isinstance(each, Fact | PromptPair)]
    return behaviour_pairs(base, pairs, tokens=tokens, most=most, **more)


def _apart(pairs: Sequence[MatchedPair]) -> str:
    found = [pair.tokens.differences for pair in pairs]
    least, most = min(found), max(found)
    several = f"{least} to {most}" if least < most else str(most)
    return f"which differ in {several} token{'s' if most > 1 else ''}"


def _reported(reporter: Reporter, name: str, what: str) -> Progress:
    told: Callable[..., None] = reporter.progress(f"{what}: {name}")
    return told
