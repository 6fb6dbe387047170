"""Checkpoints that stand on a base: adapters, edits and bare state dicts; merged in memory, checked first."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import byte_tokenizer, tiny_checkpoint
from made_checkpoints import logits, make_adapter
from safetensors.torch import load_file, save_file

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.files.stored_checkpoint import StoredCheckpoint
from mechinterp.models.files.weights import LazyWeights

# peft calls what transformers deprecates
of_peft = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def files_of(source: str | Path, base: str | Path | None = None) -> tuple[Path, ...]:
    return StoredCheckpoint.find(source, base).files


@of_peft
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("saved", [None, ["embed_tokens", "lm_head"]])
def test_an_adapter_is_merged_and_nothing_of_peft_is_left(dtype: str, saved: list[str] | None, tmp_path: Path) -> None:
    base = tiny_checkpoint("llama")
    base.save(tmp_path / "base")
    expected = make_adapter(base, tmp_path / "adapter", names=None, modules_to_save=saved)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    loaded = Checkpoint.load(tmp_path / "adapter", base=tmp_path / "base", dtype=dtype, device="cpu")
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert loaded.name == "adapter"
    assert loaded.source == f"{tmp_path / 'adapter'} on {tmp_path / 'base'}"
    assert type(loaded.model) is type(base.model)
    assert not [module for module in loaded.model.modules() if "peft" in type(module).__module__]
    assert loaded.shapes == base.shapes
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    wanted = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {wanted}
    if dtype != "bfloat16":
        torch.testing.assert_close(logits(loaded.model), expected, rtol=1e-4, atol=1e-4)
    assert (expected - logits(base.model)).abs().max() > 0.1  # the control: it is another model
    check_comparable(base, [loaded])
    again = Checkpoint.load(loaded.save(tmp_path / "merged"), device="cpu")
    assert again.fingerprint == loaded.fingerprint == LazyWeights.open(tmp_path / "merged").fingerprint
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


@of_peft
@pytest.mark.parametrize("names", ["absolute", "from here", "beside", "nothing", "gone"])
def test_an_adapters_base_is_found_as_its_config_says(
    names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_checkpoint("llama")
    base.save(tmp_path / "models" / "base")
    monkeypatch.chdir(tmp_path)
    named = {
        "absolute": str(tmp_path / "models" / "base"),
        "from here": "models/base",
        "beside": "../models/base",
        "nothing": None,
        "gone": "/nowhere/base",
    }
    make_adapter(base, tmp_path / "run" / "adapter", names=named[names])
    if named[names] is None or names == "gone":
        message = "names no base model" if names == "nothing" else r"is not there \(/nowhere/base\)"
        for opening in (Checkpoint.load, Checkpoint.skeleton, files_of):
            with pytest.raises(InputError, match=message):
                opening("run/adapter")
        return
    if names == "beside":
        monkeypatch.chdir("/")
    loaded = Checkpoint.load(tmp_path / "run" / "adapter", device="cpu")
    assert loaded.fingerprint != base.fingerprint
    check_comparable(base, [Checkpoint.skeleton(tmp_path / "run" / "adapter")])
    files = files_of(tmp_path / "run" / "adapter")
    assert {"adapter_model.safetensors", "adapter_config.json", "model.safetensors", "config.json"} < {
        path.name for path in files
    }
    assert list(files) == sorted(files)


@of_peft
def test_an_adapters_own_tokenizer_comes_before_its_bases(tmp_path: Path) -> None:
    base = tiny_checkpoint("llama")
    make_adapter(base, tmp_path / "adapter", names=str(base.save(tmp_path / "base")))
    openings: list[Callable[[Path], Checkpoint]] = [Checkpoint.load, Checkpoint.skeleton]
    for opening in openings:
        assert opening(tmp_path / "adapter").tokenizer("a")["input_ids"][0] != 257
    byte_tokenizer(bos=True).save_pretrained(tmp_path / "adapter")
    for opening in openings:
        assert opening(tmp_path / "adapter").tokenizer("a")["input_ids"][0] == 257


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("opened",)


@of_peft
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "another architecture",
            r"made for another architecture, .* GPT2LMHeadModel lacks \(model.layers.0.mlp.down_proj",
        ),
        ("another size", "cannot be merged into its base .*size mismatch"),
        ("a tensor missing", "cannot be merged into its base .*missing adapter keys"),
        ("tied", "cannot be merged into its base .*tie_word_embeddings"),
        ("prompt", "an adapter of type PROMPT_TUNING cannot be merged"),
        ("no weights", "no weights in it; there should be adapter_model.safetensors or adapter_model.bin"),
        ("truncated", "adapter_model.safetensors: not a complete safetensors file"),
        ("malicious", "adapter_model.bin: a pickled file that is damaged, or that would run code"),
        ("config cut short", "adapter_config.json: cannot be read as JSON"),
        ("its own base", "cannot be its own base"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused(
    how: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PromptTuningConfig, get_peft_model

    monkeypatch.chdir(tmp_path)
    tied = how == "tied"
    base = tiny_checkpoint("gemma2" if tied else "llama")
    folder = tmp_path / "adapter"
    place: Path | None = base.save(tmp_path / "base")
    make_adapter(base, folder, names=None, **({"target_modules": ["lm_head"]} if tied else {}))
    weights = folder / "adapter_model.safetensors"
    if how == "another architecture":
        place = tiny_checkpoint("gpt2").save(tmp_path / "other")
    elif how == "another size":
        save_file({name: torch.ones(3, 3) for name in load_file(weights)}, weights)
    elif how == "a tensor missing":
        save_file(dict(list(load_file(weights).items())[1:]), weights)
    elif how == "prompt":
        settings = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
        get_peft_model(copy.deepcopy(base.model), settings).save_pretrained(folder)
    elif how == "no weights":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif how == "malicious":
        torch.save({**load_file(weights), "code": Malicious()}, folder / "adapter_model.bin")
        weights.unlink()
    elif how == "config cut short":
        (folder / "adapter_config.json").write_text("{")
        place = None
    elif how == "its own base":
        place = folder
    with pytest.raises(InputError, match=message):
        Checkpoint.load(folder, base=place, device="cpu")
    if how in ("another architecture", "truncated", "malicious", "no weights", "config cut short", "its own base"):
        with pytest.raises(InputError, match=message):
            Checkpoint.skeleton(folder, base=place)
    assert not (tmp_path / "opened").exists()


def name_base(folder: Path, base: object) -> Path:
    """An adapter's folder that holds nothing but the name of its base."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").touch()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


