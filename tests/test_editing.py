"""Edits of many instances: side by side, one on top of the other, in one batch, kept in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MAIN_ARCHITECTURES, N_BLOCKS, make_instance, tiny_checkpoint
from pydantic import ValidationError

from mechinterp.errors import InputError
from mechinterp.methods.editing import dinm, objective
from mechinterp.methods.editing import keys as edit_keys
from mechinterp.methods.editing.descent import OPTIMISERS
from mechinterp.methods.editing.dinm import DinmSettings, FailedEdit, edit, edit_batch, edit_together
from mechinterp.methods.editing.many_edits import edit_each, edit_log, edit_sequentially, edits_in, keep_edits
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta

LAST = N_BLOCKS - 1
SETTINGS = DinmSettings(learning_rate=1e-3, steps=3)


def some_instances(count: int = 4) -> list[Any]:
    """Instances whose texts differ, in length too."""
    words = ["tell", "me", "please", "now", "how", "to", "do", "it"]
    return [
        make_instance(
            id=10 + i,
            adversarial_prompt=" ".join(words[: 3 + i]) + " rude words?",
            safe_generation=" ".join(["No,", "I", "will", "not.", "That", "hurts"][: 2 + i]),
        )
        for i in range(count)
    ]


def changes_agree(one: WeightDelta, other: WeightDelta) -> bool:
    """Adam divides by the gradient's size: where a gradient is rounding noise the step is noise of size lr."""
    return all(
        bool((change - other.tensors[name]).norm() <= 0.02 * change.norm()) for name, change in one.tensors.items()
    )


@pytest.mark.parametrize("block", [0, 1, LAST, (1, LAST)])
@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "opt"])
def test_side_by_side_is_one_by_one(architecture: str, block: int | tuple[int, ...]) -> None:
    checkpoint, instances = tiny_checkpoint(architecture), some_instances()
    together = edit_together(checkpoint, instances, block=block, settings=SETTINGS)
    for instance, found in zip(instances, together, strict=True):
        alone = edit(checkpoint, instance, block=block, settings=SETTINGS)
        assert isinstance(found, WeightDelta)
        assert (found.instance, found.block, found.also) == (instance.id, alone.block, alone.also)
        assert len(found.tensors) == (1 if isinstance(block, int) else len(block))
        for step, seen in zip(alone.log, found.log, strict=True):
            assert vars(seen) == pytest.approx(vars(step), rel=5e-3, abs=1e-5)
        assert changes_agree(alone, found)
    first, second = (next(iter(found.tensors.values())) for found in together[:2])
    assert (first - second).norm() > 0.1 * first.norm()  # each its own


def test_edit_each_gives_every_instance_its_own_block() -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances()
    blocks = {i.id: i.id % N_BLOCKS for i in instances}
    told: list[tuple[int, int]] = []
    found = {
        delta.instance: delta
        for delta in edit_each(
            checkpoint, instances, blocks=blocks, settings=SETTINGS, progress=lambda *seen: told.append(seen)
        )
        if isinstance(delta, WeightDelta)
    }
    assert {number: delta.block for number, delta in found.items()} == blocks
    assert told[-1] == (4, 4)
    alone = edit(checkpoint, instances[2], block=blocks[12], settings=SETTINGS)
    assert changes_agree(alone, found[12])


def test_how_many_are_edited_together_follows_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances()
    sizes: list[int] = []
    real = dinm.edit_together

    def counted(checkpoint: Checkpoint, group: Any, **given: Any) -> Any:
        sizes.append(len(group))
        return real(checkpoint, group, **given)

    monkeypatch.setattr("mechinterp.methods.editing.many_edits.edit_together", counted)
    blocks = {i.id: LAST for i in instances}
    for memory, expected in ((2**31, [4]), (1, [1, 1, 1, 1])):
        monkeypatch.setattr("mechinterp.methods.editing.memory.MEMORY", memory)
        sizes.clear()
        assert len(list(edit_each(checkpoint, instances, blocks=blocks, settings=SETTINGS))) == 4
        assert sizes == expected
    sizes.clear()
    list(edit_each(checkpoint, instances, blocks=blocks, settings=SETTINGS, together=3))
    assert sizes == [3, 1]


