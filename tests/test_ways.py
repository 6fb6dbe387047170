"""What each way does: Ext-Sub's arithmetic by hand, which parameters FT-L changes, what an ablation leaves out."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from conftest import make_instance, tiny_checkpoint
from tasks import INSTANCES, SETTINGS, TRAINED, make_task

from mechinterp.errors import InputError
from mechinterp.methods.editing.ablations import drawn_blocks
from mechinterp.methods.editing.dinm import DinmSettings, edit
from mechinterp.methods.editing.ft_l import FtLSettings
from mechinterp.methods.registry import find_method
from mechinterp.methods.self_reminder import AFTER, BEFORE
from mechinterp.methods.task import Treatment
from mechinterp.methods.training.ext_sub import ExtSubSettings, LowRankChange, combine, combined, low_rank_changes
from mechinterp.methods.training.sft import SftSettings, train_sft


@cache
def treatments_of(name: str) -> tuple[Treatment, ...]:
    return tuple(find_method(name).recipe.make(tiny_checkpoint("mistral"), make_task()))


# -- DINM and its ablations ---------------------------------------------------------------------------------------


def test_dinm_is_the_edit_at_the_toxic_layer() -> None:
    checkpoint = tiny_checkpoint("mistral")
    for treatment in treatments_of("dinm"):
        (instance,), delta = treatment.instances, treatment.delta
        alone = edit(checkpoint, instance, block=make_task().blocks[instance.id], settings=DinmSettings(steps=2))
        assert (delta.block, delta.instance) == (alone.block, alone.instance)
        for name, change in alone.tensors.items():
            torch.testing.assert_close(delta.tensors[name], change, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dinm_wo_suffix", {"suffix": None}),
        ("dinm_wo_constraint", {"use_constraint": False}),
        ("dinm_wo_location", {"location": {"drawn_from": 3, "seed": 0}}),
    ],
)
def test_an_ablation_differs_in_exactly_one_thing(name: str, other: dict) -> None:
    whole = {treatment.instances[0].id: treatment for treatment in treatments_of("dinm")}
    for treatment in treatments_of(name):
        full = whole[treatment.instances[0].id]
        assert {k: v for k, v in treatment.delta.settings.items() if full.delta.settings.get(k, "absent") != v} == other
        assert full.delta.settings.keys() <= treatment.delta.settings.keys()
        if name != "dinm_wo_location":
            assert treatment.delta.block == full.delta.block
            assert any(not torch.equal(treatment.delta.tensors[n], v) for n, v in full.delta.tensors.items())
        assert treatment.suffix == (None if name == "dinm_wo_suffix" else full.suffix)


def test_random_blocks_depend_on_the_seed_alone() -> None:
    task = make_task(instances=[make_instance(i) for i in range(60)])
    drawn = drawn_blocks(task, 3)
    assert drawn == drawn_blocks(task, 3)
    assert set(drawn.values()) == {0, 1, 2}
    assert drawn != drawn_blocks(make_task(instances=task.instances, seed=1), 3)
    assert drawn[7] == drawn_blocks(make_task(instances=[make_instance(7)]), 3)[7]  # whatever its company
    edited = {t.delta.instance: t.delta.block for t in treatments_of("dinm_wo_location")}
    assert edited == {i: drawn[i] for i in range(3)} != make_task().blocks


def test_an_ablation_of_nothing_is_refused() -> None:
    checkpoint, bare = tiny_checkpoint("mistral"), {"dinm": {"suffix": None, "use_constraint": False}}
    for name, part in (("dinm_wo_suffix", "suffix"), ("dinm_wo_constraint", "constraint"), ("dinm_wo_tune", "suffix")):
        with pytest.raises(InputError, match=f"{name}: dinm's settings have no {part}"):
            list(find_method(name).recipe.make(checkpoint, make_task(settings=bare)))


def test_at_block_edits_there() -> None:
    assert {treatment.delta.block for treatment in treatments_of("dinm_at_block")} == {1}


def test_batch_and_sequential_edit_all_instances() -> None:
    (batch,), (sequential,) = treatments_of("dinm_batch"), treatments_of("dinm_sequential")
    assert batch.delta.block == 2  # toxic for two of the three
    assert batch.delta.instances == sequential.delta.instances == (0, 1, 2)
    assert (sequential.delta.block, sequential.delta.also) == (1, (2,))


def test_a_loss_that_is_not_finite_names_instance_and_step() -> None:
    checkpoint = tiny_checkpoint("mistral")
    with torch.no_grad():
        checkpoint.module("ln_final").weight.fill_(torch.inf)
    with pytest.raises(InputError, match=r"dinm: instance \d: the loss became nan at step 0"):
        list(find_method("dinm").recipe.make(checkpoint, make_task()))


# -- FT-L ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("component", "changed"), [("mlp.out", {"down"}), ("mlp", {"down", "gate", "up"})])
def test_ft_l_changes_one_block_only(component: str, changed: set[str]) -> None:
    checkpoint = tiny_checkpoint("mistral")
    settings = {"ft_l": {"steps": 2, "block": 1, "component": component, "entry_bound": 1e-4}}
    for treatment in find_method("ft_l").recipe.make(checkpoint, make_task(settings=settings)):
        expected = {f"model.layers.1.mlp.{part}_proj.weight" for part in changed}
        assert set(treatment.delta.tensors) == expected
        for change in treatment.delta.tensors.values():
            assert 0 < change.abs().max() <= 1.001e-4  # the bound, to float32's rounding of weights near 1
        assert treatment.delta.settings["component"] == component
        assert treatment.suffix is None


def test_ft_l_is_at_two_thirds_of_the_depth() -> None:
    assert {treatment.delta.block for treatment in treatments_of("ft_l")} == {2}
    edited = treatments_of("ft_l")[0].delta.settings
    assert (edited["asked_at"], edited["use_constraint"], edited["c_edit"]) == ("prompt_last", False, 1.0)
    assert FtLSettings(objective="response").as_edit().asked_at == "response"


# -- Self-Reminder and training -----------------------------------------------------------------------------------


def test_self_reminder_stands_around_the_query() -> None:
    (treatment,) = treatments_of("self_reminder")
    assert (treatment.prefix, treatment.suffix) == (BEFORE, AFTER)
    own = make_task(settings={"self_reminder": {"prefix": "Be good:"}})
    (treatment,) = find_method("self_reminder").recipe.make(tiny_checkpoint("mistral"), own)
    assert (treatment.prefix, treatment.suffix) == ("Be good:", AFTER)


def test_what_was_trained_before_is_not_trained_again() -> None:
    checkpoint, made = tiny_checkpoint("mistral"), tiny_checkpoint("mistral", seed=1)
    (treatment,) = find_method("sft").recipe.make(checkpoint, make_task(made={"sft": made}, training=()))
    assert treatment.checkpoint is made
    (fresh,), (on_made,) = (find_method("dpo").recipe.make(checkpoint, make_task(made=m)) for m in ({}, {"sft": made}))
    near = [(t.checkpoint.value_matrix(0) - made.value_matrix(0)).norm() for t in (fresh, on_made)]
    assert near[1] < 0.1 * near[0]  # it starts there


def test_training_needs_instances() -> None:
    for name in ("sft", "dpo", "ext_sub"):
        with pytest.raises(InputError, match="no instances to train on"):
            list(find_method(name).recipe.make(tiny_checkpoint("mistral"), make_task(training=())))


# -- Ext-Sub ------------------------------------------------------------------------------------------------------


def test_ext_sub_by_hand() -> None:
    expert = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    anti = torch.tensor([[0.0, 4.0], [0.0, 3.0]])
    # Row 0: units (1, 0) and (0, 1), so u = (1, 1) / sqrt 2. (0, 4) . u = 4 / sqrt 2, shared is (2, 2), not shared
    # (-2, 2); (2, 0) - (-2, 2) = (4, -2). Row 1: the same direction, everything is shared, the expert stays.
    torch.testing.assert_close(combine(expert, anti), torch.tensor([[4.0, -2.0], [0.0, 1.0]]))
    torch.testing.assert_close(combine(expert, anti, 0.5), torch.tensor([[3.0, -1.0], [0.0, 1.0]]))
    assert torch.equal(combine(expert, anti, 1.0, "subtract"), torch.tensor([[2.0, -4.0], [0.0, -2.0]]))
    assert torch.equal(combine(expert, anti, 0.0), expert)


def test_ext_sub_shares_nothing_with_zero_or_opposite_rows() -> None:
    expert = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    anti = torch.tensor([[1.0, 2.0], [0.0, 0.0], [-0.3, -0.4], [0.0, 0.0]])
    torch.testing.assert_close(combine(expert, anti), expert - anti)


def test_ext_sub_of_an_expert_and_itself_is_the_expert() -> None:
    """All is shared, so nothing is removed; plain subtraction leaves nothing."""
    change = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(combine(change, change), change)
    torch.testing.assert_close(combine(change, 3 * change, 2.0), change)
    assert not combine(change, change, 1.0, "subtract").any()
    with pytest.raises(ValueError, match="two changes of one matrix"):
        combine(change, change.T)


@pytest.mark.parametrize("architecture", ["mistral", "gpt2"])
def test_ext_sub_works_on_what_the_adapters_change(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    settings = ExtSubSettings(
        **{
            **SETTINGS["ext_sub"],
            "steps": 3,
            "learning_rate": 1e-2,
            "lora": {"rank": 2, "alpha": 4, "targets": "all-linear"},
        }
    )
    base, found = checkpoint.model.state_dict(), []
    for response in ("safe", "unsafe"):
        changes: dict[str, LowRankChange] = {}
        tuned, _ = train_sft(
            checkpoint,
            INSTANCES,
            seed=0,
            settings=settings,
            response=response,
            before_merge=lambda model, changes=changes: changes.update(low_rank_changes(model)),
        )
        merged = tuned.model.state_dict()
        assert set(changes) == {name for name, value in merged.items() if not torch.equal(value, base[name])}
        for name, change in changes.items():
            assert change.product().abs().max() > 1e-3
            torch.testing.assert_close(change.as_stored(change.product()), merged[name] - base[name], atol=1e-6, rtol=0)
        found.append(changes)
    expert, anti_expert = found
    delta = combined(checkpoint, expert, anti_expert, INSTANCES, settings)
    assert (delta.block, delta.also, delta.instances) == (0, (1, 2), (0, 1, 2))
    for name, change in delta.tensors.items():
        assert change.shape == checkpoint.parameter(name).shape
        values = torch.linalg.svdvals(change)
        # every row is made of the two adapters' rows with factors of its own: so, and only so, the rank stays low
        assert (values > 1e-4 * values[0]).sum() <= 4
    alone = combined(checkpoint, expert, expert, INSTANCES, settings)  # an expert and itself: the expert
    for name, change in alone.tensors.items():
        torch.testing.assert_close(change, expert[name].as_stored(expert[name].product()), atol=1e-6, rtol=1e-5)
    left = combined(checkpoint, expert, expert, INSTANCES, settings.model_copy(update={"combination": "subtract"}))
    assert not any(change.any() for change in left.tensors.values())


def test_the_usual_targets_of_the_architecture_are_adapted_unless_all_are_wanted() -> None:
    (usual,) = treatments_of("ext_sub")
    parts = {name.rsplit(".", 2)[1] for name in usual.delta.tensors}
    assert parts == {"q_proj", "v_proj"}
    assert len(usual.delta.tensors) == 2 * 3
    adapters = ExtSubSettings().lora
    assert (adapters.rank, adapters.alpha, adapters.dropout, adapters.targets) == (16, 32, 0.05, "usual")


def test_the_unsafe_response_is_what_an_anti_expert_learns() -> None:
    checkpoint = tiny_checkpoint("mistral")
    settings = SftSettings(**TRAINED)
    safe, unsafe, other = (
        train_sft(checkpoint, instances, seed=0, settings=settings, response=response)[0].fingerprint
        for instances, response in (
            (INSTANCES, "safe"),
            (INSTANCES, "unsafe"),
            ([i.model_copy(update={"safe_generation": "No!"}) for i in INSTANCES], "unsafe"),
        )
    )
    assert safe != unsafe == other
