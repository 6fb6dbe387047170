"""Directions: made of probes, means, value vectors or files; concepts; the command that makes them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoint_folder import INSTANCES, compared, table
from command_line import call, refused
from conftest import D_MODEL, N_BLOCKS, PROMPTS, make_instance, tiny_checkpoint
from made_checkpoints import probe_of
from safetensors.torch import save_file
from scipy import stats
from sklearn.metrics import roc_auc_score

from mechinterp.audit.directions.making import effective_direction, means_direction, svd_direction
from mechinterp.audit.directions.probe import SELECTIONS
from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.data.comments import Comment, write_comments
from mechinterp.data.concepts import Concept, read_lines
from mechinterp.data.safeedit import write_safeedit
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.measures.value_vectors import rank
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.names import resid_post
from mechinterp.models.passes.recording import record_all
from mechinterp.models.unembedding import back_through_final_norm
from mechinterp.runs.folder import RunFolder

VECTOR = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(9))
WORDS = ("river", "table", "cloud", "engine", "paper", "garden", "window", "music")


def concept(n: int = 60) -> Concept:
    """Texts of random words, half of them with a run of one letter."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=4)) for _ in range(2 * n)]
    return Concept("z", tuple(f"{text} {'z' * 30}" for text in texts[:n]), tuple(texts[n:]))


# -- directions -----------------------------------------------------------------------------------------------------


def test_a_direction_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = ToxicDirection(VECTOR, "svd", "mine", "print", {"component": 2, "of": "probe"})
    for suffix in ("safetensors", "st"):
        loaded = ToxicDirection.load(saved.save(tmp_path / f"d.{suffix}"))
        assert torch.equal(loaded.vector, VECTOR)
        assert {**vars(loaded), "vector": None} == {**vars(saved), "vector": None}
    assert ToxicDirection.load(tmp_path / "d.st", name="other").name == "other"


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_probes_selections_are_directions(selection: str, tmp_path: Path) -> None:
    probe = probe_of(D_MODEL, "print")
    found = ToxicDirection.from_probe(probe, selection)
    assert torch.equal(found.vector, probe.direction_by(selection))
    assert (found.kind, found.fingerprint) == ("probe", "print")
    assert found.name == ("probe" if selection == "toxic_minus_clean" else selection)
    assert torch.equal(ToxicDirection.load(probe.save(tmp_path / "p.st")).vector, probe.direction)


def test_bare_vectors_are_read_from_files_of_every_kind(tmp_path: Path) -> None:
    save_file({"anything": VECTOR[None].contiguous()}, tmp_path / "a.safetensors")
    np.save(tmp_path / "b.npy", VECTOR.double().numpy())
    torch.save(VECTOR.bfloat16(), tmp_path / "c.pt")
    torch.save({"direction": VECTOR[:, None], "step": 3}, tmp_path / "d.bin")
    for path in sorted(tmp_path.iterdir()):
        found = ToxicDirection.load(path)
        expected = VECTOR.bfloat16().float() if path.suffix == ".pt" else VECTOR
        assert torch.equal(found.vector, expected)
        assert (found.kind, found.name, found.fingerprint) == ("file", path.stem, "")
        assert found.vector.dtype == torch.float32


class _Spy:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code that came with the file",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nan.npy", np.array([1.0, np.nan]), "1 of 2 numbers of the direction are NaN or infinite"),
        ("inf.pt", torch.tensor([float("inf"), 1.0]), "1 of 2 numbers"),
        ("large.npy", np.array([1e300, 1.0]), "too large for float32"),
        ("zero.npy", np.zeros(4), "is zero"),
        ("small.npy", np.full(4, 1e-300), "is zero"),
        ("eight.pt", torch.ones(4).to(torch.float8_e4m3fn), "got .4,. float8_e4m3fn"),
        ("matrix.npy", np.ones((3, 4)), r"one vector of floating-point numbers, got \(3, 4\) float64"),
        ("whole.npy", np.arange(4), r"got \(4,\) int64"),
        ("objects.npy", np.array([{"a": 1}], dtype=object), "not a file of numbers"),
        ("two.pt", {"a": torch.ones(3), "b": torch.ones(3)}, "holds 2 tensors: a, b"),
        ("none.pt", {"step": 3}, "holds 0 tensors"),
        ("list.pt", [1.0, 2.0], "holds no tensor but list"),
        ("code.pt", _Spy(), "would run code"),
        ("damaged.st", b"not safetensors", "not a complete safetensors file"),
        ("damaged.npy", b"not numpy", "not a file of numbers"),
        ("words.txt", b"1 2 3", "a direction is read from .safetensors"),
        ("labels.st", {"direction": torch.ones(3)}, "not a direction written by"),
    ],
)
def test_files_without_a_direction_are_refused(
    name: str, content: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".st":
        save_file(content, path, metadata={"direction": json.dumps({"colour": "blue"})})
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=message) as error:
        ToxicDirection.load(path)
    assert str(path) in str(error.value)
    assert "code that came with" not in capsys.readouterr().out
    with pytest.raises(InputError, match="no such file"):
        ToxicDirection.load(tmp_path / "nowhere.npy")