def test_each_stops_by_itself() -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances()
    plain = edit_together(checkpoint, instances, block=LAST, settings=SETTINGS)
    bound = sorted(found.log[1].loss for found in plain if isinstance(found, WeightDelta))[1] + 1e-4
    settings = SETTINGS.model_copy(update={"stop_below": bound})
    for instance, found in zip(
        instances, edit_together(checkpoint, instances, block=LAST, settings=settings), strict=True
    ):
        alone = edit(checkpoint, instance, block=LAST, settings=settings)
        assert isinstance(found, WeightDelta)
        assert len(found.log) == len(alone.log)
        assert found.log[-1].loss < bound or len(found.log) == 3
        assert changes_agree(alone, found)
    lengths = {len(found.log) for found in edit_together(checkpoint, instances, block=LAST, settings=settings)}  # type: ignore[union-attr]
    assert len(lengths) > 1


def test_a_loss_that_is_no_number_fails_alone() -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances()
    poisoned = make_instance(id=99, adversarial_prompt="a word of its own: zygote")
    own = set(checkpoint.tokenizer("zygote")["input_ids"]) - {
        token for i in instances for text in (i.adversarial_prompt, i.safe_generation, SETTINGS.suffix)
        for token in checkpoint.tokenizer(text)["input_ids"]
    }  # fmt: skip
    assert own
    with torch.no_grad():
        checkpoint.model.get_input_embeddings().weight[sorted(own)] = float("nan")
    found = edit_together(checkpoint, [*instances, poisoned], block=LAST, settings=SETTINGS)
    assert isinstance(found[-1], FailedEdit)
    assert (found[-1].instance, found[-1].step) == (99, 0)
    for instance, delta in zip(instances, found[:-1], strict=True):
        assert isinstance(delta, WeightDelta)
        assert changes_agree(edit(checkpoint, instance, block=LAST, settings=SETTINGS), delta)
    with pytest.raises(InputError, match="instance 99: the loss became nan at step 0; nothing was applied"):
        edit(checkpoint, poisoned, block=LAST, settings=SETTINGS)


def test_a_batch_of_one_is_the_edit_and_a_batch_descends_the_mean() -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances()
    alone = edit(checkpoint, instances[0], block=1, settings=SETTINGS)
    one = edit_batch(checkpoint, instances[:1], block=1, settings=SETTINGS)
    assert all(torch.equal(change, one.tensors[name]) for name, change in alone.tensors.items())
    # With plain gradient descent one step is the mean of the instances' own steps, however the batch is cut.
    plain = DinmSettings(learning_rate=1e-2, steps=1, optimiser="sgd")
    own = edit_together(checkpoint, instances, block=1, settings=plain)
    for max_tokens in (10_000, 1):
        batch = edit_batch(checkpoint, instances, block=1, settings=plain, max_tokens=max_tokens)
        for name, change in batch.tensors.items():
            mean = torch.stack([delta.tensors[name] for delta in own if isinstance(delta, WeightDelta)]).mean(0)
            torch.testing.assert_close(change, mean, rtol=1e-4, atol=1e-7)
    assert batch.instances == (10, 11, 12, 13)


