"""The comment reader: label spellings, named columns, one-line errors, and real files where they are present."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.data.comments import Comment, read_comments, write_comments
from mechinterp.data.storage.ledger import LEDGER
from mechinterp.errors import InputError

SHARED_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path, **columns: str) -> str:
    with pytest.raises(InputError) as caught:
        read_comments(path, **columns)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_reads_jigsaw_columns(tmp_path: Path) -> None:
    path = write_text(tmp_path / "c.csv", 'id,comment_text,toxic,obscene\n1,"Hi, all\nof you",0,0\n2,idiot,1,1\n')
    assert read_comments(path) == [Comment("Hi, all\nof you", False), Comment("idiot", True)]


@pytest.mark.parametrize(
    ("clean", "toxic"),
    [("0", "1"), ("0.0", "1.0"), ("False", "True"), ("Not Toxic", "Toxic"), ("NOT TOXIC", "toxic"), (" 0", "1 ")],
)
def test_reads_every_spelling_of_the_labels(clean: str, toxic: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / "c.csv", f"body,label\nhello,{clean}\nidiot,{toxic}\n")
    assert [comment.toxic for comment in read_comments(path, text_column="body", label_column="label")] == [False, True]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")).filter(str.strip), min_size=2),
    st.booleans(),  # NUL is in no text file
)
def test_what_is_written_reads_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str], first: bool) -> None:
    comments = [Comment(text, first ^ bool(index % 2)) for index, text in enumerate(texts)]
    path = tmp_path_factory.mktemp("any") / "new" / "c.csv"
    write_comments(comments, path)
    assert read_comments(path) == comments
    assert {file.name for file in path.parent.iterdir()} == {"c.csv", LEDGER}


def test_comments_without_text_are_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_text(tmp_path / "c.csv", "comment_text,toxic\n  ,0\nhello,0\n,maybe\nidiot,1\n")
    with caplog.at_level(logging.WARNING):
        assert len(read_comments(path)) == 2
    assert "skipped 2 comments without text, kept 2" in caplog.text


@pytest.mark.parametrize("label", ["-1", "2", "0.7", "", "yes"])
def test_an_unknown_label_names_row_value_and_accepted_values(label: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / "c.csv", f"comment_text,toxic\nhello,0\nidiot,{label}\n")
    message = error_of(path)
    assert f"row 2, column 'toxic': the label {label!r} is none of 1, 1.0, true, toxic" in message
    assert "not toxic (clean)" in message


def test_a_missing_column_lists_those_present_and_the_option(tmp_path: Path) -> None:
    path = write_text(tmp_path / "c.csv", "text,is_toxic\nhello,0\n")
    message = error_of(path)
    assert "no column 'comment_text'" in message
    assert "'text', 'is_toxic'; name one with `text_column`" in message
    assert "`label_column`" in error_of(path, text_column="text")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        ("comment_text,toxic\n", "has no comments"),
        ("comment_text,toxic\n ,0\n", "has no comments"),
        ("comment_text,toxic\na,0\nb,0\n", "all 2 comments are clean by column 'toxic'"),
        ("comment_text,toxic\na,1\n", "its one comment is toxic"),
        ("comment_text,toxic\na,b,1\n", "row 1 has more fields than the 2 of the header; quote"),
        ("comment_text,toxic\na,1\nb\n", "row 2 has fewer fields than the 2 of the header"),
        ('comment_text,toxic\n"a,1\n', "is not a well-formed CSV file (line 2"),
        ("PK\x03\x04 a workbook", "has no column 'comment_text'"),
        (b"\xff\xd8\xff", "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_table_of_comments(content: str | bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert reason in error_of(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "absent.csv")
    assert "cannot be read" in error_of(tmp_path)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared real files are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "text_column", "label_column", "n_comments", "n_toxic"),
    [
        ("surge_toxicity_en.csv", "text", "is_toxic", 1000, 501),
        ("cai_toxicity_nonfuzzed_testset.csv", "comment", "toxic", 1492, 248),
        ("jigsaw_format_sample.csv", None, None, 282, 28),
    ],
)
def test_real_files(
    name: str, text_column: str | None, label_column: str | None, n_comments: int, n_toxic: int, tmp_path: Path
) -> None:
    comments = read_comments(SHARED_DATA / name, text_column=text_column, label_column=label_column)
    assert len(comments) == n_comments
    assert sum(comment.toxic for comment in comments) == n_toxic
    write_comments(comments, tmp_path / "again.csv")
    assert read_comments(tmp_path / "again.csv") == comments
