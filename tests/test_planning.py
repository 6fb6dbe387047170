"""Plans: what is missing comes in one list, nothing is written or loaded, and sizes are those of the real things."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command_line import call
from conftest import make_instance, tiny_checkpoint
from small_study import REPOSITORY, SMALL
from transformers import DynamicCache, LlamaConfig, MistralConfig

from mechinterp.data.comments import Comment, write_comments
from mechinterp.data.pair_files import write_pairs
from mechinterp.data.pairs import Pair
from mechinterp.data.safeedit import write_safeedit
from mechinterp.errors import InputError
from mechinterp.face.studies import reproduce
from mechinterp.methods.training.trl_training import LoraSettings, _peft_config
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Silent
from mechinterp.runs.config import StudyConfig, default_study, load_config
from mechinterp.runs.planning import machine, materials, plan
from mechinterp.runs.planning.machine import Cost, Machine, cost
from mechinterp.runs.planning.materials import Materials
from mechinterp.runs.planning.plan import make_plan, missing
from mechinterp.runs.planning.shape import PUBLISHED, Shape, published_skeleton
from mechinterp.runs.planning.texts import texts_of
from mechinterp.runs.planning.works import works
from mechinterp.runs.stages import Runner, Stage
from mechinterp.runs.study import Study
from mechinterp.runs.study.made import methods_of

CONFIGS = REPOSITORY / "analyses" / "configs"
STAGES = (
    "data",
    "vanilla",
    "organism",
    "sft",
    "dpo",
    "probe",
    "locate",
    "dinm",
    "record",
    "compare",
    "origins",
    "defend",
    "relapse",
    "depth",
    "report",
)


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and the four files of data."""
    folder = tmp_path_factory.mktemp("stored")
    tiny_checkpoint("mistral").save(folder / "model")
    without = [make_instance(i, generalization_test=None) for i in range(12)]
    write_safeedit(without, folder / "train.json")
    for split, n in (("validation", 6), ("test", 5)):
        write_safeedit([make_instance(i) for i in range(n)], folder / f"{split}.json")
    write_comments([Comment(f"comment {i}", bool(i % 2)) for i in range(40)], folder / "comments.csv")
    return folder


