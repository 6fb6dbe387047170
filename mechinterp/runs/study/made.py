"""What the methods of a study make: a checkpoint, or an edit for each instance."""

from __future__ import annotations

from mechinterp.methods.method import Method
from mechinterp.methods.registry import find_method
from mechinterp.runs.study.checkpoints import edits_at
from mechinterp.runs.study.run import Run


def methods_of(run: Run) -> list[Method]:
    """The methods that have a stage: those that are compared, each after the one whose checkpoint it starts from."""
    found: dict[str, Method] = {}
    for name in run.config.studied:
        chain = [find_method(name)]
        while chain[0].after is not None:
            chain.insert(0, find_method(chain[0].after))
        found |= {method.name: method for method in chain}
    return list(found.values())


def made_by(method: Method) -> str:
    """What a method's stage makes, below the run folder."""
    return edits_at(method.name) if method.per_instance else f"checkpoints/{method.name}"


def tuned_in(run: Run) -> str:
    """All that is compared with the vanilla model, below the run folder."""
    return " ".join(made_by(find_method(name)) for name in run.config.studied)
