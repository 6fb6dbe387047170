"""What cannot be loaded is refused in one line that names it and says why; weights alone need no package to run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import call, refused
from conftest import tiny_checkpoint
from safetensors.torch import save_file

from mechinterp.errors import InputError
from mechinterp.models import names
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint("llama").save(tmp_path_factory.mktemp("whole") / "model")


def changed(whole: Path, folder: Path, file: str, **settings: object) -> Path:
    """A copy of a model with other settings in one of its JSON files."""
    shutil.copytree(whole, folder)
    held = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**held, **settings}))
    return folder


PACKAGES = {
    "bitsandbytes": ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, "optimum"),
    "awq": ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}}, "gptqm"),
    "flash attention": ({"_attn_implementation": "flash_attention_2"}, "FlashAttention2"),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_that_is_missing_is_named_with_a_remedy(package: str, whole: Path, tmp_path: Path) -> None:
    settings, named = PACKAGES[package]
    source = changed(whole, tmp_path / "model", "config.json", **settings)
    message = (
        rf"model: cannot be loaded as a causal language model \(.*{named}.*\); install the package, or take the set"
    )
    with pytest.raises(InputError, match=message):
        Checkpoint.load(source, device="cpu")


def test_weights_are_compared_without_a_kernel_of_attention(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = changed(whole, tmp_path / "model", "config.json", _attn_implementation="flash_attention_2")
    assert call("diff", whole, source) == 0
    assert "identical: all" in capsys.readouterr().out


def test_looking_at_a_skeleton_leaves_the_kernel_of_attention_as_it_was(whole: Path) -> None:
    loaded = Checkpoint.load(whole, device="cpu")
    before = loaded.model.config._attn_implementation
    assert before == "sdpa"
    assert names.HookNames(loaded.model.config).skeleton.config._attn_implementation == "eager"
    assert loaded.model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("t5", "is an encoder-decoder model"),
        ("bart", "is an encoder-decoder model"),
        ("bert", "is an encoder,"),
        ("roberta", "is an encoder,"),
        ("vit", "is another kind of model"),
    ],
)
@pytest.mark.parametrize("opening", [Checkpoint.load, Checkpoint.skeleton, LazyWeights.open])
def test_what_is_no_causal_model_is_said_to_be_none(
    kind: str, said: str, opening: Callable[..., object], whole: Path, tmp_path: Path
) -> None:
    source = changed(whole, tmp_path / "model", "config.json", model_type=kind)
    with pytest.raises(InputError, match=f"model: {kind} {said}.*not a causal language model.*give a decoder-only one"):
        opening(source)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": None}, "cannot be loaded as a causal language model .*vocab_size"),
        ({"hidden_size": "sixteen"}, "cannot be loaded as a causal language model .*hidden_size"),
        ({"num_hidden_layers": -1}, "model: "),
        ({"num_hidden_layers": 0}, "unknown to LlamaForCausalLM"),
        ({"num_attention_heads": 0}, "model: "),
        ({"num_attention_heads": 3}, "model: "),
        ({"intermediate_size": -40}, "model: no model can be built of its config"),
        ({"hidden_act": "nope"}, "model: no model can be built of its config .*nope"),
        ({"model_type": "nope"}, "cannot be loaded as a causal language model .*nope"),
        ({"model_type": None}, "cannot be loaded as a causal language model"),
    ],
)
def test_a_config_that_no_model_can_be_built_of(
    settings: dict[str, object], message: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = changed(whole, tmp_path / "model", "config.json", **settings)
    for opening in (Checkpoint.load, LazyWeights.open):
        with pytest.raises(InputError, match=message):
            opening(source)
    assert str(source) in refused(capsys, "diff", whole, source)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "[]", "config.json: should hold a JSON object, not a list"),
        ("config.json", "{", "config.json: cannot be read as JSON"),
        ("generation_config.json", "{", "generation_config.json: cannot be read as JSON"),
        ("generation_config.json", "[1]", "generation_config.json: should hold a JSON object, not a list"),
        ("tokenizer.json", "{", "model: its tokenizer cannot be read"),
        ("tokenizer.json", "[]", "model: its tokenizer cannot be read"),
        ("tokenizer_config.json", "{", "model: its tokenizer cannot be read"),
    ],
)
def test_a_damaged_file_is_named(file: str, content: str, message: str, whole: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(whole, tmp_path / "model"))
    (source / file).write_text(content)
    for opening in (Checkpoint.load, Checkpoint.skeleton):
        with pytest.raises(InputError, match=message):
            opening(source)


def test_faults_of_our_own_are_not_taken_for_the_users(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> bool:
        raise ZeroDivisionError("a fault of this package")

    monkeypatch.setattr("mechinterp.models.files.weights.is_code", broken)
    with pytest.raises(ZeroDivisionError):
        Checkpoint.load(whole, device="cpu")


def test_a_probe_of_another_shape_is_refused(tmp_path: Path) -> None:
    from mechinterp.audit.directions.probe import ToxicProbe

    file = tmp_path / "probe.safetensors"
    labels = {"probe": json.dumps({"scores": [], "seed": 0})}
    tensors = {"weight": torch.ones(2, 4), "class_means": torch.ones(2, 4), "roc": torch.ones(2, 3)}
    save_file(tensors, file, labels)
    assert ToxicProbe.load(file).direction.shape == (4,)
    for name, value in (
        ("weight", torch.ones(1, 4)),
        ("class_means", torch.ones(2, 5)),
        ("roc", torch.ones(2, 3).int()),
    ):
        save_file({**tensors, name: value}, file, labels)
        with pytest.raises(InputError, match="not a probe written by `mechinterp probe`"):
            ToxicProbe.load(file)
    save_file(tensors, file, {"probe": json.dumps({"scores": "good", "seed": 0})})
    with pytest.raises(InputError, match="scores: Input should be a valid tuple"):
        ToxicProbe.load(file)
