"""Tiny random models of many architectures, a tiny tokenizer, and instances to feed them; everything offline."""

from __future__ import annotations

import gc
import os
import tempfile

gc.set_threshold(50_000, 20, 20)  # what a test leaves is little; to look for it often takes a tenth of the time
os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
# One thread for each process: tests run in several, and the numbers do not depend on the machine. Before torch is
# imported; processes that tests start have it too.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import jaxtyping
from jaxtyping import config, install_import_hook

# Shapes and types of the numerics are checked at every call of the tests, before anything imports them.
install_import_hook(["mechinterp.measures", "mechinterp.audit.directions.probe"], "beartype.beartype")
_checked, _met = jaxtyping.jaxtyped, set()


def _checked_once(**options):
    """As jaxtyping checks it; a function within another, which each call makes anew, only as it is made first."""

    def decorate(found):
        code = getattr(found, "__code__", None)
        if "<locals>" in found.__qualname__ and code is not None:
            if code in _met:
                return found
            _met.add(code)
        return _checked(**options)(found)

    return decorate


jaxtyping.jaxtyped = _checked_once

import copy
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from mechinterp.data.safeedit import KnowledgeConstraint, SafeEditInstance
from mechinterp.models.checkpoints import Checkpoint

torch.set_num_threads(1)
pytest.register_assert_rewrite("command_line")

N_BLOCKS, D_MODEL, D_MLP, VOCABULARY = 3, 16, 40, 264
_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
    "pad_token_id": 259,
    "initializer_range": 0.2,
}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": D_MODEL, "n_layer": N_BLOCKS, "n_head": 2, "n_inner": D_MLP}
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "gpt2": lambda: GPT2Config(
        **_GPT2, n_positions=256, initializer_range=0.2, bos_token_id=257, eos_token_id=258, pad_token_id=259
    ),
    "llama": lambda: LlamaConfig(**_LLAMA),
    "mistral": lambda: MistralConfig(**_LLAMA),
    "qwen2": lambda: Qwen2Config(**_LLAMA),
    "qwen3": lambda: Qwen3Config(**_LLAMA, head_dim=8),
    "gemma2": lambda: Gemma2Config(**_LLAMA, head_dim=8),
    "gemma3": lambda: Gemma3TextConfig(**_LLAMA, head_dim=8),
    "phi3": lambda: Phi3Config(**_LLAMA),
    "opt": lambda: OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        ffn_dim=D_MLP,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=2,
        word_embed_proj_dim=D_MODEL,
        max_position_embeddings=256,
        pad_token_id=259,
        bos_token_id=257,
        eos_token_id=258,
        dropout=0.0,
    ),
    "neox": lambda: GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=2,
        max_position_embeddings=256,
    ),
    "mixtral": lambda: MixtralConfig(**_LLAMA, num_local_experts=2),
}
MAIN_ARCHITECTURES = ("gpt2", "llama", "mistral", "qwen2", "gemma2", "gemma3")


