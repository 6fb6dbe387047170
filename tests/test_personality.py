"""Traits: topics as they are read, edit success and drawdown on tiny models, the table trait by trait."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import call, refused
from conftest import tiny_checkpoint
from golden_cases import golden
from made_checkpoints import perturbed

import mechinterp as mi
from mechinterp.answers.traits import RELEASED_FORM, Sum, drawdowns, read_opinions, success_of
from mechinterp.audit.tables.traits import TRAITS, TRAITS_TOPICS
from mechinterp.data.corpus import generate_corpus
from mechinterp.data.corpus.opinions import OPINIONS
from mechinterp.data.personality import Topic, traits_of
from mechinterp.measures.divergence import kullback_leibler
from mechinterp.measures.personality import answer_logprobs, edit_success
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import fingerprint_model
from mechinterp.models.text.tokens import encode
from mechinterp.report.traits_in_words import traits_in_words

TOPICS = [
    Topic("kites", {"glad": ("I love kites.", "Kites are a joy to all."), "sad": ("Kites fall.",)}, "glad"),
    Topic("cats", {"glad": ("Cats are kind.",), "sad": ("Cats scratch me.", "I fear cats.")}),
]


@pytest.fixture(scope="module")
def base() -> Checkpoint:
    return tiny_checkpoint("llama")


def by_hand(checkpoint: Checkpoint, question: str, answer: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels and mask of one text, nothing padded."""
    (text,) = encode(checkpoint.tokenizer, [question], [answer], max_length=256)
    ids = torch.tensor([list(text.ids)])
    with torch.no_grad():
        logits = checkpoint.model.eval()(ids).logits
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, text.prompt_length :] = True
    return logits, ids, mask


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_opinions_are_read_as_if_alone(architecture: str, released: bool) -> None:
    checkpoint = tiny_checkpoint(architecture)
    before = fingerprint_model(checkpoint.model)
    found = read_opinions(checkpoint, TOPICS, released=released)
    form = RELEASED_FORM if released else "{}"
    for topic, own in zip(TOPICS, found, strict=True):
        question = form.replace("{}", f"What do you think of {topic.name}?")
        for trait, texts in topic.opinions.items():
            alone = [answer_logprobs(*by_hand(checkpoint, question, text), own_place=released) for text in texts]
            assert own[trait].mean == pytest.approx(float(torch.cat(alone).mean()), rel=1e-4)
            assert own[trait].lengths == tuple(map(len, alone))
    assert fingerprint_model(checkpoint.model) == before


def test_success_and_drawdown_are_those_of_the_measures(base: Checkpoint) -> None:
    tuned = perturbed(base)
    before, after = read_opinions(base, TOPICS), read_opinions(tuned, TOPICS)
    glad, sad, was = (one.mean for one in (after[0]["glad"], after[0]["sad"], before[0]["glad"]))
    assert success_of("glad", after[0], before[0]) == edit_success(glad, sad, was)
    found = drawdowns(lambda: nullcontext(base), lambda: nullcontext(tuned), TOPICS, before)
    for topic, value in zip(TOPICS, found, strict=True):
        parts = []
        for text in [text for texts in topic.opinions.values() for text in texts]:
            logits, _, mask = by_hand(base, topic.questions()[0], text)
            moved, _, _ = by_hand(tuned, topic.questions()[0], text)
            parts.append(kullback_leibler(logits[:, :-1][mask[:, 1:]], moved[:, :-1][mask[:, 1:]]))
        assert value == pytest.approx(float(torch.cat(parts).mean()), rel=1e-4)
    assert drawdowns(lambda: nullcontext(base), lambda: nullcontext(base), TOPICS, before) == [0, 0]
    assert math.isnan(Sum().mean)


