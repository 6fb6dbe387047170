"""Facts edited at one block after the other, by one method after the other: the experiment of Yao et al. (2405.17969).

Facts that the base does not know are left out. Settings are chosen on some of the others, none of whose subjects is
reported, at the block where a method edits by itself, and hold for all blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import ConfigDict, Field

from mechinterp.answers.edited_facts import TRIES, choose_settings, edited_facts
from mechinterp.answers.facts import FactAnswers, ask_facts
from mechinterp.answers.known_facts import known_facts
from mechinterp.answers.scored_facts import FactScores
from mechinterp.audit.circuits.edited import carried_by_subject, edit_pairs, edited_circuit
from mechinterp.audit.circuits.matching import MatchedPair
from mechinterp.audit.circuits.places import check_architecture
from mechinterp.audit.circuits.ranks import ranks_of_pairs
from mechinterp.audit.edited_facts import edit_rows, rank_rows, score_rows, summary, value_rows, value_share
from mechinterp.audit.tables.edited_facts import EDITED_FACTS, EDITED_FACTS_EACH, EDITED_RANKS, EDITED_SETTINGS
from mechinterp.data.facts.fact import Fact
from mechinterp.data.storage.kept_tables import keep_tables, open_tables
from mechinterp.data.storage.provenance import digest, versions
from mechinterp.data.validation import UsersSettings
from mechinterp.errors import InputError
from mechinterp.measures.statistics import seeded_order
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace, made_by

_BLOCKS = 5
_KIND = "edited facts"


class EditedFactsSettings(UsersSettings):
    """Which facts are edited where, and what is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[Literal["rome", "ft_m"], ...] = Field(("rome", "ft_m"), min_length=1, description="editors")
    blocks: tuple[int, ...] | None = Field(
        None, min_length=1, description="edited ones; by default five over the depth"
    )
    facts: int = Field(40, ge=1, description="that are reported, at most")
    validation: int = Field(8, ge=0, description="facts that settings are chosen on; 0: the published settings")
    circuits: int = Field(8, ge=0, description="of these facts, at most so many with circuits and ranks; 0: none")
    ranks: int = Field(0, ge=0, description="at most so many with ranks, where more than circuits: a pass of each")
    steps: int = Field(5, ge=1, description="of the integration of circuits")
    share: float = Field(0.05, gt=0, le=1, description="of all edges: circuits that are set side by side")


@dataclass(frozen=True)
class _Block:
    """What a method did at a block, to be kept."""

    tables: Mapping[str, pd.DataFrame]

    def save(self, folder: Path) -> Path:
        return keep_tables(folder, _KIND, self.tables, {})

    @classmethod
    def load(cls, folder: Path) -> _Block:
        tables, _ = open_tables(folder, _KIND)
        return cls({**tables, "each": tables["each"].assign(kind=tables["each"]["kind"].fillna(""))})


@dataclass(frozen=True)
class _Chosen:
    """Facts by number: those reported, those that settings are chosen on; pairs for ranks, and which have circuits."""

    reported: Mapping[int, Fact]
    validation: Mapping[int, Fact]
    before: Mapping[int, FactAnswers]
    pairs: Mapping[int, MatchedPair]
    circuits: frozenset[int]


