"""SafeEdit's reader and writer: round trips, one-line errors for every bad row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.data.safeedit import (
    CATEGORIES,
    SafeEditInstance,
    read_safeedit,
    write_safeedit,
)
from mechinterp.errors import InputError


def make_row(number: int = 0, *, category: str = "Bias", question: str = "How?", attack: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "unsafety category": category,
        "question": question,
        "attack id": attack,
        "attack prompt": f"Attack {attack}: [INSERT]",
        "adversarial prompt": f"Attack {attack}: {question}",
        "safe generation": "I cannot help with that.",
        "unsafe generation": "Sure, here it is.",
        "generalization test": {
            "test input of only harmful question": question,
            "test input of other attack prompt input": "a",
            "test input of other question input": "b",
            "test input of other questions and attack prompts": "c",
        },
        "knowledge constrain": {"prompt": "The capital of France is", "answer": "Paris"},
    }


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_safeedit(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_reads_the_schema_and_ignores_other_keys(tmp_path: Path) -> None:
    (instance,) = read_safeedit(write_json(tmp_path / "rows.json", [make_row(7) | {"comment": "mine"}]))
    assert instance.id == 7
    assert instance.safe_generation == "I cannot help with that."
    assert instance.generalization_test is not None
    assert instance.generalization_test.other_question_and_attack == "c"
    assert instance.knowledge_constraint.answer == "Paris"


def test_training_rows_have_no_generalization_test(tmp_path: Path) -> None:
    row = make_row()
    del row["generalization test"]
    assert read_safeedit(write_json(tmp_path / "rows.json", [row]))[0].generalization_test is None


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([make_row()]), encoding="utf-8-sig")
    assert len(read_safeedit(path)) == 1


@pytest.mark.parametrize(
    ("label", "category"),
    [("offensiveness", "Offensiveness"), ("unfairness and bias", "Bias"), ("Privacy", "Privacy")],
)
def test_a_category_is_read_as_the_one_it_names(label: str, category: str) -> None:
    assert SafeEditInstance.model_validate(make_row(category=label)).category == category


@pytest.mark.parametrize("label", ["weather", "", "bias and privacy", "unbiased"])
def test_an_unknown_category_is_an_error_that_lists_the_nine(label: str, tmp_path: Path) -> None:
    message = error_of(write_json(tmp_path / "rows.json", [make_row(category=label)]))
    assert "row 1, key 'unsafety category'" in message
    assert all(category in message for category in CATEGORIES)


def test_instances_are_built_by_field_name_and_round_trip(tmp_path: Path) -> None:
    by_name = SafeEditInstance(**SafeEditInstance.model_validate(make_row(question="Où? “so” 日本")).model_dump())
    path = tmp_path / "new" / "rows.json"
    write_safeedit([by_name], path)
    assert read_safeedit(path) == [by_name]
    assert json.loads(path.read_text(encoding="utf-8")) == [make_row(question="Où? “so” 日本")]
    assert [file.name for file in path.parent.glob("[!.]*")] == ["rows.json"]


@given(
    st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable()),
    st.integers(),
    st.sampled_from(CATEGORIES),
)
def test_any_text_round_trips(tmp_path_factory: pytest.TempPathFactory, text: str, number: int, category: str) -> None:
    instance = SafeEditInstance.model_validate(make_row(number, question=text, category=category))
    path = tmp_path_factory.mktemp("any") / "rows.json"
    write_safeedit([instance], path)
    assert read_safeedit(path) == [instance]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("safe generation", "  \n", "is blank"),
        ("safe generation", None, "must be text, is null"),
        ("question", 3, "must be text, is a number"),
        ("id", "one", "must be a whole number, is 'one'"),
        ("attack id", 1.5, "must be a whole number, is 1.5"),
        ("knowledge constrain", "Paris", "must be an object, is a text"),
    ],
)
def test_a_bad_value_names_row_key_and_reason(key: str, value: Any, reason: str, tmp_path: Path) -> None:
    rows = [make_row(0), make_row(1) | {key: value}]
    assert f"row 2, key {key!r}: {reason}" in error_of(write_json(tmp_path / "rows.json", rows))


def test_a_missing_key_is_named_with_its_parents(tmp_path: Path) -> None:
    row = make_row()
    del row["knowledge constrain"]["answer"]
    assert "row 1, key 'knowledge constrain > answer': is missing" in error_of(write_json(tmp_path / "r.json", [row]))


def test_repeated_ids_name_both_rows(tmp_path: Path) -> None:
    message = error_of(write_json(tmp_path / "rows.json", [make_row(4), make_row(5), make_row(4)]))
    assert "row 3, key 'id': 4 is already the id of row 1" in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is not JSON (line 1, column 1"),
        ("{'id': 1}", "is not JSON"),
        ('{"id": 1}\n{"id": 2}', "is not JSON (line 2"),
        ('{"id": 1}', "holds an object where a JSON list of rows is expected"),
        ("[]", "the list is empty"),
        ("[3]", "row 1 is a number where an object"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_list_of_rows(content: str | bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert reason in error_of(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "absent.json")
    assert "cannot be read" in error_of(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    write_safeedit([SafeEditInstance.model_validate(make_row())], path)
    surrogate = SafeEditInstance.model_construct(**dict(read_safeedit(path)[0]) | {"question": "\ud800"})
    with pytest.raises(ValueError, match="surrogate"):
        write_safeedit([surrogate], path)
    assert len(read_safeedit(path)) == 1
