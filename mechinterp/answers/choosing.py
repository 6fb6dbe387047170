"""Which judge: the one that is given, one in a folder, or one made from the data's own answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mechinterp.answers.fold_judge import FoldJudge
from mechinterp.answers.judges import ClassifierJudge, Judge
from mechinterp.data.pairs import AnyPair


def choose_judge(
    judge: Judge | str | Path | None,
    instances: Sequence[AnyPair],
    *,
    seed: int,
    device: str = "auto",
    note: Callable[[str], None] = lambda text: None,
) -> Judge:
    """The judge that is meant.

    Args:
        judge: one itself; the folder or hub id of a sequence classifier; or None for one of the instances' own safe and
            unsafe responses, which judges none that it has seen.
        instances: the data.
        seed: of a judge that is made.
        device: of a classifier.
        note: is told which it is.

    Raises:
        InputError: if there is no such classifier, or none can be made.
    """
    if judge is not None and not isinstance(judge, str | Path):
        return judge
    if judge is not None:
        note(f"judge: {judge}")
        return ClassifierJudge.load(judge, device=device)
    made = FoldJudge.of_instances(instances, seed=seed)
    note(
        f"judge: trained on the data's own {made.n_train} responses, always without those to the question judged; "
        f"accuracy {made.accuracy:.3f} on {made.n_test} so held out; give a sequence classifier as `judge`"
    )
    return made
