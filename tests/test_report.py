"""The report: self-contained, escaped, worded from the evidence, whole with whatever tables a run has."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic_run import MANIFEST, TUNED, make_run, make_tables

from mechinterp.data.storage.ledger import LEDGER
from mechinterp.errors import InputError
from mechinterp.report import page as report
from mechinterp.report import write_report
from mechinterp.report.findings import sentences, which_count
from mechinterp.report.plates import PLATES
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.relapse import relapse_control_rows, relapse_group_rows, relapse_sentences

VOID_TAGS = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """The page's tags, checked for nesting, its text, and the text of every verdict card."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.cards: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "article":
            self.cards.append("")
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
            if "article" in self.open:
                self.cards[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a whole run; its pictures are stand-ins, as of `quick_pictures`."""
    run = make_run(tmp_path_factory.mktemp("full") / "run")
    with patch("mechinterp.report.page.figure_bytes", lambda figure: b"a picture"):
        return Page(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture
def undrawn() -> None:
    """Here figures are rendered, unless a test asks for `quick_pictures`."""


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put stand-ins for the pictures, which take most of the time, into the page."""
    monkeypatch.setattr(report, "figure_bytes", lambda figure: b"a picture")


def answer_tables(tuned: tuple[str, ...] = TUNED) -> dict[str, pd.DataFrame]:
    """The tables that the answer is worded from."""
    tables = make_tables(tuned)
    return {name: tables[name] for name in ("local_verdict", "validity", "mechanism", "defense")}


@pytest.fixture
def page_of(tmp_path: Path, quick_pictures: None) -> Callable[[dict[str, pd.DataFrame]], Page]:
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
    assert not {"script", "link", "iframe"} & {tag for tag, _ in full_page.tags}
    assert "default-src 'none'" in full_page.source
    assert "@import" not in full_page.source
    assert "url(" not in full_page.source


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
    assert {"A title &amp; more", "A caption."} <= set(page.source.replace(">", "<").split("<"))
    assert "Another title ( absent.csv )" in page.text


def test_links_lead_to_sections_and_headings_do_not_skip(full_page: Page) -> None:
    identifiers = {attributes.get("id") for _, attributes in full_page.tags}
    assert {str(a["href"])[1:] for tag, a in full_page.tags if tag == "a"} <= identifiers
    levels = [int(tag[1]) for tag, _ in full_page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_card_carries_its_verdict_numbers_and_intervals(full_page: Page) -> None:
    sft, dpo, dinm = full_page.cards
    assert "Bypassed" in sft
    assert "0.151 [0.111, 0.191]" in sft
    assert "93% [88.3%, 98.6%]" in sft
    assert "−1.33 [−1.59, −1.06]" in sft
    assert "ill-conditioned" in sft
    assert "ill-conditioned" not in dpo
    assert "Erased, by construction" in dinm
    assert "suffix prompt appended; vanilla 42% [34%, 50%]" in dinm
    assert "layer 6 (block 5)" in dinm
    for name, said in sentences(make_tables()).items():
        assert f"{name.upper()} : {said}." in full_page.text
    assert which_count(make_tables()) in full_page.text


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
    cards = page_of(answer_tables(("dinm", "sft"))).cards
    assert "Bypassed" in cards[0]
    assert cards[0].lstrip().startswith("DINM")
    assert "Erased, by construction" in cards[1]


def test_it_says_where_the_directions_disagree_and_which_is_in_play(full_page: Page) -> None:
    sft = full_page.cards[0]
    assert "Not in play, so that an erasure share says nothing about this checkpoint: the probe direction" in sft
    assert "The directions disagree at the last prompt token: 1 [1, 1] along the probe direction" in sft
    assert "Only the answer direction is in play there" in sft


def test_two_directions_in_play_that_disagree_are_both_reported(page_of: Callable[..., Page]) -> None:
    tables = answer_tables(("mine",))
    verdict = tables["local_verdict"].assign(in_play=True, change=-1.0)
    verdict["verdict"] = verdict["direction"].map({"probe": "erased", "answer": "bypassed", "class_means": "bypassed"})
    card = page_of(tables | {"local_verdict": verdict}).cards[0]
    assert "The readings disagree" in card
    assert "Neither is ruled out" in card


def test_no_direction_in_play_means_no_verdict(page_of: Callable[..., Page]) -> None:
    tables = answer_tables()
    page = page_of(tables | {"local_verdict": tables["local_verdict"].assign(in_play=False)})
    assert all("No verdict: no direction is in play" in card for card in page.cards)


def test_an_undecided_verdict_gives_its_reason(page_of: Callable[..., Page]) -> None:
    tables = answer_tables(("mine",))
    verdict = tables["local_verdict"].assign(verdict="undecided", in_play=True, reason="the write did not fall")
    card = page_of(tables | {"local_verdict": verdict}).cards[0]
    assert "Undecided, judging by the answer direction (last prompt token): the write did not fall." in card


def test_an_edit_of_an_inner_block_is_said_to_be_erasure_there_by_construction(page_of: Callable[..., Page]) -> None:
    key = {"method": "mine", "direction": "answer", "position": "prompt_last", "bias": 0.0}
    parts = [(0, 0.0, 0.0), (1, -2.0, 0.0), (2, 0.0, -0.4)]
    rows = [{**key, "block": block, "erasure": erasure, "bypass": bypass} for block, erasure, bypass in parts]
    tables = answer_tables(("mine",))
    verdict = tables["local_verdict"].assign(verdict="erased", in_play=True, erasure_share=0.83)
    verdict = verdict.query("direction == 'answer' and position == 'prompt_last'")
    card = page_of(tables | {"local_verdict": verdict, "decomposition": pd.DataFrame(rows)}).cards[0]
    assert "Erased, by construction" in card
    assert "Only the weights of layer 2 (block 1) changed" in card


def test_play_is_taken_from_validity_or_called_unchecked(tmp_path: Path, quick_pictures: None) -> None:
    tables = answer_tables()
    tables["local_verdict"] = tables["local_verdict"].drop(columns="in_play")
    with_validity = write_report(make_run(tmp_path / "a", tables)).read_text(encoding="utf-8")
    assert "Not in play, so that an erasure share says nothing" in with_validity
    del tables["validity"]
    without = Page(write_report(make_run(tmp_path / "b", tables)).read_text(encoding="utf-8"))
    assert "was not checked in this run" in without.cards[0]


def test_everything_from_the_run_is_escaped(tmp_path: Path, quick_pictures: None) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    tables = make_tables((attack, '" onmouseover="x', "ok"))
    tables["local_verdict"] = tables["local_verdict"].assign(reason=attack)
    tables["edits"] = tables["edits"].assign(response=attack)
    manifest = {"config": {attack: attack}, "seed": attack, attack: {"a": 1}}
    page = Page(write_report(make_run(tmp_path / "r<i>un", tables, manifest)).read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
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


@pytest.mark.parametrize(
    "names", [("local_verdict",), ("validity",), ("mechanism",), ("defense",), tuple(make_tables())]
)
def test_tables_of_other_columns_or_no_rows_do_not_break_the_page(
    names: tuple[str, ...], tmp_path: Path, quick_pictures: None
) -> None:
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


@pytest.mark.usefixtures("quick_pictures")
@pytest.mark.parametrize("content", [None, "", "not json", "[1]"])
def test_an_unreadable_manifest_leaves_the_settings_unknown(content: str | None, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", answer_tables())
    (run / "manifest.json").unlink()
    if content is not None:
        (run / "manifest.json").write_text(content)
    assert "its settings are unknown" in write_report(run).read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick_pictures")
def test_the_papers_claims_stand_beside_the_runs_numbers(tmp_path: Path) -> None:
    text = Page(write_report(make_run(tmp_path / "a", answer_tables())).read_text(encoding="utf-8")).text
    assert "lower by 2.72%, no interval given reduction 38.2% [−1.8%, 88.2%], p = 0.09" in text
    others = Page(write_report(make_run(tmp_path / "b", answer_tables(("mine",)))).read_text(encoding="utf-8")).text
    assert "No checkpoint of this run bears the name of a method of the paper" in others


@pytest.mark.parametrize("names", [("defense",), tuple(answer_tables())])
def test_the_same_run_gives_the_same_page(
    names: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With its picture where there is one; with stand-ins where there are many."""
    if len(names) > 1:
        request.getfixturevalue("quick_pictures")
    run = make_run(tmp_path / "run", {name: answer_tables()[name] for name in names})
    once = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == once
    assert sorted(path.name for path in run.iterdir()) == [LEDGER, "manifest.json", "report.html", "tables"]
    assert json.loads((run / "manifest.json").read_text()) == MANIFEST


def test_a_folder_without_tables_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tables"):
        write_report(tmp_path)
