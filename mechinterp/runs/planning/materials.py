"""What a study is made from, and whether it is there: the model, the judge, the instances, the comments.

Everything that is missing is found at once. Of weights only headers are read, of data files all of it; the network is
not used, and nothing is written. NaN weights are found when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub import constants, try_to_load_from_cache
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from mechinterp.answers.behaviour import Behaviour
from mechinterp.answers.choosing import EMBEDDED, KEYWORDS, judges_of
from mechinterp.answers.defense import check_test_instances
from mechinterp.answers.label_meaning import safe_label
from mechinterp.audit.circuits.places import check_architecture
from mechinterp.data.comments import Comment, read_comments
from mechinterp.data.corpus import generate_corpus
from mechinterp.data.counting import many
from mechinterp.data.labelled_responses import read_labelled_responses
from mechinterp.data.pairs import AnyPair
from mechinterp.data.texts import read_text_lines
from mechinterp.errors import InputError
from mechinterp.methods.training.organism import build_model, train_tokenizer
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.descriptions import LOADING_ERRORS, one_line, read_config
from mechinterp.models.names import HookNames
from mechinterp.models.sources import Source
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.shape import published_skeleton
from mechinterp.runs.sections import CommentsFile, DataFiles
from mechinterp.runs.study.checkpoints import choice_of
from mechinterp.runs.study.splits import about_of, read_split, split_corpus

Row = TypeVar("Row")


@dataclass
class Materials:
    """What a study is made from, as far as it is there; empty where it is missing or malformed.

    Attributes:
        found: what it needs, where that is, and what is there, in words.
        problems: everything that is missing or malformed.
        skeleton: the vanilla model without weights, on the meta device.
        tokenizer: its tokenizer.
        train, validation, test, comments: rows of the data.
        knowledge: how many knowledge questions there are.
    """

    found: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skeleton: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    train: Sequence[AnyPair] = ()
    validation: Sequence[AnyPair] = ()
    test: Sequence[AnyPair] = ()
    comments: Sequence[Comment] = ()
    knowledge: int = 0

    @classmethod
    def of(cls, config: StudyConfig, *, seed: int | None = None) -> Materials:
        """Look at every file that a study needs; with a seed, the corpus that it generates is made in memory."""
        materials, given = cls(), config.model or (config.teach and config.teach.base)
        if given:
            materials._look_at_model("model", given, choice_of(config), circuits=config.circuits is not None)
        if isinstance(config.never, str):
            materials._stored("never", config.never)
        if config.model is None and seed is not None:
            materials._generate(config, seed)
        materials._look_at_judges(config)
        if (real := config.comments) is not None:
            materials._rows("real comments", real.file, _comments_of(real))
        if config.data is not None:
            materials._read_data(config.data, about_of(config))
        return materials

    def _generate(self, config: StudyConfig, seed: int) -> None:
        """The generated data, and the organism without weights."""
        try:
            corpus = generate_corpus(seed=seed, **config.corpus.model_dump())
            splits = split_corpus(about_of(config), corpus)
            if config.teach is None:
                self.tokenizer = train_tokenizer(corpus, vocab_size=config.organism.vocab_size)
                with torch.device("meta"):
                    self.skeleton = build_model(config.organism, self.tokenizer, seed=seed)
        except ValueError as error:
            self.problems.append(f"the organism cannot be made with these settings: {error}")
            return
        self.train, self.validation, self.test = splits.values()
        self.comments, self.knowledge = corpus.comments, sum(question.held_out for question in corpus.knowledge)
        parts = {"training": self.train, "validation": self.validation, "test instances": self.test}
        counts = ", ".join(f"{len(rows):,} {part}" for part, rows in parts.items())
        self.found.append(("data", "embedded", f"made here: {counts}, {many(len(self.comments), 'comment')}"))

    def _read_data(self, files: DataFiles, about: Behaviour | None) -> None:
        read = partial(read_split, about)

        def of_test(path: Path) -> list[AnyPair]:
            check_test_instances(rows := read(path))
            return rows

        self.train = self._rows("training instances", files.train, read)
        self.validation = self._rows("validation instances", files.validation, read)
        self.test = self._rows("test instances", files.test, of_test)
        self.comments = self._rows("comments", files.comments, _comments_of(files))

    def _rows(self, what: str, path: Path, read: Callable[[Path], list[Row]]) -> list[Row]:
        try:
            rows = read(path)
        except InputError as error:
            self.found.append((what, str(path), "missing or malformed"))
            self.problems.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            return []
        self.found.append((what, str(path), many(len(rows), "row")))
        return rows

    def _look_at_judges(self, config: StudyConfig) -> None:
        """The one or two judges, and the responses that one is made from."""
        if (labelled := config.judge_responses) is not None:
            self._rows("labelled responses", labelled, read_labelled_responses)
        for judge in map(str, judges_of(config.judge, config.judge_responses)):
            if judge.startswith(f"{KEYWORDS}:"):
                words = Path(judge.removeprefix(f"{KEYWORDS}:"))
                self._rows("words of the judge", words, lambda path: read_text_lines(path, "words, one a line"))
            elif judge not in (EMBEDDED, KEYWORDS):
                self._look_at_classifier(judge, config.judge_safe_label)

    def _look_at_classifier(self, given: str, label: str | None) -> None:
        source, whole = self._stored("judge", given)
        if source is None or not whole:
            return
        try:
            labels = AutoConfig.from_pretrained(source.place, local_files_only=True).id2label
            safe_label({int(number): str(name) for number, name in labels.items()}, label, given)
        except InputError as error:
            self.problems.append(str(error))
        except LOADING_ERRORS as error:
            self.problems.append(f"{given}: cannot be loaded as a judge ({one_line(error)})")

    def _look_at_model(self, what: str, given: str, chat: ChatChoice, *, circuits: bool) -> None:
        """The model's files, and those of the base that an adapter names, down to the one that has a config."""
        source, whole = self._stored(what, given)
        if source is None:  # not here; of the published models the shape is known
            self.skeleton = published_skeleton(given)
            return
        try:
            if (below := source.base(None)) is not None:
                self._look_at_model("base of the model", below.place, chat, circuits=circuits)
            elif whole:
                checkpoint = Checkpoint.skeleton(source.place)
                checkpoint.names.value_parameter(0)  # refuses blocks without a single value matrix
                chat.of(checkpoint.tokenizer, given)  # and a tokenizer without a template
                if circuits:
                    check_architecture(checkpoint)
                self.skeleton, self.tokenizer = checkpoint.model, checkpoint.tokenizer
            else:
                self.skeleton = HookNames(read_config(source, trust_remote_code=False), given).skeleton
        except InputError as error:
            self.problems.append(str(error))

    def _stored(self, what: str, given: str) -> tuple[Source | None, bool]:
        """What is on this machine of a model, as a local source; and whether that is all of it."""
        source, local, state, problems = None, True, "missing", []
        try:
            source = Source.find(given)
            if source.kind == "hub":
                cached, local = try_to_load_from_cache(given, "config.json"), False
                source = Source(given, "model", Path(cached).parent) if isinstance(cached, str) else None
            if source is not None:
                state = f"here, {sum(file.stat().st_size for file in source.weight_files()) / 2**30:.2f} GiB"
            elif constants.HF_HUB_OFFLINE:
                problems.append(
                    f"{given}: no such folder, and as a hub id not in the cache while HF_HUB_OFFLINE is set"
                )
        except InputError as error:
            problems.append(str(error))
        if source is not None and source.kind == "model" and not source.has_tokenizer:
            problems.append(f"{given}: there are no tokenizer files in it")
        whole = source is not None and not problems
        if not whole and not local and not constants.HF_HUB_OFFLINE:
            state, problems = "not all in the cache; the network is needed", []
        self.found.append((what, given, state if not problems else "missing or incomplete"))
        self.problems += problems
        return source, whole


def _comments_of(given: DataFiles | CommentsFile) -> Callable[[Path], list[Comment]]:
    return lambda path: read_comments(path, text_column=given.text_column, label_column=given.label_column)
