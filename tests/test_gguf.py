"""A GGUF file is a checkpoint like any other: read as transformers reads it, loaded, saved, compared, tuned."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from command_line import refused
from conftest import byte_tokenizer
from gguf_files import TEMPLATE, wide, write_gguf
from made_checkpoints import logits, make_adapter, perturbed
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import mechinterp as mi
from mechinterp.audit.weights_alone.diff import diff
from mechinterp.errors import InputError
from mechinterp.measures.codes import rounding
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.descriptions import read_config, read_generation
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.sources import Source

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_1")
quiet = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def as_transformers_reads(path: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return dict(model.named_parameters(remove_duplicate=False))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with untied embeddings in every type, and as a folder."""
    root = tmp_path_factory.mktemp("gguf")
    for kind in TYPES:
        write_gguf(wide("llama"), root / f"{kind}.gguf", kind)
    wide("llama").save(root / "folder")
    return root


# -- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("model", "tied"), [("llama", False), ("llama", True), ("gpt2", True), ("qwen2", True)])
def test_every_tensor_is_what_transformers_reads(model: str, tied: bool, kind: str, tmp_path: Path) -> None:
    path = write_gguf(wide(model, tie_word_embeddings=tied), tmp_path / "model.gguf", kind)
    wanted, weights, loaded = as_transformers_reads(path), LazyWeights.open(path), Checkpoint.load(path, device="cpu")
    assert set(weights.parameters) == set(loaded.shapes)
    for name in weights.parameters:
        assert torch.equal(weights.tensor(name), wanted[name]), name
        assert torch.equal(loaded.parameter(name), wanted[name]), name
        assert weights.shape(name) == tuple(weights.tensor(name).shape)
        assert weights.dtype(name) == torch.float32
    assert {weights.stored_type(name) for name in weights.parameters} == {
        "float32",
        "float32" if kind == "F32" else kind,
    }
    assert weights.fingerprint == loaded.fingerprint
    assert Checkpoint.skeleton(path).shapes == loaded.shapes


@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen2"])
def test_a_file_in_float32_is_the_model_that_was_written(model: str, tmp_path: Path) -> None:
    written = wide(model, **{"n_positions" if model == "gpt2" else "max_position_embeddings": 256})
    loaded = Checkpoint.load(write_gguf(written, tmp_path / "model.gguf"), device="cpu")
    assert loaded.fingerprint == written.fingerprint
    assert torch.equal(logits(loaded.model), logits(written.model))


K_BYTES = {"Q4_K": (144, 0), "Q6_K": (210, 208)}  # of a block of 256, and where its scales of 16 bits begin


