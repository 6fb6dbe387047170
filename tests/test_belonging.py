"""What was made with a model is refused under another tokenizer, which reads other tokens; padding aside."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import call, refused
from conftest import D_MODEL, N_BLOCKS, PROMPTS, byte_tokenizer, make_instance, tiny_checkpoint
from tokenizers.processors import TemplateProcessing

from mechinterp.audit.directions.making import means_direction
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.data.comments import Comment
from mechinterp.data.concepts import Concept
from mechinterp.errors import InputError
from mechinterp.methods.editing.dinm import DinmSettings, edit
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.names import h_down
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.recording import record
from mechinterp.models.text.tokenizer import tokenizer_fingerprint
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.workspace import check_tuned

COMMENTS = [Comment(f"{'You fool' if i % 2 else 'My friend'} number {i}", bool(i % 2)) for i in range(40)]


def with_bos(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, tokenizer=byte_tokenizer(bos=True))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, the same weights with a BOS, and a probe, direction, edit and recording of the base."""
    root = tmp_path_factory.mktemp("made")
    base = tiny_checkpoint("llama")
    base.save(root / "base"), with_bos(base).save(root / "bos")
    fit_probe(base, COMMENTS, seed=0).save(root / "probe.safetensors")
    concept = Concept("anger", ("You fool", "Go away"), ("My friend", "Welcome"))
    means_direction(base, concept).save(root / "direction.safetensors")
    edit(base, make_instance(), block=1, settings=DinmSettings(steps=1)).save(root / "edit")
    record(base, PROMPTS, [h_down(block) for block in range(N_BLOCKS)]).save(root / "recording.safetensors")
    told = [make_instance(i, safe_generation=f"I am sorry, not {i}.").model_dump(mode="json") for i in range(8)]
    (root / "data.json").write_text(json.dumps(told))
    return root


def test_what_is_made_remembers_the_tokenizer(made: Path) -> None:
    own = tokenizer_fingerprint(byte_tokenizer())
    assert own != tokenizer_fingerprint(byte_tokenizer(bos=True))
    assert ToxicProbe.load(made / "probe.safetensors").tokenizer == own
    assert ToxicDirection.load(made / "probe.safetensors").tokenizer == own
    assert ToxicDirection.load(made / "direction.safetensors").tokenizer == own
    assert WeightDelta.load(made / "edit").tokenizer == own
    assert Recording.load(made / "recording.safetensors").tokenizer == own


@pytest.mark.parametrize("kind", ["probe", "direction", "edit"])
def test_another_tokenizer_is_refused_with_the_same_weights(kind: str, made: Path) -> None:
    checks: dict[str, Callable[[Checkpoint], None]] = {
        "probe": lambda c: ToxicProbe.load(made / "probe.safetensors").check(
            c.fingerprint, c.source, c.tokenizer_fingerprint
        ),
        "direction": lambda c: ToxicDirection.load(made / "direction.safetensors").check(
            c.fingerprint, c.source, c.tokenizer_fingerprint
        ),
        "edit": lambda c: WeightDelta.load(made / "edit").check(c),
    }
    base, bos = (Checkpoint.load(made / name, device="cpu") for name in ("base", "bos"))
    assert base.fingerprint == bos.fingerprint
    checks[kind](base)
    with pytest.raises(InputError, match=rf"{kind}.* was made with another tokenizer .*bos.*make it again"):
        checks[kind](bos)


