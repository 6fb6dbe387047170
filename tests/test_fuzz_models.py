"""Damaged model folders, adapters, edits, probes, directions and recordings end in one line, whatever meets them.

Each of some 150 seeded mutations (files cut at a random byte, emptied, of another encoding, gone, or a folder in their
place; values of a wrong type under every key of a JSON file; tensors missing, added, misshapen, of another type, not
finite) goes through a command, in this process. It may work, or be refused in one line: nothing else.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call
from conftest import N_BLOCKS, PROMPTS, make_instance, tiny_checkpoint
from made_checkpoints import make_adapter
from safetensors import safe_open
from safetensors.torch import save_file

from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.data.comments import Comment
from mechinterp.data.safeedit import write_safeedit
from mechinterp.errors import InputError
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.names import h_down
from mechinterp.models.passes.recording import record
from mechinterp.runs import comparison as comparing
from mechinterp.runs import relapse as running

pytestmark = pytest.mark.filterwarnings("ignore")

SEEDS = range(120)

# Every command that takes a model, with $ for what is damaged; little is to be done where it is not damaged enough.
OF_MODELS = (
    "record --model $ --data data.json --out o.safetensors",
    "diff base $ --no-rank",
    "diff $ base --no-rank",
    "region --model base --probe probe.safetensors --draws 100 --against x=$",
    "vectors --model $ --direction direction.safetensors --top 4 --tokens 2 --no-check",
    "probe --model $ --comments comments.csv --text-column text --label-column toxic --out p.safetensors",
    "locate --model $ --data data.json",
    "compare --base base --checkpoint x=$ --probe probe.safetensors --data data.json --out c --layer 1",
    "compare --base $ --checkpoint x=base --probe probe.safetensors --data data.json --out c --layer 1",
    "relapse --base $ --checkpoint x=base --data data.json --out r --layer 1",
    "relapse --base base --checkpoint x=$ --data data.json --out r --layer 1",
    "evaluate --model $ --data data.json --limit 1 --max-new-tokens 1",
    "edit --model $ --data data.json --out e --layer 1 --steps 0",
    "train sft --model $ --data data.json --out s --steps 1 --batch-size 1",
    "train dpo --model $ --data data.json --out d --steps 1 --batch-size 1",
    "direction --model $ --kind means --data data.json --out m.safetensors",
    "direction --model $ --kind effective --probe probe.safetensors --out f.safetensors",
)
OF_ADAPTERS = (
    "record --model $ --base base --data data.json --out o.safetensors",
    "compare --base base --checkpoint x=$ --probe probe.safetensors --data data.json --out c --layer 1",
    "evaluate --model $ --base base --data data.json --limit 1 --max-new-tokens 1",
    "diff base $",
)
OF_EDITS = (
    "evaluate --model base --edit $ --data data.json --limit 1 --max-new-tokens 1",
    "record --model $ --base base --data data.json --out o.safetensors",
    "diff base $ --no-rank",
    "region --model base --probe probe.safetensors --draws 100 --against x=$",
    "relapse --base base --checkpoint x=$ --data data.json --out r --layer 1",
    "edit --model base --data data.json --out $ --layer 1 --steps 0 --mode sequential",
)
OF_PROBES = (
    "region --model base --probe $ --draws 100",
    "vectors --model base --probe $ --top 4 --tokens 0",
    "compare --base base --checkpoint x=base --probe $ --data data.json --out c --layer 1",
    "direction --model base --kind probe --probe $ --out f.safetensors",
)
OF_DIRECTIONS = (
    "vectors --model base --direction $ --top 4 --tokens 0",
    "direction --model base --kind file --direction $ --out f.safetensors",
)
OF_RECORDINGS = ("region --model base --probe probe.safetensors --draws 100 --against x=base --recording $",)
THINGS = {
    "base": OF_MODELS,
    "shards": OF_MODELS,
    "adapter": OF_ADAPTERS,
    "edit": OF_EDITS,
    "probe.safetensors": OF_PROBES,
    "direction.safetensors": OF_DIRECTIONS,
    "recording.safetensors": OF_RECORDINGS,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each thing, undamaged."""
    root = tmp_path_factory.mktemp("whole")
    base = tiny_checkpoint("llama")
    base.save(root / "base")
    shutil.copytree(root / "base", root / "shards", ignore=shutil.ignore_patterns("model.safetensors"))
    base.model.save_pretrained(root / "shards", max_shard_size="8KB")
    make_adapter(base, root / "adapter", names=str(root / "base"))
    name = base.names.value_parameter(1)[0]
    change = 0.1 * torch.ones_like(base.parameter(name))
    WeightDelta({name: change}, block=1, instance=0, fingerprint=base.fingerprint).save(root / "edit")
    comments = [Comment(f"{'you fool' if i % 2 else 'my friend'} {i}", bool(i % 2)) for i in range(24)]
    fit_probe(base, comments, seed=0).save(root / "probe.safetensors")
    ToxicDirection(torch.ones(16), "means", "anger", base.fingerprint).save(root / "direction.safetensors")
    record(base, PROMPTS, [h_down(block) for block in range(N_BLOCKS)]).save(root / "recording.safetensors")
    write_safeedit([make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(4)], root / "data.json")
    rows = [f"{comment.text},{int(comment.toxic)}" for comment in comments]
    (root / "comments.csv").write_text("\n".join(["text,toxic", *rows]) + "\n")
    return root


