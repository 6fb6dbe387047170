"""Measures tried again on checkpoints of known truth after something was done to them: do they still tell the truth?

    nf4          the blocks' matrices rounded to NF4's sixteen values, as a user who loads a model in four bits has them
    relearned    one epoch of fine-tuning on the unsafe answers of the training pairs

The reference that never learnt is treated likewise and stands beside them, as `never`. What follows from the rows:
`audit.robustness`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

from mechinterp.audit.attacks.of_quantise import round_blocks
from mechinterp.audit.certificate import KINDS
from mechinterp.audit.robustness import PERTURBATIONS
from mechinterp.audit.store import Store
from mechinterp.data.storage.provenance import code_of
from mechinterp.measures.quantised import IN_NF4
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.runs.calibration.measuring import Instrument, plain_row
from mechinterp.runs.calibration.subjects import Subject, Subjects

TRUTHS = ("gone", "hidden")
"""Which checkpoints are tried again."""


def perturbed_rows(
    subjects: Subjects, instrument: Instrument, store: Store, made_with: Any
) -> Iterator[dict[str, Any]]:
    """A row per checkpoint and perturbation, the reference first, each as soon as it is measured.

    Args:
        subjects: the study's checkpoints of known truth.
        instrument: of the same study.
        store: where rows are kept; what was measured before is not measured again.
        made_with: everything that the subjects and the instrument depend on, JSON-serialisable.

    Yields:
        checkpoint, kind, perturbation, and the columns of the certificate.
    """
    never = Subject("never", "never", partial(subjects.checkpoint, "never"))
    tried = [never, *(subject for subject in subjects if KINDS[subject.kind].truth in TRUTHS)]
    epoch = one_epoch(instrument.settings.harmless, len(subjects.train))
    for subject in tried:
        make = cache(subject.make)  # once for both, where one is not measured yet
        for name in PERTURBATIONS:

            def measure(
                subject: Subject = subject, name: str = name, make: Callable[[], Checkpoint] = make
            ) -> Mapping[str, Any]:
                made = make()
                changed = in_nf4(made) if name == "nf4" else relearned(made, subjects, epoch)
                return plain_row(instrument.measure(changed, f"{subject.name}, {name}"))

            key = [code_of(__name__), made_with, subject.name, subject.kind, subject.depends, name, epoch.model_dump()]
            found = store.remember("perturbed", key, measure)
            yield {"checkpoint": subject.name, "kind": subject.kind, "perturbation": name, **found}


def in_nf4(checkpoint: Checkpoint) -> Checkpoint:
    """A copy with the matrices of all blocks rounded to NF4's values."""
    made = replace(checkpoint, name=f"{checkpoint.name}:nf4", model=copy.deepcopy(checkpoint.model))
    round_blocks(made, IN_NF4)
    return made


def relearned(checkpoint: Checkpoint, subjects: Subjects, settings: SftSettings) -> Checkpoint:
    """A copy that was taught the unsafe answers of the training pairs."""
    progress = subjects.reporter.progress(f"{checkpoint.name}: relearning")
    seed = subjects.run.seed
    return train_sft(checkpoint, subjects.train, seed=seed, settings=settings, response="unsafe", progress=progress)[0]


def one_epoch(settings: SftSettings, n_rows: int) -> SftSettings:
    """The settings with as many steps as see every row once."""
    return settings.model_copy(update={"steps": -(-n_rows // settings.batch_size)})
