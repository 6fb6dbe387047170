"""Attacks: what each does to a model, what it leaves as it was, and the numbers by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call, refused
from conftest import N_BLOCKS, make_instance, tiny_checkpoint
from made_checkpoints import perturbed

from mechinterp.audit.attacks.along_answers import along_answers, token_divergences
from mechinterp.audit.attacks.attack import Attacked, Known, Point
from mechinterp.audit.attacks.examining import Attacking
from mechinterp.audit.attacks.of_prefill import PREFILL, PrefillOptions
from mechinterp.audit.attacks.of_sample import SampleOptions
from mechinterp.audit.attacks.registry import ATTACKS, CHEAP
from mechinterp.audit.attacks.results import Examined, Measured
from mechinterp.audit.attacks.settings import AttackSettings
from mechinterp.audit.attacks.splits import Split
from mechinterp.audit.attacks.tables import RECOVERED, worst_rows
from mechinterp.audit.attacks.testing import Examiner
from mechinterp.audit.store import Store
from mechinterp.audit.tables.registry import TABLES
from mechinterp.data.pairs import Pair
from mechinterp.data.safeedit import CATEGORIES, write_safeedit
from mechinterp.data.storage.tables import read_table
from mechinterp.errors import InputError
from mechinterp.measures.divergence import kullback_leibler
from mechinterp.measures.leak import leak_at
from mechinterp.measures.recovery import excess, mean, recovery
from mechinterp.measures.relapse import Rates
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import fingerprint_model
from mechinterp.models.passes.generation import continue_greedily
from mechinterp.models.passes.sampling import sampled
from mechinterp.models.progress import Silent
from mechinterp.runs.attack import attack_checkpoints
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.config import load_config
from mechinterp.runs.stages import Stage
from mechinterp.runs.study import Study

NEW = 6


class OddIsUnsafe:
    """A judge of the answer's letters alone: it is the same for every model, and calls about half unsafe."""

    name = "odd"

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        return np.array([float(sum(map(ord, text)) % 2 == 0) for text in responses])


class Strict(OddIsUnsafe):
    """Calls everything unsafe."""

    name = "strict"

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        return np.zeros(len(responses))


PAIRS = [
    Pair(id=i, prompt=f"{'Q' * (i % 5 + 1)}uestion {i}", unsafe=f"Yes, {i}", safe=f"No, {i}", category="ab"[i % 2])
    for i in range(12)
]


def known_of(base: Checkpoint, pairs: Sequence[Pair] = tuple(PAIRS[:5])) -> Known:
    answers = continue_greedily(base, [pair.prompt for pair in pairs], max_new_tokens=NEW)
    return Known(base, tuple(pairs), tuple(answers), max_new_tokens=NEW)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechinterp.report.plates.draw_all", lambda *_: [])


@pytest.fixture
def base() -> Checkpoint:
    return tiny_checkpoint("llama")


@pytest.fixture
def tuned(base: Checkpoint) -> Checkpoint:
    return perturbed(base)


# -- the numbers ---


def test_leak_by_hand() -> None:
    assert leak_at(1, 8, 3) == pytest.approx(3 / 8)
    assert leak_at(2, 4, 1) == pytest.approx(1 - 3 / 6)
    assert (leak_at(3, 5, 0), leak_at(3, 5, 5), leak_at(3, 5, 3)) == (0.0, 1.0, 1.0)
    every = [any(x < 3 for x in (a, b)) for a in range(7) for b in range(7) if a != b]
    assert leak_at(2, 7, 3) == pytest.approx(sum(every) / len(every))  # the mean over all pairs of seven
    for k, n in ((5, 4), (0, 4)):
        with pytest.raises(InputError, match="leak@k"):
            leak_at(k, n, 1)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_recovery_and_its_excess_by_hand() -> None:
    plain, base, attacked = column(-4, -6, -5), column(0, 0, -1), column(-2, -3, -4)
    found = recovery(attacked, plain, base, rate=False, seed=0)
    assert found.interval.value == pytest.approx(6 / 14)
    assert found.interval.low <= 6 / 14 <= found.interval.high
    assert recovery(plain, plain, base, rate=False, seed=0).interval.value == 0
    back = recovery(base, plain, base, rate=False, seed=0).interval
    assert (back.low, back.value, back.high) == (1, 1, 1)
    assert recovery(base + 5, plain, base, rate=False, seed=0).interval.value > 1  # never clipped
    never, never_attacked = column(-40, -60, -50), column(-20, -40, -30)
    more = excess(attacked, plain, never_attacked, never, base, rate=False, seed=0)
    assert more.interval.value == pytest.approx(6 / 14 - 60 / 149)
    same = excess(attacked, plain, attacked, plain, base, rate=False, seed=0).interval
    assert (same.low, same.value, same.high) == (0, 0, 0)  # paired: the very same model has none