def test_a_direction_of_another_model_is_refused() -> None:
    found = ToxicDirection(VECTOR, "file", "mine", "print")
    found.check("print", "here")
    ToxicDirection(VECTOR, "file", "mine").check("another", "here")
    with pytest.raises(InputError, match=r"'mine' belongs to other weights \(print\) than here \(another\)"):
        found.check("another", "here")
    with pytest.raises(InputError, match="16 dimensions, here has 17"):
        found.check_width(17, "here")
    with pytest.raises(InputError, match="must be one of"):
        ToxicDirection(VECTOR, "guess", "mine")  # type: ignore[arg-type]
    checkpoint = tiny_checkpoint("llama")
    for make in (svd_direction, effective_direction):
        with pytest.raises(InputError, match="belongs to other weights"):
            make(checkpoint, found)
        with pytest.raises(InputError, match="has 17 dimensions"):
            make(checkpoint, ToxicDirection(torch.ones(17), "file", "wide"))


@pytest.mark.parametrize("position", ["last", "mean"])
@pytest.mark.parametrize("block", [None, 1])
def test_means_are_those_of_the_stream(checkpoint: Checkpoint, block: int | None, position: str) -> None:
    texts = Concept("c", tuple(PROMPTS[:3]), tuple(PROMPTS[3:]))
    hook = resid_post(N_BLOCKS - 1 if block is None else block)
    found = means_direction(checkpoint, texts, block=block, position=position)
    rows = [
        torch.stack([record_all(checkpoint, [text], [hook], position=position)[hook][0] for text in side]).double()
        for side in (texts.positive, texts.negative)
    ]
    assert torch.allclose(found.vector, (rows[0].mean(0) - rows[1].mean(0)).float(), rtol=1e-4, atol=1e-5)
    assert found.fingerprint == checkpoint.fingerprint
    assert found.settings["block"] == (N_BLOCKS - 1 if block is None else block)
    swapped = means_direction(checkpoint, Concept("c", texts.negative, texts.positive), block=block, position=position)
    assert torch.allclose(swapped.vector, -found.vector, atol=1e-6)


def test_means_that_cannot_be_are_refused() -> None:
    checkpoint, texts = tiny_checkpoint("gpt2"), Concept("c", ("a",), ("b",))
    with pytest.raises(InputError, match="block 3 is out of range"):
        means_direction(checkpoint, texts, block=3)
    with pytest.raises(InputError, match="last or mean, got 'first'"):
        means_direction(checkpoint, texts, position="first")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="c: the direction is zero"):
        means_direction(checkpoint, Concept("c", ("a",), ("a",)))
    damaged = tiny_checkpoint("gpt2")
    damaged.parameter(damaged.names.value_parameter(1)[0]).data[0, 0] = float("nan")
    with pytest.raises(InputError, match="are NaN or infinite"):
        means_direction(damaged, texts)


