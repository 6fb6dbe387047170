"""What does not fit into the context is called by its name, and the advice is none that was followed already."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import refused
from conftest import byte_tokenizer, make_instance, tiny_checkpoint

from mechinterp.data.safeedit import write_safeedit
from mechinterp.errors import InputError
from mechinterp.models.text.tokens import encode


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("position", ["response", "all"])
def test_a_response_that_is_too_long_is_blamed_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, position: str, truncate: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint("gpt2").save(tmp_path / "model")
    long = [make_instance(i, unsafe_generation="x" * (300 if i == 12 else 3)) for i in (10, 11, 12)]
    write_safeedit(long, tmp_path / "long.json")
    command = ["record", "--model", "model", "--data", "long.json", "--position", position, "--out", "r.safetensors"]
    told = refused(capsys, *command, *["--truncate"] * truncate)
    assert "the response of instance 12 is too long: it has 301 tokens" in told
    assert "--truncate" not in told


@pytest.mark.parametrize(
    ("given", "told", "untold"),
    [
        ({"responses": ["y" * 40]}, "response 0 is too long", "truncate"),
        ({"responses": ["y" * 40], "truncate": True}, "response 0 is too long", "truncate"),
        (
            {"responses": ["y" * 20]},
            r"prompt 0 has 30 tokens, 19 fit .*its response takes 21.*\(`truncate=True`\)",
            "too long",
        ),
        ({"reserve": 40}, r"40 new tokens leave no room .*`max_new_tokens`", "truncate"),
        ({"reserve": 40, "truncate": True}, r"40 new tokens leave no room .*`max_new_tokens`", "truncate"),
        ({"reserve": 20}, r"prompt 0 has 30 tokens, 20 fit .*new tokens take 20.*\(`truncate=True`\)", "shorten"),
        ({"prefix": "p" * 40, "truncate": True}, "prefix and suffix take 41.*shorten that", "truncate"),
        ({"prefix": "p" * 40}, "prefix and suffix take 41.*shorten that", "truncate"),
        ({"max_length": 20}, r"prompt 0 has 30 tokens, 20 fit .*\(`truncate=True`\)", "shorten"),
        ({"max_length": 20, "called": ["instance 7"]}, "instance 7 has 30 tokens", "prompt 0"),
    ],
)
def test_the_advice_is_what_helps(given: dict, told: str, untold: str) -> None:
    with pytest.raises(InputError, match=told) as refusal:
        encode(byte_tokenizer(), ["x" * 30], **{"max_length": 40, **given})
    assert untold not in str(refusal.value)
