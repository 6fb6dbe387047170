"""The report: self-contained, escaped, worded from the evidence, whole with whatever tables a run has."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import escape
from matplotlib.figure import Figure
from stand_ins import stand_ins
from synthetic_run import MANIFEST, TUNED, make_run, make_tables

from mechinterp.audit.tables.registry import TABLES
from mechinterp.audit.tables.verdicts import with_verdict
from mechinterp.data.storage.ledger import LEDGER
from mechinterp.errors import InputError
from mechinterp.measures.intervals import is_end
from mechinterp.methods.registry import METHODS
from mechinterp.report import page as report
from mechinterp.report import write_report
from mechinterp.report.directions import direction_notes
from mechinterp.report.findings import rests_on, sentences, which_count
from mechinterp.report.glossary import anchor_of
from mechinterp.report.plates import PLATES, draw_figures, figure_bytes
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.relapse import relapse_control_rows, relapse_group_rows, relapse_sentences
from mechinterp.report.words import linking, words_in

VOID_TAGS = {"meta", "img", "link", "br", "hr", "input"}
INLINE_TAGS = {"a", "span", "strong", "em", "code"}


class Page(HTMLParser):
    """The page's tags, checked for nesting, its text, and the text of every answer and of every card of numbers."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.open: list[tuple[str, str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.answers: list[str] = []
        self.cards: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        kind = str(dict(attrs).get("class", ""))
        for parts in [self.answers] * (kind == "answer") + [self.cards] * (kind == "card"):
            parts.append("")
        if tag not in VOID_TAGS:
            self.open.append((tag, kind))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag
        if tag not in INLINE_TAGS:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        tags, kinds = [tag for tag, _ in self.open], [kind for _, kind in self.open]
        if not {"style", "script"} & set(tags):
            self.words.append(data)
            for parts in [self.answers] * ("answer" in kinds) + [self.cards] * ("card" in kinds):
                parts[-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a whole run; its pictures are stand-ins, as in every test."""
    run = make_run(tmp_path_factory.mktemp("full") / "run")
    with stand_ins():
        return Page(write_report(run).read_text(encoding="utf-8"))


def answer_tables(tuned: tuple[str, ...] = TUNED) -> dict[str, pd.DataFrame]:
    """The tables that the answer is worded from."""
    tables = make_tables(tuned)
    return {name: tables[name] for name in ("local_verdict", "validity", "mechanism", "defense")}


@pytest.fixture
def page_of(tmp_path: Path) -> Callable[[dict[str, pd.DataFrame]], Page]:
    def make(tables: dict[str, pd.DataFrame]) -> Page:
        return Page(write_report(make_run(tmp_path / "run", tables)).read_text(encoding="utf-8"))

    return make


def test_the_page_is_complete_and_self_contained(full_page: Page) -> None:
    assert len(full_page.images) == len(PLATES)
    for image in full_page.images:
        assert str(image["src"]).startswith("data:image/png;base64,")
        assert len(str(image["alt"])) > 40
    targets = [a[key] for _, a in full_page.tags for key in ("src", "href", "srcset") if key in a]
    assert all(str(target).startswith(("data:", "#")) for target in targets)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in full_page.tags}
    assert "default-src 'none'" in full_page.source
    assert "@import" not in full_page.source
    assert "url(" not in full_page.source


def test_its_own_script_is_the_only_one_that_may_run(full_page: Page) -> None:
    script = (Path(report.__file__).parent / "templates" / "report.js").read_text(encoding="utf-8").strip()
    assert [full_page.source.count(each) for each in ("<script", script)] == [1, 1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in full_page.source
    assert "</script" not in script


def test_what_a_heading_means_is_said_once_and_every_heading_of_a_table_leads_there(full_page: Page) -> None:
    identifiers = [str(attributes["id"]) for _, attributes in full_page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    led_to = {str(a["href"])[1:] for tag, a in full_page.tags if tag == "a" and a.get("class") == "define"}
    assert {"column.method", "local_verdict.erasure_share", "defense.ds", "relapse_verdict.by_activations"} <= led_to
    shown = [(table, str(column)) for name, table in TABLES.items() for column in make_tables().get(name, ())]
    anchors = {anchor_of(table, column) for table, column in shown if table.printed and not is_end(column)}
    assert len(anchors) > 80
    assert anchors <= {*led_to, None}  # a column that its table should not have leads nowhere
    for text in TABLES["local_verdict"].columns.values():
        assert full_page.source.count(str(escape(text))) == 1
    assert full_page.text.count("What counts") == 1


def test_the_words_of_the_answer_are_explained_where_they_are_used(page_of: Callable[..., Page]) -> None:
    tables = make_tables()
    page = page_of({"relapse_verdict": tables["relapse_verdict"], "defense": tables["defense"]})
    explained = {str(a["id"]) for _, a in page.tags if str(a.get("id")).startswith("word.")}
    assert "word.relapse-test" in explained
    assert "word.class-means-direction" not in explained
    words = words_in(["Erased, by construction: 85% erasure along the answer direction"])
    assert [word.term for word in words][:2] == ["erased", "by construction"]
    assert {"toxic write", "erasure share"} <= {word.term for word in words}
    linked = linking(words)("<b>Erased</b>, not mixed, erased")
    assert linked == '&lt;b&gt;<a class="word" href="#word.erased">Erased</a>&lt;/b&gt;, not mixed, erased'


def test_both_halves_of_the_verdict_stand_first_with_their_numbers_and_words(page_of: Callable[..., Page]) -> None:
    sentence = "around the value vectors (19% [15%, 23%]); hidden: relearn at 5 steps brings back 60%, to a model that"
    row = {"method": "sft", "where": "around the value vectors", "gone": "hidden", "attack": "relearn at 5 steps"}
    numbers = {"value_share": 0.19, "recovery": 0.6, "excess": 0.57, "depth": float("nan")}
    bounds = {f"{name}_{end}": value for name, value in numbers.items() for end in ("low", "high")}
    verdict = pd.DataFrame([{**row, **numbers, **bounds, "sentence": f"{sentence} never knew 3%"}])
    page = page_of({**answer_tables(("sft",)), "verdict": verdict})
    assert f"A{sentence[1:]} never knew 3%." in page.answers[0]
    assert "Brought back by relearn at 5 steps? 60% [60%, 60%] of the change; 57% [57%, 57%] beyond" in page.text
    assert "Depth score" not in page.cards[0]
    explained = {str(a["id"]) for _, a in page.tags if str(a.get("id")).startswith("word.")}
    assert {"word.around-the-value-vectors", "word.hidden", "word.a-model-that-never-knew"} <= explained
    assert "word.in-the-value-vectors" not in explained


def test_a_study_says_how_a_checkpoint_was_made_and_a_users_label_says_nothing(
    tmp_path: Path,
) -> None:
    line = METHODS["sft"].line
    for studied, folder in ((["sft"], "study"), (None, "comparison")):
        manifest = {"config": {"title": "a title", "studied": studied}, "seed": 3}
        source = write_report(make_run(tmp_path / folder, answer_tables(), manifest)).read_text(encoding="utf-8")
        assert (line in Page(source).text) == (studied is not None)
        assert f"of the run {folder} · a title · seed 3" in source


def test_a_new_plate_is_shown_with_its_texts_once_it_is_registered(
    page_of: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(judge: pd.DataFrame) -> Figure:
        return Figure()

    new = Plate("new", "A title & more", "A caption.", "What is there to be seen.", ("judge",), draw, narrow=True)
    other = replace(new, name="other", title="Another title", tables=("absent",))
    monkeypatch.setitem(PLATES, "new", new)
    monkeypatch.setitem(PLATES, "other", other)
    page = page_of({"judge": make_tables()["judge"]})
    assert [image["alt"] for image in page.images] == ["What is there to be seen."]
    assert '<figure class="narrow">' in page.source
    assert "A title &amp; more</h3>" in page.source
    assert "A caption. Drawn from judge." in page.text
    assert "Another title (absent.csv)" in page.text


def test_links_lead_to_sections_and_headings_do_not_skip(full_page: Page) -> None:
    identifiers = {attributes.get("id") for _, attributes in full_page.tags}
    assert {str(a["href"])[1:] for tag, a in full_page.tags if tag == "a"} <= identifiers
    levels = [int(tag[1]) for tag, _ in full_page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_card_carries_its_verdict_numbers_and_intervals(full_page: Page) -> None:
    sft, dpo, dinm = full_page.cards
    assert "0.151 [0.111, 0.191]" in full_page.text  # in the table of verdicts
    assert "−1.33 [−1.59, −1.06]" in full_page.text
    assert "93% [88.3%, 98.6%]" in sft
    assert "ill-conditioned" in sft
    assert "ill-conditioned" not in dpo
    assert "its erasure share is 1 by construction" in dinm
    assert "suffix prompt appended; vanilla 42% [34%, 50%]" in dinm
    assert "layer 6 (block 5)" in dinm
    for answer, (name, said) in zip(full_page.answers, sentences(make_tables()).items(), strict=True):
        assert answer.split()[0] == name.upper()
        assert f"{said[:1].upper()}{said[1:]}." in answer
    assert which_count(make_tables()) in full_page.text
    assert rests_on(make_tables()) in full_page.text


def test_the_numbers_say_first_what_the_sentences_rest_on_and_what_is_missing() -> None:
    tables = make_tables()
    assert rests_on(tables).startswith("Where a change sits is told by what every group of changed weights")
    assert "This run has no" not in rests_on(tables)
    some = {name: table for name, table in tables.items() if name not in ("attacks", "depth")}
    assert rests_on(some).endswith("This run has no depth score and no attacks.")
    unscored = {**tables, "depth": tables["depth"].assign(score=float("nan"))}
    assert rests_on(unscored).endswith("This run has no depth score.")
    assert rests_on({}) == ""


def test_every_heading_of_a_table_leads_to_its_meaning(full_page: Page) -> None:
    headings = re.findall(r'<th scope="col">(.*?)</th>', full_page.source, re.DOTALL)
    assert len(headings) > 100
    assert [heading for heading in headings if 'class="define"' not in heading] == []


def test_verdicts_on_a_model_deeper_than_the_calibrated_ones_are_called_no_findings() -> None:
    tables = make_tables()
    assert "no findings" not in which_count(tables)
    deeper = tables["decomposition"].assign(block=tables["decomposition"]["block"] + 6)
    tables["decomposition"] = pd.concat([tables["decomposition"], deeper])
    assert "this one has 12: " in which_count(tables)


def test_groups_of_neurons_stand_beside_as_many_random_ones(page_of: Callable[..., Page]) -> None:
    tables = make_tables()
    rows = list(relapse_group_rows(tables))
    assert len(rows) == 4 * len(TUNED)
    assert rows[0] == ["SFT", "toxic, less active", "50%", "90% [80%, 100%]", "10%"]
    another = tables["relapse"].query("control").assign(draw=2, relapse=0.5)
    rows = list(relapse_group_rows({"relapse": pd.concat([tables["relapse"], another])}))
    assert rows[0][-1] == "30%"  # the mean over draws
    shown = {name: tables[name] for name in ("relapse", "relapse_verdict", "local_verdict")}
    assert "toxic, less active" in page_of(shown).text
    (*_, last) = relapse_control_rows(tables)
    assert last == ["DINM", "1% [−7%, 9%]", "2% [−6%, 10%]", "93% [85%, 101%]", "3% [−5%, 11%]"]
    bare = tables["relapse_verdict"].drop(columns=["by_layer_activations", "by_random", "by_layer_values"])
    assert not list(relapse_control_rows({"relapse_verdict": bare.drop(columns=["by_random_values"])}))
    without = tables["relapse"].query("treatment == 'values'")
    assert not list(relapse_group_rows({"relapse": without}))


def test_it_says_where_the_relapse_test_and_the_decomposition_disagree() -> None:
    words = ("says the same", "the two disagree", "cannot be set against")
    verdicts = make_tables()["relapse_verdict"].assign(agrees=["yes", "no", "silent"])
    alone = verdicts.assign(decomposition=float("nan"))  # the command without a comparison
    for method, expected in zip(TUNED, words, strict=True):
        [said] = relapse_sentences(method, {"relapse_verdict": verdicts})
        assert [part for part in words if part in said] == [expected]
        [said] = relapse_sentences(method, {"relapse_verdict": alone})
        assert said.startswith("Relapse test: ")
        assert not [part for part in words if part in said]


def test_the_wording_follows_the_evidence_not_the_name(page_of: Callable[..., Page]) -> None:
    """The same tables under swapped names give the same verdicts, in the same order."""
    first, second = page_of(answer_tables(("dinm", "sft"))).answers
    assert "Bypassed" in first
    assert first.lstrip().startswith("DINM")
    assert "Erased, by construction" in second


def test_it_says_where_the_directions_disagree_and_which_is_in_play(full_page: Page) -> None:
    sft = full_page.cards[0]
    assert "table validity): the probe direction (last prompt token" in full_page.text
    assert "The directions disagree at the last prompt token: 1 [1, 1] along the probe direction" in sft
    assert "Only the answer direction is in play there" in sft


def test_two_directions_in_play_that_disagree_are_both_reported(page_of: Callable[..., Page]) -> None:
    tables = answer_tables(("mine",))
    verdict = tables["local_verdict"].assign(in_play=True, change=-1.0)
    verdict["verdict"] = verdict["direction"].map({"probe": "erased", "answer": "bypassed", "class_means": "bypassed"})
    page = page_of(tables | {"local_verdict": verdict})
    assert "The readings disagree" in page.answers[0]
    assert "Neither is ruled out" in page.cards[0]


def test_a_base_that_stammers_when_it_is_steered_is_told() -> None:
    validity = make_tables(("mine",))["validity"].head(2)
    shares = {"minus": [0.9, 0.2], "none": [0.1, 0.1], "plus": [0.1, 0.3]}
    flagged = validity.assign(**{f"steering_degenerate_{name}": values for name, values in shares.items()})
    [said] = [note for note in direction_notes({"validity": flagged}) if "stammer" in note]
    assert "90% of its answers are empty, short, looping or the like steered against it, 10% unsteered" in said
    assert not any("stammer" in note for note in direction_notes({"validity": validity}))


def test_no_direction_in_play_means_no_verdict(page_of: Callable[..., Page]) -> None:
    tables = answer_tables()
    page = page_of(tables | {"local_verdict": tables["local_verdict"].assign(in_play=False)})
    assert all("No verdict: no direction is in play" in answer for answer in page.answers)
    assert len(page.answers) == len(TUNED)


def test_an_undecided_verdict_gives_its_reason(page_of: Callable[..., Page]) -> None:
    tables = answer_tables(("mine",))
    verdict = tables["local_verdict"].assign(verdict="undecided", in_play=True, reason="the write did not fall")
    answer = page_of(tables | {"local_verdict": verdict}).answers[0]
    assert "Undecided (at the last prompt token" in answer
    assert "along the answer direction: the write did not fall" in answer


def test_an_edit_of_an_inner_block_is_said_to_be_erasure_there_by_construction(page_of: Callable[..., Page]) -> None:
    key = {"method": "mine", "direction": "answer", "position": "prompt_last", "bias": 0.0}
    parts = [(0, 0.0, 0.0), (1, -2.0, 0.0), (2, 0.0, -0.4)]
    rows = [{**key, "block": block, "erasure": erasure, "bypass": bypass} for block, erasure, bypass in parts]
    tables = answer_tables(("mine",))
    verdict = tables["local_verdict"].assign(verdict="erased", in_play=True, erasure_share=0.83)
    verdict = verdict.query("direction == 'answer' and position == 'prompt_last'")
    page = page_of(tables | {"local_verdict": verdict, "decomposition": pd.DataFrame(rows)})
    assert "Erased, by construction" in page.answers[0]
    assert "Only the weights of layer 2 (block 1) changed" in page.cards[0]


def test_play_is_taken_from_validity_or_called_unchecked(tmp_path: Path) -> None:
    tables = answer_tables()
    tables["local_verdict"] = tables["local_verdict"].drop(columns="in_play")
    with_validity = Page(write_report(make_run(tmp_path / "a", tables)).read_text(encoding="utf-8"))
    assert "Not in play, and so not counted" in with_validity.text
    assert "was not checked" not in with_validity.text
    del tables["validity"]
    without = Page(write_report(make_run(tmp_path / "b", tables)).read_text(encoding="utf-8"))
    assert "whether the directions are in play was not checked" in without.answers[0]


def test_everything_from_the_run_is_escaped(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    tables = make_tables((attack, '" onmouseover="x', "ok"))
    tables["local_verdict"] = tables["local_verdict"].assign(reason=attack)
    tables["edits"] = tables["edits"].assign(response=attack)
    manifest = {"config": {attack: attack}, "seed": attack, attack: {"a": 1}}
    page = Page(write_report(make_run(tmp_path / "r<i>un", tables, manifest)).read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert "<script>alert" not in page.source
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert len(page.images) == len(PLATES)
    assert attack in page.text


@pytest.mark.parametrize(
    "present",
    [
        ("mechanism", "decomposition", "local_verdict", "validity"),
        ("mechanism",),
        ("local_verdict",),
        ("defense",),
        ("probe", "probe_roc"),
        ("toxic_layer",),
    ],
)
def test_any_table_may_be_missing(present: tuple[str, ...], page_of: Callable[..., Page]) -> None:
    tables = make_tables()
    page = page_of({name: tables[name] for name in present})
    assert "Not drawn, for want of their tables" in page.text
    assert "What this does not establish" in page.text
    without = present[0] in ("probe", "toxic_layer")  # no checkpoint is in them
    assert ("No table of this run is one that decides either" in page.text) == without


@pytest.mark.parametrize(
    ("present", "title", "said"),
    [
        (
            ("circuits", "circuit_faithfulness", "circuit_edges", "circuit_overlap"),
            "Which edges carry the answer, and what flows through them?",
            "Base: the metric falls by",
        ),
        (("decodability",), "What can still be read off the states?", "after the last block"),
        (("edited_facts",), "Facts edited at one block after the other: what became of them?", "new answer"),
    ],
)
def test_a_run_of_another_question_has_a_page_of_it_and_nothing_of_what_it_did_not_ask(
    present: tuple[str, ...], title: str, said: str, page_of: Callable[..., Page]
) -> None:
    tables = make_tables()
    page = page_of({name: tables[name] for name in present})
    assert page.source.count(title) == 2  # the browser's and its own
    assert said in page.text
    for other in (
        "unsafe behaviour gone",
        "no verdict",
        "relapse was tested",
        "Not drawn",
        "paper gives",
        "T is a mean",
    ):
        assert other not in page.text
    linked = re.findall(r'href="#([a-z-]+)">', page.source.partition("<main>")[0])
    assert linked == re.findall(r'<section id="([a-z-]+)"', page.source)
    assert not {"relapse", "directions", "paper", "certificate", "limits"} & {*linked}


@pytest.mark.parametrize("present", [("attacks",), ("origins",), ("relapse_verdict", "relapse"), ("depth",)])
def test_a_run_that_judges_one_half_has_no_empty_sections(
    present: tuple[str, ...], page_of: Callable[..., Page]
) -> None:
    tables = make_tables()
    page = page_of(with_verdict({name: tables[name] for name in present}))
    assert "What did tuning change, and is the unsafe behaviour gone?" in page.text
    for other in ("This run has no tables/", "Not drawn, for want", "nothing to set beside", "T is a mean"):
        assert other not in page.text
    there = re.findall(r'<section id="([a-z-]+)"', page.source)
    assert ("relapse" in there) == ("relapse" in present)
    assert {"certificate", "limits"} <= {*there}


def test_the_limits_tell_of_checkpoints_beyond_the_model_that_never_learnt(
    full_page: Page, page_of: Callable[..., Page]
) -> None:
    said = "driven further from the base than the model that never learnt"
    assert said in full_page.text
    assert said not in page_of({"depth": make_tables()["depth"]}).text


def test_a_study_that_asks_of_circuits_has_a_section_of_them(full_page: Page) -> None:
    (circuits,) = re.findall(r'<section id="circuits">.*?</section>', full_page.source, re.DOTALL)
    assert "SFT: through the base’s circuit flows" in circuits  # as pictures and cards call it
    assert "sft:" not in circuits
    assert '<a href="#circuits">Circuits</a>' in full_page.source


@pytest.mark.parametrize(
    "names", [("local_verdict",), ("validity",), ("mechanism",), ("defense",), tuple(make_tables())]
)
def test_tables_of_other_columns_or_no_rows_do_not_break_the_page(names: tuple[str, ...], tmp_path: Path) -> None:
    tables = answer_tables() if len(names) == 1 else make_tables()
    made_by_hand = pd.DataFrame({"method": ["sft"], "note": ["not ours"]})
    write_report(make_run(tmp_path / "empty", tables | {name: tables[name].iloc[:0] for name in names}))
    write_report(make_run(tmp_path / "other", tables | dict.fromkeys(names, made_by_hand)))


def test_long_tables_are_cut_and_say_so(full_page: Page) -> None:
    assert "The first 60 of 108 rows" in full_page.text


def test_the_settings_are_those_of_the_manifest(full_page: Page) -> None:
    text = full_page.text
    assert "dinm.learning_rate 0.0005" in text
    assert 'positions ["prompt_last", "response"]' in text
    assert "organism 81.2346" in text
    assert f"torch {MANIFEST['versions']['torch']}" in text
    assert "peak_memory_gb 1.73" in text


@pytest.mark.parametrize("content", [None, "", "not json", "[1]"])
def test_an_unreadable_manifest_leaves_the_settings_unknown(content: str | None, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", answer_tables())
    (run / "manifest.json").unlink()
    if content is not None:
        (run / "manifest.json").write_text(content)
    assert "its settings are unknown" in write_report(run).read_text(encoding="utf-8")


def test_the_papers_claims_stand_beside_the_runs_numbers(tmp_path: Path) -> None:
    text = Page(write_report(make_run(tmp_path / "a", answer_tables())).read_text(encoding="utf-8")).text
    assert "lower by 2.72%, no interval given reduction 38.2% [−1.8%, 88.2%], p = 0.09" in text
    others = Page(write_report(make_run(tmp_path / "b", answer_tables(("mine",)))).read_text(encoding="utf-8")).text
    assert "No checkpoint of this run bears the name of a method of the paper" in others


@pytest.mark.parametrize("names", [("defense",), tuple(answer_tables())])
def test_the_same_run_gives_the_same_page(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its picture where there is one; with stand-ins where there are many."""
    if len(names) == 1:
        monkeypatch.setattr(report, "draw_figures", draw_figures)
        monkeypatch.setattr(report, "figure_bytes", figure_bytes)
    run = make_run(tmp_path / "run", {name: answer_tables()[name] for name in names})
    once = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == once
    assert sorted(path.name for path in run.iterdir()) == [LEDGER, "manifest.json", "report.html", "tables"]
    assert json.loads((run / "manifest.json").read_text()) == MANIFEST


def test_a_folder_without_tables_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tables"):
        write_report(tmp_path)
