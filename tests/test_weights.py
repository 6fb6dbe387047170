"""Lazy reads against the model in memory: every architecture, every way in which files hold weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, N_BLOCKS, tiny_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.files.weights import LazyWeights


def save_pickled(checkpoint: Checkpoint, folder: Path, shards: int = 1) -> Path:
    """A folder as older versions wrote it: `.bin` files, with an index if there is more than one."""
    checkpoint.model.config.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    tensors = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder
    files = [f"pytorch_model-{i:05}-of-{shards:05}.bin" for i in range(1, shards + 1)]
    index = {name: files[i % shards] for i, name in enumerate(sorted(tensors))}
    for file in files:
        torch.save({name: tensors[name] for name in tensors if index[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


@pytest.mark.parametrize("architecture", CONFIGS)
def test_what_is_read_lazily_is_what_is_in_memory(architecture: str, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(architecture)
    lazy = LazyWeights.open(checkpoint.save(tmp_path / "model"))
    memory = dict(checkpoint.model.named_parameters())
    assert lazy.parameters == tuple(sorted(memory))
    assert lazy.fingerprint == checkpoint.fingerprint == Checkpoint.load(tmp_path / "model", device="cpu").fingerprint
    for name, tensor in lazy.tensors():
        assert torch.equal(tensor, memory[name])
        assert lazy.shape(name) == tuple(tensor.shape)
        assert lazy.dtype(name) == tensor.dtype
        assert torch.equal(lazy.rows(name, 1, 3), tensor[1:3])
    if architecture != "mixtral":
        for block in range(N_BLOCKS):
            assert torch.equal(lazy.value_matrix(block), checkpoint.value_matrix(block))
            assert torch.equal(lazy.value_bias(block), checkpoint.value_bias(block))


def test_there_is_no_value_matrix_in_a_mixture_of_experts(tmp_path: Path) -> None:
    lazy = LazyWeights.open(tiny_checkpoint("mixtral").save(tmp_path / "model"))
    with pytest.raises(InputError, match="mixture-of-experts blocks have no single value matrix"):
        lazy.value_matrix(0)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_pickled_files_are_read_as_safetensors_are(architecture: str, shards: int, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(architecture)
    lazy = LazyWeights.open(save_pickled(checkpoint, tmp_path, shards))
    assert lazy.fingerprint == checkpoint.fingerprint  # GPT-2's tied matrix stands in the file twice
    assert torch.equal(lazy.value_matrix(1), checkpoint.value_matrix(1))
    assert Checkpoint.load(tmp_path, device="cpu").fingerprint == checkpoint.fingerprint


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("opened",)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_pickled(tiny_checkpoint("llama"), tmp_path / "model")
    bare = folder / "pytorch_model.bin"
    torch.save({**torch.load(bare), "code": Malicious()}, bare)
    for opening in (Checkpoint.load, Checkpoint.skeleton, LazyWeights.open):
        with pytest.raises(
            InputError, match=r"pytorch_model.bin: a pickled file that is damaged, or that would run code"
        ):
            opening(folder)
    good = tiny_checkpoint("llama").save(tmp_path / "good")
    with pytest.raises(InputError, match="would run code"):
        Checkpoint.load(bare, base=good)
    assert not (tmp_path / "opened").exists()
    torch.load(bare, weights_only=False)  # the control: it is malicious
    assert (tmp_path / "opened").exists()


def test_gpt2_files_without_the_models_prefix_have_its_names_and_fingerprint(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("gpt2")
    file = checkpoint.save(tmp_path / "model") / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)  # a mask that old versions stored
    save_file(tensors, file, metadata={"format": "pt"})
    lazy = LazyWeights.open(tmp_path / "model")
    assert "transformer.wte.weight" in lazy.parameters
    assert not any(name.endswith(".attn.bias") for name in lazy.parameters)
    assert lazy.fingerprint == checkpoint.fingerprint == Checkpoint.load(tmp_path / "model", device="cpu").fingerprint


def test_two_matrices_that_the_config_ties_and_the_file_does_not_are_two(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("gemma2")
    file = checkpoint.save(tmp_path / "model") / "model.safetensors"
    tensors = load_file(file)
    for head, tied in ((tensors["model.embed_tokens.weight"].clone(), True), (torch.randn(264, 16), False)):
        save_file({**tensors, "lm_head.weight": head}, file, metadata={"format": "pt"})
        lazy = LazyWeights.open(tmp_path / "model")
        assert ("lm_head.weight" not in lazy.parameters) == tied
        assert lazy.fingerprint == Checkpoint.load(tmp_path / "model", device="cpu").fingerprint
        assert (lazy.fingerprint == checkpoint.fingerprint) == tied


def make_delta(checkpoint: Checkpoint, scale: float = 0.01) -> WeightDelta:
    name, _ = checkpoint.names.value_parameter(1)
    change = scale * torch.randn(checkpoint.parameter(name).shape, generator=torch.Generator().manual_seed(0))
    return WeightDelta({name: change}, block=1, instance=7, fingerprint=checkpoint.fingerprint)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_edit_on_its_base_is_rounded_as_it_is_when_applied(dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("gpt2", dtype=dtype)
    base = checkpoint.save(tmp_path / "base")
    delta = make_delta(checkpoint)
    lazy = LazyWeights.open(delta.save(tmp_path / "edit"), base=base)
    (name,) = delta.tensors
    with delta.applied(checkpoint) as edited:
        assert lazy.fingerprint == edited.fingerprint != LazyWeights.open(base).fingerprint
        assert torch.equal(lazy.value_matrix(1), edited.value_matrix(1))
        assert torch.equal(lazy.rows(name, 2, 5), edited.parameter(name)[2:5])
    assert lazy.dtype(name) == dtype
    assert lazy.parameters == LazyWeights.open(base).parameters


def test_an_edit_that_does_not_fit_its_base_is_refused(tmp_path: Path) -> None:
    edit = make_delta(tiny_checkpoint("gpt2")).save(tmp_path / "edit")
    base = tiny_checkpoint("llama").save(tmp_path / "base")
    with pytest.raises(InputError, match=r"does not fit .*it changes transformer.h.1.mlp.c_proj.weight \(40, 16\)"):
        LazyWeights.open(edit, base=base)
    with pytest.raises(InputError, match="an edit stands on a model; say on which"):
        LazyWeights.open(edit)


def test_reading_one_matrix_reads_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = LazyWeights.open(tiny_checkpoint("mistral").save(tmp_path / "model"))
    read: list[str] = []
    shard = type(next(iter(lazy.files.places.values()))[0])

    def counting(self: object, name: str, original: object = shard.tensor) -> Tensor:
        read.append(name)
        return original(self, name)  # type: ignore[operator]

    monkeypatch.setattr(shard, "tensor", counting)
    lazy.value_matrix(2)
    assert read == ["model.layers.2.mlp.down_proj.weight"]


def sharded(tmp_path: Path) -> Path:
    checkpoint = tiny_checkpoint("mistral")
    checkpoint.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    checkpoint.model.save_pretrained(tmp_path, max_shard_size="10KB")
    return tmp_path


def test_shards_are_one_checkpoint_and_each_is_opened_once(tmp_path: Path) -> None:
    lazy = LazyWeights.open(sharded(tmp_path))
    assert len(list(tmp_path.glob("*.safetensors"))) == len({id(file) for file, _ in lazy.files.places.values()}) > 1
    checkpoint = tiny_checkpoint("mistral")
    assert torch.equal(lazy.value_matrix(2), checkpoint.value_matrix(2))
    assert lazy.fingerprint == checkpoint.fingerprint == Checkpoint.load(tmp_path, device="cpu").fingerprint


def damage(folder: Path, how: str) -> None:
    index = folder / "model.safetensors.index.json"
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    if how == "a shard missing":
        first.unlink()
    elif how == "a shard cut short":
        first.write_bytes(first.read_bytes()[:-100])
    elif how == "a shard emptied":
        first.write_bytes(b"")
    elif how == "index cut short":
        index.write_text(index.read_text()[:50])
    elif how == "index of another kind":
        index.write_text(json.dumps({"metadata": {}}))
    elif how == "index pointing outside":
        index.write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}))
    elif how == "shards exchanged":
        held = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(held)
    elif how == "a tensor missing":
        content = json.loads(index.read_text())
        del content["weight_map"]["model.layers.1.mlp.down_proj.weight"]
        index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a shard missing", r"shard model-00001-of-\d+.safetensors is missing \(1 of"),
        ("a shard cut short", r"model-00001-of-\d+.safetensors: not a complete safetensors file"),
        ("a shard emptied", r"model-00001-of-\d+.safetensors: not a complete safetensors file"),
        ("index cut short", r"model.safetensors.index.json: cannot be read as JSON"),
        ("index of another kind", r"model.safetensors.index.json: not the index of a sharded checkpoint"),
        ("index pointing outside", r"names a file outside its folder"),
        ("shards exchanged", r"lacks .*, which the index says is in it"),
        ("a tensor missing", r"1 weight is missing \(model.layers.1.mlp.down_proj.weight\)"),
    ],
)
@pytest.mark.parametrize("opening", [Checkpoint.load, Checkpoint.skeleton, LazyWeights.open])
def test_damaged_shards_are_named(opening: object, how: str, message: str, tmp_path: Path) -> None:
    damage(sharded(tmp_path), how)
    with pytest.raises(InputError, match=message):
        opening(tmp_path)  # type: ignore[operator]


def test_an_adapter_is_to_be_merged_first(tmp_path: Path) -> None:
    base = tiny_checkpoint("llama").save(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for named, given, argument in (
        (None, None, ", base=MODEL"),
        (None, base, f", base={str(base)!r}"),
        (str(base), None, ""),
        (str(base), tmp_path / "other", f", base={str(tmp_path / 'other')!r}"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": named}))
        with pytest.raises(InputError, match="an adapter's weights are in no file") as caught:
            LazyWeights.open(adapter, given)
        assert str(caught.value).endswith(f"merge it first: Checkpoint.load({str(adapter)!r}{argument}).save(FOLDER)")


def test_a_name_that_is_no_folder_is_said_to_be_none() -> None:
    for name in ("mistyped", "nobody/mistyped"):
        with pytest.raises(InputError, match=rf"^{name}: no such folder \(if it is a hub id, download it"):
            LazyWeights.open(name)
