"""What a command did not write it neither removes nor overwrites; where a name is taken it says so before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from checkpoint_folder import INSTANCES, compared, make_folder
from command_line import call, refused, run_script
from conftest import make_instance, tiny_checkpoint
from small_study import REPOSITORY
from synthetic_run import make_run

from mechinterp.audit.trajectory import find_steps
from mechinterp.data.comments import Comment, write_comments
from mechinterp.data.safeedit import write_safeedit
from mechinterp.data.storage import ledger
from mechinterp.data.storage.adopting import adopt
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.places import check_name
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Silent
from mechinterp.report.plates import PLATES
from mechinterp.runs.config import load_config
from mechinterp.runs.stages import locked
from mechinterp.runs.study import Study

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the user's below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def plant(folder: Path, *names: str) -> dict[Path, bytes]:
    """Files of the user's in a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} is mine")
    return {folder / name: (folder / name).read_bytes() for name in names}


def untouched(planted: dict[Path, bytes]) -> bool:
    return all(path.is_file() and path.read_bytes() == content for path, content in planted.items())


@pytest.fixture
def checkpoints(shared: Callable[..., Path]) -> Path:
    return shared("checkpoints", make_folder)


# -- a study ----------------------------------------------------------------------------------------------------------

TAKEN = (
    *(
        "data/train.json",
        "tables/local_verdict.csv",
        "edits/notes.txt",
        "responses/annotated.csv",
        "relapse/interviews.md",
    ),
    *("checkpoints/sft/optimizer.pt", "figures/defense.pdf", "report.html", "stages/sft.json", "probe.safetensors"),
    *("manifest.json", "evidence/photo.jpg"),
)


@pytest.mark.parametrize("name", TAKEN)
def test_a_study_is_refused_where_a_name_is_taken(small_runs: Path, tmp_path: Path, name: str, capsys) -> None:
    plant(tmp_path / "project", name, "thesis.tex")
    before = contents(tmp_path)
    told = refused(capsys, "reproduce", "--config", small_runs / "small.yaml", "--out", tmp_path / "project")
    assert str(tmp_path / "project" / name).startswith(told.split(": ")[1])
    assert contents(tmp_path) == before