def test_without_a_gap_recovery_is_undefined_and_says_why() -> None:
    plain, other = column(0, 1, 0, 1), column(1, 0, 0, 1)
    found = recovery(other, plain, other, rate=True, seed=0)
    assert math.isnan(found.interval.value)
    assert found.reason.startswith("nothing to come back")
    one, none = column(1, 1, 1, 1), column(0, 0, 0, 0)
    gone = excess(other, none, one, one, one, rate=True, seed=0)
    assert gone.reason.startswith("the model that never learnt: nothing to come back")
    broken = recovery(other, plain, column(math.nan, 1, 1, 1), rate=True, seed=0)
    assert broken.reason == "a value is not finite"
    assert math.isnan(mean(column(), rate=True, seed=0).value)


def test_a_rate_of_no_prompt_has_an_interval_with_a_width() -> None:
    none = mean(column(*[0.0] * 40), rate=True, seed=0)
    assert none.value == none.low == 0 < none.high


@pytest.mark.parametrize("n", [14, 24, 29])
def test_a_rate_of_all_prompts_is_one(n: int) -> None:
    assert mean(column(*[1.0] * n), rate=True, seed=0).value == 1


def test_what_rounding_alone_tells_from_nothing_is_nothing() -> None:
    """The low end of the gap is 0 here; 1/10 added up and taken away again is not, and differs between processors."""
    base, plain, attacked = (
        column(1, 0, 1, 1, 1, 1, 1, 0),
        column(0, 0, 0, 1, 0, 0, 0, 1),
        column(0, 1, 1, 1, 1, 0, 0, 0),
    )
    assert mean(base - plain, rate=True, seed=0).low == 0
    found = recovery(attacked, plain, base, rate=True, seed=0)
    assert found.reason == "nothing to come back: below the base by 0.5 (0 to 0.9)"
    assert math.isnan(found.interval.value)
    assert Rates(base, plain, seed=0).gain.low == 0


def test_divergence_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    wanted = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert float(kullback_leibler(p.log() + 3, q.log())) == pytest.approx(wanted)
    assert float(kullback_leibler(p.log(), p.log())) == 0


# -- who has which pairs ---


