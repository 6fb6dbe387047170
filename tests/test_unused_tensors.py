"""Nothing that a model's files hold is left out without a word: every tensor is used, harmless, or refused by name."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import D_MLP, D_MODEL, tiny_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights

of_peft = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

DOWN = "model.layers.1.mlp.down_proj"
OPENINGS: tuple[Callable[..., object], ...] = (Checkpoint.load, Checkpoint.skeleton, LazyWeights.open)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder each of Llama and GPT-2."""
    root = tmp_path_factory.mktemp("bases")
    for architecture in ("llama", "gpt2"):
        tiny_checkpoint(architecture).save(root / architecture)
    return root


def changed(base: Path, folder: Path, tensors: dict[str, Tensor], *, form: str = "folder", **settings: object) -> Path:
    """A copy of a model with tensors added or replaced, and with other settings in its config."""
    shutil.copytree(base, folder)
    held = {**load_file(folder / "model.safetensors"), **tensors}
    file = folder / "model.safetensors"
    if form == "shards":
        file.unlink()
        halves = sorted(held)[::2], sorted(held)[1::2]
        for number, names in enumerate(halves):
            save_file({n: held[n].contiguous() for n in names}, folder / f"{number}.safetensors", {"format": "pt"})
        index = {name: f"{number}.safetensors" for number, names in enumerate(halves) for name in names}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    else:
        save_file({name: tensor.contiguous() for name, tensor in held.items()}, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return file.rename(folder.with_suffix(".safetensors")) if form == "file" else folder


LORA = {f"{DOWN}.lora_A.default.weight": torch.ones(2, D_MLP), f"{DOWN}.lora_B.default.weight": torch.ones(D_MODEL, 2)}
UNUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "a bias": (
        {f"{DOWN}.bias": torch.ones(D_MODEL)},
        r"1 are unknown to Llama.* \(.*down_proj.bias\); .*mend",
    ),
    "attention's bias": (
        {"model.layers.0.self_attn.q_proj.bias": torch.ones(D_MODEL)},
        r"\(model.layers.0.self_attn.q_proj.bias\); .* mend config.json, or remove",
    ),
    "LoRA": (
        LORA,
        r"2 are unknown .*lora_A.default.weight, .*lora_B.default.*\); merge the adapter into",
    ),
    "a layer more": (
        {f"model.layers.3.{part}_layernorm.weight": torch.ones(D_MODEL) for part in ("input", "post_attention")},
        r"2 are unknown .*model.layers.3.input_layernorm.weight",
    ),
    "a value head": ({"v_head.summary.weight": torch.ones(1, D_MODEL)}, r"unknown .*\(v_head.summary.weight\)"),
    "a float8 scale": (
        {f"{DOWN}.weight": torch.zeros(D_MODEL, D_MLP).to(torch.float8_e4m3fn), f"{DOWN}.weight_scale": torch.ones(1)},
        r"quantiser \(.*weight_scale\).*; 1 hold no floating-point numbers \(.*float8_e4m3fn\); save .* dequantised",
    ),
    "float8 without a scale": (
        {f"{DOWN}.weight": torch.zeros(D_MODEL, D_MLP).to(torch.float8_e5m2)},
        r"1 hold no floating-point numbers \(.*down_proj.weight float8_e5m2\)",
    ),
    "a scale beside plain weights": ({f"{DOWN}.input_scale": torch.ones(1)}, r"quantiser \(.*input_scale\)"),
    "int8 with SCB": (
        {f"{DOWN}.weight": torch.ones(D_MODEL, D_MLP, dtype=torch.int8), f"{DOWN}.SCB": torch.ones(D_MODEL)},
        r"quantiser \(.*SCB\).*int8",
    ),
    "4 bits": (
        {f"{DOWN}.weight": torch.ones(320, 1, dtype=torch.uint8), f"{DOWN}.weight.absmax": torch.ones(10)},
        r"quantiser \(.*absmax\)",
    ),
    "GPTQ": ({f"{DOWN}.{part}": torch.ones(4, 4) for part in ("g_idx", "qweight", "qzeros")}, r"3 belong to a quant"),
}


@pytest.mark.parametrize("form", ["folder", "shards", "file"])
@pytest.mark.parametrize("what", UNUSED)
def test_tensors_that_a_model_has_no_use_for_are_named(what: str, form: str, bases: Path, tmp_path: Path) -> None:
    tensors, message = UNUSED[what]
    source = changed(bases / "llama", tmp_path / "model", tensors, form=form)
    for opening in OPENINGS:
        with pytest.raises(InputError, match=f"the weights do not fit the architecture: .*{message}"):
            opening(source, base=bases / "llama")


def test_a_config_of_fewer_layers_is_not_run_on_a_file_of_more(bases: Path, tmp_path: Path) -> None:
    source = changed(bases / "llama", tmp_path / "model", {}, num_hidden_layers=2)
    for opening in OPENINGS:
        with pytest.raises(InputError, match=r"9 are unknown to LlamaForCausalLM \(model.layers.2.input_layernorm"):
            opening(source)


def test_a_shards_tensor_that_the_index_does_not_list_is_named(bases: Path, tmp_path: Path) -> None:
    source = changed(bases / "llama", tmp_path / "model", {}, form="shards")
    shard = source / "0.safetensors"
    save_file({**load_file(shard), "stray": torch.ones(1)}, shard, {"format": "pt"})
    for opening in OPENINGS:
        with pytest.raises(InputError, match=r"1 of the shards' tensors are not in the index \(stray\)"):
            opening(source)