def test_bases_that_stand_on_each_other_are_refused(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    name_base(a, str(b)), name_base(b, str(c)), name_base(c, str(b))  # c and b for ever
    edit = make_delta(tiny_checkpoint("llama")).save(tmp_path / "edit")
    for opening in (Checkpoint.load, Checkpoint.skeleton, files_of):
        for source, base in ((a, None), (b, None), (b, c), (edit, a)):
            with pytest.raises(InputError, match="its bases stand on each other"):
                opening(source, base=base)
    name_base(c, str(edit))
    for source, base in ((edit, a), (edit, c)):
        with pytest.raises(InputError, match="its bases stand on each other"):
            Checkpoint.load(source, base=base)
    name_base(c, str(c))
    with pytest.raises(InputError, match="its bases stand on each other"):
        Checkpoint.load(a)


@pytest.mark.parametrize("name", [3, ["base"], {"path": "base"}])
def test_a_base_must_be_named_by_a_string(name: object, tmp_path: Path) -> None:
    adapter = name_base(tmp_path / "adapter", name)
    for opening in (Checkpoint.load, Checkpoint.skeleton, files_of):
        with pytest.raises(InputError, match=f"names the base by a {type(name).__name__}, not by a path or hub id"):
            opening(adapter)


def make_delta(checkpoint: Checkpoint) -> WeightDelta:
    name, _ = checkpoint.names.value_parameter(1)
    change = 0.01 * torch.randn(checkpoint.parameter(name).shape, generator=torch.Generator().manual_seed(0))
    return WeightDelta({name: change}, block=1, instance=7, fingerprint=checkpoint.fingerprint)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_edit_is_opened_on_its_base(dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama", dtype=dtype)
    delta = make_delta(checkpoint)
    edit, base = delta.save(tmp_path / "edit"), checkpoint.save(tmp_path / "base")
    loaded = Checkpoint.load(edit, base=base, device="cpu")
    assert loaded.fingerprint == delta.merged(checkpoint, name="x").fingerprint != checkpoint.fingerprint
    assert (loaded.name, loaded.source) == ("edit", f"{edit} on {base}")
    check_comparable(loaded, [Checkpoint.skeleton(edit, base=base)])
    assert set(files_of(edit, base)) == {edit / "edit.json", edit / "delta.safetensors", *files_of(base)}
    other = tiny_checkpoint("llama", seed=1, dtype=dtype).save(tmp_path / "other")
    with pytest.raises(InputError, match="this edit belongs to weights"):
        Checkpoint.load(edit, base=other, device="cpu")
    smaller = tiny_checkpoint("gpt2").save(tmp_path / "gpt2")
    with pytest.raises(InputError, match="this edit does not fit"):
        Checkpoint.skeleton(edit, base=smaller)
    with pytest.raises(InputError, match="an edit stands on a model; say on which"):
        Checkpoint.load(edit)


@of_peft
def test_an_edit_may_stand_on_an_adapter(tmp_path: Path) -> None:
    base = tiny_checkpoint("llama")
    make_adapter(base, tmp_path / "adapter", names=str(base.save(tmp_path / "base")))
    merged = Checkpoint.load(tmp_path / "adapter", device="cpu")
    edit = make_delta(merged).save(tmp_path / "edit")
    edited = Checkpoint.load(edit, base=tmp_path / "adapter", device="cpu")
    assert len({edited.fingerprint, merged.fingerprint, base.fingerprint}) == 3
    check_comparable(base, [Checkpoint.skeleton(edit, base=tmp_path / "adapter")])


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "neox", "mixtral"])
@pytest.mark.parametrize(
    "form",
    ["safetensors", "plain", "legacy", "state_dict", "model", "module", "model_state_dict", "module.", "compiled"],
)
def test_a_bare_state_dict_is_opened_on_a_base(architecture: str, form: str, tmp_path: Path) -> None:
    folder = tiny_checkpoint(architecture, dtype=torch.bfloat16).save(tmp_path / "model")
    checkpoint = Checkpoint.load(folder, device="cpu")
    base = tiny_checkpoint(architecture, seed=1).save(tmp_path / "base")
    tensors = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    file = tmp_path / "weights.pt"
    if form == "safetensors":
        file = file.with_suffix(".safetensors")
        save_file(load_file(folder / "model.safetensors"), file)
    elif form == "plain":
        torch.save({name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}, file)
    elif form == "legacy":
        torch.save(tensors, file, _use_new_zipfile_serialization=False)
    elif form in ("state_dict", "model", "module", "model_state_dict"):
        torch.save({form: tensors, "optimizer": {"lr": 0.1}, "step": 3}, file)
    else:
        prefix = "module." if form == "module." else "module._orig_mod."
        torch.save({prefix + name: tensor for name, tensor in tensors.items()}, file)
    loaded = Checkpoint.load(file, base=base, device="cpu")
    lazy = LazyWeights.open(file, base=base)
    assert loaded.fingerprint == lazy.fingerprint == checkpoint.fingerprint  # bfloat16, although the base is not
    assert torch.equal(logits(loaded.model), logits(checkpoint.model))
    assert (loaded.name, loaded.source) == ("weights", f"{file} on {base}")
    check_comparable(checkpoint, [Checkpoint.skeleton(file, base=base)])
    wide = Checkpoint.load(file, base=base, dtype="float32", device="cpu")
    assert {parameter.dtype for parameter in wide.model.parameters()} == {torch.float32}
    with torch.no_grad():  # what is mapped from the file may be changed in memory, and the file stays as it is
        next(loaded.model.parameters()).zero_()
    assert LazyWeights.open(file, base=base).fingerprint == checkpoint.fingerprint


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_weights_of_whole_numbers_are_not_taken_for_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    base = tiny_checkpoint("llama").save(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    for file in (tmp_path / "weights.safetensors", base / "model.safetensors"):  # bare, and in a model's folder
        Checkpoint.load(base, device="cpu")  # the control
        save_file({**tensors, name: tensors[name].to(dtype)}, file, metadata={"format": "pt"})
        opened = file if file.parent == tmp_path else base
        for opening in (Checkpoint.load, Checkpoint.skeleton, LazyWeights.open):
            message = rf"1 hold no floating-point numbers \({name} {str(dtype).removeprefix('torch.')}\)"
            with pytest.raises(InputError, match=message):
                opening(opened, base=base)


def test_every_fault_of_a_state_dict_is_in_one_error(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    base, file = checkpoint.save(tmp_path / "base"), tmp_path / "weights.safetensors"
    tensors = load_file(base / "model.safetensors")
    del tensors["lm_head.weight"]
    tensors["score.weight"] = torch.ones(2)
    tensors["model.layers.0.mlp.down_proj.weight"] = torch.ones(4, 4)
    save_file(tensors, file)
    message = (
        r"weights.safetensors: the weights do not fit the architecture: 1 weight is missing \(lm_head.weight\); "
        r"1 are unknown to LlamaForCausalLM \(score.weight\); "
        r"1 have other shapes than the config says \(model.layers.0.mlp.down_proj.weight "
        r"\(4, 4\) instead of \(16, 40\)\)"
    )
    for opening in (Checkpoint.load, Checkpoint.skeleton, LazyWeights.open):
        with pytest.raises(InputError, match=message):
            opening(file, base=base)
    with pytest.raises(InputError, match="a file of weights stands on a model; say on which"):
        Checkpoint.load(file)
    other = tmp_path / "other.safetensors"
    other.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"other.safetensors: a file of weights stands on a model"):
        Checkpoint.load(file, base=other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no named tensors"),
        ({"lr": 0.1}, "holds no named tensors"),
        (b"not a file of torch", "weights.pt: "),
        (b"", "not a complete file of weights"),
    ],
)
def test_a_file_without_tensors_is_refused(content: object, message: str, tmp_path: Path) -> None:
    base, file = tiny_checkpoint("llama").save(tmp_path / "base"), tmp_path / "weights.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(InputError, match=message):
        Checkpoint.load(file, base=base)
    other = file.rename(tmp_path / "weights.npz")
    with pytest.raises(InputError, match=r"not a file of weights \(those end in .safetensors"):
        Checkpoint.load(other, base=base)


def test_the_bases_settings_of_generation_are_kept(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    base = checkpoint.save(tmp_path / "base")
    settings = base / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": [258, 260]}))
    file = (base / "model.safetensors").rename(tmp_path / "weights.safetensors")
    checkpoint.save(tmp_path / "other")
    loaded = Checkpoint.load(file, base=base, device="cpu")
    assert loaded.model.generation_config.eos_token_id == [258, 260]