def test_the_first_singular_vector_of_planted_vectors_is_their_direction(tmp_path: Path) -> None:
    checkpoint, unit = tiny_checkpoint("mistral"), VECTOR / VECTOR.norm()
    for neuron in range(20):
        noise = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(neuron))
        checkpoint.value_matrix(neuron % N_BLOCKS)[neuron] = 5 * unit + 0.1 * noise
    other = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(99))
    near = unit + 0.5 * torch.nn.functional.normalize(other, dim=0)  # a direction that is only close
    given = ToxicDirection(near, "file", "near")
    found = svd_direction(checkpoint, given, top=20)
    assert torch.cosine_similarity(found.vector, unit, dim=0) > 0.999
    assert found.vector.norm() == pytest.approx(1.0, rel=1e-6)
    assert (found.kind, found.name, found.fingerprint) == ("svd", "near_svd1", checkpoint.fingerprint)
    control = svd_direction(tiny_checkpoint("mistral"), given, top=20)  # nothing planted
    assert torch.cosine_similarity(control.vector, unit, dim=0) < 0.99
    weights = LazyWeights.open(checkpoint.save(tmp_path / "model"))
    assert torch.equal(svd_direction(weights, given, top=20).vector, found.vector)
    with pytest.raises(InputError, match="from 1 to 16, got 17"):
        svd_direction(checkpoint, given, top=20, component=17)


def test_the_effective_direction_is_pulled_back_once(checkpoint: Checkpoint) -> None:
    found = effective_direction(checkpoint, ToxicDirection(VECTOR, "file", "mine", settings={"file": "x.npy"}))
    assert torch.equal(found.vector, back_through_final_norm(checkpoint, VECTOR))
    assert (found.kind, found.name) == ("effective", "mine_effective")
    assert found.settings == {"of": "mine", "of_kind": "file", "file": "x.npy"}
    assert not torch.allclose(found.vector, VECTOR, rtol=1e-2)


# -- concepts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "mistral"])
def test_a_planted_concept_is_found_and_shuffled_labels_are_at_chance(architecture: str) -> None:
    checkpoint, texts = tiny_checkpoint(architecture), concept()
    score = fit_probe(checkpoint, texts.comments(), seed=0).scores[0]
    assert score.auroc > 0.95
    direction = means_direction(checkpoint, texts, position="mean")
    hook = resid_post(N_BLOCKS - 1)
    along = [
        record_all(checkpoint, side, [hook], position="mean")[hook] @ direction.vector
        for side in (texts.positive, texts.negative)
    ]
    assert roc_auc_score([1] * 60 + [0] * 60, torch.cat(along)) > 0.95
    # the labels mean nothing: right answers lie within the binomial band of chance, over several draws
    scores = [fit_probe(checkpoint, texts.shuffled(seed).comments(), seed=0).scores[0] for seed in range(5)]
    right, trials = sum(s.accuracy * s.n_test for s in scores), sum(s.n_test for s in scores)
    low, high = stats.binom.interval(0.999, trials, 0.5)
    assert low <= right <= high
    assert not low <= score.accuracy * trials <= high  # while the concept itself is far out of it


@pytest.mark.parametrize("architecture", ["gpt2", "mistral"])
def test_a_shuffled_concepts_direction_is_not_that_of_the_concept(architecture: str) -> None:
    checkpoint, texts = tiny_checkpoint(architecture), concept()
    true = means_direction(checkpoint, texts, position="mean").vector
    lengths = [means_direction(checkpoint, texts.shuffled(seed), position="mean").vector.norm() for seed in range(5)]
    assert max(lengths) < 0.5 * true.norm()


def test_shuffling_keeps_texts_and_counts() -> None:
    texts = Concept("c", tuple("abcdefg"), tuple("uvwxyz"))
    mixed = texts.shuffled(3)
    assert sorted(mixed.positive + mixed.negative) == sorted(texts.positive + texts.negative)
    assert len(mixed.positive) == 7
    assert mixed == texts.shuffled(3)
    assert mixed != texts.shuffled(4)


def test_concepts_are_read_from_files_of_every_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "refusals.txt").write_text("\ufeffI cannot.\n\n  Sorry, no. \r\nNever", encoding="utf-8")
    (tmp_path / "answers.txt").write_text("Sure.\nOf course.\n", encoding="utf-8")
    found = Concept.read(tmp_path / "refusals.txt", tmp_path / "answers.txt")
    assert found == Concept("refusals", ("I cannot.", "Sorry, no.", "Never"), ("Sure.", "Of course."))
    assert "skipped 1 blank lines, kept 3" in caplog.text
    assert found.comments()[2:4] == [Comment("Never", True), Comment("Sure.", False)]
    write_comments(found.comments(), tmp_path / "table.csv")
    again = Concept.read_table(tmp_path / "table.csv", name="refusals")
    assert again == found
    instances = [make_instance(number) for number in range(2)]
    assert Concept.of_instances(instances).positive == tuple(i.unsafe_generation for i in instances)
    assert Concept.of_instances(instances).negative == tuple(i.safe_generation for i in instances)