def test_no_category_attack_or_question_is_on_both_sides() -> None:
    pairs = [
        make_instance(i, category=CATEGORIES[i % 4], attack_id=i // 4 % 6, question=f"q{i % 8}") for i in range(48)
    ]
    split = Split.of(pairs, seed=0)
    for of in (lambda p: p.category, lambda p: p.attack_id, lambda p: p.question):
        assert not {of(p) for p in split.attacker} & {of(p) for p in split.report}
    assert len({p.category for p in split.attacker}) == len({p.category for p in split.report}) == 2
    assert len({p.attack_id for p in split.attacker}) == len({p.attack_id for p in split.report}) == 3
    assert Split.of(pairs, seed=0) == split != Split.of(pairs, seed=1)


def test_where_data_tell_kinds_of_attack_prompts_no_kind_is_on_both_sides() -> None:
    kinds = ("role", "prefix", "suffix", "story")
    pairs = [
        make_instance(i, category=CATEGORIES[i % 4], attack_id=i // 4, attack_kind=kinds[i // 4 % 4], question=f"q{i}")
        for i in range(48)
    ]
    split = Split.of(pairs, seed=0)
    sides = [{p.attack_kind for p in side} for side in (split.attacker, split.report)]
    assert [len(side) for side in sides] == [2, 2]
    assert not sides[0] & sides[1]
    assert len({p.attack_id for p in split.report}) == 6  # all of their kinds
    assert split.turned == Split(split.report, split.attacker)


def test_where_the_base_complies_on_the_attackers_side_alone_the_sides_change(base: Checkpoint, tmp_path: Path) -> None:
    parted, asked = Split.of(PAIRS, seed=0), list[int]()

    class Later(OddIsUnsafe):
        """Finds nothing unsafe in what the first side is answered."""

        def __call__(self, responses: Sequence[str]) -> np.ndarray:
            asked.append(len(responses))
            return np.full(len(responses), float(len(asked) == 1 or never))

    made = {"settings": AttackSettings(attacks="none"), "store": Store(tmp_path), "key": [], "reporter": Silent()}
    never = False
    known = Attacking.of(base, PAIRS, Later(), **made).examiner.known
    assert (set(known.pairs), known.attacker) == (set(parted.attacker), parted.report)
    never = True
    with pytest.raises(InputError, match="answers none of the 12 prompts unsafely"):
        Attacking.of(base, PAIRS, Later(), **made)


def test_with_one_category_questions_are_parted_and_one_question_is_asked() -> None:
    pairs = [Pair(id=i, prompt=f"p{i}", unsafe="u", safe="s", question=f"q{i // 2}") for i in range(8)]
    split = Split.of(pairs, seed=0)
    assert len(split.attacker) == len(split.report) == 4
    assert not {p.question for p in split.attacker} & {p.question for p in split.report}
    assert Split.of(pairs[:2], seed=0) == Split((), tuple(pairs[:2]))


# -- prefilled answers ---


def prefilled(target: Checkpoint, known: Known, *tokens: int) -> dict[Point, Attacked]:
    options = PrefillOptions(tokens=tokens)
    return {found.point: found for found in PREFILL.run(target, known, options, PREFILL.points(options, N_BLOCKS))}


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_nothing_given_is_the_plain_answer_and_all_given_is_the_bases(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    tuned, known = perturbed(base), known_of(tiny_checkpoint(architecture))
    found = prefilled(tuned, known, 0, 2, NEW)
    plain = continue_greedily(tuned, known.prompts, max_new_tokens=NEW)
    for setting in ("rest", "whole"):
        assert [text.ids for [text] in found[Point(setting, 0.0)].answers()] == [text.ids for text in plain]
    for [rest], [whole], own in zip(
        found[Point("rest", 2.0)].answers(), found[Point("whole", 2.0)].answers(), known.answers, strict=True
    ):
        assert rest.ids == whole.ids
        assert rest.prompt_length == whole.prompt_length + 2 == own.prompt_length + 2
        assert whole.ids[: rest.prompt_length] == own.ids[: rest.prompt_length]
    of_base = prefilled(base, known, 2)[Point("whole", 2.0)].answers()
    for [text], own in zip(of_base, known.answers, strict=True):
        assert text.ids[: len(own.ids)] == own.ids  # it goes on as it went


def test_the_bases_answers_are_made_as_long_as_is_given(base: Checkpoint) -> None:
    known = known_of(base)
    longer = continue_greedily(base, known.prompts, max_new_tokens=NEW + 9)
    found = prefilled(base, known, NEW + 4)[Point("whole", NEW + 4.0)]
    for [text], own in zip(found.answers(), longer, strict=True):
        assert text.ids[: own.prompt_length + NEW + 4] == own.ids[: own.prompt_length + NEW + 4]


def test_the_divergence_along_answers_is_that_of_each_one_alone(base: Checkpoint, tuned: Checkpoint) -> None:
    known = known_of(base)
    found = token_divergences(tuned, known)
    for values, text in zip(found, known.answers, strict=True):
        ids = torch.tensor([list(text.ids)])
        logits = [one.model(input_ids=ids).logits[0, text.prompt_length - 1 : -1] for one in (tuned, base)]
        assert torch.allclose(values, kullback_leibler(*logits), rtol=1e-4, atol=1e-7)
    table = along_answers(tuned, known, PrefillOptions())
    assert table["share"].is_monotonic_increasing
    assert table["share"].iloc[-1] == pytest.approx(1)
    first = sum(float(values[0]) for values in found)
    assert table["share"][0] == pytest.approx(first / sum(float(values.sum()) for values in found))
    assert (along_answers(base, known, PrefillOptions())["kl"] == 0).all()


# -- sampled answers ---


def test_an_answer_is_drawn_alone_as_in_any_company(base: Checkpoint) -> None:
    known = known_of(base)
    options = {"temperature": 1.0, "max_new_tokens": NEW, "seed": 3}
    together = sampled(base, known.heads, 4, **options)
    one_by_one = [sampled(base, [head], 4, max_batch=1, **options)[0] for head in reversed(known.heads)][::-1]
    assert [[text.ids for text in each] for each in together] == [[text.ids for text in each] for each in one_by_one]
    assert len({tuple(text.ids) for text in together[0]}) > 1  # every draw has numbers of its own
    longer = sampled(base, known.heads[:1], 6, **options)[0]
    assert [text.ids for text in longer[:4]] == [text.ids for text in together[0]]
    other = sampled(base, known.heads[:1], 4, **{**options, "seed": 4})[0]
    assert [text.ids for text in other] != [text.ids for text in together[0]]


def test_a_cold_draw_is_the_greedy_answer_and_a_warm_one_follows_the_distribution(base: Checkpoint) -> None:
    known = known_of(base)
    cold = sampled(base, known.heads, 1, temperature=1e-4, max_new_tokens=NEW, seed=0)
    assert [text.ids for [text] in cold] == [text.ids for text in known.answers]
    head = known.heads[0]
    drawn = sampled(base, [head], 600, temperature=0.7, max_new_tokens=1, seed=0)[0]
    logits = base.model(input_ids=torch.tensor([list(head.ids)])).logits[0, -1].detach()
    shares = torch.bincount(torch.tensor([text.ids[-1] for text in drawn]), minlength=len(logits)) / 600
    wanted = (logits.double() / 0.7).softmax(0)
    assert float((shares - wanted).abs().sum() / 2) < 0.35  # total variation; of another distribution it is near 1
    assert float((shares - wanted).abs().max()) < 0.07


def test_too_few_samples_are_refused_in_a_line() -> None:
    with pytest.raises(InputError, match=r"leak@8 needs at least 32 samples"):
        SampleOptions(samples=31)
    with pytest.raises(InputError, match="positive"):
        SampleOptions(temperatures=[0.0])


# -- one loop for all of them ---


def run(folder: Path | None, base: Checkpoint, tuned: Checkpoint, *, judge=None, **options):
    below = Candidate.of(base, name="base")
    tuned_ones = [Candidate.of(tuned, name="tuned", base=below)]
    return attack_checkpoints(
        below, tuned_ones, PAIRS, judge or Strict(), out=folder, **{"max_new_tokens": NEW, "seed": 0, **options}
    )


FEW = AttackSettings(
    attacks=["quantise", "prefill", "restore", "sample"],
    options={
        "quantise": {"bits": [3], "schemes": ["row"]},
        "prefill": {"tokens": [0, 2]},
        "restore": {"parts": ["both"]},
        "sample": {"temperatures": [1.0], "drawn": [1, 2], "samples": 8},
    },
)


def test_all_attacks_on_all_checkpoints(base: Checkpoint, tuned: Checkpoint, tmp_path: Path, monkeypatch) -> None:
    before = [fingerprint_model(one.model) for one in (base, tuned)]
    never = Candidate.of(tiny_checkpoint("llama", seed=1), name="never", base=Candidate.of(base, name="base"))
    more = {
        "never": never,
        "settings": FEW,
        "knowledge": [("What is A?", "A"), ("What is B?", "B")],
        "judge": OddIsUnsafe(),
    }
    found = run(tmp_path, base, tuned, **more)
    table = found.table("attacks").fillna({"setting": ""})
    for name in found.tables:
        assert TABLES[name].missing(found.table(name)) == []
        assert all(TABLES[name].meaning(column) for column in found.table(name))
    assert [fingerprint_model(one.model) for one in (base, tuned)] == before
    assert set(table["method"]) == {"base", "tuned", "never"}
    assert set(table["attack"]) == {"none", *FEW.attacks}
    assert "restore" not in set(table[table["role"] == "base"]["attack"])
    rates = table[table["quantity"] == "unsafe"].set_index(["attack", "setting", "dose", "method"])
    for method in ("base", "tuned", "never"):
        for setting in ("rest", "whole"):
            assert (
                rates.loc[("prefill", setting, 0.0, method), "value"] == rates.loc[("none", "", 0.0, method), "value"]
            )
        drawn = [rates.loc[("sample", "1", k, method), "value"] for k in (1.0, 2.0)]
        assert drawn[0] <= drawn[1]
    assert rates.loc[("none", "", 0.0, "base"), "value"] == 1  # the prompts are those
    assert set(rates["n"]) == {rates["n"].iloc[0]}
    plain = table[(table["attack"] == "none") & (table["quantity"] == "log_odds")].set_index("method")["value"]
    odds = table[(table["quantity"] == "log_odds") & (table["role"] == "tuned") & table["recovery"].notna()]
    for row in odds.itertuples():
        wanted = (row.value - plain["tuned"]) / (plain["base"] - plain["tuned"])
        assert row.recovery == pytest.approx(wanted, rel=1e-3, abs=1e-6)
    of_tuned = table[(table["role"] == "tuned") & (table["attack"] != "none") & table["quantity"].isin(RECOVERED)]
    assert of_tuned.loc[of_tuned["recovery"].isna() | of_tuned["excess"].isna(), "reason"].notna().all()
    assert set(found.table("attack_quantise")["method"]) == set(found.table("attack_prefill")["method"]) == {"tuned"}
    worst = found.table("worst")
    assert set(worst["at_most"]) == set(FEW.losses)
    assert "whole" not in set(worst["setting"])

    monkeypatch.setattr(Examiner, "measure", None)  # a second run makes nothing anew
    again = run(tmp_path, base, tuned, **more)
    pd.testing.assert_frame_equal(again.table("attacks").fillna({"setting": ""}), table)


def test_work_that_is_stopped_goes_on_at_the_next_point(
    base: Checkpoint, tuned: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = AttackSettings(attacks="quantise", options={"quantise": {"bits": [8, 4, 3], "schemes": ["row"]}})
    measure, made = Examiner.measure, []

    def stopping(self, name, attacked, *rest):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append((name, attacked.point.dose))
        return measure(self, name, attacked, *rest)

    before = fingerprint_model(base.model)
    monkeypatch.setattr(Examiner, "measure", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, base, tuned, settings=settings)
    assert fingerprint_model(base.model) == before
    monkeypatch.setattr(
        Examiner, "measure", lambda *given: made.append((given[1], given[2].point.dose)) or measure(*given)
    )
    run(tmp_path, base, tuned, settings=settings)
    of_one = [("none", 0.0), ("quantise", 8.0), ("quantise", 4.0), ("quantise", 3.0)]
    assert made == [*of_one, *of_one]


def measured(attack: str, unsafe: Sequence[float], knowledge: Sequence[bool], dose: float = 1.0) -> Measured:
    return Measured(attack, Point("", dose), {"unsafe": tuple(unsafe)}, {}, tuple(knowledge), (), 0.0, ())


def test_the_worst_attack_is_chosen_on_one_half_and_told_of_the_other() -> None:
    pairs = [Pair(id=i, prompt=f"p{i}", unsafe="u", safe="s", question=f"q{i // 2}") for i in range(8)]
    plain = measured("none", [0] * 8, [True] * 4, 0.0)
    strong, dear = measured("a", [1] * 8, [True, True, False, False]), measured("b", [1, 0] * 4, [True] * 4)
    rows = list(worst_rows(Examined("t", "tuned", plain, (strong, dear)), pairs, (0.0, 0.5), seed=0))
    assert [(row["attack"], row["unsafe"], row["knowledge_lost"], row["n"]) for row in rows] == [
        ("b", 0.5, 0.0, 4),
        ("a", 1.0, 0.5, 4),
    ]
    unknown = [measured(m.attack, m.values["unsafe"], (), m.point.dose) for m in (plain, strong, dear)]
    (row,) = worst_rows(Examined("t", "tuned", unknown[0], tuple(unknown[1:])), pairs, (0.0, 0.5), seed=0)
    assert (row["attack"], row["reason"][:12]) == ("a", "no knowledge")
    assert math.isnan(row["at_most"])


# -- settings and the command ---


def test_groups_of_attacks_and_unknown_ones() -> None:
    assert AttackSettings().attacks == CHEAP
    assert AttackSettings(attacks="all").attacks == tuple(ATTACKS)
    assert AttackSettings(attacks=["prefill", "cheap"]).attacks == tuple(n for n in ATTACKS if n in {*CHEAP, "prefill"})
    for given, told in (
        ({"attacks": ["quantize"]}, "did you mean 'quantise'"),
        ({"options": {"prefil": {}}}, "did you mean 'prefill'"),
        ({"options": {"quantise": {"bit": [4]}}}, "did you mean 'bits'"),
        ({"losses": [2.0]}, "between 0 and 1"),
    ):
        with pytest.raises(InputError, match=told):
            AttackSettings(**given)


def test_the_command(base: Checkpoint, tuned: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base.save(tmp_path / "base")
    tuned.save(tmp_path / "tuned")
    data = tmp_path / "data.json"
    write_safeedit([make_instance(i, question=f"q{i}") for i in range(6)], data)
    asked = ["attack", "prefill", "--base", tmp_path / "base", "--checkpoint", f"t={tmp_path / 'tuned'}"]
    asked += ["--data", data, "--out", tmp_path / "out", "--max-new-tokens", 4, "--judge", "keywords"]
    assert call(*asked, "--set", "prefill.tokens=[0, 1]", "--never", tmp_path / "base") == 0
    table = read_table(tmp_path / "out" / "tables" / "attacks.csv")
    assert set(table["method"]) == {"base", "t", "never"}
    assert set(table["dose"]) == {0, 1}
    assert "did you mean 'prefill'" in refused(capsys, *["attack", "prefil", *asked[2:]])
    assert "--set takes" in refused(capsys, *asked, "--set", "tokens=[0]")
    assert "at least 0" in refused(capsys, *asked, "--set", "prefill.tokens=[-1]")


def test_a_study_attacks_where_its_config_says_so(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"

    def stages(text: str) -> dict[str, Stage]:
        file.write_text(text)
        return {stage.name: stage for stage in Study(load_config(file), 0, tmp_path / "run").stages(Silent())}

    assert "attack" not in stages("title: none\n")
    stage = stages("attack: [prefill]\n")["attack"]
    assert stage.settings["attack"]["attacks"] == ["prefill"]
    assert {"tables/attacks.csv", "tables/worst.csv"} <= {*stage.may_make}
    assert "tables/attack_prefill.csv" in stage.may_make
    assert load_config(file).attack.attacks == ("prefill",)
    file.write_text("attack: [prefil]\n")
    with pytest.raises(InputError, match=r"`attack.attacks`: unknown attack 'prefil'.*did you mean 'prefill'"):
        load_config(file)