# -- mutations ----------------------------------------------------------------------------------------------------


def damage_bytes(path: Path, rng: random.Random) -> str:
    """Cut, emptied, garbled, in another encoding, gone, or a folder."""
    content = path.read_bytes()
    how = rng.choice(["cut", "cut", "emptied", "garbled", "garbled", "utf-16", "gone", "a folder", "latin-1", "text"])
    if how == "cut":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "garbled":
        garbled = bytearray(content)
        for _ in range(rng.choice([1, 20])):
            garbled[rng.randrange(min(len(garbled), 400))] = rng.randrange(256)
        path.write_bytes(bytes(garbled))
    elif how == "utf-16":
        path.write_bytes(content.decode("latin-1").encode("utf-16"))
    elif how == "latin-1":
        path.write_bytes("é\xff".encode("latin-1") + content)
    elif how == "text":
        path.write_text(rng.choice(["[]", "null", "3", '"config"', "[[1, 2]]", "{}"]))
    else:
        path.unlink()
        if how == "a folder":
            path.mkdir()
    return f"{path.name} {how}"


WRONG: tuple[Any, ...] = (
    None,
    "x",
    "",
    -1,
    0,
    7,
    1.5,
    1e30,
    float("nan"),
    True,
    [],
    [1],
    ["x"],
    {},
    {"x": 1},
    "\udce9",
)


