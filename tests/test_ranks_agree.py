"""What one process alone can see decides nothing: two of them, as threads that exchange values in lockstep."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_checkpoint

from mechinterp.answers import responses
from mechinterp.answers.responses import ResponseLog
from mechinterp.audit.circuits.acdc import acdc
from mechinterp.audit.circuits.batches import TokenPair
from mechinterp.audit.circuits.edited import carried_by_subject
from mechinterp.audit.circuits.faithfulness import run_alone
from mechinterp.audit.relapse import testing
from mechinterp.audit.store import Store
from mechinterp.data.storage.provenance import digest
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.study import Study

Work = Callable[[int], Any]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], list[Any]]:
    """Does work in two ranks; what each returned, or the error that ended it.

    The n-th exchange of one meets the n-th of the other, whatever either of them asks for: as between real processes.
    """
    here, barrier, slots = threading.local(), threading.Barrier(2, timeout=20), [None, None]

    def exchange(value: Any) -> list[Any]:
        slots[here.rank] = value
        barrier.wait()
        both = list(slots)
        barrier.wait()
        return both

    monkeypatch.setattr(processes, "launched", lambda: True)
    monkeypatch.setattr(processes, "is_main", lambda: here.rank == 0)
    monkeypatch.setattr(processes, "rank", lambda: here.rank)
    monkeypatch.setattr(processes, "gather", lambda items: [item for part in exchange(items) for item in part])
    monkeypatch.setattr(processes, "from_main", lambda value: exchange(value)[0])
    monkeypatch.setattr(processes, "share", lambda items: items[here.rank :: 2])
    monkeypatch.setattr(
        processes, "add_up", lambda tensors: [each.copy_(sum(exchange(each.clone()))) for each in tensors]
    )
    monkeypatch.setattr(processes, "wait", lambda: exchange(None))

    def run(work: Work) -> list[Any]:
        found: list[Any] = [None, None]

        def one(rank: int) -> None:
            here.rank = rank
            try:
                found[rank] = work(rank)
            except Exception as error:
                found[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return run


class Number:
    """A piece to keep."""

    def __init__(self, value: int) -> None:
        self.value = value

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "value").write_text(str(self.value))

    @classmethod
    def load(cls, folder: Path) -> Number:
        return cls(int((folder / "value").read_text()))


@pytest.mark.parametrize("bad", [None, 0, 1])
def test_a_piece_that_one_process_cannot_read_is_made_by_all(
    together: Callable[[Work], list[Any]], tmp_path: Path, bad: int | None
) -> None:
    Number(7).save(tmp_path / "kind" / digest("key"))

    def work(rank: int) -> tuple[int, list[str]]:
        def load(folder: Path) -> Number:
            if rank == bad:
                raise OSError("stale file handle")
            return Number.load(folder)

        kept = Store(tmp_path).keep("kind", "key", load=load, make=lambda: Number(sum(processes.gather([3, 1]))))
        return kept.value, processes.gather([f"end {rank}"])

    value = 7 if bad is None else 8
    assert together(work) == [(value, ["end 0", "end 1"])] * 2


def test_a_piece_on_one_disk_alone_is_made_by_all(together: Callable[[Work], list[Any]], tmp_path: Path) -> None:
    for there in (0, 1):
        Number(7).save(tmp_path / f"{there}-{there}" / "kind" / digest("key"))

        def work(rank: int, there: int = there) -> tuple[int, list[int]]:
            store = Store(tmp_path / f"{there}-{rank}")
            kept = store.keep("kind", "key", load=Number.load, make=lambda: Number(len(processes.gather([rank]))))
            return kept.value, processes.gather([rank])

        assert together(work) == [(2, [0, 1])] * 2


def test_labels_are_those_of_the_main_process(together: Callable[[Work], list[Any]], tmp_path: Path) -> None:
    for rank, text in ((0, '{"a": 1}'), (1, '{"a": ')):
        (tmp_path / str(rank) / "kind").mkdir(parents=True)
        (tmp_path / str(rank) / "kind" / f"{digest('key')}.json").write_text(text)

    def work(rank: int) -> tuple[Any, list[int]]:
        found = Store(tmp_path / str(rank)).remember("kind", "key", lambda: {"a": len(processes.gather([rank]))})
        return found, processes.gather([rank])

    assert together(work) == [({"a": 1}, [0, 1])] * 2


def test_an_error_of_the_main_process_is_that_of_all(together: Callable[[Work], list[Any]], tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("")  # of another run: nothing says how it was made
    first, second = together(lambda rank: ResponseLog.open(tmp_path / "r.jsonl", {"seed": 0}))
    assert isinstance(first, InputError)
    assert str(first) == str(second)


def test_responses_are_taken_up_as_the_main_process_finds_them(
    together: Callable[[Work], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.jsonl"
    path.with_suffix(".json").write_text(json.dumps({"settings": {"seed": 0}, "complete": False}))
    for number in (0, 1):
        line = json.dumps({"edit": None, "prompt": f"p{number}", "response": "r"})
        path.with_name(f"r.part{number}.jsonl").write_text(f"{line}\n" + '{"half')
    looked = []
    real = responses._left
    monkeypatch.setattr(responses, "_left", lambda *given: (looked.append(processes.rank()), real(*given))[1])

    def work(rank: int) -> tuple[Any, bool]:
        log = ResponseLog.open(path, {"seed": 0})
        return dict(log.had), log.complete

    assert together(work) == [({(None, "p0"): "r", (None, "p1"): "r"}, False)] * 2
    assert looked == [0]  # the second would look at files that the first removes


def test_how_many_prompts_are_asked_does_not_hang_on_one_process(
    together: Callable[[Work], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from conftest import make_instance

    asked: list[list[int]] = [[], []]

    def generate(_: object, prompts: list[str], **__: object) -> list[str]:
        asked[processes.rank()].append(len(prompts))
        processes.wait()
        return ["no"] * len(prompts)

    monkeypatch.setattr(testing, "generate", generate)
    # on the second's device every answer lies a hair beyond the middle
    monkeypatch.setattr(testing, "score_responses", lambda _, a, __: [0.5 + 1e-7 * processes.rank()] * len(a))
    instances = [make_instance(i) for i in range(12)]
    first, second = together(lambda _: testing.unsafe_prompts(None, instances, None, 2))  # type: ignore[arg-type]
    assert first == second
    assert len(first) == 2
    assert asked == [[4], [4]]


@pytest.mark.parametrize("n", [4, 1])
def test_acdc_cuts_the_same_edges_in_all_processes(together: Callable[[Work], list[Any]], n: int) -> None:
    """Four pairs in a batch each; of one pair the second process has none."""
    pairs = [TokenPair((5, 6), (5, 9), (40,)), TokenPair((8, 9, 11), (8, 7, 11), (42,))]
    pairs += [TokenPair((1, 2, 3, 4), (1, 2, 9, 4), (30,)), TokenPair((20,), (22,), (12,))]
    models = [tiny_checkpoint("gpt2") for _ in range(2)]  # threads would share the seed's draws

    def work(rank: int) -> tuple[tuple[str, ...], float, list[float]]:
        gpt2 = models[rank]
        found = acdc(gpt2, pairs[:n], least=0.01, max_tokens=1)
        return found.circuit.names, found.metric, run_alone(gpt2, pairs[:n], [found.circuit]).alone[0].tolist()

    first, second = together(work)
    assert first == second
    with pytest.MonkeyPatch.context() as alone:
        alone.setattr(processes, "share", lambda items: items)
        alone.setattr(processes, "add_up", lambda tensors: None)
        alone.setattr(processes, "gather", lambda items: items)
        names, metric, values = work(0)
    assert first[0] == names
    assert (first[1], first[2]) == (pytest.approx(metric, rel=1e-5), pytest.approx(values, rel=1e-5))


def test_what_the_subject_carries_is_of_all_pairs_in_every_process(together: Callable[[Work], list[Any]]) -> None:
    pairs = [TokenPair((5, 6, 7), (5, 9, 7), (40,), (50,), (1,)), TokenPair((8, 9), (8, 7), (42,), (50,), (1,))]
    models = [tiny_checkpoint("llama") for _ in range(2)]

    def work(rank: int) -> list[float]:
        return carried_by_subject(models[rank], pairs, models[rank].n_blocks - 1)

    assert together(work) == [pytest.approx([0, 1])] * 2


def test_a_study_is_not_for_several_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="runs as one process"):
        Study(StudyConfig(), 0, tmp_path / "run").run()
    assert not (tmp_path / "run").exists()
