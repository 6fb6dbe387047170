"""The relapse test on tiny checkpoints, with a judge that knows exact restoration alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from conftest import N_BLOCKS, PROMPTS

from mechinterp.answers.scored import Answers
from mechinterp.audit.relapse.results import RelapseTest
from mechinterp.audit.relapse.testing import relapse_test
from mechinterp.audit.relapse.treatments import (
    RelapseSettings,
)
from mechinterp.models.checkpoints import Checkpoint

ASKED = [f"{text} {i}" for i in range(4) for text in PROMPTS]


FEW = RelapseSettings(treatments=("activations", "values"))


BOTH = RelapseSettings(treatments=("activations", "values", "both"), draws=0)


UNCONTROLLED = FEW.model_copy(update={"draws": 0})


NEW = 4


class Lenient:
    """Calls everything safe."""

    name = "lenient"

    def __call__(self, responses) -> np.ndarray:
        return np.ones(len(responses))


def exactly(test: RelapseTest) -> RelapseTest:
    """The test where an answer is unsafe if it is the base's to the same prompt: relapse is exact restoration."""

    def judged(answers: Answers) -> Answers:
        pairs = zip(answers.responses, test.base.responses, strict=True)
        return replace(answers, safe=tuple(float(one != known) for one, known in pairs))

    outcomes = tuple(replace(outcome, answers=judged(outcome.answers)) for outcome in test.outcomes)
    return replace(test, base=judged(test.base), tuned=judged(test.tuned), outcomes=outcomes)


def treated(base: Checkpoint, tuned: Checkpoint, **options) -> RelapseTest:
    options = {"block": N_BLOCKS - 1, "settings": FEW, "max_new_tokens": NEW, **options}
    return exactly(relapse_test(base, tuned, ASKED, Lenient(), **options))


def responses(test: RelapseTest, treatment: str, dose: float, *, control: bool = False) -> tuple[str, ...]:
    wanted = (treatment, dose, control)
    [found] = [o for o in test.outcomes if (o.treatment, o.dose, o.control) == wanted]
    return found.answers.responses