def edit_block_by_block(
    base: Candidate,
    facts: Sequence[Fact],
    *,
    out: Path | None,
    settings: EditedFactsSettings | None = None,
    seed: int = 0,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Edit facts at several blocks, and measure what became of them; what was done before is not again.

    Args:
        base: the unedited model.
        facts: with a new target and a ground truth; others are left out.
        out: folder for `tables`, `figures` and `manifest.json`; None for one that goes with what is returned.
        settings: see `EditedFactsSettings`.
        seed: of the choice of facts, of contexts and of intervals.
        chat: which chat format the model is read in.
        reporter: told what is being done.

    Returns:
        The folder, with `edited_facts`, `edited_facts_each`; where settings were chosen `edited_settings`, where there
        are circuits or ranks `edited_ranks`.

    Raises:
        InputError: if the base knows too few of the facts, or for a block or an architecture that cannot be edited.
    """
    settings = settings or EditedFactsSettings()
    base, _ = in_one_format(base, [], chat)
    work = Workspace(base, [], out=out, of="edited_facts", purpose="edits", reporter=reporter)
    tables = (EDITED_FACTS, EDITED_FACTS_EACH, EDITED_RANKS, EDITED_SETTINGS)
    RunFolder.check_free(work.folder, [table.name for table in tables])
    names = base.skeleton.names
    last = names.n_blocks - 1
    wanted = settings.blocks or tuple({round(i * last / (_BLOCKS - 1)): None for i in range(_BLOCKS)})
    blocks = [names.check_block(block) for block in wanted]
    if settings.circuits or settings.ranks:
        check_architecture(base.skeleton)
    with work.held():
        model = work.open(base)
        chosen = _choose(model, facts, settings, seed, work.reporter)
        key = [made_by("mechinterp.audit.edited_facts"), work.identify(base), settings.steps, settings.share, seed]
        key.append(digest([repr(vars(fact)) for fact in (*chosen.reported.values(), *chosen.validation.values())]))
        each, ranks = [_of_base(model, chosen, blocks)], [_ranks(model, chosen.pairs)] if chosen.pairs else []
        tries, own = [], dict[str, Mapping[str, Any]]()
        for method in settings.methods:
            own[method], tried = _settings(work, model, chosen, method, seed, key)
            tries += [tried] if len(tried) else []
            for block in blocks:
                make = _edited(model, chosen, method, block, own[method], settings, seed, work.reporter)
                of_block = [*key, method, block, own[method], sorted(chosen.pairs), sorted(chosen.circuits)]
                found = work.store.keep("edited_facts", of_block, load=_Block.load, make=make).tables
                place = {"method": method, "edited": block}
                each.append(found["each"].assign(**place))
                ranks += [found["ranks"].assign(**place)] if "ranks" in found else []
        subjects = {number: fact.subject or str(number) for number, fact in chosen.reported.items()}
        whole = pd.concat(each, ignore_index=True)
        whole = whole.assign(subject=whole["fact"].map(subjects), edited=whole["edited"].astype("Int64"))
        first = ["method", "edited", "fact", "subject"]
        found_tables = {
            EDITED_FACTS.name: summary(whole, seed=seed),
            EDITED_FACTS_EACH.name: whole[[*first, "quantity", "kind", "value"]],
        }
        if ranks:
            found_tables[EDITED_RANKS.name] = rank_rows(pd.concat(ranks, ignore_index=True))
        if tries:
            found_tables[EDITED_SETTINGS.name] = pd.concat(tries, ignore_index=True)
        work.close()
        config: dict[str, Any] = {
            "checkpoints": {base.name: base.source},
            "edited_facts": settings.model_dump(mode="json"),
        }
        config |= {"settings": own, "reported": sorted(chosen.reported), "validation": sorted(chosen.validation)}
        config["chat"] = described(base.chat)
        return work.publish(found_tables, config, seed=seed, versions=versions())


def _choose(
    model: Checkpoint, facts: Sequence[Fact], settings: EditedFactsSettings, seed: int, reporter: Reporter
) -> _Chosen:
    asked = {number: fact for number, fact in enumerate(facts, 1) if fact.target_new and fact.ground_truth}
    right = known_facts(model, list(asked.values())).right if asked else ()
    known = {number: fact for (number, fact), knows in zip(asked.items(), right, strict=True) if knows}
    reporter.note(f"{model.name} answers {len(known)} of {len(facts)} facts right; the others are left out")
    order = [list(known)[i] for i in seeded_order(len(known), seed)]
    validation = {number: known[number] for number in order[: settings.validation]}
    apart = {fact.subject for fact in validation.values()}
    left = [number for number in order if number not in validation and known[number].subject not in apart]
    reported = {number: known[number] for number in sorted(left[: settings.facts])}
    if not reported:
        raise InputError(
            f"{model.name} knows {len(known)} of {len(facts)} facts, and none is left to report; give others, or fewer "
            "to choose settings on"
        )
    before = ask_facts(model, [*reported.values(), *validation.values()])
    most = max(settings.circuits, settings.ranks)
    pairs = edit_pairs(model, known) if most else {}
    own = [number for number in reported if number in pairs][:most]
    answers = dict(zip([*reported, *validation], before, strict=True))
    of_own = {number: pairs[number] for number in own}
    return _Chosen(reported, validation, answers, of_own, frozenset(own[: settings.circuits]))


def _settings(
    work: Workspace, model: Checkpoint, chosen: _Chosen, method: Any, seed: int, key: list[Any]
) -> tuple[Mapping[str, Any], pd.DataFrame]:
    """What is chosen for a method, and what was tried."""
    if not chosen.validation:
        return {}, pd.DataFrame()
    tries = TRIES[method]

    def make() -> Mapping[str, Any]:
        progress = work.reporter.progress(f"{method}: settings")
        given: dict[str, Any] = {"seed": seed, "progress": progress}
        best, table = choose_settings(model, chosen.validation, chosen.before, method, tries, **given)
        return {"best": best, "rows": table.to_dict("records")}

    kept = work.store.remember("edited_settings", [*key, method, tries], make)
    work.reporter.note(f"{method}: of {len(tries)} settings chosen {json.dumps(kept['best'])}")
    return kept["best"], pd.DataFrame(kept["rows"])


def _edited(
    model: Checkpoint,
    chosen: _Chosen,
    method: Any,
    block: int,
    own: Mapping[str, Any],
    settings: EditedFactsSettings,
    seed: int,
    reporter: Reporter,
) -> Callable[[], _Block]:
    """Makes what a method does at a block."""
    given = {**own, **({"block": block} if method == "ft_m" else {"blocks": (block,)})}

    def make() -> _Block:
        rows: list[dict[str, Any]] = []
        ranks: list[pd.DataFrame] = []
        more: dict[str, Any] = {"settings": given, "seed": seed}
        more["progress"] = reporter.progress(f"{method} at block {block}")
        for found in edited_facts(model, chosen.reported, chosen.before, method, **more):
            number = found.scores.number
            rows += edit_rows(model, found)
            if (pair := chosen.pairs.get(number)) is None:
                continue
            if number not in chosen.circuits:
                with found.edit.applied(model) as edited:
                    ranks.append(ranks_of_pairs(edited, [pair.tokens]).assign(pair=number))
                continue
            edited = found.edit.merged(model, name=f"{method}{number}")
            circuit = edited_circuit(model, edited, pair.tokens, block, steps=settings.steps, share=settings.share)
            share = value_share(model, found, chosen.reported[number], seed=seed)
            rows += value_rows(number, {**circuit.values, "value_share": share})
            ranks.append(circuit.ranks.assign(pair=number))
        tables = {"each": pd.DataFrame(rows)}
        return _Block(tables if not ranks else {**tables, "ranks": pd.concat(ranks, ignore_index=True)})

    return make


def _of_base(model: Checkpoint, chosen: _Chosen, blocks: Sequence[int]) -> pd.DataFrame:
    scores = [
        FactScores.of(number, fact, chosen.before[number], chosen.before[number])
        for number, fact in chosen.reported.items()
    ]
    rows: list[dict[str, Any]] = [{"edited": None, **row} for each in scores for row in score_rows(each)]
    pairs = {number: pair.tokens for number, pair in chosen.pairs.items() if pair.tokens.subject}
    for block in blocks if pairs else ():
        carried = carried_by_subject(model, list(pairs.values()), block)
        for number, value in zip(pairs, carried, strict=True):
            rows += [{"edited": block, **row} for row in value_rows(number, {"carried": value})]
    return pd.DataFrame(rows).assign(method="base")


def _ranks(model: Checkpoint, pairs: Mapping[int, MatchedPair]) -> pd.DataFrame:
    found = ranks_of_pairs(model, [pair.tokens for pair in pairs.values()])
    return found.assign(method="base", edited=None)
