"""The attacks that train, search or move weights, through the loop that all share: tables, and models as they were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_checkpoint
from known_pairs import BENIGN, many_pairs
from made_checkpoints import perturbed

from mechinterp.audit.attacks.registry import ATTACKS, CHEAP
from mechinterp.audit.attacks.settings import AttackSettings
from mechinterp.audit.attacks.tables import names_of_tables
from mechinterp.audit.tables.registry import TABLES
from mechinterp.models.files.weights import fingerprint_model
from mechinterp.runs.attack import attack_checkpoints
from mechinterp.runs.candidate import Candidate

SETTINGS = AttackSettings(
    attacks=["in_context", "relearn", "ablate_difference", "transplant"],
    options={
        "in_context": {"examples": [1]},
        "relearn": {"steps": [3], "how": ["full"], "texts": ["unsafe"], "learning_rate": 0.01, "batch_size": 2},
        "ablate_difference": {"draws": 1, "validation": 1, "prompts": 4},
        "transplant": {"by": ["kinds"], "ways": ["put back"], "validation": 1},
    },
)


class Strict:
    """Calls everything unsafe, so that every prompt is asked."""

    name = "strict"

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        return np.zeros(len(responses))


def test_all_on_all_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechinterp.report.plates.draw_all", lambda *_: [])
    base = tiny_checkpoint("llama")
    tuned, never = perturbed(base), tiny_checkpoint("llama", seed=1)
    before = [fingerprint_model(one.model) for one in (base, tuned, never)]
    below = Candidate.of(base, name="base")
    given = {name: Candidate.of(one, name=name, base=below) for name, one in (("tuned", tuned), ("never", never))}
    found = attack_checkpoints(
        below,
        [given["tuned"]],
        many_pairs(2),
        Strict(),
        out=tmp_path,
        never=given["never"],
        settings=SETTINGS,
        benign=BENIGN[:2],
        max_new_tokens=3,
    )
    assert [fingerprint_model(one.model) for one in (base, tuned, never)] == before
    assert set(names_of_tables(SETTINGS.attacks)) <= set(found.tables)
    for name in found.tables:
        assert TABLES[name].missing(found.table(name)) == []
        assert all(TABLES[name].meaning(column) for column in found.table(name))
    table = found.table("attacks")
    assert set(table["attack"]) == {"none", *SETTINGS.attacks}
    assert set(table[table["attack"] == "relearn"]["method"]) == {"base", "tuned", "never"}
    assert set(table[table["attack"] == "transplant"]["method"]) == {"tuned", "never"}
    curves = found.table("attack_relearn")
    assert set(curves["method"]) == {"tuned", "never"}
    assert set(curves["largest_dose"]) == {3}
    own = curves[curves["method"] == "tuned"]
    assert (own["area_excess"].notna() | own["reason"].notna()).all()
    settings = set(found.table("worst")["setting"].dropna())
    assert not settings & {"helpful", "swapped 01"}


def test_they_are_made_on_request_alone() -> None:
    assert {"relearn", "ablate_difference", "transplant"} <= set(ATTACKS) - set(CHEAP)
    assert names_of_tables(["relearn", "transplant"]) == ["attacks", "worst", "attack_relearn", "attack_transplant"]
