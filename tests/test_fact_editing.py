"""Facts edited one for itself, one on top of the other, all at once; by command; EasyEdit's settings files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import call, refused
from conftest import N_BLOCKS, PROMPTS, RESPONSES, tiny_checkpoint
from golden_models import golden, golden_checkpoint

from mechinterp.audit.weights_alone.diff import diff
from mechinterp.audit.weights_alone.expected import as_expected
from mechinterp.data.facts.fact import Fact, write_facts
from mechinterp.errors import InputError
from mechinterp.methods.facts.easyedit import read_easyedit
from mechinterp.methods.facts.editing import edit_facts
from mechinterp.methods.facts.rome import rome
from mechinterp.methods.facts.settings import AlphaEditSettings, FtMSettings, MemitSettings, RomeSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.second_moments import SecondMoments, second_moments

FACTS = [Fact("Ann", "{} was born in", "Oslo"), Fact("Bob", "{} likes", "tea"), Fact("Cy", "Here is {}, a", "cat")]
CONTEXTS = ("{}", "It is so. {}")
QUICK = {"blocks": (0, 1), "steps": 3, "learning_rate": 0.05}


def settings_of(method: str) -> Any:
    if method == "ft_m":
        return FtMSettings(block=1, steps=2, learning_rate=1e-3)
    if method == "alphaedit":
        return AlphaEditSettings(**QUICK, null_threshold=1.0)
    return RomeSettings(**QUICK) if method == "rome" else MemitSettings(**QUICK, moments_weight=1.0)


def edits(checkpoint: Checkpoint, facts: list[Fact], method: Any, mode: Any) -> list[WeightDelta]:
    moments = second_moments(checkpoint, [*PROMPTS, *RESPONSES], [0, 1])
    more: dict[str, Any] = {"settings": settings_of(method), "contexts": CONTEXTS, "moments": moments}
    return list(edit_facts(checkpoint, facts, method, mode=mode, **more))


@pytest.mark.parametrize("method", ["rome", "memit", "alphaedit", "ft_m"])
def test_the_modes_are_what_they_say(method: str) -> None:
    checkpoint = tiny_checkpoint("llama")
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    each = edits(checkpoint, FACTS, method, "each")
    assert [delta.instance for delta in each] == [1, 2, 3]
    # each is the edit of its fact alone, on the unedited model
    (alone,) = edits(checkpoint, FACTS[1:2], method, "each")
    assert all(torch.equal(value, each[1].tensors[name]) for name, value in alone.tensors.items())
    stacked = edits(checkpoint, FACTS, method, "sequential")
    assert all(torch.equal(value, each[0].tensors[name]) for name, value in stacked[0].tensors.items())
    assert stacked[2].instances == (1, 2, 3)
    assert {delta.fingerprint for delta in (*each, *stacked)} == {checkpoint.fingerprint}
    if method != "ft_m":
        assert all(left.shape[1] == 3 for left, _ in stacked[2].factors.values())
    # the second edit on top of the first is the second edit of the model with the first
    merged = stacked[0].merged(checkpoint, name="first")
    more: dict[str, Any] = {"settings": settings_of(method), "contexts": CONTEXTS}
    if method in ("rome", "ft_m"):
        (second,) = edit_facts(merged, FACTS[1:2], method, **more)  # type: ignore[arg-type]
        for name, value in second.tensors.items():
            change = stacked[1].tensors[name] - stacked[0].tensors[name]
            torch.testing.assert_close(change, value, rtol=1e-3, atol=1e-3 * float(value.abs().max()))
    if method == "rome":
        with pytest.raises(InputError, match="one fact at a time"):
            edits(checkpoint, FACTS, method, "batch")
    else:
        (together,) = edits(checkpoint, FACTS, method, "batch")
        assert together.instances == (1, 2, 3)
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())


def test_unknown_methods_and_missing_moments_are_told() -> None:
    checkpoint = tiny_checkpoint("llama")
    with pytest.raises(InputError, match="unknown method 'rom'; known are rome"):
        list(edit_facts(checkpoint, FACTS, "rom"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="memit needs second moments"):
        list(edit_facts(checkpoint, FACTS, "memit"))
    moments = SecondMoments({0: torch.eye(4)}, 4, "other")
    with pytest.raises(InputError, match="belong to weights"):
        list(edit_facts(checkpoint, FACTS, "memit", moments=moments))
    with pytest.raises(InputError, match="no facts"):
        list(edit_facts(checkpoint, [], "rome"))


# -- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("facts")
    tiny_checkpoint("llama").save(folder / "model")
    tiny_checkpoint("mixtral").save(folder / "experts")
    write_facts(FACTS, folder / "facts.jsonl")
    write_facts([Fact("Dee", "Who is he?", "Ed")], folder / "without.jsonl")
    write_facts([Fact("Dee", "{} is in", ground_truth="Oslo")], folder / "told.jsonl")
    relation = {"name": "in", "prompt_templates_zs": ["{} is in"], "samples": []}
    (folder / "relation.json").write_text(json.dumps(relation))
    written(folder, released("rome", "gpt2_rome", "default"), model_name="gpt2-xl").rename(folder / "gpt2.yaml")
    (folder / "texts.txt").write_text("\n".join([*PROMPTS, *RESPONSES]))
    return folder


def edit(there: Path, out: Path, method: str, *more: object) -> tuple[object, ...]:
    given = ("edit", "--model", there / "model", "--facts", there / "facts.jsonl", "--method", method, "--out", out)
    return (*given, "--steps", 2, *more)


def test_facts_are_edited_by_command(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*edit(there, tmp_path / "one", "rome", "--instance", 1, "--layer", 1, "--merged", tmp_path / "m")) == 0
    assert "edit of fact 1 by rome at layer 2 (block 1), loss of the target" in capsys.readouterr().out
    delta = WeightDelta.load(tmp_path / "one")
    assert (delta.instance, delta.block, delta.settings["method"]) == (1, 1, "rome")
    assert delta.settings["contexts"][0] == "{}"
    (name,) = delta.tensors
    before, after = Checkpoint.load(there / "model"), Checkpoint.load(tmp_path / "m")
    changed = [n for n, p in after.model.named_parameters() if not torch.equal(p, before.parameter(n))]
    assert changed == [name]
    assert call(*edit(there, tmp_path / "ours", "ft_m", "--facts", "common", "--instance", 60)) == 0
    assert WeightDelta.load(tmp_path / "ours").instance == 60
    assert call(*edit(there, tmp_path / "each", "ft_m", "--all")) == 0
    assert sorted(path.name for path in (tmp_path / "each").glob("[!.]*")) == ["1", "2", "3"]


def test_edits_of_many_facts_go_on_where_they_were_stopped(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = edit(there, tmp_path / "out", "rome", "--all", "--layer", 1)
    assert call(*edit(there, tmp_path / "whole", "rome", "--all", "--layer", 1)) == 0
    made, edited, kept = rome, list[int](), WeightDelta.save

    def noted(checkpoint: Checkpoint, request: Any, **more: Any) -> WeightDelta:
        edited.append(request.id)
        return made(checkpoint, request, **more)

    def stopped(self: WeightDelta, folder: Path, **more: Any) -> Path:
        if self.instance == 2:
            raise KeyboardInterrupt
        return kept(self, folder, **more)

    monkeypatch.setattr("mechinterp.methods.facts.editing.rome", noted)
    with monkeypatch.context() as patch:
        patch.setattr(WeightDelta, "save", stopped)
        patch.setattr("mechinterp.cli.signal.signal", lambda *_: None)
        assert call(*command) == 130
        assert capsys.readouterr().err.endswith("stopped; call again to go on where it was\n")
        alone = edit(there, tmp_path / "alone", "rome", "--instance", 2)
        assert call(*alone) == 130
        assert capsys.readouterr().err.endswith("stopped; call again to start anew\n")
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["1"]
    edited.clear()
    assert call(*command) == 0
    assert "1 of 3 edits were there already" in capsys.readouterr().err
    assert edited == [2, 3]
    for number in "123":
        one, other = (WeightDelta.load(tmp_path / name / number) for name in ("whole", "out"))
        assert one.labels() == other.labels()
        assert all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
    edited.clear()
    assert call(*command, "--seed", 1) == 0  # other contexts: other edits
    assert edited == [1, 2, 3]


def test_second_moments_are_made_once_and_kept(there: Path, tmp_path: Path) -> None:
    kept = tmp_path / "moments.safetensors"
    made = ("--all", "--mode", "batch", "--moments", kept)
    assert call(*edit(there, tmp_path / "one", "memit", *made, "--texts", there / "texts.txt")) == 0
    written = kept.stat().st_mtime_ns
    assert call(*edit(there, tmp_path / "two", "memit", *made)) == 0
    assert kept.stat().st_mtime_ns == written
    one, two = (WeightDelta.load(tmp_path / name) for name in ("one", "two"))
    assert all(torch.equal(value, two.tensors[name]) for name, value in one.tensors.items())


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("rome", ["--instance", 7], "no fact has the number 7; there are 1 to 3"),
        ("rome", ["--c-edit", 2], "--c-edit is not for --method rome"),
        ("rome", ["--entry-bound", 2], "rome: unknown setting --entry-bound"),
        ("rome", ["--all", "--mode", "batch"], "rome edits one fact at a time: choose the --mode"),
        ("rome", ["--layer", N_BLOCKS], "is out of range"),
        ("memit", [], "memit needs second moments of other texts: give --texts"),
        ("ft_m", ["--fact-token", "last"], "--fact-token is not for --method ft_m"),
        ("ft_m", ["--layer", "0,1"], "trains one block"),
        ("dinm", [], "--facts is not for --method dinm"),
        ("rome", ["--facts", "{there}/without.jsonl"], "fact 1: the subject 'Dee' is not in its prompt"),
        ("rome", ["--model", "{there}/experts"], "mixture-of-experts"),
        ("rome", ["--facts", "{there}/texts.txt"], "texts.txt"),
        ("rome", ["--facts", "{there}/relation.json"], "relation.json: the relation has no samples; give at least one"),
        ("rome", ["--facts", "{there}/told.jsonl"], "fact 1, 'Dee is in': it has no new target to write"),
        ("rome", ["--settings", "{there}/gpt2.yaml"], "gpt2.yaml: settings of another model (gpt2-xl): it changes"),
        ("memit", ["--settings", "{there}/gpt2.yaml"], "gpt2.yaml: settings of ROME, not of --method memit"),
    ],
)
def test_bad_facts_and_options_are_one_line(
    method: str, more: list[object], said: str, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(one).replace("{there}", str(there)) for one in more]
    assert said in refused(capsys, *edit(there, tmp_path / "out", method, *given))
    assert not (tmp_path / "out" / "edit.json").exists()


def test_dinm_still_wants_pairs(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Missing option '--data'" in refused(capsys, "edit", "--model", there / "model", "--out", tmp_path / "e")
    given = ("edit", "--model", there / "model", "--out", tmp_path / "e", "--method", "rome")
    assert "--method rome edits facts: give --facts" in refused(capsys, *given)


# -- EasyEdit's settings files ------------------------------------------------------------------------------------


def released(system: str, name: str, case: str = "") -> dict[str, Any]:
    told = golden(system, name)[0]
    return dict((told["cases"][case] if case else told)["hparams"])


def written(folder: Path, content: dict[str, Any], **more: Any) -> Path:
    path = folder / "hparams.yaml"
    text = yaml.safe_dump({**content, **more})
    path.write_text(text.replace("v_lr: 0.5", "v_lr: 5e-1"))  # as the released files have it: a text in YAML 1.1
    return path


def test_settings_files_are_read_as_our_settings(tmp_path: Path) -> None:
    rome = read_easyedit(written(tmp_path, released("rome", "gpt2_rome", "clamped_mom2")))
    assert "v_lr: 5e-1" in (tmp_path / "hparams.yaml").read_text()
    assert rome.method == "rome"
    assert rome.settings == RomeSettings(
        blocks=(1,), steps=20, learning_rate=0.5, weight_decay=0.5, clamp=0.75, kl_factor=0.0625, use_moments=True
    )
    memit = read_easyedit(written(tmp_path, released("memit", "llama_memit", "light")))
    assert isinstance(memit.settings, MemitSettings)
    assert (memit.settings.blocks, memit.settings.moments_weight) == ((0, 1), 1.0)
    alpha = read_easyedit(written(tmp_path, released("alphaedit", "gpt2_alphaedit")))
    assert isinstance(alpha.settings, AlphaEditSettings)
    assert (alpha.settings.ridge, alpha.settings.learning_rate) == (1, 0.1)
    for case, objective, bound in (("FT-M", "response", None), ("FT-L_bound", "prompt_last", 5e-4)):
        found = read_easyedit(written(tmp_path, released("ft", "gpt2_ft", case)))
        assert isinstance(found.settings, FtMSettings)
        assert (found.settings.objective, found.settings.entry_bound, found.settings.block) == (objective, bound, 1)
        expected = ["transformer.h.1.mlp.c_proj.weight", "transformer.h.1.mlp.c_proj.bias"]
        assert found.changes(golden_checkpoint("gpt2").names) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alg_name": "WISE"}, "alg_name 'WISE' is not among ROME, MEMIT"),
        ({"alg_name": "ROMES"}, "did you mean 'ROME'"),
        ({"fact_token": "subject_first"}, "`fact_token`"),
        ({"layers": "1"}, "`layers` is a list"),
        ({"layers": []}, "is missing"),
        ({"v_lr": "fast"}, "`learning_rate`"),
    ],
)
def test_settings_files_that_cannot_be_read_are_told(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = written(tmp_path, released("rome", "gpt2_rome", "default"), **change)
    with pytest.raises(InputError, match=said) as told:
        read_easyedit(path)
    assert str(path) in str(told.value)


@pytest.mark.parametrize(
    "text", ["", "a: [", "- 1", "day: 2020-13-45", "alg_name: [1]", "alg_name: LoRA\ntarget_modules: 3"]
)
def test_files_of_anything_are_told_or_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "any.yaml").write_text(text)
    if "LoRA" in text:
        assert read_easyedit(tmp_path / "any.yaml").module == ("3",)
        return
    with pytest.raises(InputError, match=r"any\.yaml"):
        read_easyedit(tmp_path / "any.yaml")


def test_settings_of_another_model_are_told(tmp_path: Path) -> None:
    names = golden_checkpoint("llama").names
    with pytest.raises(InputError, match="settings of another model"):
        read_easyedit(written(tmp_path, released("rome", "gpt2_rome", "default"))).changes(names)
    other = {**released("memit", "llama_memit", "light"), "layers": [4, 5]}
    with pytest.raises(InputError, match=r"model.layers.4.mlp.down_proj, which llama has not"):
        read_easyedit(written(tmp_path, other)).changes(names)
    with pytest.raises(InputError, match="v_loss_layer 31"):
        read_easyedit(written(tmp_path, released("memit", "llama_memit", "light"), v_loss_layer=31)).changes(names)


def test_an_edited_folder_is_held_against_its_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = golden_checkpoint("llama")
    settings = written(tmp_path, released("memit", "llama_memit", "one"))
    moments = second_moments(base, golden("rome", "gpt2_rome")[0]["texts_of_the_second_moment"], [0, 1])
    ours = read_easyedit(settings).settings
    more: dict[str, Any] = {"settings": ours, "contexts": CONTEXTS, "moments": moments}
    (delta,) = edit_facts(base, FACTS[:2], "memit", mode="batch", **more)
    edited = delta.merged(base, name="edited")
    found = diff(base.weights, edited.weights)
    read, names = read_easyedit(settings), base.names
    assert as_expected(found, read, names, requests=2).verdict == "as expected"
    assert "of rank 2, where at most 2" in str(as_expected(found, read, names, requests=2))
    too_high = as_expected(found, read, names, requests=1)
    assert too_high.verdict == "not as expected"
    assert as_expected(diff(base.weights, base.weights), read, names).verdict == "nothing changed"
    with torch.no_grad():
        edited.parameter("model.layers.2.mlp.down_proj.weight").add_(1)
    also = as_expected(diff(base.weights, edited.weights), read, names)
    assert also.verdict == "not as expected"
    assert "model.layers.2.mlp.down_proj.weight" in str(also)
    base.save(tmp_path / "base")
    delta.save(tmp_path / "edit")
    assert call("diff", tmp_path / "base", tmp_path / "edit", "--settings", settings, "--requests", 2) == 0
    assert "as expected: MEMIT changed model.layers.0.mlp.down_proj.weight" in capsys.readouterr().out
    assert call("diff", tmp_path / "base", tmp_path / "base", "--settings", settings) == 0
    assert "nothing changed: no weight differs" in capsys.readouterr().out
    other = written(tmp_path, released("rome", "gpt2_rome", "default"))
    assert "settings of another model" in refused(
        capsys, "diff", tmp_path / "base", tmp_path / "edit", "--settings", other
    )


def test_adapters_are_known_by_what_they_change(tmp_path: Path) -> None:
    base = golden_checkpoint("llama")
    content = {"alg_name": "LoRA", "model_name": "x", "layers": [], "rank": 8, "target_modules": ["q_proj", "v_proj"]}
    read = read_easyedit(written(tmp_path, content))
    changed = read.changes(base.names)
    assert len(changed) == 2 * base.n_blocks
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)
    tuned = golden_checkpoint("llama")
    with torch.no_grad():
        for name in changed:
            rows, columns = tuned.parameter(name).shape
            tuned.parameter(name).add_(torch.outer(torch.ones(rows), torch.ones(columns)))
    assert as_expected(diff(base.weights, tuned.weights), read, base.names).verdict == "as expected"
