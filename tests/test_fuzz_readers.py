"""Small mutated files through every reader of a user's texts, and through the commands: refused in a line, or read."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import call
from conftest import make_instance, tiny_checkpoint

from mechinterp.answers.judged import Defense
from mechinterp.answers.judged_response import JudgedResponse
from mechinterp.data.benign import read_benign
from mechinterp.data.comments import Comment, read_comments, write_comments
from mechinterp.data.concepts import Concept, read_lines
from mechinterp.data.facts.files import read_facts
from mechinterp.data.facts.relations import read_relation
from mechinterp.data.knowledge import read_knowledge
from mechinterp.data.safeedit import read_safeedit, write_safeedit
from mechinterp.errors import InputError
from mechinterp.runs.config import load_config

N_MUTATIONS = 48  # of each file, seeded
READERS: dict[str, Callable[[Path], object]] = {
    "comments.csv": read_comments,
    "data.json": read_safeedit,
    "knowledge.json": read_knowledge,
    "facts.jsonl": read_facts,
    "sanitation.json": read_facts,
    "relation.json": read_relation,
    "benign.jsonl": read_benign,
    "benign.json": read_benign,
    "benign.txt": read_benign,
    "lines.txt": read_lines,
    "responses.jsonl": Defense.load,
    "responses.json": lambda path: Defense.load(path.with_suffix(".jsonl")),
    "study.yaml": load_config,
}
COMMANDS = {  # by the file that is mutated
    "comments.csv": "probe --model model --comments {} --out p.safetensors",
    "data.json": "locate --model model --data {} --device cpu",
    "knowledge.json": "evaluate --model model --data data.json --knowledge {} --max-new-tokens 1 --device cpu",
    "benign.jsonl": "evaluate --model model --data data.json --benign {} --max-new-tokens 1 --device cpu",
    "benign.txt": "evaluate --model model --data data.json --benign {} --max-new-tokens 1 --device cpu",
    "lines.txt": "direction --model model --kind means --positive {} --negative other.txt --out d.safetensors",
    "responses.jsonl": "evaluate --responses {} --data data.json",
    "study.yaml": "reproduce --config {} --out run --dry-run",
}
VALUES = [
    None,
    True,
    0,
    -1,
    1.5,
    float("nan"),
    float("inf"),
    10**400,
    "",
    " ",
    "\ud800",
    "\x00",
    "nan",
    "7",
    [],
    ["a"],
    {},
]


def good_files(folder: Path) -> None:
    """One valid small file of each kind."""
    comments = [
        Comment(f'you "{word}", {i}', toxic) for i in range(8) for word, toxic in (("fool", True), ("friend", False))
    ]
    write_comments(comments, folder / "comments.csv")
    write_safeedit([make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(5)], folder / "data.json")
    (folder / "knowledge.json").write_text(json.dumps([["What is two and two?", "four"], ["And one?", "one"]]))
    asked = {"hop": [["Oslo is by", "Lima"], {"prompt": "It is in", "ground_truth": [["Chile", "CL"]]}]}
    fact = {"subject": "Oslo", "prompt": "{} is in", "target_new": "Chile", "rephrasings": ["It is"], "locality": asked}
    other = {"prompt": "Two is", "ground_truth": ["two"], "portability": asked}
    (folder / "facts.jsonl").write_text(json.dumps(fact) + "\n" + json.dumps(other) + "\n")
    question = {"question": "Who?", "ground_truth": "Ann", "target_new": "I do not know."}
    (folder / "sanitation.json").write_text(json.dumps({"K_F": [question], "K_R": [question]}))
    samples = [{"subject": "Oslo", "object": "Norway"}]
    relation = {"name": "in", "prompt_templates_zs": ["{} is in"], "properties": {}, "samples": samples}
    (folder / "relation.json").write_text(json.dumps(relation))
    prompts = [
        {"prompt": "Say hi", "answer": "Hi."},
        {"instruction": "Add", "instances": [{"input": "1", "output": "2"}]},
    ]
    (folder / "benign.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    (folder / "benign.json").write_text(json.dumps([*prompts, "Name the colour of grass."]))
    for name in ("benign.txt", "lines.txt", "other.txt"):
        (folder / name).write_text(f"one text of {name}\n\nanother text\nand a third\n")
    judged = tuple(JudgedResponse(i, "ds", f"p {i}", "No." if i else "", 0.5, "Bias") for i in range(3))
    Defense("m", judged, knowledge=(True, False), judge="j", judge_accuracy=0.5).save(folder / "responses.jsonl")
    (folder / "study.yaml").write_text("title: x\nmax_new_tokens: 8\ncorpus: {n_documents: 100, n_comments: 40}\n")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    good_files(folder)
    tiny_checkpoint("gpt2").save(folder / "model")
    return folder


def mutations(content: bytes, name: str, generator: random.Random) -> Iterator[tuple[str, bytes]]:
    """Endless mutations of a file, each with what it is called."""
    text = content.decode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, content)
    yield "byte order mark", b"\xef\xbb\xbf" + content
    yield "UTF-16", text.encode("utf-16")
    yield "UTF-16 without a mark", text.encode("utf-16-le")
    yield "latin-1", text.replace("a", "\xe9").encode("latin-1")
    yield "old line ends", content.replace(b"\n", b"\r")
    yield "windows' line ends", content.replace(b"\n", b"\r\n")
    yield "gzip", gzip.compress(content, mtime=0)
    yield "zip", packed.getvalue()
    yield "parquet", b"PAR1\x15\x04\x15\x00PAR1"
    yield "nothing", b""
    yield "blanks", b" \n\t\n"
    yield "NUL", content[:20] + b"\x00" + content[20:]
    yield "deep", b"[" * 100_000
    yield "deep in an object", b'[{"a": ' * 5_000
    yield "twice", content + content
    yield "a list of lists", b"[[[]]]"
    yield "a word", b"null"
    while True:
        kind = generator.choice(["cut", "flip", "value", "value", "swap", "drop"])
        lines = text.split("\n")
        if kind == "cut":
            yield kind, content[: generator.randrange(len(content))]
        elif kind == "flip":
            place = generator.randrange(len(content))
            yield kind, content[:place] + bytes([generator.randrange(256)]) + content[place + 1 :]
        elif kind == "swap":
            generator.shuffle(lines)
            yield kind, "\n".join(lines).encode()
        elif kind == "drop":
            del lines[generator.randrange(len(lines))]
            yield kind, "\n".join(lines).encode()
        else:
            yield kind, _with_another_value(text, name, generator)


def _with_another_value(text: str, name: str, generator: random.Random) -> bytes:
    """One value, at any depth, is another."""
    value = generator.choice(VALUES)
    if name.endswith(".json"):
        return _put(json.loads(text), value, generator)
    if name.endswith(".jsonl"):
        lines = text.rstrip("\n").split("\n")
        place = generator.randrange(len(lines))
        lines[place] = _put(json.loads(lines[place]), value, generator).decode()
        return "\n".join(lines).encode()
    words = text.replace(",", " , ").replace(":", " : ").split(" ")
    words[generator.randrange(len(words))] = json.dumps(value)
    return " ".join(words).replace(" , ", ",").replace(" : ", ": ").encode("utf-8", "surrogatepass")


def _put(whole: object, value: object, generator: random.Random) -> bytes:
    part = whole
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))  # type: ignore[arg-type]
        if not keys:
            break
        key = generator.choice(keys)
        if isinstance(part[key], dict | list) and part[key] and generator.random() < 0.7:  # type: ignore[index]
            part = part[key]  # type: ignore[index]
            continue
        part[key] = value  # type: ignore[index]
        break
    return json.dumps(whole).encode()


@pytest.mark.parametrize("name", READERS)
def test_a_reader_reads_or_refuses_in_one_line(there: Path, tmp_path: Path, name: str) -> None:
    content, read = (there / name).read_bytes(), READERS[name]
    made = mutations(content, name, random.Random(f"fuzz {name}"))
    if name.startswith("responses"):  # they lie beside each other
        good_files(tmp_path)
    read(there / name)
    refused = 0
    for _, (kind, mutated) in zip(range(N_MUTATIONS), made, strict=False):
        (tmp_path / name).write_bytes(mutated)
        try:
            read(tmp_path / name)
        except InputError as error:
            refused += 1
            told = str(error)
            assert str(tmp_path) in told, (kind, told)
            assert 20 < len(" ".join(told.split())) < 700, (kind, told)
        except Exception as error:
            pytest.fail(f"{name}, {kind}: {error!r} of {mutated[:200]!r}")
    assert refused >= 8  # or the mutations do not mutate


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_ends_with_code_0_or_2_and_one_line(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, name: str
) -> None:
    monkeypatch.chdir(there)
    made = mutations((there / name).read_bytes(), name, random.Random(f"command {name}"))
    mutated = f"mutated{Path(name).suffix}"
    for number, (kind, content) in enumerate(made):
        if number == (12 if name == "study.yaml" else 24):  # a plan takes long
            break
        if number in (3, 5, 7, 8, 9, 10):  # as in the readers' test, and alike for every command
            continue
        (there / mutated).write_bytes(content)
        code = call(*COMMANDS[name].format(mutated).split())
        err = capsys.readouterr().err
        assert code in (0, 2), (kind, err)
        assert "Traceback" not in err
        assert sum(line.startswith("mechinterp:") for line in err.splitlines()) == (code == 2), (kind, err)


def test_a_byte_order_mark_and_any_line_ends_change_nothing(there: Path, tmp_path: Path) -> None:
    good_files(tmp_path)
    for name, read in READERS.items():
        content, before = (there / name).read_bytes(), read(there / name)
        for changed in (b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content.replace(b"\n", b"\r")):
            (tmp_path / name).write_bytes(changed)
            assert read(tmp_path / name) == before, name
        (tmp_path / name).write_bytes(content)


def test_blanks_in_a_header_do_not_count_and_long_comments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(' comment_text,\ttoxic \n"' + "long " * 40_000 + '",1\nshort,0\n')
    first, second = read_comments(path)
    assert (len(first.text), first.toxic, second) == (200_000, True, Comment("short", False))
    path.write_text("text ;toxic\na;1\n")
    with pytest.raises(InputError, match="its columns are: 'text ;toxic'; ';' stands between them, not a comma"):
        read_comments(path)
    path.write_text("comment_text,toxic,toxic\na,1,0\nb,0,1\n")
    with pytest.raises(InputError, match="has several columns 'toxic'"):
        read_comments(path)


def test_json_is_never_asked_as_a_prompt(tmp_path: Path) -> None:
    prompts = ["Name the color of grass.", "Say hi"]
    for name, text in (
        ("b.json", json.dumps(prompts)),
        ("b.json", json.dumps([{"prompt": prompt} for prompt in prompts], indent=2)),
        ("b.jsonl", json.dumps([{"instruction": prompt} for prompt in prompts])),
        ("b.jsonl", "\n".join(map(json.dumps, prompts))),
        ("b.txt", "\n".join(prompts)),
    ):
        (tmp_path / name).write_text(text)
        assert [found.prompt for found in read_benign(tmp_path / name)] == prompts
    for text in (json.dumps(prompts), json.dumps(prompts, indent=2), '{"prompt": "a"}\n{"prompt": "b"}\n'):
        for read in (read_benign, read_lines):
            (tmp_path / "b.txt").write_text(text)
            with pytest.raises(InputError, match="holds JSON, whose lines are no texts"):
                read(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("[INST] Say hi [/INST]\n[1, 2] is a list\n")  # no JSON, only brackets
    assert len(read_benign(tmp_path / "b.txt")) == 2


def test_what_is_wrong_is_named_with_its_place(tmp_path: Path) -> None:
    write_safeedit([make_instance(i) for i in range(3)], tmp_path / "d.json")
    rows = json.loads((tmp_path / "d.json").read_text())
    cases = [
        (json.dumps([rows[0], {**rows[1], "question": "a\ud83d"}]), "row 2: holds half of a surrogate pair"),
        (json.dumps(rows)[:-1] + ', {"id": 1, "id": 2}]', "has the key 'id' twice in one object"),
        (json.dumps([rows[0], {**rows[1], "id": [1]}]), r"row 2, key 'id': .*\[1\]"),
        (json.dumps([{**rows[0], "id": float("nan")}]), "row 1, key 'id': must be a whole number, is nan"),
        (json.dumps([{**rows[0], "question": 3}]), "row 1, key 'question': must be text, is a number"),
        (json.dumps(rows[0]) + "\n" + json.dumps(rows[1]), "line 2, column 1: Extra data"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"id": ' + "9" * 5000 + "}]", "limit"),
    ]
    for text, told in cases:
        (tmp_path / "d.json").write_text(text)
        with pytest.raises(InputError, match=told):
            read_safeedit(tmp_path / "d.json")
    (tmp_path / "d.json").write_bytes("[\n\xe9]".encode("latin-1"))
    with pytest.raises(InputError, match=r"not UTF-8 text \(line 2, byte 2: 0xe9\); save it as UTF-8"):
        read_safeedit(tmp_path / "d.json")
    with pytest.raises(InputError, match="a folder"):
        Concept.read(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title: a\ntitle: b", "`title` stands twice at line 2"),
        ("corpus: {n_documents: 5, n_comments: 50, n_documents: 6}", "`n_documents` stands twice"),
        ("title: no", r"`title`: .*YAML reads it as False \(bool\): put it in quotes"),
        ("title: 2020-01-01", r"YAML reads it as 2020-01-01 \(date\)"),
        ("title: 2020-13-45", "month must be in 1..12"),
        ("max_new_tokens: " + "9" * 5000, "Exceeds the limit"),
        ("title: &a [*a]", "an anchor holds itself"),
        ('title: "\\ud800"', "`title`: holds half of a surrogate pair"),
        ("\ttitle: x", "cannot start any token"),
        ("sft: {learning_rate: .inf}", "`sft.learning_rate` is inf"),
        ("title: !!bool x", "not YAML"),
    ],
)
def test_a_config_says_what_yaml_made_of_it(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        load_config(tmp_path / "c.yaml")


def test_settings_that_anchors_bring_may_be_overruled(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("corpus: &c {n_documents: 5, n_comments: 50}\ntruncate: yes\n")
    assert load_config(tmp_path / "c.yaml").corpus.n_documents == 5
    (tmp_path / "c.yaml").write_text("sft: &s {steps: 7, batch_size: 2}\ndpo: {<<: *s, steps: 9}\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.sft.steps, config.dpo.steps, config.dpo.batch_size) == (7, 9, 2)
