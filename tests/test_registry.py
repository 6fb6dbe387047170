"""Every way to detoxify: it runs by its name, leaves the base alone, and its settings are checked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from conftest import tiny_checkpoint
from tasks import make_task

from mechinterp.data.safeedit import SUFFIX
from mechinterp.errors import InputError
from mechinterp.methods import registry
from mechinterp.models.checkpoints import Checkpoint


class StoppedError(Exception):
    pass


def untouched(checkpoint: Checkpoint) -> Callable[[], None]:
    """Remember a model; the check raises if anything about it is another."""
    model = checkpoint.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanting = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}

    def check() -> None:
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanting
        assert {name: module.training for name, module in model.named_modules()} == modes

    return check


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_way_runs_and_leaves_the_base_as_it_was(name: str) -> None:
    checkpoint = tiny_checkpoint("mistral")
    check, about = untouched(checkpoint), registry.find_method(name)
    treatments = list(registry.find_method(name).recipe.make(checkpoint, make_task()))
    check()
    assert {treatment.method for treatment in treatments} == {name}
    covered = sorted(instance.id for treatment in treatments for instance in treatment.instances)
    assert covered == [0, 1, 2]
    assert len(treatments) == (3 if about.per_instance else 1)
    if name != "self_reminder":
        assert {treatment.suffix for treatment in treatments} == {SUFFIX if about.suffix else None}
    nothing_done = not about.tunes
    base = {key: value.clone() for key, value in checkpoint.model.state_dict().items()}
    for treatment in treatments:
        assert (treatment.delta is None and treatment.checkpoint is None) == nothing_done
        with treatment.opened(checkpoint) as opened:
            assert opened.name == name
            same = all(torch.equal(value, base[key]) for key, value in opened.model.state_dict().items())
            assert same == nothing_done
        check()


@pytest.mark.parametrize("name", [d.name for d in registry.METHODS.values() if d.per_instance])
def test_a_way_that_is_not_run_to_its_end_leaves_the_base_as_it_was(name: str) -> None:
    checkpoint = tiny_checkpoint("mistral")
    check = untouched(checkpoint)
    treatments = registry.find_method(name).recipe.make(checkpoint, make_task())
    treatment = next(treatments)
    treatments.close()
    check()
    with pytest.raises(StoppedError), treatment.opened(checkpoint):
        raise StoppedError
    check()


@pytest.mark.parametrize("name", [n for n in registry.METHODS if n not in ("vanilla", "suffix", "self_reminder")])
def test_an_exception_in_the_middle_leaves_the_base_as_it_was(name: str) -> None:
    checkpoint = tiny_checkpoint("mistral")
    check, notes = untouched(checkpoint), []

    def stop(text: str) -> None:
        notes.append(text)
        if len(notes) == (2 if name in ("dpo", "ext_sub") else 1):  # these train twice
            raise StoppedError

    task = make_task(note=stop, progress=lambda what: lambda done, total: stop(what))

    if name == "dinm_wo_tune":
        list(registry.find_method(name).recipe.make(checkpoint, task))
        assert not notes
    else:
        with pytest.raises(StoppedError):
            list(registry.find_method(name).recipe.make(checkpoint, task))
        assert all(name in note or (name == "dpo" and "sft" in note) for note in notes)
    check()


@pytest.mark.parametrize("name", ["suffix", "dinm_wo_tune", "vanilla"])
def test_without_tuning_nothing_changes(name: str) -> None:
    checkpoint = tiny_checkpoint("mistral")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = checkpoint.model(ids).logits
        (treatment,) = registry.find_method(name).recipe.make(checkpoint, make_task())
        assert treatment.delta is None
        with treatment.opened(checkpoint) as opened:
            assert torch.equal(opened.model(ids).logits, before)
            assert opened.fingerprint == checkpoint.fingerprint


def test_unknown_names_and_settings_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"unknown method 'dimn'; known are vanilla, suffix, sft, dpo, .*dinm_wo_tune"):
        registry.find_method("dimn")
    with pytest.raises(InputError, match="unknown method 'dimn'"):
        registry.settings_for("dimn", {})
    with pytest.raises(InputError, match=r"dinm: unknown setting `lr`; known: constraint, .*learning_rate"):
        registry.settings_for("dinm", {"lr": 1})
    with pytest.raises(InputError, match=r"sft: `steps`: .* got 0"):
        registry.settings_for("sft", {"steps": 0})
    with pytest.raises(InputError, match=r"ext_sub: unknown setting `lora.r`"):
        registry.settings_for("ext_sub", {"lora": {"r": 1}})
    with pytest.raises(InputError, match=r"ext_sub: warmup_steps \(2\) must be below steps \(2\)"):
        registry.settings_for("ext_sub", {"steps": 2})
    with pytest.raises(InputError, match="dinm_wo_suffix: unknown setting `steps`; known: it has none of its own"):
        registry.settings_for("dinm_wo_suffix", {"steps": 1})
    with pytest.raises(InputError, match="dinm_at_block: the setting `block` is missing"):
        registry.settings_for("dinm_at_block", {})
    with pytest.raises(InputError, match="dinm: settings are a mapping"):
        registry.settings_for("dinm", 3)  # type: ignore[arg-type]
    assert registry.settings_for("dinm", {"steps": 3}).steps == 3


def test_settings_reach_the_way_checked() -> None:
    checkpoint = tiny_checkpoint("mistral")
    with pytest.raises(InputError, match="ft_l: unknown setting `bloc`"):
        list(registry.find_method("ft_l").recipe.make(checkpoint, make_task(settings={"ft_l": {"bloc": 1}})))
    with pytest.raises(InputError, match="block 3 is out of range"):
        list(
            registry.find_method("dinm_at_block").recipe.make(
                checkpoint, make_task(settings={"dinm_at_block": {"block": 3}})
            )
        )


def test_the_registry_holds_together() -> None:
    """Every recipe is where its line says, of methods that there are; a colour is one method's alone."""
    methods = list(registry.METHODS.values())
    assert methods[0].name == "vanilla"
    assert [method.name for method in methods] == list(registry.METHODS)
    assert set(registry.STUDIED) <= {method.name for method in methods if method.tunes}
    for method in methods:
        assert method.line
        assert "\n" not in method.line
        assert method.recipe.module.startswith("mechinterp.methods.")
        assert set(method.reads) <= set(registry.METHODS)
        assert set(method.recipe.organism) <= set(method.recipe.settings.model_fields)
    colours = [method.colour for method in methods if method.colour]
    assert len(set(colours)) == len(colours)


def test_naming_methods_imports_none_of_them() -> None:
    code = "import sys; from mechinterp.methods.registry import METHODS; [m.printed for m in METHODS.values()]; "
    code += "raise SystemExit(any(name in sys.modules for name in ('torch', 'pydantic', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", [d.name for d in registry.METHODS.values() if d.per_instance or "dinm_" in d.name])
def test_no_instances_are_an_error(name: str) -> None:
    if name == "dinm_wo_tune":
        return
    with pytest.raises(InputError, match=f"{name}: there are no instances to edit"):
        list(registry.find_method(name).recipe.make(tiny_checkpoint("mistral"), make_task(instances=[])))