COMMANDS = (
    "compare --base bos --checkpoint x=base --probe probe.safetensors --data data.json --out o --layer 1",
    "relapse --base bos --checkpoint x=bos --probe probe.safetensors --data data.json --out o --layer 1",
    "region --model bos --probe probe.safetensors --draws 100",
    "vectors --model bos --direction direction.safetensors --tokens 0",
    "direction --model bos --kind effective --probe probe.safetensors --out o.safetensors",
    "evaluate --model bos --edit edit --data data.json",
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_every_command_refuses_it(
    command: str, made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    same = command.replace("--checkpoint x=base", "--checkpoint x=bos")
    assert "made with another tokenizer" in refused(capsys, *same.split())


def test_a_recording_of_another_tokenizer_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Recording.load(made / "recording.safetensors")
    replace(found, tokenizer="other").save(tmp_path / "other.safetensors")
    given = ["region", "--model", made / "base", "--probe", made / "probe.safetensors", "--draws", "100"]
    given += ["--against", made / "bos", "--recording"]
    assert "the recording was made with another tokenizer" in refused(capsys, *given, tmp_path / "other.safetensors")
    assert call(*given, made / "recording.safetensors") == 0


def test_what_was_saved_before_is_used_with_a_warning(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = Checkpoint.load(made / "base", device="cpu")
    old = replace(ToxicProbe.load(made / "probe.safetensors"), tokenizer="")
    for each in (old, ToxicDirection.from_probe(old)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            each.check(base.fingerprint, base.source, base.tokenizer_fingerprint)
        assert [record.getMessage() for record in caplog.records if "which tokenizer" in record.getMessage()]
    caplog.clear()
    bare = ToxicDirection(torch.ones(D_MODEL), "file", "bare")  # which says nothing of its weights either
    bare.check(base.fingerprint, base.source, base.tokenizer_fingerprint)
    assert not caplog.records


def test_files_without_the_field_are_still_read(made: Path, tmp_path: Path) -> None:
    labels = json.loads((made / "edit" / "edit.json").read_text())
    del labels["tokenizer"]
    (tmp_path / "edit").mkdir()
    (tmp_path / "edit" / "edit.json").write_text(json.dumps(labels))
    (tmp_path / "edit" / "delta.safetensors").write_bytes((made / "edit" / "delta.safetensors").read_bytes())
    assert WeightDelta.load(tmp_path / "edit").tokenizer == ""


# -- padding ------------------------------------------------------------------------------------------------------


def padded(token: str) -> Checkpoint:
    """Without `<pad>`'s role, and a token added for it."""
    checkpoint = tiny_checkpoint("llama")
    tokenizer = copy.deepcopy(checkpoint.tokenizer)
    tokenizer.add_special_tokens({"pad_token": token})
    return replace(checkpoint, tokenizer=tokenizer)


@pytest.mark.parametrize("token", ["[PAD]", "<|right_pad_id|>", "</s>", "<unk>"])
def test_a_padding_token_is_no_difference(token: str, tmp_path: Path) -> None:
    base, other = tiny_checkpoint("llama"), padded(token)
    other.tokenizer.padding_side = "left"
    base.save(tmp_path / "base"), other.save(tmp_path / "other")
    opened = Checkpoint.load(tmp_path / "other", device="cpu")
    assert opened.tokenizer_fingerprint == Checkpoint.load(tmp_path / "base", device="cpu").tokenizer_fingerprint
    for one, two in (("base", "other"), ("other", "base")):
        skeleton = Checkpoint.skeleton(tmp_path / one)
        check_tuned(skeleton, Candidate.of(tmp_path / two), PROMPTS, truncate=False)


def test_a_padding_token_for_which_the_model_has_no_row_is_never_fed(tmp_path: Path) -> None:
    other = padded("[PAD]")
    assert other.tokenizer.pad_token_id == other.model.get_input_embeddings().weight.shape[0] == 264
    hooks = [h_down(block) for block in range(N_BLOCKS)]
    found, wanted = (record(checkpoint, PROMPTS, hooks) for checkpoint in (other, tiny_checkpoint("llama")))
    assert all(torch.equal(found.groups[hook], wanted.groups[hook]) for hook in hooks)
    assert generate(other, PROMPTS, max_new_tokens=3) == generate(tiny_checkpoint("llama"), PROMPTS, max_new_tokens=3)


def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(byte_tokenizer())
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = processor
    source = replace(tiny_checkpoint("llama"), tokenizer=tokenizer).save(tmp_path / "model")
    for opening in (Checkpoint.load, Checkpoint.skeleton):
        with pytest.raises(InputError, match="its tokenizer gives the id 264, the model has rows for 264; give"):
            opening(source)


def test_a_token_added_for_more_than_padding_is_a_difference(tmp_path: Path) -> None:
    base = tiny_checkpoint("llama").save(tmp_path / "base")
    tokenizer = copy.deepcopy(byte_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    replace(tiny_checkpoint("llama"), tokenizer=tokenizer).save(tmp_path / "other")
    with pytest.raises(InputError, match=r"tokenizer vocabulary .*<\|tool\|>.*give both the same tokenizer files"):
        check_tuned(Checkpoint.skeleton(base), Candidate.of(tmp_path / "other"), PROMPTS, truncate=False)


def test_rows_added_for_padding_are_named_with_their_remedy(tmp_path: Path) -> None:
    base, other = tiny_checkpoint("llama"), padded("[PAD]")
    rows = len(other.tokenizer)
    model = copy.deepcopy(other.model)
    model.resize_token_embeddings(rows + 8)
    base.save(tmp_path / "base"), replace(other, model=model).save(tmp_path / "other")
    with pytest.raises(InputError, match=r"264 and \d+ rows of the vocabulary; .* resize_token_embeddings\(264\)"):
        check_tuned(Checkpoint.skeleton(tmp_path / "base"), Candidate.of(tmp_path / "other"), PROMPTS, truncate=False)


def test_another_post_processor_is_a_difference() -> None:
    tokenizer = copy.deepcopy(byte_tokenizer())
    before = tokenizer_fingerprint(tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 258)])
    assert tokenizer_fingerprint(tokenizer) != before