@pytest.mark.parametrize("kind", K_BYTES)
def test_k_types_that_gguf_only_reads_are_what_transformers_reads(kind: str, tmp_path: Path) -> None:
    written = wide("llama", hidden_size=256, head_dim=64, intermediate_size=256)
    reader = gguf.GGUFReader(write_gguf(written, tmp_path / "model.gguf", "Q8_0"))
    size, place = K_BYTES[kind]
    codes = np.random.default_rng(0).integers(0, 255, (256, size), dtype=np.uint8)
    scales = np.array([0.01, 0.002], np.float16).view(np.uint8)[: size - place]  # that are finite
    codes[:, place : place + len(scales)] = scales
    copied = gguf.GGUFWriter(str(tmp_path / "k.gguf"), "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub = field.types[1] if len(field.types) > 1 else None
            copied.add_key_value(key, field.contents(), field.types[0], sub)
    for tensor in reader.tensors:
        coded = "ffn_down" in tensor.name
        stored = gguf.GGMLQuantizationType[kind] if coded else tensor.tensor_type
        copied.add_tensor(tensor.name, codes if coded else tensor.data, raw_dtype=stored)
    copied.write_header_to_file()
    copied.write_kv_data_to_file()
    copied.write_tensors_to_file()
    copied.close()
    weights, wanted = LazyWeights.open(tmp_path / "k.gguf"), as_transformers_reads(tmp_path / "k.gguf")
    name = "model.layers.1.mlp.down_proj.weight"
    assert weights.stored_type(name) == kind
    assert all(torch.equal(weights.tensor(own), wanted[own]) for own in weights.parameters)
    read = weights.tensor(name)
    gaps = read.reshape(-1, 16).sort(1).values.diff(dim=1)
    steps = gaps.masked_fill(gaps == 0, torch.inf).amin(1).nan_to_num(posinf=0.0)  # of one value: a step of 0
    inside = read + 0.1 * torch.rand(256, 256) * steps.repeat_interleave(16).reshape(256, 256)
    assert rounding(read, inside, kind) == "step"
    assert rounding(read, inside + 1, kind) is None


def test_the_config_is_the_models_own(files: Path) -> None:
    config, own = read_config(Source.find(files / "Q4_1.gguf"), trust_remote_code=False), wide("llama").model.config
    kept = ("rms_norm_eps", "rope_parameters", "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings")
    kept += ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
    assert {name: getattr(config, name) for name in kept} == {name: getattr(own, name) for name in kept}
    assert not hasattr(config, "_model_name_or_path")


def test_scaled_positions_are_read_or_refused(tmp_path: Path) -> None:
    scaled = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 8192}
    scaled |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    written = wide("llama", rope_parameters=scaled, head_dim=16)
    plain = 10000.0 ** (-torch.arange(0, 16, 2) / 16)
    divisors = (plain / written.model.model.rotary_emb.inv_freq).numpy()
    path = write_gguf(written, tmp_path / "llama3.gguf", extra={"rope_freqs.weight": divisors})
    loaded = Checkpoint.load(path, device="cpu")
    assert loaded.model.config.rope_parameters == scaled
    ids = torch.arange(200)[None]
    assert torch.equal(loaded.model(ids).logits, written.model(ids).logits)
    other = write_gguf(written, tmp_path / "other.gguf", extra={"rope_freqs.weight": divisors[::-1]})
    with pytest.raises(InputError, match="in another way than Llama 3's"):
        Checkpoint.skeleton(other)
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    path = write_gguf(wide("llama"), tmp_path / "linear.gguf", settings=linear)
    kept = read_config(Source.find(path), trust_remote_code=False).rope_parameters
    assert kept == {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    path = write_gguf(wide("llama"), tmp_path / "yarn.gguf", settings={"llama.rope.scaling.type": "yarn"})
    with pytest.raises(InputError, match=r"its positions are scaled \(yarn\)"):
        LazyWeights.open(path)


# -- the tokenizer -------------------------------------------------------------------------------------------------


def test_the_tokenizer_comes_with_its_special_tokens_and_template(files: Path, tmp_path: Path) -> None:
    own, loaded = byte_tokenizer(), Checkpoint.load(files / "Q8_0.gguf", device="cpu")
    read = loaded.tokenizer
    text = "Say YES</s> now, please: naïve\n"
    assert read(text)["input_ids"] == own(text)["input_ids"]
    assert read.get_vocab() == own.get_vocab()  # none that the model has no row for
    assert max(read("<|endoftext|>")["input_ids"]) < 264
    assert read.chat_template == TEMPLATE
    roles = ("bos_token", "eos_token", "unk_token", "pad_token")
    assert [getattr(read, role) for role in roles] == [getattr(own, role) for role in roles]
    loaded.save(tmp_path / "saved")
    again = Checkpoint.load(tmp_path / "saved", device="cpu")
    assert (again.fingerprint, again.tokenizer_fingerprint) == (loaded.fingerprint, loaded.tokenizer_fingerprint)
    assert again.tokenizer.chat_template == TEMPLATE
    assert not hasattr(again.model.config, "quantization_config")


def test_another_models_tokenizer_beside_the_file_is_not_taken(files: Path, tmp_path: Path) -> None:
    written = write_gguf(wide("llama"), tmp_path / "model.gguf")
    other = json.loads(byte_tokenizer().backend_tokenizer.to_str())
    other["model"]["merges"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "other", "eos_token": "<s>"}))
    read = Checkpoint.skeleton(written).tokenizer
    assert (read.eos_token, read.chat_template) == ("</s>", TEMPLATE)
    assert read(" Yes")["input_ids"] == byte_tokenizer()(" Yes")["input_ids"]


def test_generation_stops_at_every_end_that_the_file_names(tmp_path: Path) -> None:
    plain = write_gguf(wide("llama"), tmp_path / "plain.gguf")
    assert read_generation(Source.find(plain)).eos_token_id == 258
    first = int(logits(wide("llama").model)[0, -1].argmax())  # what would be said first, as the end of a turn
    path = write_gguf(wide("llama"), tmp_path / "turns.gguf", settings={"tokenizer.ggml.eot_token_id": first})
    loaded = Checkpoint.load(path, device="cpu")
    assert loaded.model.generation_config.eos_token_id == [258, first]
    said = loaded.model.generate(torch.tensor([[5, 6, 7, 8, 9]]), max_new_tokens=5, do_sample=False)
    assert said.tolist() == [[5, 6, 7, 8, 9, first]]
    loaded.save(tmp_path / "saved")
    assert Checkpoint.load(tmp_path / "saved", device="cpu").model.generation_config.eos_token_id == [258, first]