@pytest.fixture
def own(stored: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a config on those files; `data` and other settings can be changed."""

    def write(data: dict[str, str] | None = None, **changes: object) -> Path:
        files = {name: str(stored / f"{name}.json") for name in ("train", "validation", "test")}
        files["comments"] = str(stored / "comments.csv")
        small = {key: SMALL[key] for key in ("sft", "dpo", "dinm", "edit_instances", "max_new_tokens", "comparison")}
        content = {**small, "model": str(stored / "model"), "data": {**files, **(data or {})}, **changes}
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a plan loads no model")

    monkeypatch.setattr(Checkpoint, "load", refuse)
    monkeypatch.setattr(Study, "run", refuse)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_loaded")
def test_the_embedded_study_passes_its_dry_run_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    assert call("reproduce", "--config", CONFIGS / "organism.yaml", "--dry-run") == 0
    shown = capsys.readouterr()
    assert listing(tmp_path) == before == {}
    rows = [line for line in shown.out.splitlines() if "  to be done  " in line]
    assert [row.split()[0] for row in rows] == [
        stage.name for stage in Study(default_study(), 0, tmp_path).stages(Silent())
    ]
    assert "648 training, 432 validation, 216 test instances" in shown.out
    assert "?" not in shown.out
    assert "cannot run" not in shown.err


@pytest.mark.usefixtures("nothing_loaded")
def test_a_users_own_files_are_counted_and_nothing_is_written(
    own: Callable[..., Path], stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = own()
    before = {**listing(stored), **listing(tmp_path)}
    assert call("reproduce", "--config", config, "--out", tmp_path / "run", "--dry-run") == 0
    assert {**listing(stored), **listing(tmp_path)} == before
    shown = capsys.readouterr().out
    for state in ("12 rows", "6 rows", "5 rows", "40 rows"):
        assert state in shown
    assert "40 comments read" in shown
    assert "3 edits of up to 3 steps" in shown
    assert "5 x 3 prompts" in shown
    pairs = [Pair(id=i, prompt=f"Say {i}.", unsafe=f"Yes {i}.", safe=f"No {i}.") for i in range(8)]
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    given = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "pairs.jsonl"))
    assert call("reproduce", "--config", own(given, studied=["sft"]), "--out", tmp_path / "run", "--dry-run") == 0
    assert "1 x 3 prompts" in capsys.readouterr().out  # of a pair there is one


def test_everything_that_is_missing_is_in_one_list(
    own: Callable[..., Path], stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Seven mistakes at once; the run itself refuses with the same list, before it does anything."""
    model, judge = tmp_path / "sharded", tmp_path / "judge"
    judge.mkdir()
    model.mkdir()
    (model / "config.json").write_text((stored / "model" / "config.json").read_text())
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "columns.csv").write_text("text,label\nfool,1\n")
    data = {
        "train": str(tmp_path / "nowhere.json"),
        "test": str(stored / "train.json"),
        "comments": str(tmp_path / "columns.csv"),
    }
    config = own(data, model=str(model), judge=str(judge), device="gpu:0")
    arguments = ["reproduce", "--config", config, "--out", tmp_path / "run"]
    before = listing(tmp_path)
    assert call(*arguments, "--dry-run") == 2
    planned = capsys.readouterr().err
    for once in (
        "shard model-1.safetensors is missing (2 of 2 are)",
        "there are no tokenizer files in it",
        "judge: not a model folder",
        "nowhere.json: no such file",
        "train.json: instance 0 has no `generalization test`",
        "has no column 'comment_text'",
        "device 'gpu:0' cannot be used here",
    ):
        assert planned.count(once) == 1, once
    assert "; 7 to put right:" in planned
    assert call(*arguments) == 2
    assert capsys.readouterr().err == planned
    assert call("benchmark", "--method", "vanilla", *arguments[1:], "--dry-run") == 2
    assert capsys.readouterr().err == planned
    with pytest.raises(InputError, match=r"nowhere\.json: no such file"):
        reproduce(config, out=tmp_path / "run")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", ["mistral-7b", "mistral-7b-released", "llama2-7b-chat", "llama2-7b-chat-released"])