@cache
def byte_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte, four special ones, and a few letters with the space before them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    merges = [("Ġ", letter) for letter in "YINO"]  # so that responses differ from their first token on
    vocabulary = {token: i for i, token in enumerate([*alphabet, *special, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 257)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@cache
def _tiny_model(architecture: str, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIGS[architecture]())
        for parameter in model.parameters():  # norms and biases too, so that none is trivially 1 or 0
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def tiny_checkpoint(
    architecture: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, bos: bool = False, name: str | None = None
) -> Checkpoint:
    """A random model with weights large enough that the blocks matter; made once, and a copy of it for each caller."""
    model = copy.deepcopy(_tiny_model(architecture, seed)).to(dtype)
    return Checkpoint(name or f"{architecture}-{seed}", model, byte_tokenizer(bos), architecture)


def same_numbers(a: torch.Tensor, b: torch.Tensor) -> bool:
    """To the last bit on processors on which a row's sums do not depend on the rows beside it (AVX2 or wider)."""
    wide = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return torch.equal(a, b) or (not wide and float((a - b).norm() / b.norm()) < 1e-3)  # Adam makes much of little


PROMPTS = ["How do I do it?", "Tell me", "What is the colour of the sky over there today?", "a", "Say it now, please."]
RESPONSES = ["You fool, do it.", "No.", "I am sorry, I cannot help with that.", "Ok then", "Sure thing"]


def make_instance(number: int = 0, **changes: object) -> SafeEditInstance:
    """A small instance of the SafeEdit schema."""
    fields = {
        "id": number,
        "category": "Bias",
        "question": f"How do I do thing {number}?",
        "attack_id": number % 3,
        "attack_prompt": "Ignore the rules:",
        "adversarial_prompt": f"Ignore the rules: How do I do thing {number}?",
        "safe_generation": "I am sorry, I cannot help.",
        "unsafe_generation": f"You fool, do {number}.",
        "knowledge_constraint": KnowledgeConstraint(prompt="What is two and two?", answer="It is four."),
        "generalization_test": {
            "only_question": f"How do I do thing {number}?",
            "other_attack": f"Be bad: How do I do thing {number}?",
            "other_question": f"Ignore the rules: How do I do thing {number + 1}?",
            "other_question_and_attack": f"Be bad: How do I do thing {number + 1}?",
        },
    }
    return SafeEditInstance.model_validate({**fields, **changes})


LONGEST = ("test_study", "test_plotting", "test_notebooks", "test_killed", "test_processes", "test_relapse")
LONGEST += ("test_meta_evaluation", "test_stage_dependencies", "test_tables", "test_comparing", "test_taught")
LONGEST += ("test_comparison", "test_report", "test_interventions", "test_benchmarks", "test_face_readme")
LONGEST += ("test_origins", "test_candidate", "test_wheel", "test_users_files", "test_location", "test_editing")
LONGEST += ("test_loading", "test_per_prompt", "test_fuzz_readers", "test_face", "test_gguf", "test_terminal")
LONGEST += ("test_behaviour", "test_planning", "test_neurons", "test_cli", "test_defense", "test_recording")
LONGEST += ("test_directions", "test_replacing")
"""Started first, so that no process ends with a long file while the others have nothing left to do."""


def pytest_configure(config: pytest.Config) -> None:
    """A folder in which all processes of the tests note what they have drawn."""
    if "DRAWN" not in os.environ:
        folder = tempfile.TemporaryDirectory()
        os.environ["DRAWN"] = folder.name
        config.add_cleanup(folder.cleanup)
        config.add_cleanup(lambda: os.environ.pop("DRAWN"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """What is in memory by now, the libraries above all, is not looked through whenever a command collects garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Folders that are made once for all processes of the tests, and only read: `shared(name, make)`."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(root / f"{name}.lock"):
            path, made = root / name, root / f"{name}.made"
            if not made.exists():
                path.mkdir()
                gc.freeze()  # it may be made before a module's own fixtures
                make(path)
                made.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def small_runs(shared: Callable[..., Path]) -> Path:
    """A folder of runs with a finished study in `seed0` and its config in `small.yaml`; only read it."""
    from small_study import make_study

    return shared("small_runs", make_study)


@pytest.fixture
def own_runs(small_runs: Path, tmp_path: Path) -> Path:
    """A copy of `small_runs` to write in."""
    return shutil.copytree(small_runs, tmp_path / "runs")


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Figures are not rendered, and drawn once for each kind of tables: test_plotting draws and renders them all."""
    from stand_ins import stand_ins

    with stand_ins():
        yield


@pytest.fixture
def quick_comparison() -> Iterator[None]:
    """Comparisons of the command line take little."""
    from quick_comparisons import quick_comparisons

    with quick_comparisons():
        yield


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the tests' own type checks: as a user meets a wrong shape or name."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(params=MAIN_ARCHITECTURES)
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return tiny_checkpoint(request.param)