# -- as base and in commands ---------------------------------------------------------------------------------------


@quiet
def test_a_file_is_the_base_of_edits_adapters_and_bare_weights(files: Path, tmp_path: Path) -> None:
    base = Checkpoint.load(files / "Q8_0.gguf", device="cpu")
    name, _ = base.names.value_parameter(1)
    change = 0.1 * torch.ones_like(base.parameter(name))
    mi.WeightDelta({name: change}, 1, 0, fingerprint=base.fingerprint).save(tmp_path / "edit")
    edited = mi.load(tmp_path / "edit", base=files / "Q8_0.gguf")
    assert torch.allclose(edited.parameter(name), base.parameter(name) + change)
    assert torch.equal(LazyWeights.open(tmp_path / "edit", files / "Q8_0.gguf").tensor(name), edited.parameter(name))
    wanted = make_adapter(base, tmp_path / "adapter", names=str(files / "Q8_0.gguf"))
    assert torch.allclose(logits(mi.load(tmp_path / "adapter").model), wanted, atol=1e-4)
    perturbed(base).save(tmp_path / "tuned")
    bare = tmp_path / "tuned" / "model.safetensors"
    assert mi.load(bare, base=files / "Q8_0.gguf").fingerprint == mi.load(tmp_path / "tuned").fingerprint


def test_a_loaded_file_can_be_tuned(files: Path) -> None:
    model = Checkpoint.load(files / "Q4_1.gguf", device="cpu").model
    assert getattr(model, "hf_quantizer", None) is None
    ids = torch.tensor([[5, 6, 7, 8]])
    before = model(ids, labels=ids).loss
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.requires_grad
            parameter -= 0.05 * parameter.grad
    assert model(ids, labels=ids).loss < before


def test_the_same_weights_are_said_to_be_the_same_up_to_the_types_rounding(files: Path, tmp_path: Path) -> None:
    folder = LazyWeights.open(files / "folder")
    for kind, words in (
        ("F32", "identical: all"),
        ("F16", "nothing but rounding: .*F16 in A, float32 in B"),
        ("BF16", "nothing but rounding: .*BF16 in A"),
        ("Q8_0", "nothing but rounding: .*Q8_0 in A"),
        ("Q4_1", "nothing but rounding: .*Q4_1 in A, float32 in B"),
    ):
        found = diff(LazyWeights.open(files / f"{kind}.gguf"), folder)
        assert re.match(words, found.summary()), found.summary()
        assert found.configs is None
    read = Checkpoint.load(files / "Q4_1.gguf", device="cpu")
    read.save(tmp_path / "read")
    found = diff(LazyWeights.open(files / "Q4_1.gguf"), LazyWeights.open(tmp_path / "read"))
    assert found.summary().startswith("same values, stored in other types (Q4_1 in A, float32 in B): 23 of")


def test_a_file_written_again_in_fewer_bits_is_rounding(files: Path, tmp_path: Path) -> None:
    of_q8 = Checkpoint.load(files / "Q8_0.gguf", device="cpu")
    again = write_gguf(of_q8, tmp_path / "again.gguf", "Q4_1")
    found = diff(LazyWeights.open(files / "Q8_0.gguf"), LazyWeights.open(again))
    assert found.summary().startswith("nothing but rounding")
    apart = diff(LazyWeights.open(files / "Q8_0.gguf"), LazyWeights.open(files / "Q4_1.gguf"))  # both of the original
    assert apart.summary().startswith("nothing ")
    assert set(apart.tensors["status"]) <= {"same", "rounded", "step"}


def test_a_change_is_not_taken_for_rounding(files: Path, tmp_path: Path) -> None:
    tuned = perturbed(wide("llama"), only="layers.1.mlp.down_proj")
    tuned.save(tmp_path / "tuned")
    found = diff(LazyWeights.open(files / "Q8_0.gguf"), LazyWeights.open(tmp_path / "tuned"))
    changed = found.tensors[found.tensors["status"] == "changed"]
    assert list(changed["parameter"]) == ["model.layers.1.mlp.down_proj.weight"]
    assert found.summary().startswith("23 of")


def test_a_change_below_a_step_is_said_to_be_untellable(files: Path, tmp_path: Path) -> None:
    moved = wide("llama")
    with torch.no_grad():
        moved.parameter("model.layers.1.mlp.down_proj.weight").add_(0.002)
    moved.save(tmp_path / "moved")
    found = diff(LazyWeights.open(files / "Q4_1.gguf"), LazyWeights.open(tmp_path / "moved"))
    status = found.tensors.set_index("parameter")["status"]
    assert status["model.layers.1.mlp.down_proj.weight"] == "step"
    assert "a change smaller than a step cannot be told from rounding" in found.summary()