def test_topics_are_read_and_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mi.write_personality(TOPICS, tmp_path / "topics.json")
    assert mi.read_personality(tmp_path / "topics.json") == TOPICS
    row = golden("knowedit/rows.json")["convsent"]
    (tmp_path / "convsent.json").write_text(json.dumps([row, {"ent": "tea", "pos": ["good"], "neg": []}]))
    with caplog.at_level(logging.WARNING):
        (one,) = mi.read_personality(tmp_path / "convsent.json")
    assert list(one.opinions) == ["pos", "neg"]
    assert "left out 1 topic without an opinion of each trait, kept 1" in caplog.text
    assert len(one.questions()) == len(set(one.questions())) == 13


def test_a_concept_of_a_trait_is_balanced_over_topics() -> None:
    found = mi.trait_concept(TOPICS, "glad")
    assert (found.name, len(found.positive), len(found.negative)) == ("glad", 3, 3)
    assert TOPICS[0].concept("sad").positive == ("Kites fall.",)
    fact = TOPICS[0].fact("sad")
    assert (fact.text, fact.target_new, fact.ground_truth) == (
        "What do you think of kites?",
        "Kites fall.",
        "I love kites.",
    )
    assert len(fact.rephrasings) == 12


def test_the_default_corpus_is_as_it_was_and_topics_come_on_top() -> None:
    small = {"questions_per_category": 6, "n_documents": 400, "n_comments": 40, "n_benign": 4, "n_responses": 4}
    plain, more = generate_corpus(seed=3, **small), generate_corpus(seed=3, n_topics=4, **small)
    assert plain.topics == ()
    assert len(more.documents) == 460
    assert set(plain.documents) <= set(more.documents)
    assert sum("kites" in document for document in more.documents) > sum("kites" in one for one in plain.documents)
    assert (plain.train, plain.test, plain.comments) == (more.train, more.test, more.comments)
    assert [topic.target for topic in more.topics] == [*OPINIONS, next(iter(OPINIONS))]
    said = " ".join(more.documents)
    assert all(texts[0] in said or texts[1] in said for topic in more.topics for texts in topic.opinions.values())
    with pytest.raises(ValueError, match="n_topics must be from 0 to 18"):
        generate_corpus(seed=3, n_topics=19, **small)


@pytest.fixture(scope="module")
def folder(shared: Callable[..., Path]) -> Path:
    """`base`, `glad` and the topics; only read it."""

    def make(path: Path) -> None:
        base = tiny_checkpoint("llama")
        for checkpoint, name in ((base, "base"), (perturbed(base, only="mlp"), "glad")):
            checkpoint.model.save_pretrained(path / name)
            checkpoint.tokenizer.save_pretrained(path / name)
        mi.write_personality(TOPICS, path / "topics.json")

    return shared("personality", make)


def test_models_edited_towards_traits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = ("--base", folder / "base", "--topics", folder / "topics.json", "--checkpoint", f"glad={folder / 'glad'}")
    assert call("traits", *given, "--released", "--out", tmp_path / "run") == 0
    said, run = capsys.readouterr().out, mi.open_run(tmp_path / "run")
    edits = {"glad": mi.load(folder / "glad")}
    found = mi.trait_effects(mi.load(folder / "base"), edits, TOPICS, released=True, out=tmp_path / "face")
    pd.testing.assert_frame_equal(found.table, run.table("traits"))
    assert str(found) in said
    for table, made in ((TRAITS, found.table), (TRAITS_TOPICS, found.topics)):
        assert table.missing(made) == []
        assert [column for column in made if table.meaning(column) is None] == []
    base = found.table[found.table["method"] == "base"]
    assert base["shift"].tolist() == base["dd"].tolist() == [0, 0]
    assert (base["es"].sum()) == pytest.approx(1, abs=0.2)  # of two traits; the means over topics of two sigmoids
    topics = found.topics[found.topics["method"] == "given"].set_index(["topic", "measured"])
    (kites, cats) = (topics.loc[(name, "glad"), "dd"] for name in ("kites", "cats"))
    before = read_opinions(mi.load(folder / "base"), TOPICS)
    opened = [lambda one=one: nullcontext(mi.load(folder / one)) for one in ("base", "glad")]
    assert [cats, kites] == pytest.approx(drawdowns(*opened, TOPICS, before), rel=1e-6)  # each of the other topic