@pytest.mark.parametrize("block", [0, LAST])
@pytest.mark.parametrize("constraint", ["published", "released"])
def test_a_batch_too_large_to_be_kept_is_the_same_edit(
    constraint: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances()
    settings = DinmSettings(constraint=constraint, learning_rate=1e-3, steps=3, stop_below=1e-9)
    made: list[int] = []
    real = objective.Losses.of.__func__

    def counted(cls: type, checkpoint: Checkpoint, group: Any, *given: Any) -> Any:
        made.append(len(group))
        return real(cls, checkpoint, group, *given)

    monkeypatch.setattr(objective.Losses, "of", classmethod(counted))
    found = []
    for memory, times in ((2**31, 1), (1, 3)):
        monkeypatch.setattr("mechinterp.methods.editing.memory.MEMORY", memory)
        made.clear()
        found.append(edit_batch(checkpoint, instances, block=block, settings=settings, max_tokens=1))
        # L_c of the released code is computed once more, at the end
        assert len(made) == 4 * (times + (constraint == "released" and times > 1))
    kept, again = found
    assert kept.log == again.log
    assert all(torch.equal(change, again.tensors[name]) for name, change in kept.tensors.items())
    assert all(bool(change.any()) for change in kept.tensors.values())


def test_sequential_edits_stand_on_each_other_and_go_on() -> None:
    checkpoint, instances = tiny_checkpoint("gpt2"), some_instances(3)
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    blocks = {10: LAST, 11: 0, 12: LAST}
    steps = list(edit_sequentially(checkpoint, instances, blocks=blocks, settings=SETTINGS))
    assert [step.instances for step in steps] == [(10,), (10, 11), (10, 11, 12)]
    assert (steps[-1].block, steps[-1].also) == (0, (LAST,))
    with steps[1].applied(checkpoint) as edited:
        third = edit(edited, instances[2], block=LAST, settings=SETTINGS)
    (name,) = third.tensors
    torch.testing.assert_close(steps[2].tensors[name], steps[1].tensors[name] + third.tensors[name], rtol=0, atol=0)
    (resumed,) = edit_sequentially(checkpoint, instances, blocks=blocks, settings=SETTINGS, start=steps[1])
    assert all(torch.equal(change, resumed.tensors[n]) for n, change in steps[2].tensors.items())
    assert all(torch.equal(value, before[n]) for n, value in checkpoint.model.state_dict().items())
    with pytest.raises(InputError, match="not of the first ones here"):
        list(edit_sequentially(checkpoint, instances[1:], blocks=blocks, settings=SETTINGS, start=steps[1]))


def test_bounds_hold_and_are_inert_where_they_are_wide() -> None:
    checkpoint, instance = tiny_checkpoint("mistral"), make_instance()
    free = edit(checkpoint, instance, block=LAST, settings=SETTINGS)
    weight = checkpoint.parameter(next(iter(free.tensors))).detach()

    def bounded(**bound: float) -> torch.Tensor:
        (change,) = edit(checkpoint, instance, block=LAST, settings=SETTINGS.model_copy(update=bound)).tensors.values()
        return change

    (change,) = free.tensors.values()
    assert torch.equal(bounded(norm_bound=10.0), change)
    assert torch.equal(bounded(entry_bound=10.0), change)
    small = float(change.norm() / weight.norm()) / 2
    assert float(bounded(norm_bound=small).norm() / weight.norm()) == pytest.approx(small, rel=1e-4)
    assert float(bounded(entry_bound=1e-3).abs().max()) == pytest.approx(1e-3, rel=1e-2)


def test_the_log_tells_norm_rank_and_accuracy() -> None:
    checkpoint = tiny_checkpoint("mistral")
    settings = DinmSettings(learning_rate=1e-2, steps=20)
    found = edit(checkpoint, make_instance(), block=LAST, settings=settings)
    (name, change), *_ = found.tensors.items()
    last = found.log[-1]
    assert last.change_norm == pytest.approx(
        float(change.norm() / checkpoint.parameter(name).detach().norm()), rel=1e-4
    )
    values = torch.linalg.svdvals(change.double())
    assert last.stable_rank == pytest.approx(float(values.square().sum() / values[0] ** 2), rel=0.01)
    assert all(0 <= step.accuracy <= 1 for step in found.log)
    early = edit(
        checkpoint, make_instance(), block=LAST, settings=settings.model_copy(update={"stop_at_accuracy": 1e-9})
    )
    reached = [step for step in found.log if step.accuracy >= 1e-9]
    assert len(early.log) == (20 if not reached else found.log.index(reached[0]) + 1)


def test_edits_are_kept_as_they_come_and_not_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances()
    blocks = {i.id: LAST for i in instances}
    keep = {"blocks": blocks, "settings": SETTINGS, "together": 2}

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_edits(tmp_path, checkpoint, instances, **keep, progress=fail)
    there = {path.name for path in edits_in(tmp_path)}
    assert len(there) == 2
    times = {name: (tmp_path / name / "edit.json").stat().st_mtime_ns for name in there}
    assert keep_edits(tmp_path, checkpoint, instances, **keep) == []
    assert [path.name for path in edits_in(tmp_path)] == ["10", "11", "12", "13"]
    assert {name: (tmp_path / name / "edit.json").stat().st_mtime_ns for name in there} == times
    log = edit_log(edits_in(tmp_path))
    assert list(log["step"]) == [0, 1, 2] * 4
    assert set(log) >= {"instance", "block", "loss", "loss_edit", "loss_constraint", "accuracy", "change_norm"}
    other = {**keep, "settings": SETTINGS.model_copy(update={"steps": 1})}
    assert keep_edits(tmp_path, checkpoint, instances, **other) == []  # other settings: all anew
    assert len(edit_log(edits_in(tmp_path))) == 4
    unfinished = tmp_path / ".11.999.partial"  # as a kill leaves it
    unfinished.mkdir()
    (unfinished / "edit.json").write_text((tmp_path / "11" / "edit.json").read_text())
    assert [path.name for path in edits_in(tmp_path)] == ["10", "11", "12", "13"]
    with pytest.raises(InputError, match="no edit in it"):
        edits_in(tmp_path / "10")


def test_edits_are_redone_where_what_they_are_made_of_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances(2)
    given: dict[str, Any] = {"blocks": {10: 1, 11: 1}, "settings": SETTINGS}

    def redone(instances: list[Any], **changed: Any) -> list[int]:
        before = {path: (path / "edit.json").stat().st_mtime_ns for path in (tmp_path / "10", tmp_path / "11")}
        assert keep_edits(tmp_path, checkpoint, instances, **{**given, **changed}) == []
        return [int(p.name) for p, seen in before.items() if (p / "edit.json").stat().st_mtime_ns != seen]

    keep_edits(tmp_path, checkpoint, instances, **given)
    assert redone(instances) == []
    pair = instances[1].knowledge_constraint
    for changes in (
        {"adversarial_prompt": "Something else?"},
        {"safe_generation": "Never."},
        {"knowledge_constraint": pair.model_copy(update={"answer": "Four."})},
    ):
        assert redone([instances[0], instances[1].model_copy(update=changes)]) == [11]
        assert redone(instances) == [11]
    assert redone([instances[0], instances[1].model_copy(update={"unsafe_generation": "not read"})]) == []
    assert redone(instances, rank=2) == [10, 11]
    assert redone(instances, rank=2) == []
    assert redone(instances) == [10, 11]
    assert redone(instances, blocks={10: 1, 11: 2}) == [11]
    monkeypatch.setattr(edit_keys, "code_of", lambda *_: "of another version")
    assert redone(instances) == [10, 11]


def test_sequential_edits_go_on_only_from_what_they_would_make_themselves() -> None:
    checkpoint, instances = tiny_checkpoint("gpt2"), some_instances(2)
    blocks = {10: 1, 11: 1}
    (start, *_) = edit_sequentially(checkpoint, instances, blocks=blocks, settings=SETTINGS)

    def go_on(instances: list[Any] = instances, blocks: Any = blocks, settings: Any = SETTINGS) -> list[WeightDelta]:
        return list(edit_sequentially(checkpoint, instances, blocks=blocks, settings=settings, start=start))

    assert len(go_on()) == 1
    other = [instances[0].model_copy(update={"safe_generation": "Never."}), instances[1]]
    for given in ({"instances": other}, {"blocks": {10: 2, 11: 1}}, {"settings": DinmSettings(steps=1)}):
        with pytest.raises(InputError, match="were made of other texts, at other layers, with other settings"):
            go_on(**given)
    assert len(go_on(blocks={10: 1, 11: 2})) == 1  # the layer of one that is still to come
    alone = edit(checkpoint, instances[0], block=1, settings=SETTINGS)
    with pytest.raises(InputError, match="do not go on from one of mode 'each'"):
        list(edit_sequentially(checkpoint, instances, blocks=blocks, settings=SETTINGS, start=alone))


def test_a_change_that_is_not_finite_is_no_edit(tmp_path: Path) -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances(2)
    wild = DinmSettings(learning_rate=1e30, steps=1, norm_bound=0.1)  # the norm overflows, and inf > 0.1
    assert [type(found) for found in edit_together(checkpoint, instances, block=1, settings=wild)] == [FailedEdit] * 2
    with pytest.raises(InputError, match="instance 10: the change of the weights is not finite after step 0"):
        edit(checkpoint, instances[0], block=1, settings=wild)
    with pytest.raises(InputError, match="the batch of 2 instances: the change of the weights is not finite"):
        edit_batch(checkpoint, instances, block=1, settings=wild)
    for optimiser in OPTIMISERS:  # the largest settings there may be: no edit, and no traceback
        extreme = DinmSettings(learning_rate=1e30, weight_decay=1e6, optimiser=optimiser, steps=2)
        assert all(isinstance(f, FailedEdit) for f in edit_together(checkpoint, instances, block=1, settings=extreme))
    damaged = tiny_checkpoint("mistral")
    damaged.parameter(damaged.names.value_parameter(1)[0]).data[0, 0] = float("inf")
    with pytest.raises(InputError, match="the change of the weights is not finite"):  # inf - inf
        edit(damaged, instances[0], block=1, settings=DinmSettings(steps=0))
    for name in ("learning_rate", "c_edit", "weight_decay", "stop_below", "norm_bound", "entry_bound"):
        for value in (float("inf"), float("nan")):
            with pytest.raises(ValidationError, match=name):
                DinmSettings(**{name: value})


def test_a_batch_that_fails_is_named_as_a_batch() -> None:
    broken = tiny_checkpoint("llama")
    broken.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(InputError, match="the batch of 4 instances: the loss became nan at step 0; nothing"):
        edit_batch(broken, some_instances(), block=1, settings=SETTINGS)
    with pytest.raises(InputError, match="instance 10: the loss became nan at step 0"):
        edit_batch(broken, some_instances(1), block=1, settings=SETTINGS)


def test_an_edit_is_not_saved_over_anything_else(tmp_path: Path) -> None:
    delta = edit(tiny_checkpoint("llama"), make_instance(), block=1, settings=SETTINGS)
    delta.save(tmp_path / "e")
    delta.save(tmp_path / "e")
    (tmp_path / "e" / "mine").mkdir()
    with pytest.raises(InputError, match="it would be removed"):
        delta.save(tmp_path / "e")
    assert (tmp_path / "e" / "mine").is_dir()


def test_low_rank_edits_say_what_they_keep(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("gpt2")
    delta = edit(checkpoint, make_instance(), block=1, settings=DinmSettings(constraint="released", steps=2))
    matrix, bias = delta.tensors  # the released settings train the bias, which has no rank
    loaded = WeightDelta.load(delta.save(tmp_path / "low", rank=3))
    kept = json.loads((tmp_path / "low" / "edit.json").read_text())["low_rank"]
    assert kept.keys() == {matrix}
    assert torch.equal(loaded.tensors[bias], delta.tensors[bias])
    change, near = delta.tensors[matrix], loaded.tensors[matrix]
    assert int(torch.linalg.matrix_rank(near)) == 3
    values = torch.linalg.svdvals(change.double()).square()
    assert kept[matrix] == pytest.approx(float(values[:3].sum() / values.sum()), rel=1e-4)
    assert float((change - near).norm().square() / change.norm().square()) == pytest.approx(1 - kept[matrix], abs=1e-4)
    with loaded.applied(checkpoint):  # it is an edit like any other
        pass
    whole = WeightDelta.load(delta.save(tmp_path / "whole", rank=10_000))
    assert torch.equal(whole.tensors[matrix], change)


def test_bad_input_is_named() -> None:
    checkpoint, instances = tiny_checkpoint("mistral"), some_instances(2)
    with pytest.raises(InputError, match=r"no block is given for the instances \[11\]"):
        list(edit_each(checkpoint, instances, blocks={10: 0}))
    with pytest.raises(InputError, match="together must be at least 1"):
        list(edit_each(checkpoint, instances, blocks={10: 0, 11: 0}, together=0))
    with pytest.raises(InputError, match="no block to edit"):
        edit(checkpoint, instances[0], block=())
    with pytest.raises(InputError, match="no instances to edit"):
        edit_batch(checkpoint, [], block=0)
    empty = instances[0].model_copy(update={"safe_generation": "  "})
    with pytest.raises(InputError, match="instance 10: the response to learn is empty"):
        edit(checkpoint, empty, block=0)
    pair = instances[0].knowledge_constraint.model_copy(update={"answer": ""})
    unanswered = instances[0].model_copy(update={"knowledge_constraint": pair})
    with pytest.raises(InputError, match="knowledge constraint of instance 10: the response to learn is empty"):
        edit(checkpoint, unanswered, block=0)
    edit(checkpoint, unanswered, block=0, settings=DinmSettings(use_constraint=False, steps=1))  # not needed there