# -- folders of codes ----------------------------------------------------------------------------------------------


def coded(folder: Path, method: str, scale: str, **settings: object) -> Path:
    """A folder whose matrices are codes of eight bits, with their scales beside them."""
    written = wide("llama")
    written.save(folder)
    held = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            held[name.removesuffix("weight") + scale] = largest = (tensor.abs().max() / 448).reshape(1, 1)
            tensor = (tensor / largest).to(torch.float8_e4m3fn)
        held[name] = tensor
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_fp8_is_dequantised_and_saved_as_an_ordinary_folder(tmp_path: Path) -> None:
    size = {"activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    loaded, own = (
        Checkpoint.load(coded(tmp_path / "fp8", "fp8", "weight_scale_inv", **size), device="cpu"),
        wide("llama"),
    )
    for name in own.shapes:
        apart = (loaded.parameter(name).float() - own.parameter(name)).abs().max()
        assert apart <= own.parameter(name).abs().max() / 16  # three bits of a mantissa
    loaded.save(tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    assert Checkpoint.load(tmp_path / "saved", device="cpu").fingerprint == loaded.fingerprint


CODED = {"fp8": "weight_scale_inv", "compressed-tensors": "weight_scale", "bitsandbytes": "SCB", "gptq": "scales"}
CODED |= {"awq": "scales", "mxfp4": "weight_scale", "wobble": "weight_scale"}


@pytest.mark.parametrize("method", CODED)
def test_codes_are_never_read_as_weights(
    method: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"gptq": {"bits": 4}, "awq": {"bits": 4}, "bitsandbytes": {"load_in_8bit": True}}.get(method, {})
    folder = coded(tmp_path / "coded", method, CODED[method], **more)
    if method != "fp8":  # which transformers reads
        with pytest.raises(InputError, match=r"quantis|quantiz") as raised:
            Checkpoint.load(folder, device="cpu")
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"21 belong to a quantiser .* save the model dequantised"):
        LazyWeights.open(folder)
    assert "quantiser" in refused(capsys, "diff", folder, files / "folder")


# -- bad input -----------------------------------------------------------------------------------------------------


def damaged(kind: str, whole: Path, path: Path) -> str:
    content = whole.read_bytes()
    if kind == "cut in a tensor":
        path.write_bytes(content[:-40])
        return "cut short, its tensors end at byte"
    if kind == "cut in the header":
        path.write_bytes(content[:700])
        return "not a complete GGUF file"
    if kind == "empty":
        path.write_bytes(b"")
        return "not a complete GGUF file"
    if kind == "no GGUF":
        path.write_bytes(b"no such thing" * 40)
        return "not a complete GGUF file .*magic"
    if kind == "version 1":
        path.write_bytes(content[:4] + b"\x01\x00\x00\x00" + content[8:])
        return "GGUF v1"
    if kind == "lengths gone wild":
        path.write_bytes(content[:24] + b"\xff" * 8 + content[32:])
        return "not a complete GGUF file"
    if kind == "a part":
        write_gguf(wide("llama"), path, settings={"split.count": 3})
        return "one of 3 parts of a split GGUF file; join them"
    if kind == "unknown architecture":
        write_gguf(wide("llama"), path, name="wobble")
        return "architecture wobble is not supported"
    if kind == "a tensor too many":
        write_gguf(wide("llama"), path, extra={"blk.0.attn_q.bias": np.ones(64)})
        return r"1 are unknown to LlamaForCausalLM \(blk.0.attn_q.bias\)"
    assert kind == "another width"
    write_gguf(wide("llama"), path, settings={"llama.feed_forward_length": 64})
    return "other shapes than the config says"


BAD = ("cut in a tensor", "cut in the header", "empty", "no GGUF", "version 1", "lengths gone wild", "a part")
BAD += ("unknown architecture", "a tensor too many", "another width")


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line(kind: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.gguf"
    message = damaged(kind, files / "Q8_0.gguf", path)
    for opening in (Checkpoint.load, Checkpoint.skeleton, LazyWeights.open):
        with pytest.raises(InputError, match=message) as raised:
            opening(path)
        assert "\n" not in str(raised.value)
        assert str(path) in str(raised.value)
    assert str(path) in refused(capsys, "diff", path, files / "folder")


def test_a_folder_with_a_file_in_it_says_which(files: Path) -> None:
    with pytest.raises(InputError, match=r"there is a GGUF file in it; give the file: .*BF16.gguf"):
        Source.find(files)
    with pytest.raises(InputError, match="no such folder or file"):
        Source.find(files / "absent.gguf")
