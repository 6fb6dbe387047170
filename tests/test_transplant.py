"""Transplants: hybrids by hand, the whole back is the base, a permuted difference is as long, greedy sets by hand."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch
from conftest import tiny_checkpoint
from known_pairs import known_of
from made_checkpoints import perturbed

from mechinterp.audit.attacks.of_transplant import (
    TRANSPLANT,
    WAYS,
    TransplantOptions,
    _permuted,
    _transplanted,
    greedy,
)
from mechinterp.audit.origins.change import Change
from mechinterp.audit.readouts import ReadoutTexts, read
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint

OPTIONS = TransplantOptions(validation=2)


def weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in checkpoint.model.named_parameters()}


@pytest.mark.parametrize("by", ["kinds", "blocks"])
def test_hybrids_have_one_group_of_the_other_model(by: str) -> None:
    base = tiny_checkpoint("gpt2")
    tuned = perturbed(base)
    old, new = weights(base), weights(tuned)
    change = Change.of(base, tuned, by)
    for group in change.changed:
        inside = {name for name, place in change.places.items() if place.group == group}
        with _transplanted(change, group, "put back", 0) as hybrid:
            found = weights(hybrid)
        assert all(torch.equal(found[name], (old if name in inside else new)[name]) for name in old)
        with _transplanted(change, group, "alone", 0) as hybrid:
            found = weights(hybrid)
        assert all(torch.equal(found[name], (new if name in inside else old)[name]) for name in old)
        with _transplanted(change, group, "permuted", 0) as hybrid:
            found = weights(hybrid)
        assert all(torch.equal(found[name], new[name]) for name in old if name not in inside)
        for name in inside:
            moved, meant = found[name] - new[name], old[name] - new[name]
            torch.testing.assert_close(moved.norm(), meant.norm(), rtol=1e-4, atol=1e-5)
            assert len(moved) < 3 or not torch.allclose(moved, meant, atol=1e-4)
    for model, before in ((base, old), (tuned, new)):
        assert all(torch.equal(parameter, before[name]) for name, parameter in model.model.named_parameters())


def test_a_permuted_difference_has_the_same_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randn(6, 3, generator=generator).double() for _ in range(2))
    moved = _permuted(before, after, 4) - after
    rows = sorted(map(tuple, (before - after).round(decimals=9).tolist()))
    assert sorted(map(tuple, moved.round(decimals=9).tolist())) == rows
    assert torch.equal(_permuted(before, before, 4), before)


def test_every_point_is_a_hybrid_and_both_models_come_back() -> None:
    base = tiny_checkpoint("llama")
    tuned = perturbed(base)
    known = known_of(base)
    before = [Checkpoint("", one.model, one.tokenizer).fingerprint for one in (base, tuned)]
    points = TRANSPLANT.points(OPTIONS, base.n_blocks)
    assert [point.setting for point in points[:6:5]] == ["put back embed", "alone embed"]
    assert [point.dose for point in points if point.setting == "alone by block"] == [0.0, 1.0, 2.0]
    assert {point.setting for point in points} - set(TRANSPLANT.aside) == {
        *(f"put back {what}" for what in ("embed", "attention", "mlp.in", "mlp.out", "norm", "by block")),
        *("greedy by kind", "greedy by block"),
    }
    texts = ReadoutTexts.of(base, known.pairs, unsafe=known.answers)
    found = {one.point: read(one.checkpoint, texts) for one in TRANSPLANT.run(tuned, known, OPTIONS, points)}
    single = [point for point in points if not point.setting.startswith("greedy")]
    assert set(single) <= set(found)
    assert len({tuple(found[point].tolist()) for point in single}) == len(single)
    again = dict.fromkeys(single[3:5])
    some = {one.point: read(one.checkpoint, texts) for one in TRANSPLANT.run(tuned, known, OPTIONS, list(again))}
    assert list(some) == list(again)
    assert all(torch.equal(some[point], found[point]) for point in some)
    with closing(TRANSPLANT.run(tuned, known, OPTIONS, points)) as run:
        next(run)
    assert before == [Checkpoint("", one.model, one.tokenizer).fingerprint for one in (base, tuned)]
    assert not TRANSPLANT.on_base


def test_what_was_not_changed_is_not_transplanted() -> None:
    base = tiny_checkpoint("llama")
    points = TRANSPLANT.points(TransplantOptions(greedy=False), base.n_blocks)
    tuned = perturbed(base, only="layers.1.mlp.down_proj")
    found = [one.point for one in TRANSPLANT.run(tuned, known_of(base), TransplantOptions(), points)]
    wanted = [(f"{way} mlp.out", 1.0) for way in WAYS] + [(f"{way} by block", 1.0) for way in WAYS]
    assert [(point.setting, point.dose) for point in found] == wanted
    assert list(TRANSPLANT.run(base, known_of(base), TransplantOptions(), points)) == []


def test_the_greedy_set_takes_the_best_group_at_every_step_and_ends_with_the_base() -> None:
    base = tiny_checkpoint("llama")
    known = known_of(base)
    texts = ReadoutTexts.of(base, known.attacker)
    tuned = perturbed(base)
    if read(tuned, texts).mean() > read(base, texts).mean():  # something must be there to come back
        base, tuned = tuned, base
        known = known_of(base)
    change = Change.of(base, tuned, "kinds")
    steps = greedy(change, known, TransplantOptions(validation=99))
    start, end = read(tuned, texts).mean(), read(base, texts).mean()

    def back(groups: set[str]) -> float:
        with change.hybrid(set(change.changed) - groups) as hybrid:
            return float((read(hybrid, texts).mean() - start) / (end - start))

    taken: set[str] = set()
    for step in steps:
        others = {group: back(taken | {group}) for group in change.changed if group not in taken}
        assert others[step.group] == max(others.values())
        assert step.recovery == pytest.approx(others[step.group], abs=1e-5)
        taken.add(step.group)
    assert steps[-1].recovery >= 0.9
    assert all(step.recovery < 0.9 for step in steps[:-1])
    doses = [
        one.point.dose
        for one in TRANSPLANT.run(tuned, known, OPTIONS, TRANSPLANT.points(OPTIONS, 3))
        if one.point.setting == "greedy by kind"
    ]
    assert doses == [float(n) for n in range(1, len(greedy(change, known, OPTIONS)) + 1)]
    (further,) = TRANSPLANT.further
    table = further.make(tuned, known, OPTIONS)
    assert table.query("groups == 'kinds'")["group"].tolist() == [s.group for s in greedy(change, known, OPTIONS)]


def test_where_nothing_can_come_back_there_is_no_greedy_set(caplog: pytest.LogCaptureFixture) -> None:
    base = tiny_checkpoint("llama")
    known = known_of(base)
    assert greedy(Change.of(base, base, "kinds"), known, OPTIONS) == []
    assert "nothing is there to come back" in caplog.text
    caplog.clear()
    assert greedy(Change.of(base, perturbed(base), "kinds"), known_of(base, attacker=()), OPTIONS) == []
    assert "no pairs to choose groups on" in caplog.text
    with pytest.raises(InputError, match="ways"):
        TransplantOptions(ways=("sideways",))