def wrong_value(holder: Any, rng: random.Random) -> tuple[Any, str]:
    """A value of a wrong type under a random key, as deep as the keys go; or the key gone."""
    key = rng.choice(sorted(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    if isinstance(holder[key], (dict, list)) and holder[key] and rng.random() < 0.6:
        holder[key], where = wrong_value(holder[key], rng)
        return holder, f"{key}.{where}"
    if isinstance(holder, dict) and rng.random() < 0.15:
        del holder[key]
        return holder, f"{key} gone"
    holder[key] = rng.choice(WRONG)
    return holder, f"{key} {holder[key]!a}"


def damage_json(path: Path, rng: random.Random) -> str:
    """A wrong value in a JSON file."""
    content, where = wrong_value(json.loads(path.read_text()), rng)
    path.write_text(json.dumps(content))
    return f"{path.name}: {where}"


def damage_tensors(path: Path, rng: random.Random) -> str:
    """A tensor missing, added, misshapen, of another type or not finite; or labels with a wrong value."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    labels = [key for key, text in metadata.items() if text.startswith("{")]
    name = rng.choice(sorted(tensors))
    how = rng.choice(["missing", "added", "shape", "scalar", "type", "float8", "nan", "renamed", "empty"])
    if labels and rng.random() < 0.6:
        content, how = wrong_value(json.loads(metadata[labels[0]]), rng)
        metadata[labels[0]] = json.dumps(content)
    elif how == "missing":
        del tensors[name]
    elif how == "added":
        tensors[rng.choice(["x", f"{name}_scale", f"{name}.lora_A", name.replace(".0.", ".9.") + "."])] = torch.ones(2)
    elif how == "shape":
        tensors[name] = torch.ones(*tensors[name].shape, 2)
    elif how == "scalar":
        tensors[name] = torch.tensor(1.0)
    elif how == "type":
        tensors[name] = tensors[name].to(
            rng.choice([torch.int8, torch.int64, torch.bool, torch.float64, torch.float16])
        )
    elif how == "float8":
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    elif how == "nan":
        tensors[name] = torch.full_like(tensors[name], rng.choice([float("nan"), float("inf"), 0.0, 1e38]))
    elif how == "renamed":
        tensors[f"x.{name}"] = tensors.pop(name)
    elif how == "empty":
        tensors[name] = tensors[name][:0]
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata or None)
    return f"{path.name}: {name} {how}"


MODEL_TYPES = ("t5", "bart", "bert", "vit", "gpt2", "mamba", "nope", "", "clip", "whisper", "gemma3", "mixtral")
SETTINGS: tuple[dict[str, Any], ...] = (
    *({"quantization_config": {"quant_method": method, "bits": 4}} for method in ("bitsandbytes", "gptq", "awq", "x")),
    {"quantization_config": 3},
    {"_attn_implementation": "flash_attention_2"},
    {"attn_implementation": "nope"},
    {"num_attention_heads": 3},
    {"num_hidden_layers": 2},
    {"num_hidden_layers": 0},
    {"hidden_act": "nope"},
    {"rope_parameters": {"rope_type": "nope"}},
    {"dtype": "nope"},
    {"auto_map": {"AutoModelForCausalLM": "gone.Model", "AutoConfig": "gone.Config"}},
    {"is_encoder_decoder": True},
    {"tie_word_embeddings": True},
    {"architectures": ["Nope"]},
)


def damage_config(path: Path, rng: random.Random) -> str:
    """Another kind of model, or a setting that needs what is not there."""
    config = path / "config.json"
    change = {"model_type": rng.choice(MODEL_TYPES)} if rng.random() < 0.4 else rng.choice(SETTINGS)
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    return str(change)


def damaged(place: Path, rng: random.Random) -> str:
    """Damage a thing in one way, and say how."""
    if place.is_dir() and (place / "config.json").is_file() and rng.random() < 0.25:
        return damage_config(place, rng)
    file = place
    if place.is_dir():
        file = rng.choice(sorted(p for p in place.iterdir() if p.suffix in (".json", ".safetensors")))
    ways: list[Callable[[Path, random.Random], str]] = [damage_bytes]
    ways += 2 * [damage_json if file.suffix == ".json" else damage_tensors]
    return rng.choice(ways)(file, rng)


# -- the commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a comparison and a relapse test do once everything is open is left out: it takes too long here."""

    def stop(*_: object, **__: object) -> None:
        raise InputError("everything could be opened")

    monkeypatch.setattr(comparing, "prepare_baseline", stop)
    monkeypatch.setattr(running, "unsafe_prompts", stop)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.usefixtures("brief", "unchecked")
def test_what_is_damaged_works_or_is_refused_in_one_line(
    seed: int, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    for there in whole.iterdir():
        (tmp_path / there.name).symlink_to(there)
    monkeypatch.chdir(tmp_path)
    thing = rng.choices(list(THINGS), weights=[10, 2, 3, 4, 3, 1, 2])[0]
    place = tmp_path / f"damaged{Path(thing).suffix}"
    shutil.copytree(whole / thing, place) if (whole / thing).is_dir() else shutil.copyfile(whole / thing, place)
    commands = THINGS[thing]
    command = commands[seed % len(commands)].replace("$", place.name)
    how = damaged(place, rng)
    code = call(*command.split())
    shown = capsys.readouterr()
    assert code in (0, 2), (how, command)
    if code == 2:
        assert sum(line.startswith("mechinterp:") for line in shown.err.splitlines()) == 1, (how, command)
    assert "Traceback" not in shown.err + shown.out, (how, command)