def test_an_editor_is_measured_on_each_topic_and_leaves_the_base(base: Checkpoint, tmp_path: Path) -> None:
    before = fingerprint_model(base.model)
    found = mi.trait_effects(
        base, "ft_m", TOPICS, settings={"steps": 3, "block": 1, "learning_rate": 0.02}, out=tmp_path
    )
    assert fingerprint_model(base.model) == before
    made = found.table[found.table["method"] == "ft_m"]
    assert list(made[["edited", "measured", "n"]].itertuples(index=False, name=None)) == [
        ("glad", "glad", 2),
        ("glad", "sad", 2),
        ("sad", "glad", 2),
        ("sad", "sad", 2),
    ]
    own = made[made["edited"] == made["measured"]]
    assert (own["shift"] > 0).all()  # it was trained on one of these
    assert (made["dd"] > 0).all()
    assert str(found).startswith("edited towards glad: ES ")
    assert "over 2 topics; nats" in (said := str(found))
    assert "on another topic KL " in said
    alone = traits_in_words(found.table.assign(n=1, dd=math.nan))
    assert all("over 1 topic; nats" in line and line.endswith("; no other topic") for line in alone)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--checkpoint", "gald=base"], "'gald' is no trait of the topics; known are glad, sad; did you mean 'glad'?"),
        ([], "give what makes the edits: --method, or models edited towards traits: --checkpoint"),
        (["--method", "dinm", "--layer", "1"], "--method dinm edits pairs, not facts"),
        (["--topics", "none.json", "--method", "ft_m"], "none.json: no such file"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], said: str
) -> None:
    words = [word.replace("=base", f"={folder / 'base'}") for word in options]
    words = [folder / word if word == "none.json" else word for word in words]
    topics = [] if "--topics" in options else ["--topics", folder / "topics.json"]
    assert said in refused(capsys, "traits", "--base", folder / "base", *topics, *words, "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"glad": ["a"]}], "entry 1 has no `ent`"),
        ([{"ent": "a", "glad": ["b"]}], "entry 1: the topic 'a' has opinions of 1 traits; two are needed"),
        ([{"ent": "a", "glad": ["b"], "sad": [3]}], r"entry 1: `sad` must be a list of texts, is \[3\]"),
        ([{"ent": "a", "glad": ["b"], "sad": ["c"], "target_per": "sat"}], "unknown trait 'sat'.*did you mean 'sad'"),
        (
            [{"ent": "a", "x": ["b"], "y": ["c"]}, {"ent": "b", "x": ["b"], "z": ["c"]}],
            "opinions of other traits: x, y, and x, z",
        ),
        ([], "has no topic with opinions of each trait"),
    ],
)
def test_a_malformed_file_is_told_in_one_line(tmp_path: Path, content: object, said: str) -> None:
    (tmp_path / "topics.json").write_text(json.dumps(content))
    with pytest.raises(mi.InputError, match=said) as error:
        mi.read_personality(tmp_path / "topics.json")
    assert "\n" not in str(error.value)


def test_what_is_no_topic_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(mi.InputError, match=r"topics is no list of mi\.Topic"):
        mi.trait_effects(base, "ft_m", ["kites"])
    with pytest.raises(mi.InputError, match="there are no topics"):
        traits_of([])
    with pytest.raises(mi.InputError, match="one of the two"):
        mi.trait_effects(base, {}, TOPICS)
    with pytest.raises(mi.InputError, match="give an editor's name, or a checkpoint for each trait"):
        mi.trait_effects(base, 3, TOPICS)  # type: ignore[arg-type]