def test_a_7b_study_is_planned_from_its_config_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = MistralConfig() if "mistral" in name else LlamaConfig(max_position_embeddings=4096)
    parameters = 7_241_732_096 if "mistral" in name else 6_738_415_616
    shape.architectures = ["MistralForCausalLM" if "mistral" in name else "LlamaForCausalLM"]
    shape.save_pretrained(tmp_path / "seven")
    shards = [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    index = {"weight_map": {f"tensor{i}": shard for i, shard in enumerate(shards)}}
    (tmp_path / "seven" / "model.safetensors.index.json").write_text(json.dumps(index))
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    (tmp_path / "seven.yaml").write_text(yaml.safe_dump({**content, "model": str(tmp_path / "seven"), "device": "cpu"}))
    monkeypatch.setattr(plan, "free_disk", lambda _: 10**12)
    assert call("reproduce", "--config", tmp_path / "seven.yaml", "--out", tmp_path / "run", "--dry-run") == 2
    shown = capsys.readouterr()
    assert f"{parameters:,} parameters" in shown.out
    assert "in float32, 32 blocks" in shown.out
    assert all(f"\n{stage}  " in shown.out for stage in STAGES if stage != "vanilla")
    assert "500 steps of 16 instances from 4,050; adapters of rank 16" in shown.out
    assert f"shard {shards[0]} is missing (3 of 3 are)" in shown.err
    assert sum("no such file" in line for line in shown.err.splitlines()) == 4


# -- what is there ----------------------------------------------------------------------------------------------------


def test_a_hub_id_is_looked_for_in_the_cache_alone(
    own: Callable[..., Path], stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(own(model="somebody/something"))
    monkeypatch.setattr(materials, "try_to_load_from_cache", lambda *_: None)
    (problem,) = Materials.of(config).problems
    assert "not in the cache while HF_HUB_OFFLINE is set" in problem
    monkeypatch.setattr(materials.constants, "HF_HUB_OFFLINE", False)
    found = Materials.of(config)
    assert not found.problems
    assert "the network is needed" in found.found[0][2]
    monkeypatch.setattr(materials, "try_to_load_from_cache", lambda *_: str(stored / "model" / "config.json"))
    found = Materials.of(config)
    assert found.found[0][2].startswith("here, ")
    assert found.skeleton is not None
    assert found.skeleton.device.type == "meta"


def test_a_damaged_file_and_a_model_without_value_matrices_are_refused(
    own: Callable[..., Path], tmp_path: Path
) -> None:
    tiny_checkpoint("llama").save(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (problem,) = Materials.of(load_config(own(model=str(tmp_path / "cut")))).problems
    assert "not a complete safetensors file" in problem
    tiny_checkpoint("mixtral").save(tmp_path / "experts")
    study = Study(load_config(own(model=str(tmp_path / "experts"))), 0, tmp_path / "run")
    (problem,) = make_plan(study).problems
    assert "no single value matrix" in problem
    tiny_checkpoint("gemma2").save(tmp_path / "gemma")
    study = Study(load_config(own(model=str(tmp_path / "gemma"), circuits={})), 0, tmp_path / "run")
    (problem,) = missing(study)
    assert "no circuits are defined for Gemma2ForCausalLM" in problem
    with pytest.raises(InputError, match=r"`circuits\.steps`: Input should be greater than or equal to 1"):
        load_config(own(circuits={"steps": 0}))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about how peft calls it
def test_an_adapter_is_looked_at_down_to_its_base(own: Callable[..., Path], stored: Path, tmp_path: Path) -> None:
    from peft import get_peft_model

    base = tiny_checkpoint("mistral")
    get_peft_model(base.model, _peft_config(LoraSettings(rank=2))).save_pretrained(tmp_path / "adapter")
    settings = tmp_path / "adapter" / "adapter_config.json"
    for place, problems in ((stored / "model", 0), (tmp_path / "gone", 1)):
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": str(place)}))
        found = Materials.of(load_config(own(model=str(tmp_path / "adapter"))))
        assert len(found.problems) == problems
        assert (found.skeleton is not None) == (problems == 0)


def test_texts_that_are_sure_to_be_too_long_are_found_first(own: Callable[..., Path], tmp_path: Path) -> None:
    write_safeedit([make_instance(1, adversarial_prompt="word " * 60)], tmp_path / "long.json")
    study = Study(load_config(own({"test": str(tmp_path / "long.json")})), 0, tmp_path / "run")
    (problem,) = missing(study)
    assert "a test prompt has 300 tokens, where there is room for" in problem
    cut = study.config.model_copy(update={"truncate": True})
    assert missing(Study(cut, 0, tmp_path / "run")) == ()
    write_safeedit([make_instance(1, safe_generation="word " * 60)], tmp_path / "long.json")
    study = Study(load_config(own({"train": str(tmp_path / "long.json")})), 0, tmp_path / "run")
    assert [problem.split(":")[0] for problem in missing(study)] == ["sft", "dpo"]


def test_a_finished_run_needs_nothing_any_more(own: Callable[..., Path], tmp_path: Path) -> None:
    study = Study(load_config(own(model=str(tmp_path / "gone"))), 0, tmp_path / "run")
    assert len(missing(study)) == 1
    (tmp_path / "run" / "stages").mkdir(parents=True)
    for stage in study.stages(Silent()):
        assert len(missing(study)) == 1
        (tmp_path / "run" / "stages" / f"{stage.name}.json").write_text("{}")
    assert missing(study) == ()


# -- stages -----------------------------------------------------------------------------------------------------------


def test_what_the_runner_foresees_is_what_it_does(tmp_path: Path) -> None:
    def stage(name: str, needs: tuple[str, ...] = (), settings: int = 0) -> Stage:
        return Stage(name, lambda: (tmp_path / name).write_text(f"{settings}"), [name], needs=needs, settings=settings)

    def foreseen(*stages: Stage) -> list[bool]:
        runner = Runner(tmp_path)
        return [runner.foresee(one) for one in stages]

    stages = [stage("a"), stage("b", ("a",)), stage("c")]
    assert foreseen(*stages) == [False, False, False]
    runner = Runner(tmp_path)
    assert [runner.run(one) for one in stages] == [True, True, True]
    assert foreseen(*stages) == [True, True, True]
    changed = [stage("a", settings=1), *stages[1:]]
    assert foreseen(*changed) == [False, False, True]
    runner = Runner(tmp_path)
    assert [runner.run(one) for one in changed] == [True, True, False]
    (tmp_path / "c").unlink()
    assert foreseen(*changed) == [True, True, False]


# -- sizes and costs --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "qwen3", "gemma2"])
def test_sizes_are_those_of_the_model_itself(architecture: str) -> None:
    from peft import get_peft_model

    checkpoint = tiny_checkpoint(architecture)
    shape = Shape.of(checkpoint.names.skeleton, "float32")
    assert shape.parameters == sum(parameter.numel() for parameter in checkpoint.model.parameters())
    assert shape.value_matrix == checkpoint.value_matrix(0).numel()
    assert shape.neurons == checkpoint.names.n_blocks * len(checkpoint.value_matrix(0))
    cache = DynamicCache(config=checkpoint.model.config)
    checkpoint.model(torch.ones(1, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert shape.key_values == kept / 7
    adapted = get_peft_model(checkpoint.model, _peft_config(LoraSettings(rank=3)))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert 3 * shape.features == trained


SHAPE = Shape.of(tiny_checkpoint("mistral").names.skeleton, "float32")


def costs_of(**settings: object) -> dict[str, Cost]:
    config = StudyConfig.model_validate({**SMALL, **settings})
    methods, fast = methods_of(Study(config, 0, Path("nowhere"))), Machine(torch.device("cpu"), 2.0**40, 1e12, 1e11)
    texts = texts_of(Materials(), config)
    found = works(config, methods, texts, SHAPE)
    return {name: cost(work, SHAPE, fast, texts.prompt) for name, work in found.items()}


def test_costs_follow_the_settings() -> None:
    base = costs_of()
    assert set(base) == {*STAGES, "never"}
    sft = {"steps": 4, "batch_size": 4, "max_length": 256}
    small = costs_of(sft={**sft, "extra": {"gradient_checkpointing": True}})["sft"]
    assert small.memory < base["sft"].memory  # activations are kept or computed again
    assert small.seconds > base["sft"].seconds
    assert costs_of(sft={**sft, "steps": 8})["sft"].seconds > base["sft"].seconds
    assert costs_of(edit_instances=6)["dinm"].disk == 2 * base["dinm"].disk
    assert costs_of(max_new_tokens=60)["defend"].seconds > base["defend"].seconds
    two = {**SMALL["relapse"], "draws": 0, "treatments": ["activations", "values"]}
    fewer = costs_of(relapse=two)
    assert fewer["relapse"].seconds < base["relapse"].seconds
    one, two = (costs_of(circuits={"pairs": pairs})["circuits"].seconds for pairs in (1000, 2000))
    assert one < two < 2 * one
    # full fine-tuning keeps five copies: where it started, the copy, its gradient and Adam's two means; DPO a reference
    assert base["sft"].memory > 5 * SHAPE.weights
    assert base["dpo"].memory - base["sft"].memory >= SHAPE.weights


def test_a_plan_is_of_the_order_of_what_a_run_left(small_runs: Path) -> None:
    """Parameters, counts and bytes of a finished run beside what its plan says; a wrong unit or factor shows."""
    study = Study.open(small_runs / "seed0")
    found = make_plan(study)
    stages = found.stages.set_index("stage")
    assert set(stages["state"]) == {"up to date"}
    parameters = sum(parameter.numel() for parameter in study.checkpoint("vanilla").model.parameters())
    assert f"model: {parameters:,} parameters" in found.notes[1]
    edits, located = len(list(study.edits())), len(study.blocks)
    assert stages["does"]["dinm"].startswith(f"{edits} edits")
    assert stages["does"]["locate"].startswith(f"{located} pairs")
    left = {
        stage.name: sum(map(bytes_of, (study.folder / made for made in stage.makes)))
        for stage in study.stages(Silent())
    }
    for name in ("vanilla", "sft", "dpo", "locate", "dinm", "record"):
        assert left[name] / 3 < stages["disk"][name] < 3 * left[name], name
    assert sum(left.values()) / 3 < stages["disk"].sum() < 3 * sum(left.values())


def bytes_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(map(bytes_of, path.iterdir()))


def test_a_method_that_nobody_reckoned_is_planned_by_its_line() -> None:
    config = StudyConfig.model_validate({**SMALL, "studied": ["ft_l", "dpo"]})
    methods = methods_of(Study(config, 0, Path("nowhere")))
    assert [method.name for method in methods] == ["ft_l", "sft", "dpo"]
    found = works(config, methods, texts_of(Materials(), config), None)
    assert found["ft_l"].does == "one block's MLP fine-tuned on one instance"
    assert "read by 3 checkpoints" in found["record"].does


def test_too_little_memory_warns_and_weights_that_cannot_fit_refuse(
    own: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(load_config(own()), 0, tmp_path / "run")
    weights = Shape.of(tiny_checkpoint("mistral").names.skeleton).weights

    def with_memory(memory: float) -> plan.Plan:
        monkeypatch.setattr(plan.Machine, "measure", lambda device, *_: Machine(device, memory, 1e12, 1e11))
        return make_plan(study)

    def warnings(found: plan.Plan) -> list[str]:
        return [note for note in found.notes if note.startswith("warning: ")]

    assert warnings(with_memory(2.0**40)) == []
    assert with_memory(2.0**40).problems == with_memory(2.0 * weights).problems == ()
    assert "sft" in warnings(with_memory(2.0 * weights))[0]
    (problem,) = with_memory(0.5 * weights).problems
    assert problem.startswith("memory: the weights alone take")
    monkeypatch.setattr(plan, "free_disk", lambda _: 10)
    (problem,) = with_memory(2.0**40).problems
    assert problem.startswith("disk: ")


def test_the_machine_is_measured_and_its_memory_read() -> None:
    found = Machine.measure(torch.device("cpu"), torch.float32, False)
    assert found.speed > 0
    assert found.bandwidth > 0
    assert found.memory == machine.main_memory() > 2**28


# -- configs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mistral-7b", "llama2-7b-chat"])
def test_the_released_config_differs_from_the_published_one_by_its_two_switches(name: str) -> None:
    published, released = (load_config(CONFIGS / f"{name}{ending}.yaml") for ending in ("", "-released"))
    dinm = released.dinm.model_copy(update={"constraint": "published"})
    same = {"title": published.title, "dinm": dinm, "reuse_first_layer": False}
    assert released.dinm.released
    assert released.reuse_first_layer
    assert released.model_copy(update=same) == published


@pytest.mark.parametrize(("name", "model"), [("mistral-7b", "Mistral-7B-v0.1"), ("llama2-7b-chat", "LLaMA2-7B-Chat")])
def test_the_published_settings_are_in_the_configs(name: str, model: str) -> None:
    """Against the list of what the paper prints and the released files hold."""
    settings = yaml.safe_load((REPOSITORY / "analyses" / "published.yaml").read_text())["settings"]["dinm"]
    printed = {**settings["common"], **settings[model]}
    config = load_config(CONFIGS / f"{name}.yaml")
    for key in ("steps", "c_edit", "weight_decay", "max_input_tokens", "max_output_tokens", "learning_rate"):
        assert getattr(config.dinm, key) == printed[key], key
    assert config.dinm.norm_bound is printed["norm_constraint"] is None
    assert config.max_new_tokens == printed["max_output_tokens"]
    written = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["dinm"]
    assert {"steps", "learning_rate", "c_edit", "weight_decay", "suffix", "optimiser", "constraint"} <= set(written)
    assert config.dinm.suffix == StudyConfig().dinm.suffix


def test_the_shapes_of_the_published_models_are_known_before_they_are_here() -> None:
    parameters = {}
    for model in PUBLISHED:
        skeleton = published_skeleton(model)
        assert skeleton is not None
        parameters[model] = sum(p.numel() for p in skeleton.parameters())
    assert parameters == {  # as their model cards say: 7.24, 6.74 and 0.355 billion
        "mistralai/Mistral-7B-v0.1": 7_241_732_096,
        "meta-llama/Llama-2-7b-chat-hf": 6_738_415_616,
        "openai-community/gpt2-medium": 354_823_168,
    }
    assert published_skeleton("someone/else") is None
