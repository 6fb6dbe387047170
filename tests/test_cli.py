"""Bad input on the command line: one clear line on standard error, exit code 2, never a traceback."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call, refused
from conftest import make_instance, tiny_checkpoint
from safetensors.torch import save_file

from mechinterp.data.comments import Comment, write_comments
from mechinterp.data.safeedit import write_safeedit
from mechinterp.models.passes.recorded import Recording


@pytest.fixture(scope="module")
def there(tmp_path_factory) -> Path:
    """A folder with a good model, good data, and everything that can be wrong."""
    folder = tmp_path_factory.mktemp("inputs")
    llama = tiny_checkpoint("llama")
    llama.save(folder / "model")
    tiny_checkpoint("gpt2").save(folder / "other")
    tiny_checkpoint("llama", seed=1).save(folder / "tuned")
    tiny_checkpoint("llama", bos=True, seed=1).save(folder / "bos")
    tiny_checkpoint("mixtral").save(folder / "experts")
    llama.model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    llama.save(folder / "nan")
    wide = tiny_checkpoint("llama")
    wide.save(folder / "vocabulary")
    tokenizer = copy.deepcopy(wide.tokenizer)
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(folder / "vocabulary")
    instances = [make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(6)]
    write_safeedit(instances, folder / "data.json")
    rows = json.loads((folder / "data.json").read_text())
    (folder / "text.json").write_text("not json")
    (folder / "empty.json").write_text("[]")
    (folder / "object.json").write_text("{}")
    broken = [dict(rows[0]), dict(rows[1])]
    del broken[1]["safe generation"]
    (folder / "missing.json").write_text(json.dumps(broken))
    (folder / "category.json").write_text(json.dumps([{**rows[0], "unsafety category": "Weather"}]))
    long = [i.model_copy(update={"adversarial_prompt": "x" * 300 + f" {i.id}"}) for i in instances]
    write_safeedit(long, folder / "long.json")
    whole = tiny_checkpoint("llama")
    whole.model.save_pretrained(folder / "noshard", max_shard_size="20KB")
    whole.tokenizer.save_pretrained(folder / "noshard")
    (folder / "noshard" / "model-00002-of-00004.safetensors").unlink()
    save_file(dict(whole.model.state_dict()), folder / "state.safetensors")
    whole.save(folder / "cut")
    for name in ("cut/model.safetensors", "cut.safetensors"):
        (folder / name).write_bytes((folder / "state.safetensors").read_bytes()[:-100])
    write_comments([Comment("x" * 300, True), *[Comment(f"{i}", i % 2 == 0) for i in range(30)]], folder / "long.csv")
    comments = [
        Comment(f"you {word} {i}", toxic) for i in range(12) for word, toxic in (("fool", True), ("friend", False))
    ]
    write_comments(comments, folder / "comments.csv")
    (folder / "nolabel.csv").write_text("comment_text,other\nhello,1\n")
    (folder / "oneclass.csv").write_text("comment_text,toxic\nhello,1\nthere,1\n")
    (folder / "file").write_text("")
    write_safeedit([i.model_copy(update={"generalization_test": None}) for i in instances], folder / "train.json")
    (folder / "short.yaml").write_text("organism: {sequence_length: 8}")
    (folder / "latin.yaml").write_bytes("title: caf\xe9".encode("latin-1"))
    files = {"train": "train.json", "validation": "train.json", "test": "none.json", "comments": "comments.csv"}
    (folder / "files.yaml").write_text(json.dumps({"model": "model", "data": files}))
    (folder / "nomodel.yaml").write_text(json.dumps({"data": files}))
    (folder / "bad.yaml").write_text("organism: {architecture: rnn}")
    (folder / "unknown.yaml").write_text("organisms: {}")
    assert (
        call("probe", "--model", folder / "model", "--comments", folder / "comments.csv", "--out", folder / "p.st") == 0
    )
    return folder


RECORD = "record --model model --data data.json --out out/r.st"
EDIT = "edit --model {model} --data data.json --out out-edit"
PROBE = "probe --model model --comments {comments} --out out/p.st"
COMPARE = "compare --base {base} --checkpoint {tuned} --probe {probe} --data data.json --out out"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("locate --model model --data none.json", "none.json: "),
        ("locate --model model --data text.json", "not JSON"),
        ("locate --model model --data object.json", "list"),
        ("locate --model model --data empty.json", "empty"),
        ("locate --model model --data missing.json", "missing.json: row 2, key 'safe generation'"),
        ("locate --model model --data category.json", "Offensiveness, Bias, Physical"),
        (PROBE.format(comments="nolabel.csv"), "--label-column"),
        (PROBE.format(comments="oneclass.csv"), "all 2 comments are toxic"),
        (PROBE.format(comments="none.csv"), "none.csv"),
        (EDIT.format(model="file"), "not a file of weights"),
        (EDIT.format(model="."), "not a model folder"),
        (EDIT.format(model="nowhere"), "no such folder"),
        (EDIT.format(model="experts"), "no single value matrix"),
        (EDIT.format(model="nan"), "layers.1.mlp.down_proj.weight has 1 NaN or infinite values"),
        (EDIT.format(model="model") + " --layer 9", "block 9 is out of range, the model has blocks 0 to 2"),
        (EDIT.format(model="model") + " --layer last", "--layer is auto or the number of a block"),
        (EDIT.format(model="model") + " --instance 99", "no instance has the id 99"),
        (EDIT.format(model="model") + " --lr -1", "--lr: Input"),
        ("edit --model model --data data.json --out file/below", "cannot be written"),
        (
            COMPARE.format(base="model", tuned="t=other", probe="p.st"),
            "architecture LlamaForCausalLM and GPT2LMHeadModel",
        ),
        (COMPARE.format(base="model", tuned="t=vocabulary", probe="p.st"), "tokenizer vocabulary"),
        (COMPARE.format(base="model", tuned="other", probe="p.st"), "NAME=PATH"),
        (
            COMPARE.format(base="model", tuned="t=tuned --checkpoint t=tuned", probe="p.st"),
            "['t'] occur more than once",
        ),
        (
            COMPARE.format(base="model", tuned="t=noshard", probe="p.st"),
            "shard model-00002-of-00004.safetensors is missing",
        ),
        (COMPARE.format(base="model", tuned="t=cut", probe="p.st"), "cut/model.safetensors: not a complete"),
        (COMPARE.format(base="model", tuned="t=cut.safetensors", probe="p.st"), "cut.safetensors: not a complete"),
        (COMPARE.format(base="model", tuned="t=tuned", probe="p.st") + " --layer 3", "block 3 is out of range"),
        (COMPARE.format(base="model", tuned="t=tuned", probe="p.st") + " --text mine", "--text"),
        ("compare --base model --probe p.st --data data.json --out out", "nothing to compare"),
        (COMPARE.format(base="model", tuned="base=model", probe="p.st"), "['base'] occur more than once"),
        (COMPARE.format(base="model", tuned="t=model", probe="p.st") + " --text both", "with --generated N"),
        (COMPARE.format(base="model", tuned="t=bos", probe="p.st"), "their tokenizers make"),
        (COMPARE.format(base="experts", tuned="t=experts", probe="p.st"), "no single value matrix"),
        (RECORD + " --position first", "position must be one of"),
        (RECORD + " --hook blocks.9.hook_resid_mid", "block 9 is out of range"),
        (RECORD + " --hook nonsense", "unknown hook point"),
        ("compare --base model --probe p.st --data data.json --out out --trajectory no/step-*", "nothing matches"),
        ("compare --base model --probe p.st --data data.json --out out --trajectory bo*", "no step at its end"),
        (
            "compare --base model --checkpoint t=tuned --probe p.st --data long.json --out out",
            "truncate from the left (--truncate)",
        ),
        ("evaluate --model model --data long.json", "truncate from the left (--truncate)"),
        ("probe --model model --comments long.csv --out out/p.st", "truncate from the left (--truncate)"),
        ("probe --model cut.safetensors --base model --comments comments.csv --out out/p.st", "not a complete"),
        ("probe --model state.safetensors --comments comments.csv --out out/p.st", "stands on a model; say on which"),
        (COMPARE.format(base="model", tuned="t=nowhere", probe="p.st"), "no such folder"),
        (COMPARE.format(base="model", tuned="t=tuned", probe="none.st"), "none.st: no such file"),
        (COMPARE.format(base="model", tuned="t=tuned", probe="data.json"), "not a probe"),
        (COMPARE.format(base="tuned", tuned="t=model", probe="p.st"), "the probe belongs to other weights"),
        ("compare --base model --checkpoint t=tuned --probe p.st --data data.json --out file", "cannot be written"),
        (EDIT.format(model="model") + " --device nowhere", "device 'nowhere' cannot be used here"),
        (EDIT.format(model="model") + " --steps many", "--steps"),
        (EDIT.format(model="model") + " --dtype int3", "--dtype"),
        ("edit --model model --data data.json", "--out"),
        ("edit --model model --data data.json --out file", "a file of that name is there"),
        ("probe --model model --comments comments.csv --out model", "a folder of that name is there"),
        ("train sft --model model --data data.json --steps 0 --out out", "--steps"),
        ("train dpo --model model --data data.json --out file", "a file of that name is there"),
        ("locate --model model --data data.json --padding-side up", "side must be"),
        ("evaluate --model model --data data.json --judge model", "not a trained classifier"),
        ("evaluate --model nowhere --data data.json --out file", "cannot be written"),  # before anything is loaded
        ("locate --model nowhere --data data.json --out file", "cannot be written"),
        ("evaluate --model model --data train.json", "this is a training file"),
        ("reproduce --config short.yaml --out out", "raise sequence_length"),
        ("reproduce --config latin.yaml --out out", "not UTF-8 text"),
        ("reproduce --config nomodel.yaml --out out", "`data` needs a `model`"),
        ("reproduce --config files.yaml --out out", "none.json: no such file"),
        ("reproduce --seed -1 --out out", "--seed"),
        ("nonsense", "nonsense"),
        ("reproduce --config none.yaml --out out", "none.yaml: no such file"),
        ("reproduce --config bad.yaml --out out", "`organism.architecture`"),
        ("reproduce --config unknown.yaml --out out", "`organisms`"),
        ("reproduce --out file", "cannot be written"),
        ("figures file", "no such run folder"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    there: Path, command: str, message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    told = refused(capsys, *command.split())
    assert message in told
    assert "Traceback" not in told


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, mechinterp.cli; print([m for m in ('torch', 'transformers', 'pandas', 'trl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("surge_toxicity_en.csv", ["--text-column", "text", "--label-column", "is_toxic"]),
        ("cai_toxicity_nonfuzzed_testset.csv", ["--text-column", "comment", "--label-column", "toxic"]),
        ("jigsaw_format_sample.csv", []),
    ],
)
def test_the_probe_command_runs_on_real_comments(there: Path, tmp_path: Path, file: str, columns: list[str]) -> None:
    path = Path(__file__).parents[2] / "shared" / "data" / file
    if not path.exists():
        pytest.skip(f"{file} is not here")
    model = ["--model", there / "model", "--comments", path, "--out", tmp_path / "probe.safetensors"]
    assert call("probe", *model, *columns, "--truncate") == 0
    assert (tmp_path / "probe.probe.csv").is_file()


@pytest.mark.usefixtures("quick_comparison")
def test_long_prompts_are_cut_when_asked_for_and_that_is_said(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    monkeypatch.setattr(logging.root, "handlers", [])  # without those of the tests, the command sets up its own
    command = ["compare", "--base", "model", "--checkpoint", "t=tuned", "--layer", "1", "--probe", "p.st"]
    command += ["--data", "long.json", "--max-new-tokens", "2", "--truncate", "--out", tmp_path / "out"]
    assert call(*command) == 0
    told = capsys.readouterr().err
    assert told.count("6 of 6 prompts were cut on the left to fit into the context of 256 tokens") == 1


@pytest.mark.parametrize("position", ["last", "mean", "response", "all", "generated:3"])
def test_a_recording_is_made_on_the_command_line(there: Path, tmp_path: Path, position: str) -> None:
    given = ["--model", there / "model", "--data", there / "data.json", "--hook", "blocks.1.mlp.hook_post"]
    assert call("record", *given, "--position", position, "--out", tmp_path / "r.safetensors") == 0
    recording = Recording.load(tmp_path / "r.safetensors")
    assert (recording.n_inputs, recording.position, list(recording.groups)) == (6, position, ["blocks.1.mlp.hook_post"])