def test_concepts_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'c' has no negative texts"):
        Concept("c", ("a",), ())
    with pytest.raises(InputError, match="positive text 2 is blank"):
        Concept("c", ("a", " "), ("b",))
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    for name, message in (("empty.txt", "has no text"), ("latin.txt", "not UTF-8"), ("none.txt", "no such file")):
        with pytest.raises(InputError, match=message):
            read_lines(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(tmp_path)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("directions")
    base = tiny_checkpoint("mistral")
    base.save(folder / "base")
    probe_of(D_MODEL, base.fingerprint).save(folder / "probe.st")
    probe_of(D_MODEL, "of other weights").save(folder / "other.st")
    np.save(folder / "bare.npy", VECTOR.numpy())
    np.save(folder / "wide.npy", np.ones(D_MODEL + 1, dtype=np.float32))
    (folder / "positive.txt").write_text("Be off, fool.\nYou are a fool.\n")
    (folder / "negative.txt").write_text("Good day.\nThank you.\n")
    write_comments([Comment("fool", True), Comment("friend", False)], folder / "comments.csv")
    write_safeedit([make_instance(number) for number in range(3)], folder / "data.json")
    return folder


MEANS = "direction --model base --kind means --out o.st"


@pytest.mark.parametrize(
    ("command", "kind", "name"),
    [
        ("--kind probe --probe probe.st --selection toxic_row", "probe", "toxic_row"),
        ("--kind svd --probe probe.st --top 20 --component 2 --by projection", "svd", "probe_svd2"),
        ("--kind effective --direction bare.npy --name mine", "effective", "mine"),
        ("--kind file --direction bare.npy", "file", "bare"),
        ("--kind means --positive positive.txt --negative negative.txt --position mean", "means", "positive"),
        ("--kind means --comments comments.csv --layer 1", "means", "comments"),
        ("--kind means --data data.json --name unsafe", "means", "unsafe"),
    ],
)
def test_directions_are_made_on_the_command_line(
    there: Path,
    command: str,
    kind: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(there)
    out = tmp_path / "d.safetensors"
    assert call("direction", "--model", "base", "--out", out, *command.split()) == 0
    found = ToxicDirection.load(out)
    assert (found.kind, found.name, found.fingerprint) == (kind, name, tiny_checkpoint("mistral").fingerprint)
    assert f"direction {name!r} ({kind}): 16 dimensions" in capsys.readouterr().out
    assert call("vectors", "--model", "base", "--direction", out, "--top", "3") == 0


def test_the_commands_svd_is_the_librarys(there: Path, tmp_path: Path) -> None:
    checkpoint, out = tiny_checkpoint("mistral"), tmp_path / "d.st"
    arguments = ["--kind", "svd", "--direction", there / "bare.npy", "--top", "9", "--out", out]
    assert call("direction", "--model", there / "base", *arguments) == 0
    vectors = rank([(b, checkpoint.value_matrix(b)) for b in range(N_BLOCKS)], VECTOR, top=9).vectors.double()
    first = torch.linalg.svd(vectors / vectors.norm(dim=1, keepdim=True)).Vh[0]
    found = ToxicDirection.load(out).vector.double()
    assert torch.allclose(found, first * (first @ VECTOR.double()).sign(), atol=1e-6)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("direction --model base --kind guess --out o.st", "'guess' is not one of 'probe', 'means'"),
        ("direction --model base --kind probe --out o.st", "--kind probe needs --probe"),
        ("direction --model base --kind svd --out o.st", "--kind svd needs --probe or --direction"),
        ("direction --model base --kind svd --probe probe.st --direction bare.npy --out o.st", "not both"),
        ("direction --model base --kind file --probe probe.st --out o.st", "--kind file takes no --probe"),
        ("direction --model base --kind probe --probe probe.st --top 3 --out o.st", "--kind probe takes no --top"),
        ("direction --model base --kind probe --probe other.st --out o.st", "belongs to other weights"),
        ("direction --model base --kind file --direction wide.npy --out o.st", "17 dimensions, base has 16"),
        ("direction --model base --kind svd --probe probe.st --component 99 --out o.st", "from 1 to 16, got 99"),
        ("direction --model ./nowhere --kind file --direction bare.npy --out o.st", "no such folder"),
        ("direction --model base --kind file --direction bare.npy --out o.txt", "is saved as .safetensors"),
        ("direction --model base --kind file --direction bare.npy --out base/config.json/o.st", "cannot be written"),
        (MEANS, "--kind means needs texts"),
        (MEANS + " --positive positive.txt", "--kind means needs texts"),
        (MEANS + " --comments comments.csv --data data.json", "one of these"),
        (MEANS + " --data data.json --text-column text", "are of --comments"),
        (MEANS + " --data data.json --layer 7", "block 7 is out of range"),
        (MEANS + " --data data.json --layer first", "--layer is last or the number of a block"),
        (MEANS + " --data data.json --probe probe.st", "--kind means takes no --probe"),
        (MEANS + " --positive none.txt --negative negative.txt", "none.txt: no such file"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    there: Path, command: str, message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    assert message in refused(capsys, *command.split())
    assert not (there / "o.st").exists()


# -- in a comparison --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a tuned checkpoint and the base's probe."""
    folder = tmp_path_factory.mktemp("pair")
    base = tiny_checkpoint("llama")
    base.save(folder / "base")
    tiny_checkpoint("llama", seed=1).save(folder / "tuned")
    fit_probe(base, concept(20).comments(), seed=0).save(folder / "probe.safetensors")
    return folder


def test_a_comparison_measures_along_a_users_direction_too(pair: Path, tmp_path: Path) -> None:
    probe = ToxicDirection.load(pair / "probe.safetensors")
    more = [probe.named("same"), ToxicDirection(VECTOR, "file", "mine")]
    compared(pair, tmp_path, "tuned", more=more)
    rows = table(tmp_path, "decomposition").set_index("direction")
    assert {"probe", "answer", "same", "mine"} <= set(rows.index)
    columns = ["write_base", "erasure", "bypass"]
    assert np.array_equal(rows.loc["same", columns], rows.loc["probe", columns])  # the probe's own, under another name
    assert not np.allclose(rows.loc["mine", columns], rows.loc["probe", columns], rtol=0.1)
    again = compared(pair, tmp_path, "tuned", more=more)
    assert not any("recording" in line for line in again)
    other = compared(pair, tmp_path, "tuned", more=[ToxicDirection(-VECTOR, "file", "mine")])
    assert any("recording" in line for line in other)  # another vector of the same name is measured anew


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ToxicDirection(VECTOR, "file", "probe"), "two directions are called 'probe'"),
        (ToxicDirection(torch.ones(17), "file", "wide"), "17 dimensions"),
        (ToxicDirection(VECTOR, "file", "foreign", "of other weights"), "belongs to other weights"),
    ],
)
def test_directions_that_do_not_fit_a_comparison_are_refused(
    pair: Path,
    given: ToxicDirection,
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=message):
        compared(pair, tmp_path, "tuned", more=[given])