HARMLESS = {
    "llama": {
        "model.rotary_emb.inv_freq": torch.ones(4),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "model.layers.2.self_attn.rotary_emb.cos_cached": torch.ones(1, 1, 8, 4),
        "model.position_ids": torch.arange(8)[None],
        "model.layers.0.mlp.down_proj._extra_state": torch.zeros(3, dtype=torch.uint8),
    },
    "gpt2": {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 256, 256, dtype=torch.bool).tril(),
        "h.1.attn.masked_bias": torch.tensor(-1e4),
    },
}


@pytest.mark.parametrize("form", ["folder", "shards", "file"])
@pytest.mark.parametrize("architecture", HARMLESS)
def test_harmless_buffers_are_let_pass(architecture: str, form: str, bases: Path, tmp_path: Path) -> None:
    base = bases / architecture
    source = changed(base, tmp_path / "model", HARMLESS[architecture], form=form)
    wanted = LazyWeights.open(base).fingerprint
    assert Checkpoint.load(source, base=base, device="cpu").fingerprint == wanted
    assert LazyWeights.open(source, base=base).fingerprint == wanted


def test_a_tied_unembedding_that_is_stored_too_is_let_pass(bases: Path, tmp_path: Path) -> None:
    embeddings = load_file(bases / "gpt2" / "model.safetensors")["transformer.wte.weight"]
    source = changed(bases / "gpt2", tmp_path / "model", {"lm_head.weight": embeddings.clone()})
    assert Checkpoint.load(source, device="cpu").fingerprint == LazyWeights.open(bases / "gpt2").fingerprint


# -- adapters -----------------------------------------------------------------------------------------------------


def adapter(base: Path, folder: Path, **settings: object) -> Path:
    """A random LoRA adapter."""
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(Checkpoint.load(base, device="cpu").model)
    options = {"r": 2, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **settings}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wrapped = get_peft_model(model, LoraConfig(**options))
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(0, 0.1)
    wrapped.save_pretrained(folder)
    return folder


def with_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def configured(folder: Path, **settings: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


PREFIX = "base_model.model.model.layers.0.mlp"
UP = {
    f"{PREFIX}.up_proj.lora_A.weight": torch.ones(2, D_MODEL),
    f"{PREFIX}.up_proj.lora_B.weight": torch.ones(D_MLP, 2),
}
DROPPED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pair that no module takes": (
        lambda folder: with_tensors(folder, lambda held: held | UP),
        r"2 of its tensors would be left out, .*up_proj.lora_A.weight, .*up_proj.lora_B.weight\); name it there",
    ),
    "a module taken out of the config": (
        lambda folder: configured(folder, target_modules=["q_proj"]),
        r"6 of its tensors would be left out, .*layers.0.mlp.down_proj.lora_A.weight",
    ),
    "a magnitude of DoRA without DoRA": (
        lambda folder: with_tensors(
            folder, lambda held: held | {f"{PREFIX}.down_proj.lora_magnitude_vector": torch.ones(D_MODEL)}
        ),
        r"1 of its tensors would be left out, .*lora_magnitude_vector",
    ),
    "blocks beyond those of the config": (
        lambda folder: configured(folder, layers_to_transform=[0, 1]),
        r"4 of its tensors would be left out, .*layers.2.mlp",
    ),
    "half a pair": (
        lambda folder: with_tensors(folder, lambda held: dict(list(held.items())[1:])),
        r"cannot be merged into its base \(.*missing adapter keys",
    ),
    "a whole module that is not there": (
        lambda folder: configured(folder, modules_to_save=["lm_head"]),
        r"cannot be merged into its base \(no 'base_model.model.lm_head",
    ),
    "an alpha for nothing": (
        lambda folder: configured(folder, alpha_pattern={"up_proj": 99}),
        r"alpha_pattern in its adapter_config.json names no module that it changes \(up_proj\); mend it",
    ),
}


@of_peft
@pytest.mark.parametrize("what", DROPPED)
def test_what_an_adapter_would_lose_is_named(what: str, bases: Path, tmp_path: Path) -> None:
    change, message = DROPPED[what]
    folder = adapter(bases / "llama", tmp_path / "adapter")
    change(folder)
    for opening in (Checkpoint.load, Checkpoint.skeleton):
        with pytest.raises(InputError, match=message):
            opening(folder, base=bases / "llama")


@of_peft
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": ["q_proj", "down_proj", "c_fc"]},  # some of which this architecture lacks
        {"alpha_pattern": {"down_proj": 8}, "rank_pattern": {"layers.1.self_attn.q_proj": 3}},
        {"modules_to_save": ["lm_head"]},
        {"use_dora": True},
        {"use_rslora": True, "layers_to_transform": [1]},
    ],
)
def test_adapters_of_which_all_is_used_are_merged(settings: dict[str, object], bases: Path, tmp_path: Path) -> None:
    folder = adapter(bases / "llama", tmp_path / "adapter", **settings)
    skeleton = Checkpoint.skeleton(folder, base=bases / "llama")
    loaded = Checkpoint.load(folder, base=bases / "llama", device="cpu")
    assert skeleton.shapes == loaded.shapes
    assert loaded.fingerprint != LazyWeights.open(bases / "llama").fingerprint
