"""Loading, fingerprints, lazy reads, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, MAIN_ARCHITECTURES, N_BLOCKS, tiny_checkpoint
from safetensors.torch import load_file, save_file

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable
from mechinterp.models.files.configs import unlike_configs
from mechinterp.models.files.stored_checkpoint import StoredCheckpoint
from mechinterp.models.files.weights import LazyWeights, fingerprint_model


def files_of(source: str | Path, base: str | Path | None = None) -> tuple[Path, ...]:
    return StoredCheckpoint.find(source, base).files


@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "opt", "phi3", "qwen3"])
def test_a_saved_checkpoint_is_the_same_checkpoint(architecture: str, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(architecture)
    loaded = Checkpoint.load(checkpoint.save(tmp_path / "model"), device="cpu")
    lazy = LazyWeights.open(tmp_path / "model")
    assert loaded.name == "model"
    assert loaded.fingerprint == checkpoint.fingerprint == lazy.fingerprint
    for block in range(N_BLOCKS):
        assert torch.equal(lazy.value_matrix(block), checkpoint.value_matrix(block))
        assert checkpoint.value_matrix(block).shape == (40, 16)


def test_the_fingerprint_sees_one_changed_number() -> None:
    a, b = tiny_checkpoint("llama"), tiny_checkpoint("llama")
    assert a.fingerprint == b.fingerprint
    c = tiny_checkpoint("llama")
    c.model.model.layers[1].mlp.down_proj.weight.data[3, 5] += 1e-6
    assert c.fingerprint != a.fingerprint


def test_the_final_norms_gain_is_what_it_applies(checkpoint: Checkpoint) -> None:
    gain, subtracts_mean = checkpoint.final_norm_gain()
    norm = checkpoint.module("ln_final")
    assert subtracts_mean == isinstance(norm, torch.nn.LayerNorm)
    stored = norm.weight.detach() + (1.0 if "Gemma" in type(norm).__name__ else 0.0)
    torch.testing.assert_close(gain, stored, rtol=1e-4, atol=1e-5)


def remove_tokenizer(folder: Path) -> Path:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    return folder


def damage(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "nan":
        checkpoint = tiny_checkpoint("llama")
        checkpoint.model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
        checkpoint.save(folder)
    elif how == "no weights":
        weights.unlink()
    elif how == "other shapes":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    elif how == "no weight":
        tensors = load_file(weights)
        del tensors["model.layers.1.mlp.down_proj.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    elif how == "no tokenizer":
        remove_tokenizer(folder)
    elif how == "damaged tokenizer":
        (folder / "tokenizer.json").write_text("{")
    elif how == "damaged config":
        (folder / "config.json").write_text("{")
    elif how == "also an adapter":
        (folder / "adapter_config.json").write_text("{}")
    elif how == "gone":
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no config", "not a model folder"),
        ("truncated", "model.safetensors: not a complete safetensors file"),
        ("nan", "layers.1.mlp.down_proj.weight has 1 NaN or infinite values"),
        ("no weights", "no weights in it; there should be model.safetensors or"),
        ("other shapes", r"9 have other shapes than the config says .*\(40, 16\) instead of \(48, 16\)"),
        ("no weight", "1 weight is missing .model.layers.1.mlp.down_proj.weight"),
        ("no tokenizer", "there are no tokenizer files in it; give the base that has one"),
        ("damaged tokenizer", "its tokenizer cannot be read"),
        ("damaged config", "config.json: cannot be read as JSON"),
        ("also an adapter", "holds a whole model and an adapter"),
        ("gone", "no such folder"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(how: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_checkpoint("llama").save(folder)
    damage(folder, how)
    with pytest.raises(InputError, match=message):
        Checkpoint.load(folder, device="cpu")


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dtype must be one of"):
        Checkpoint.load(tmp_path, dtype="int3")


@pytest.mark.parametrize("opening", [Checkpoint.skeleton, Checkpoint.load])
def test_a_skeleton_finds_what_needs_no_numbers(opening: object, tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama").save(tmp_path / "model")
    damage(folder, "truncated")
    with pytest.raises(InputError, match="not a complete safetensors file"):
        opening(folder)  # type: ignore[operator]


def test_a_folder_without_tokenizer_takes_that_of_the_base_and_nothing_else(tmp_path: Path) -> None:
    folder = remove_tokenizer(tiny_checkpoint("llama").save(tmp_path / "model"))
    base = tiny_checkpoint("llama", seed=1, bos=True).save(tmp_path / "base")
    for checkpoint in (Checkpoint.load(folder, base=base, device="cpu"), Checkpoint.skeleton(folder, base=base)):
        assert checkpoint.tokenizer("a")["input_ids"][0] == 257
        assert checkpoint.name == "model"
    loaded = Checkpoint.load(folder, base=base, device="cpu")
    assert loaded.fingerprint == tiny_checkpoint("llama").fingerprint


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_type_that_is_asked_for_is_that_of_every_parameter(dtype: str, tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama", dtype=torch.bfloat16).save(tmp_path / "model")
    loaded = Checkpoint.load(folder, dtype=dtype, device="cpu")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}
    stored = Checkpoint.load(folder, device="cpu")
    assert {parameter.dtype for parameter in stored.model.parameters()} == {torch.bfloat16}


def test_a_model_may_be_its_own_base_and_be_spread_over_devices(tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama").save(tmp_path / "model")
    for options in ({"base": folder}, {"device_map": "cpu"}, {"device_map": "auto"}):
        assert Checkpoint.load(folder, **options).fingerprint == tiny_checkpoint("llama").fingerprint  # type: ignore[arg-type]
    with pytest.raises(InputError, match="device 'nowhere' cannot be used here"):
        Checkpoint.load(folder, device="nowhere")


@pytest.mark.parametrize(
    ("device_map", "away"),
    [({"": "cpu"}, 0), ("meta", 30), ({"model": "cpu", "lm_head": "disk"}, 1)],
)
def test_weights_that_were_offloaded_are_refused(device_map: object, away: int, tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama").save(tmp_path / "model")
    if not away:
        loaded = Checkpoint.load(folder, device_map=device_map)  # type: ignore[arg-type]
        assert loaded.fingerprint == tiny_checkpoint("llama").fingerprint
        return
    with pytest.raises(
        InputError, match=rf"model: {away} weights? w(?:as|ere) not put on a device but offloaded \(lm_head"
    ):
        Checkpoint.load(folder, device_map=device_map)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nothing", "no such folder or file"),
        ("runs/of/mine", "no such folder or file"),
        ("model.safetensors", "no such folder or file"),
        ("a name", "no such folder or file"),
        ("nobody/nothing", "no such folder, and as a hub id it cannot be loaded"),
        ("nothing-of-that-name", "no such folder, and as a hub id it cannot be loaded"),
    ],
)
@pytest.mark.parametrize("opening", [Checkpoint.load, Checkpoint.skeleton])
def test_what_is_not_there_is_said_to_be_not_there(opening: object, source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opening(source)  # type: ignore[operator]


def test_a_hub_id_opens_from_the_cache_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for repository in ("models--someone--tiny", "models--tiny"):
        commit = "0" * 40
        tiny_checkpoint("llama").save(tmp_path / repository / "snapshots" / commit)
        (tmp_path / repository / "refs").mkdir()
        (tmp_path / repository / "refs" / "main").write_text(commit)
    for source in ("someone/tiny", "tiny"):
        loaded = Checkpoint.load(source, device="cpu")
        assert (loaded.name, loaded.source) == ("tiny", source)
        assert loaded.fingerprint == tiny_checkpoint("llama").fingerprint
        assert files_of(source) == ()
    check_comparable(loaded, [Checkpoint.skeleton("someone/tiny")])


def test_what_can_be_compared_is_seen_without_weights(tmp_path: Path) -> None:
    base = Checkpoint.skeleton(tiny_checkpoint("llama").save(tmp_path / "base"))
    assert {parameter.device.type for parameter in base.model.parameters()} == {"meta"}
    check_comparable(base, [tiny_checkpoint("llama", seed=1)])  # weights may differ
    with pytest.raises(InputError, match="architecture LlamaForCausalLM and GPT2LMHeadModel"):
        check_comparable(base, [Checkpoint.skeleton(tiny_checkpoint("gpt2").save(tmp_path / "gpt2"))])
    tiny_checkpoint("llama").save(tmp_path / "other")
    tokenizer = tmp_path / "other" / "tokenizer.json"
    tokenizer.write_text(
        tokenizer.read_text().replace('"ĠY": 260', '"ĠZ": 260').replace('"Ġ",\n        "Y"', '"Ġ", "Z"')
    )
    with pytest.raises(InputError, match=r"264 and 264 tokens; 2 differ, for example 'ĠY': id 260 and none"):
        check_comparable(base, [Checkpoint.skeleton(tmp_path / "other")])


def resaved(folder: Path, changes: dict) -> Path:
    """Change what a config.json says; the weights stay. None takes a setting away."""
    file = folder / "config.json"
    held = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in held.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        (
            "llama",
            {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 4},
            r"num_attention_heads \(2 and 4",
        ),
        ("llama", {"hidden_act": "gelu"}, r"the config: hidden_act \(silu and gelu\)$"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            r"rope_theta \(10000.0 and 500000.0",
        ),
        ("llama", {"rope_parameters": None, "rope_theta": 5e5}, r"rope_theta \(10000.0 and 500000.0"),
        ("llama", {"rms_norm_eps": 1e-5}, r"rms_norm_eps \(1e-06 and 1e-05"),
        (
            "gpt2",
            {"n_head": 4, "activation_function": "relu"},
            r"activation_function \(gelu_new and .*, n_head \(2 and 4",
        ),
        ("gemma2", {"final_logit_softcapping": 20.0}, "final_logit_softcapping"),
        ("mistral", {"sliding_window": 8}, r"sliding_window \(4096 and 8"),
    ],
)
def test_configs_that_compute_another_function_are_not_comparable(
    architecture: str, changes: dict, message: str, tmp_path: Path
) -> None:
    base = Checkpoint.skeleton(tiny_checkpoint(architecture).save(tmp_path / "base"))
    other = Checkpoint.skeleton(resaved(tiny_checkpoint(architecture).save(tmp_path / "other"), changes))
    assert other.shapes == base.shapes
    with pytest.raises(InputError, match=message):
        check_comparable(base, [other])


_OLD = {
    "transformers_version": "4.38.0",
    "torch_dtype": "float16",
    "dtype": None,
    "_name_or_path": "/a/b",
    "use_cache": False,
}


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {"rope_parameters": None, "head_dim": None, "rope_theta": 10000.0, "pretraining_tp": 2}),
        (
            "llama",
            {"attention_dropout": 0.1, "eos_token_id": [258, 260], "initializer_range": 0.5, "unsloth_version": "1"},
        ),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000}, "max_position_embeddings": 512}),
        ("gpt2", {"n_ctx": 1024, "resid_pdrop": 0.0, "task_specific_params": {"text-generation": {"max_length": 50}}}),
        ("qwen2", {"max_window_layers": 2, "sliding_window": 32, "layer_types": None, "rope_parameters": None}),
        ("gemma3", {"layer_types": None, "rope_parameters": None, "rope_local_base_freq": 1e4, "rope_theta": 1e6}),
        ("neox", {"rope_parameters": None, "rotary_pct": 0.25, "rotary_emb_base": 10000}),
        ("mixtral", {"head_dim": 8, "router_aux_loss_coef": 0.02, "output_router_logits": True}),
        ("phi3", {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": None}),
    ],
)
def test_saves_of_one_model_by_other_versions_and_tools_are_comparable(
    architecture: str, changes: dict, tmp_path: Path
) -> None:
    base = Checkpoint.skeleton(tiny_checkpoint(architecture).save(tmp_path / "base"))
    folder = resaved(tiny_checkpoint(architecture).save(tmp_path / "other"), {**_OLD, **changes})
    check_comparable(base, [Checkpoint.skeleton(folder)])


def test_the_length_of_a_model_counts_where_its_rope_depends_on_it() -> None:
    for kind, counts in (("default", False), ("linear", False), ("dynamic", True)):
        a, b = CONFIGS["llama"](), CONFIGS["llama"]()
        for config in (a, b):
            config.rope_parameters = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}
        b.max_position_embeddings = 512
        assert unlike_configs(a, b) == ("max_position_embeddings (256 and 512)" if counts else None)


def test_only_the_first_settings_are_written_out() -> None:
    a, b = CONFIGS["llama"](), CONFIGS["llama"]()
    b.hidden_act, b.rms_norm_eps, b.num_attention_heads, b.num_key_value_heads = "gelu", 1.0, 4, 4
    assert (
        unlike_configs(a, b)
        == "hidden_act (silu and gelu), num_attention_heads (2 and 4), num_key_value_heads (2 and 4), 1 more"
    )


def test_the_files_of_a_folder_are_those_that_determine_it(tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama").save(tmp_path / "model")
    for name in ("optimizer.pt", "trainer_state.json", "training_args.bin", "README.md"):
        (folder / name).write_text("{}")
    names = [path.name for path in files_of(folder)]
    assert names == sorted(names)
    assert set(names) == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    }


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_transformer_lens_gets_a_copy(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    ids = torch.tensor([[5, 6, 7, 8]])
    inputs: list[torch.Tensor] = []
    with torch.no_grad():
        handle = checkpoint.module("blocks.1.mlp.out").register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        before = checkpoint.model(ids).logits
        handle.remove()
        fingerprint = checkpoint.fingerprint
        modules = [type(module) for module in checkpoint.model.modules()]
        bridge = checkpoint.to_transformer_lens()
        logits, cache = bridge.run_with_cache(ids)
        assert torch.equal(checkpoint.model(ids).logits, before)
    assert [type(module) for module in checkpoint.model.modules()] == modules
    assert fingerprint_model(checkpoint.model) == fingerprint
    torch.testing.assert_close(logits, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cache["blocks.1.mlp.hook_post"], inputs[0], rtol=1e-5, atol=1e-5)
    assert cache["blocks.1.mlp.hook_post"].abs().max() > 0


def test_code_that_comes_with_a_checkpoint_runs_only_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    folder = tiny_checkpoint("llama").save(tmp_path / "model")
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        'class OwnConfig(LlamaConfig):\n    model_type = "own"\n\n\n'
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    config |= {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": own}
    (folder / "config.json").write_text(json.dumps(config))
    for opening in (Checkpoint.load, Checkpoint.skeleton, LazyWeights.open):
        with pytest.raises(InputError, match="contains custom code which must be executed"):
            opening(folder)
    assert not (tmp_path / "modules").exists()
    loaded = Checkpoint.load(folder, device="cpu", trust_remote_code=True)
    assert type(loaded.model).__name__ == type(loaded.names.skeleton).__name__ == "OwnForCausalLM"
    assert loaded.fingerprint == LazyWeights.open(folder, trust_remote_code=True).fingerprint
    check_comparable(loaded, [Checkpoint.skeleton(folder, trust_remote_code=True)])