def test_compare_takes_directions_from_files(
    pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    write_safeedit(INSTANCES, tmp_path / "data.json")
    np.save(tmp_path / "bare.npy", VECTOR.numpy())
    given = ["--base", pair / "base", "--probe", pair / "probe.safetensors", "--data", tmp_path / "data.json"]
    given += ["--checkpoint", f"tuned={pair / 'tuned'}", "--out", tmp_path / "out"]
    seen: dict[str, object] = {}

    def compare(*_: object, **settings: object) -> RunFolder:
        seen.update(settings)
        write_table(tmp_path / "out" / "tables" / "verdict.csv", pd.DataFrame({"gone": ["gone"], "missing": [""]}))
        return RunFolder(tmp_path / "out")

    monkeypatch.setattr("mechinterp.runs.comparison.compare_checkpoints", compare)
    assert call("compare", *given, "--direction", f"mine={tmp_path / 'bare.npy'}") == 0
    (found,) = seen["more"]  # type: ignore[misc]
    assert found.name == "mine"
    assert torch.equal(found.vector, VECTOR)
    assert call("compare", *given, "--direction", tmp_path / "none.npy") == 2
    assert "none.npy: no such file" in capsys.readouterr().err


def test_the_name_of_a_direction_is_a_word() -> None:
    for name in ("", "a/b"):
        with pytest.raises(InputError, match="plain name"):
            ToxicDirection(VECTOR, "file", name)
