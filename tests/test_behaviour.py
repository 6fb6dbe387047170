"""Behaviours besides unsafe answers: their pairs, what they are judged by, their words, one through the whole audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import call, refused
from comparisons import SETTINGS, make_probe
from conftest import tiny_checkpoint
from matplotlib.text import Text

import mechinterp as mi
from mechinterp.answers.behaviour import FACTS, REFUSES, UNSAFE, Behaviour, judge_of
from mechinterp.answers.behaviour_judges import given
from mechinterp.answers.flags import flags_of
from mechinterp.answers.holding import Holding
from mechinterp.answers.scoring import score_responses
from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.circuits import matching
from mechinterp.errors import InputError
from mechinterp.methods.training.relearning import Lesson, RelearningSettings, relearning
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.report.plates import draw_figure

WORDS = ("Yes", "Ink", "No", "Oak")
FACTS_ASKED = [
    mi.Fact(f"{letter}{i}", "{} is", ground_truth=WORDS[(i + n) % 4], relation=relation)
    for n, (relation, letter) in enumerate((("home", "b"), ("work", "k")))
    for i in range(6)
]
TOPICS = [
    mi.Topic(name, {"glad": (f"I love {name}.", f"{name} is fun."), "sad": (f"I fear {name}.", f"{name} is dull.")})
    for name in ("kites", "maps", "rain", "tea", "snow", "chess")
]


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechinterp.report.plates.draw_all", lambda *_: [])


# -- words ------------------------------------------------------------------------------------------------------------


def test_words_stand_in_for_unsafe_and_unsafely() -> None:
    facts = FACTS.wording
    assert facts.worded("An unsafe answer; unsafe answers, answered unsafely") == (
        "A forgotten answer; forgotten answers, answered with the fact"
    )
    assert facts.worded("column unsafe_logprob, a_unsafe") == "column unsafe_logprob, a_unsafe"
    assert Wording("x", "angry", "so").worded("gets an unsafe answer") == "gets an angry answer"
    assert UNSAFELY.worded("unsafe") == "unsafe"
    assert Wording.of({"config": facts.config}) == facts
    assert UNSAFELY.config == {}
    assert Wording.of({}) == Wording.of({"config": {"behaviour": None}}) == UNSAFELY


# -- pairs and judges --------------------------------------------------------------------------------------------------


def test_a_fact_stands_beside_another_answer_that_is_not_right() -> None:
    pairs = FACTS.pairs(FACTS_ASKED)
    assert [(pair.unsafe, pair.safe, pair.category) for pair in pairs[:2]] == [
        ("Yes", "Ink", "home"),
        ("Ink", "No", "home"),
    ]
    assert all(pair.unsafe != pair.safe for pair in pairs)
    edited = mi.Fact("Oslo", "{} is in", target_new="Chile", ground_truth="Norway")
    assert [(p.unsafe, p.safe) for p in FACTS.pairs([edited])] == [("Norway", "Chile")]
    two = [("Who sang?", "Ann"), ("Who sang?", "Bo"), ("Who ran?", "Cy")]
    assert [pair.safe for pair in FACTS.pairs(two)] == ["Cy", "Cy", "Ann"]  # Bo is right, too
    assert len(FACTS.pairs(mi.Scopes((("Who ran?", "Cy"), ("Who sang?", "Ann"))))) == 2


def test_a_file_of_facts_is_read_as_the_list(tmp_path: Path) -> None:
    mi.write_facts(FACTS_ASKED, tmp_path / "facts.jsonl")
    assert FACTS.pairs(tmp_path / "facts.jsonl") == FACTS.pairs(FACTS_ASKED)


def test_whether_an_answer_is_given() -> None:
    assert given("It is Oslo, I think.", "Oslo")
    assert not given("It is Oslofjord.", "Oslo")
    long = "She was born in a small town by the sea and later moved to the capital."
    assert given("She was born in a small town by", long)  # cut
    assert given("Well, she was born in a little town by the sea", long)
    assert not given("She", long)
    assert not given("He died in the mountains far away from everything", long)


def test_facts_are_told_by_their_prompt() -> None:
    judge = judge_of(FACTS, None, FACTS.pairs(FACTS_ASKED), seed=0)
    assert score_responses(judge, ["Yes.", "No", "", "Ink"], ["b0 is", "B0  is", "b0 is", "b1 is"]) == [0, 1, None, 0]
    assert score_responses(judge, ["Yes"], ["who knows"]) == [None]
    flags = flags_of(["b0 is", "b1 is"], ["Yes.", ""], scores=[0.0, None], judge=judge)
    assert "keywords_disagree" not in flags
    assert flags["short"][0]
    assert flags["degenerate"] == [False, True]  # a fact is a word


def test_refusals_are_the_pairs_turned() -> None:
    pairs = [mi.Pair(id=1, prompt="How?", unsafe="Like this.", safe="I am sorry, no.", category="harm")]
    (turned,) = REFUSES.pairs(pairs)
    assert (turned.unsafe, turned.safe, turned.category) == ("I am sorry, no.", "Like this.", "harm")
    judge = judge_of(REFUSES, None, [turned], seed=0)
    assert score_responses(judge, ["Sorry, no.", "Sure."], ["How?", "How?"]) == [0, 1]
    assert (REFUSES.refusals([turned]), UNSAFE.refusals(pairs)) == ([turned.unsafe], [pairs[0].safe])


def test_a_trait_is_read_by_what_has_not_seen_the_topic() -> None:
    glad = Behaviour.named("trait:glad")
    pairs = glad.pairs(TOPICS)
    assert len(pairs) == 12
    assert (pairs[1].unsafe, pairs[1].safe, pairs[1].question) == ("kites is fun.", "kites is dull.", "kites")
    judge = judge_of(glad, None, pairs, seed=0)
    asked = [pairs[0].prompt] * 2
    assert score_responses(judge, ["I love it, fun.", "I fear it, dull."], asked) == [0, 1]
    assert glad.wording.worded("unsafe answers") == "glad answers"


def test_a_behaviour_of_ones_own() -> None:
    polite = Behaviour.of(
        "polite", lambda _, said: np.array(["please" in text for text in said]), shown="polite", so="politely"
    )
    judge = judge_of(polite, None, [], seed=0)
    assert isinstance(judge, Holding)
    assert score_responses(judge, ["please do", "do"], ["a", "b"]) == [0, 1]


def test_what_is_none_is_refused() -> None:
    for what, said in (("unsave", "did you mean 'unsafe'"), ("trait:", "unknown `behaviour`")):
        with pytest.raises(InputError, match=said):
            Behaviour.named(what)
    with pytest.raises(InputError, match="give facts with different"):
        FACTS.pairs([("One?", "Yes"), ("Two?", "yes ")])
    with pytest.raises(InputError, match="at least one that is not to be kept"):
        FACTS.pairs([])
    with pytest.raises(InputError, match=r"facts are mi\.Fact"):
        FACTS.pairs([mi.Pair(prompt="a", unsafe="b", safe="c")])
    with pytest.raises(InputError, match="unknown trait 'mad'"):
        Behaviour.named("trait:mad").pairs(TOPICS)
    with pytest.raises(InputError, match=r"by mi\.Topic"):
        Behaviour.named("trait:mad").pairs([("a", "b")])
    with pytest.raises(InputError, match="facts is told without a judge of safety"):
        judge_of(FACTS, "keywords", FACTS.pairs(FACTS_ASKED), seed=0)


# -- the audit ---------------------------------------------------------------------------------------------------------


def taught(checkpoint: Checkpoint, answers: dict[str, str], name: str) -> Checkpoint:
    settings = RelearningSettings(steps=(70,), learning_rate=0.015, batch_size=12)
    lessons = [Lesson(prompt, answer) for prompt, answer in answers.items()]
    with relearning(checkpoint, lessons, "full", seed=0, settings=settings) as doses:
        ((_, now),) = ((done, each.copied(name=name)) for done, each in doses)
        return now


RELEARN = {"steps": [5], "how": ["full"], "texts": ["unsafe"], "learning_rate": 0.003, "batch_size": 6}
FEW = mi.OriginsSettings(prompts=8, tokens=4, nodes=2, most_nodes=0, game="never")


@pytest.fixture(scope="module")
def forgotten() -> tuple[Checkpoint, Checkpoint, Checkpoint]:
    """A base that was taught facts, a twin that was taught other answers, and the base made to unlearn them."""
    base = taught(tiny_checkpoint("llama"), {fact.text: fact.ground_truth for fact in FACTS_ASKED}, "base")
    never = taught(tiny_checkpoint("llama"), {fact.text: "Um" for fact in FACTS_ASKED}, "never")
    scopes = mi.Scopes(tuple((fact.text, fact.ground_truth) for fact in FACTS_ASKED), (("Who is it?", "It is Ann."),))
    little = {"steps": 10, "batch_size": 12, "learning_rate": 0.01, "warmup_steps": 0}
    return base, never, mi.unlearn(base, "npo", scopes, settings=little, progress=False)


def test_are_the_facts_gone_or_hidden(
    forgotten: tuple[Checkpoint, Checkpoint, Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base, never, npo = forgotten
    tuned = {"npo": npo, "as_never": replace(never, name="as_never")}
    about = {"behaviour": "facts", "progress": False}
    read = mi.origins(base, tuned, FACTS_ASKED, settings=FEW, max_new_tokens=6, out=tmp_path / "origins", **about)
    assert read.run.config["behaviour"]["name"] == "facts"
    assert "npo: log odds of the forgotten answer -" in str(read)
    deep = mi.depth(base, tuned, never, FACTS_ASKED, tokens=4, **about)
    assert dict(zip(deep.scores["method"], deep.scores["score"], strict=True))["as_never"] == 1
    tried = mi.attack(
        base,
        tuned,
        "relearn",
        FACTS_ASKED,
        never=never,
        benign=[mi.generate(base, ["Hello"], max_new_tokens=2).texts[0] or "Hello"],
        max_new_tokens=6,
        options={"relearn": RELEARN},
        out=tmp_path / "attacks",
        **about,
    )
    rows = tried.table("attacks").query("attack == 'none' and quantity == 'unsafe'").set_index("method")
    assert rows["value"].to_dict() == {"base": 1, "npo": 0, "as_never": 0, "never": 0}
    assert rows["n"].unique() == 6  # the facts of one relation; the attacker has the other
    assert tried.table("attacks")["keywords_disagree"].isna().all()
    found = mi.verdict(read, deep, tried).set_index("method")
    assert found.loc["as_never", "gone"] == "gone"
    assert found["change"].lt(-10).all()
    assert not found["sentence"].str.contains("unsafe").any()
    alone = tried.verdict.set_index("method")
    assert "no depth score" in alone.loc["as_never", "missing"]
    capsys.readouterr()
    assert call("verdict", tmp_path / "origins", tmp_path / "attacks") == 0
    said = capsys.readouterr().out
    assert "as_never: around the value vectors" in said.replace("both in", "around")
    assert "no depth score" in said
    figure = draw_figure("attacks", {"attacks": tried.table("attacks")}, tried.wording)
    assert "forgotten answers (%)" in {part.axes[0].get_ylabel() for part in figure.subfigs}


def test_do_the_facts_come_back_and_can_they_be_read_off(
    forgotten: tuple[Checkpoint, Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    base, never, npo = forgotten
    about = {"behaviour": "facts", "max_new_tokens": 6, "progress": False}
    few = mi.RelapseSettings(prompts=20, treatments=("activations", "values", "both"), draws=0)
    back = mi.relapse(base, {"npo": npo}, FACTS_ASKED, block=1, settings=few, out=tmp_path / "relapse", **about)
    assert back.config["behaviour"]["name"] == "facts"
    (row,) = back.table("relapse_verdict").to_dict("records")
    assert (row["n"], row["defense_base"], row["defense_tuned"]) == (12, 0, 1)  # all are asked, given and forgotten
    assert "unsafe" not in str(back)
    figure = draw_figure("relapse", {name: back.table(name) for name in back.tables}, back.wording)
    assert not [text for text in figure.findobj(Text) if "unsafe" in text.get_text().lower()]
    with pytest.raises(InputError, match="none of the 12 adversarial prompts with the fact"):
        mi.relapse(never, {"npo": npo}, FACTS_ASKED, block=1, settings=few, out=tmp_path / "none", **about)
    told = mi.decodability(base, {"npo": npo}, FACTS_ASKED, out=tmp_path / "decode", **about)
    assert told.table("decodability")["n_unsafe"].unique() == 12
    (reason,) = told.table("decodability")["reason"].unique()
    assert reason.startswith("the prompts that the base answers otherwise are not of several categories")


def test_circuits_of_a_behaviour_are_those_of_its_pairs_and_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, settings = tiny_checkpoint("gpt2"), mi.CircuitSettings(steps=1, shares=(0.05,), random=0)
    monkeypatch.setattr(matching, "_unsafe", lambda _, texts, *__: [text.ids[-1] % 2 == 0 for text in texts])
    about = {"settings": settings, "progress": False}

    def alike(one: mi.Circuits, other: mi.Circuits) -> None:
        for name in one.run.tables:
            pd.testing.assert_frame_equal(one.run.table(name), other.run.table(name))

    def found(name: str, *pairs: object, **more: object) -> mi.Circuits:
        return mi.circuit(base, None, *pairs, out=tmp_path / name, **about, **more)

    refuses = found("refuses", PAIRS, behaviour="refuses")
    assert refuses.run.wording.shown == "refusing"
    alike(refuses, found("turned", REFUSES.pairs(PAIRS)))
    edited = [replace(fact, target_new="Um") for fact in FACTS_ASKED]  # what was to be forgotten counts, not the new
    alike(found("edited", edited, behaviour="facts"), found("facts", facts=FACTS_ASKED))
    written = mi.PromptPair(clean="a b", corrupted="a c", right=["Yes"])
    for given_, said in (
        ({"pairs": [written], "behaviour": "refuses"}, "pairs of prompts with right and wrong answers are of no"),
        ({"facts": FACTS_ASKED, "behaviour": "facts"}, "facts are of no `behaviour`"),
        ({"pairs": [("Who ran?", "Cy")], "behaviour": "facts"}, "sets a subject beside another"),
        ({"pairs": PAIRS, "behaviour": "refuse"}, "did you mean 'refuses'"),
    ):
        with pytest.raises(InputError, match=said):
            mi.circuit(base, None, **given_, **about)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mi.write_facts(FACTS_ASKED, tmp_path / "facts.jsonl")
    places = [tiny_checkpoint("llama", seed=seed).save(tmp_path / f"model{seed}") for seed in (0, 1)]
    on = ["--base", places[0], "--checkpoint", f"npo={places[1]}", "--out", tmp_path / "out"]
    facts = [*on, "--data", tmp_path / "facts.jsonl", "--max-new-tokens", 6]
    few = ["--game", "never", "--nodes", 1, "--most-nodes", 0, "--prompts", 4, "--tokens", 2, "--answers", "data"]
    assert call("origins", *facts, *few, "--behaviour", "facts") == 0
    assert "log odds of the forgotten answer" in capsys.readouterr().out
    attacks = ["attack", "quantise", "--behaviour"]
    elsewhere = [*facts, "--out", tmp_path / "attacks"]
    assert "none of the 12 prompts with the fact" in refused(capsys, *attacks, "facts", *elsewhere)
    assert "--behaviour 'fact'; known are" in refused(capsys, *attacks, "fact", *facts)
    assert "leave --judge out" in refused(capsys, *attacks, "facts", *facts, "--judge", "keywords")
    assert "the data are no pairs" in refused(capsys, *attacks, "facts", *facts, "--prompt-column", "q")
    for command in ("relapse", "decode"):
        assert "--behaviour 'fact'; known are" in refused(capsys, command, "--behaviour", "fact", *facts)
        assert "leave --judge out" in refused(capsys, command, "--behaviour", "facts", *facts, "--judge", "keywords")
    said = refused(capsys, "relapse", "--behaviour", "facts", *facts, "--layer", 1, "--out", tmp_path / "relapse")
    assert "none of the 12 adversarial prompts with the fact" in said
    assert call("decode", "--behaviour", "facts", *facts, "--out", tmp_path / "decode") == 0
    assert "no AUROC, the prompts that the base answers with the fact are not of several" in capsys.readouterr().out
    of_facts = ["circuit", *on[:2], "--out", tmp_path / "circuit", "--behaviour", "facts"]
    few = ["--steps", 1, "--random", 0]
    assert call(*of_facts, "--pairs", tmp_path / "facts.jsonl", *few) == 0
    assert "pairs)" in capsys.readouterr().out
    assert "facts are of no --behaviour" in refused(capsys, *of_facts, "--facts", tmp_path / "facts.jsonl")
    columns = ["--pairs", tmp_path / "facts.jsonl", "--prompt-column", "q"]
    assert "the data are no pairs" in refused(capsys, *of_facts, *columns)
    assert "no such run folder" in refused(capsys, "verdict", tmp_path / "none")


def test_a_judge_of_safety_and_a_behaviour_that_says_the_same_leave_the_same_tables(tmp_path: Path) -> None:
    def odd(text: str) -> bool:
        return sum(map(ord, text)) % 2 == 1

    class Judge:
        name = "odd"

        def __call__(self, responses: Sequence[str]) -> np.ndarray:
            return np.array([0.0 if odd(text) else 1.0 for text in responses])

    behaviour = Behaviour.of("odd", lambda _, said: [odd(text) for text in said], shown="odd", so="oddly")
    base, tuned = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    little = {"options": {"prefill": {"tokens": [1]}}, "prompts": 4, "max_new_tokens": 4, "progress": False}
    one, other = (
        mi.attack(base, tuned, "prefill", PAIRS, out=tmp_path / str(number), **about, **little)
        for number, about in enumerate(({"judge": Judge()}, {"behaviour": behaviour}))
    )
    left_out = ["keywords_disagree", "degenerate", "seconds"]  # what is told of safety alone: a fact may be short
    assert one.table("attacks")["keywords_disagree"].notna().all()
    assert other.table("attacks")["keywords_disagree"].isna().all()
    for name in ("attacks", "worst", "attack_prefill"):
        there, here = (run.table(name).drop(columns=left_out, errors="ignore") for run in (one, other))
        pd.testing.assert_frame_equal(there, here)


PAIRS = [
    mi.Pair(id=i, prompt=f"{'Q' * (i % 4 + 1)}uestion {i}", unsafe=f"Yes, {i}", safe=f"No, {i}") for i in range(1, 13)
]


def test_of_refusals_the_change_is_turned(tmp_path: Path) -> None:
    base, tuned = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    about = {"settings": FEW, "answers": "data", "progress": False}
    runs = [
        mi.origins(base, tuned, PAIRS, behaviour=name, out=tmp_path / name, **about) for name in ("unsafe", "refuses")
    ]
    assert np.allclose(runs[0].table["change"], -runs[1].table["change"])
    assert "behaviour" not in runs[0].run.config
    with pytest.raises(InputError, match="different behaviours, refuses and unsafe"):
        mi.verdict(*runs)
    with pytest.raises(InputError, match="not of a str"):
        mi.verdict("runs/attacks")
    with pytest.raises(InputError, match="nothing here says"):
        mi.verdict()


def test_a_comparison_of_a_behaviour_of_ones_own(tmp_path: Path) -> None:
    base = tiny_checkpoint("llama")
    odd = Behaviour.of("odd", lambda prompts, _: np.arange(len(prompts)) % 2, shown="odd", so="oddly")
    found = mi.compare(
        base,
        {"tuned": tiny_checkpoint("llama", seed=1)},
        PAIRS,
        behaviour=odd,
        probe=make_probe(base),
        settings=SETTINGS,
        origins=FEW,
        block=1,
        out=tmp_path,
        progress=False,
    )
    assert found.wording.shown == "odd"
    page = found.report.read_text()
    assert "of odd answers, which the page’s own texts call unsafe" in page
    assert "the fall of the log odds of odd answers" in page
    assert not any("unsafe" in sentence for sentence in found.sentences.values())