def test_the_current_folder_may_be_a_study_and_its_files_are_refused(
    small_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    plant(tmp_path, "edits/notes.txt")
    monkeypatch.chdir(tmp_path)
    told = refused(capsys, "reproduce", "--config", small_runs / "small.yaml", "--out", ".")
    assert "edits: a folder of that name" in told


def test_files_of_the_users_in_a_finished_study_stay_and_redo_nothing(own_runs: Path) -> None:
    run = own_runs / "seed0"
    names = ("notes.txt", "edits/notes.txt", "figures/mine.svg", "tables/mine.csv", "checkpoints/sft/optimizer.pt")
    planted = plant(run, *names)
    notes: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    Study(load_config(own_runs / "small.yaml"), 0, run).run(Listening())
    assert [note for note in notes if not note.endswith("up to date")] == []
    (run / "tables" / "local_verdict.csv").write_text("changed by hand")
    shutil.rmtree(run / "responses")  # so that this stage is done again, and the report after it
    notes.clear()
    Study(load_config(own_runs / "small.yaml"), 0, run).run(Listening())
    assert [note for note in notes if note.endswith("started")] == ["compare: started", "defend: started"]
    assert untouched(planted)
    assert (run / "tables" / "local_verdict.csv.kept").read_text() == "changed by hand"
    assert pd.read_csv(run / "tables" / "local_verdict.csv").shape[0] > 1


def test_a_study_of_an_older_version_is_ours_where_it_is_as_its_markers_say(own_runs: Path) -> None:
    run = own_runs / "seed0"
    for path in run.rglob(ledger.LEDGER):
        path.unlink()
    plant(run, "tables/mine.csv")
    (run / "tables" / "probe.csv").write_text("changed by hand")
    adopt(run)
    study = Study(load_config(own_runs / "small.yaml"), 0, run)
    for name in ("manifest.json", "tables/local_verdict.csv", "edits", "figures/defense.png", "checkpoints/sft"):
        assert not ledger.is_strange(run / name)
    for name in ("tables/mine.csv", "tables/probe.csv"):
        assert ledger.is_strange(run / name)
    with pytest.raises(InputError, match=r"probe\.csv: a file of that name"):
        study.run()


# -- a comparison -----------------------------------------------------------------------------------------------------


def test_a_comparison_takes_away_what_an_earlier_one_wrote_and_nothing_else(checkpoints: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    planted = plant(out, "tables/table1_results.csv", "figures/defense.pdf", "notes.txt", "tables/thesis.tex")
    assert call("diff", checkpoints / "base", checkpoints / "tuned", "--no-rank", "--out", out) == 0
    planted |= {path: path.read_bytes() for path in (*out.glob("tables/diff*"), *out.glob("figures/diff*"))}
    assert len(planted) == 8
    compared(checkpoints, out, "tuned")
    assert set(pd.read_csv(out / "tables" / "local_verdict.csv")["method"]) == {"tuned"}
    (out / "tables" / "stale.csv").write_text("of an earlier comparison")
    ledger.enter_all(out, ["tables/stale.csv"], of="compare")
    compared(checkpoints, out, "edit")
    assert set(pd.read_csv(out / "tables" / "local_verdict.csv")["method"]) == {"edit"}
    assert not (out / "tables" / "stale.csv").exists()
    assert untouched(planted)


@pytest.mark.parametrize(
    "name",
    [*("tables/local_verdict.csv", "tables/verdict.csv", "figures/stream.png"), *("report.html", "manifest.json")],
)
def test_a_comparison_is_refused_where_a_name_is_taken(
    checkpoints: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    plant(tmp_path, name)
    before = contents(tmp_path)
    given = ["--base", tmp_path / "nowhere", "--probe", tmp_path / "nowhere", "--data", tmp_path / "nowhere"]
    told = refused(capsys, "compare", *given, "--checkpoint", "t=nowhere", "--out", tmp_path)
    assert f"{tmp_path / name}: a file of that name is there" in told
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_the_old_results_with_their_report(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    compared(checkpoints, out, "tuned")
    write_text(out / "report.html", "of the old tables")
    before = contents(out)
    written = pd.DataFrame.to_csv

    def full(table: pd.DataFrame, path: Path, **options: object) -> None:
        if Path(path).name.startswith(".local_verdict.csv"):
            raise OSError(28, "No space left on device")
        written(table, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(InputError, match=r"local_verdict\.csv: cannot be written \(No space left on device\)"):
        compared(checkpoints, out, "edit")
    after = contents(out)
    kept = [name for name in before if not name.startswith(("recordings", "."))]
    assert kept
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert not [name for name in after if ".partial" in name]


# -- other commands ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_not_saved_over_anything_else(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    planted = plant(tmp_path / "mine", "thesis.tex")
    with pytest.raises(InputError, match=r"mine: a folder of that name is there"):
        checkpoint.save(tmp_path / "mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="link"):
        checkpoint.save(tmp_path / "link")
    assert untouched(planted)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    checkpoint.save(tmp_path / "ours")
    planted |= plant(tmp_path / "ours", "thesis.tex")
    tiny_checkpoint("llama", seed=1).save(tmp_path / "ours")  # a checkpoint makes way for a checkpoint
    assert untouched(planted)
    assert Checkpoint.load(tmp_path / "ours").fingerprint == tiny_checkpoint("llama", seed=1).fingerprint


def test_the_tables_of_a_probe_have_its_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny_checkpoint("llama").save(tmp_path / "model")
    comments = [Comment(f"you {w} {i}", t) for i in range(12) for w, t in (("fool", True), ("friend", False))]
    write_comments(comments, tmp_path / "comments.csv")
    planted = plant(tmp_path, "probe.csv", "probe_roc.csv")
    given = ["probe", "--model", tmp_path / "model", "--comments", tmp_path / "comments.csv", "--out"]
    for name in ("p.safetensors", "q.safetensors", "p.safetensors"):
        assert call(*given, tmp_path / name) == 0
    assert {path.name for path in tmp_path.glob("[pq].*")} == {
        f"{name}.{kind}" for name in "pq" for kind in ("safetensors", "probe.csv", "probe_roc.csv")
    }
    assert untouched(planted)
    for taken in ("r.probe_roc.csv", "s.safetensors"):
        plant(tmp_path, taken)
        before = contents(tmp_path)
        given[2] = tmp_path / "nowhere"  # refused before it is looked for
        assert f"{taken}: a file of that name" in refused(capsys, *given, tmp_path / f"{taken[0]}.safetensors")
        assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("taken", "command"),
    [
        ("out/rates.csv", "evaluate --model nowhere --data data.json --out out"),
        ("out/responses.json", "evaluate --model nowhere --data data.json --out out"),
        ("out/responses.jsonl", "evaluate --model nowhere --data data.json --out out"),
        ("out/toxic_layer.csv", "locate --model nowhere --data data.json --out out"),
        ("out.safetensors", "record --model nowhere --data data.json --out out.safetensors"),
        ("out/tables/diff_blocks.csv", "diff nowhere nowhere --out out"),
        ("out/figures/diff.pdf", "diff nowhere nowhere --out out"),
        ("out/edit_log.csv", "edit --model nowhere --data data.json --all --out out"),
        ("out/0/thesis.tex", "edit --model nowhere --data data.json --all --out out"),
        ("out/thesis.tex", "train sft --model nowhere --data data.json --out out"),
        ("run/report.html", "figures run"),
        ("run/figures/toxic_layer.png", "figures run"),
        ("out/stream.pdf", "figures run --out out"),
    ],
)
def test_every_command_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str, command: str, capsys: pytest.CaptureFixture
) -> None:
    write_safeedit([make_instance(i) for i in range(2)], tmp_path / "data.json")
    make_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    plant(tmp_path, taken)
    before = contents(tmp_path)
    told = refused(capsys, *command.split())
    assert "is not empty" in told if taken.endswith("tex") else f"{taken}: a file of that name" in told
    assert contents(tmp_path) == before


def test_figures_and_report_are_made_again_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechinterp.report.plates.PLATES", {"toxic_layer": PLATES["toxic_layer"]})
    run = make_run(tmp_path / "run")
    planted = plant(run, "figures/verdict.png", "figures/stream.png", "notes.txt")
    for _ in range(2):
        assert call("figures", run) == 0
    assert untouched(planted)
    (run / "report.html").write_text("changed by hand")
    assert call("figures", run) == 0
    assert (run / "report.html.kept").read_text() == "changed by hand"
    assert "toxic layer" in (run / "report.html").read_text().lower()


def test_scripts_ask_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    planted = plant(run, "figures/stream.pdf")
    assert run_script(REPOSITORY / "figures" / "draw.py", "stream", run) == 2
    assert untouched(planted)
    assert not (run / "figures" / "stream.png").exists()
    assert run_script(REPOSITORY / "figures" / "draw.py", "stream", run, "--out", tmp_path / "else") == 0
    with pytest.raises(InputError, match="a file of that name"):
        write_table(run / "figures" / "stream.pdf", pd.DataFrame())


# -- names ------------------------------------------------------------------------------------------------------------

OUTSIDE = ("", ".", "..", "../x", "a/b", "/a", "a\\b", "a\0b", "a\nb", " ", "x" * 101, "é" * 51)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_is_no_plain_one_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(InputError, match="plain name"):
        check_name(name, "--checkpoint")
    with pytest.raises(InputError, match="plain name"):
        find_steps("run/checkpoint-*", name)
    given = ["--base", "nowhere", "--data", "nowhere", "--out", tmp_path / "out", "--checkpoint", f"{name}=nowhere"]
    for command in (["compare", "--probe", "nowhere"], ["relapse"]):
        told = refused(capsys, *command, *given)
        assert "plain name" in told or "takes NAME=PATH" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["sft", "an edit", "run@10", "..a", "é" * 50, "x" * 100, "nan", "a.b"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert check_name(name, "--checkpoint") == name


def test_answers_of_a_relapse_test_go_nowhere_else(checkpoints: Path, tmp_path: Path) -> None:
    from mechinterp.runs.candidate import Candidate
    from mechinterp.runs.relapse import treat_checkpoints

    base = Candidate.of(checkpoints / "base", name="base")
    outside = Candidate.of(checkpoints / "tuned", name="../../x")
    with pytest.raises(InputError, match="plain name"):
        treat_checkpoints(base, [outside], INSTANCES, lambda _: None, out=tmp_path / "a" / "b")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_list_cut_by_a_kill_is_read_and_gone_on_with(tmp_path: Path) -> None:
    with locked(tmp_path):
        write_text(tmp_path / "a", "a")
        with (tmp_path / ledger.LEDGER).open("a") as stream:
            stream.write('{"name": "b", "dig')
        write_text(tmp_path / "c", "c")
        write_text(tmp_path / "a", "new")
        write_text(tmp_path / "c", "new")
    lines = [line for line in (tmp_path / ledger.LEDGER).read_text().split("\n") if line.endswith("}")]
    assert [json.loads(line)["name"] for line in lines] == ["a", "c", "a", "c"]
