"""Which model an adapter is merged into, where it is set against another one: paths tell, names do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mechinterp.errors import InputError
from mechinterp.models.bases import stands_on
from mechinterp.models.sources import Source


def folder_of_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def folder_of_adapter(folder: Path, base: object) -> str:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return str(folder)


def test_a_base_of_the_same_name_is_not_the_same_base(tmp_path: Path) -> None:
    mine, other = folder_of_model(tmp_path / "mine" / "vanilla"), folder_of_model(tmp_path / "other" / "vanilla")
    adapter = folder_of_adapter(tmp_path / "adapter", str(other))
    assert stands_on(adapter, str(mine)) == (adapter, str(other))
    assert stands_on(f"{adapter}@{mine}", str(mine)) == (adapter, str(mine))  # as the user says
    assert stands_on(adapter, str(mine), str(mine)) == (adapter, str(mine))
    other.rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"not there \(.*other/vanilla\); give one \(base\): .*adapter@MODEL, or"):
        stands_on(adapter, str(mine))


def test_the_same_base_by_another_path_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = folder_of_model(tmp_path / "models" / "base")
    (tmp_path / "link").symlink_to(base)
    (tmp_path / "linked").symlink_to(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    for named in (str(base), str(tmp_path / "link"), "models/base", "link", "linked/base", "../models/base"):
        adapter = folder_of_adapter(tmp_path / "adapter", named)
        for given in (str(base), "link", "models/../models/base", "linked/base/"):
            assert stands_on(adapter, given) == (adapter, given)
        (tmp_path / "adapter" / "adapter_config.json").unlink()
        (tmp_path / "adapter").rmdir()


def test_a_relative_base_moves_with_its_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_model(tmp_path / "run" / "checkpoints" / "vanilla")
    for name, named in (("beside", "vanilla"), ("below", "../vanilla")):
        folder_of_adapter(tmp_path / "run" / "checkpoints" / name, named)
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    other = folder_of_model(tmp_path / "elsewhere" / "vanilla")
    for name in ("beside", "below"):
        adapter = str(tmp_path / "moved" / "checkpoints" / name)
        found = stands_on(adapter, str(other))[1]
        assert Path(found).resolve() == (tmp_path / "moved" / "checkpoints" / "vanilla").resolve()


def test_a_base_that_may_be_two_folders_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, beside = folder_of_model(tmp_path / "here" / "vanilla"), folder_of_model(tmp_path / "run" / "vanilla")
    adapter = folder_of_adapter(tmp_path / "run" / "adapter", "vanilla")
    monkeypatch.chdir(here.parent)
    for opening in (lambda: stands_on(adapter, str(here)), lambda: Source.find(adapter).base(None)):
        with pytest.raises(InputError, match=rf"\(vanilla\) may be {here} and {beside}; give one \(base\)"):
            opening()
    assert stands_on(adapter, str(here), str(beside)) == (adapter, str(beside))
    monkeypatch.chdir(tmp_path)
    assert stands_on(adapter, str(here))[1] == str(beside)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (None, r"names no base model; give one \(base\): .*@MODEL"),
        ("", r"names no base model; give one \(base\): .*@MODEL"),
        (["vanilla"], "names the base by a list.*@MODEL"),
        ("owner/vanilla", "was trained on owner/vanilla, which is not here.*give its base: .*@MODEL"),
        ("/gone/vanilla", r"not there \(/gone/vanilla\).*@MODEL"),
    ],
)
def test_a_base_that_cannot_be_known_is_asked_for(named: object, message: str, tmp_path: Path) -> None:
    base = str(folder_of_model(tmp_path / "vanilla"))
    adapter = folder_of_adapter(tmp_path / "runs" / "adapter", named)
    with pytest.raises(InputError, match=message):
        stands_on(adapter, base)
    assert stands_on(f"{adapter}@{base}", "other") == (adapter, base)
    assert stands_on(adapter, "other", base) == (adapter, base)


def test_a_hub_id_is_itself(tmp_path: Path) -> None:
    adapter = folder_of_adapter(tmp_path / "adapter", "owner/model")
    assert stands_on(adapter, "owner/model") == (adapter, "owner/model")


def test_whatever_is_no_adapter_stands_on_what_it_is_set_against(tmp_path: Path) -> None:
    model = str(folder_of_model(tmp_path / "model"))
    assert stands_on(model, "base") == (model, "base")
    assert stands_on(model, "base", "given") == (model, "given")
