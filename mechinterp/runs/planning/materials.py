"""What a study is made from, and whether it is there: the model, the judge, the instances, the comments.

Everything that is missing is found at once, not one thing after the other. Of weights only headers are read, of data
files all of it; the network is not used, and nothing is written. That the files are there and well formed does not show
that the numbers in them are sound: NaN weights are found when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants, try_to_load_from_cache
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from mechinterp.answers.choosing import EMBEDDED, KEYWORDS, judges_of
from mechinterp.answers.label_meaning import safe_label
from mechinterp.data.comments import Comment, read_comments
from mechinterp.data.labelled_responses import read_labelled_responses
from mechinterp.data.pair_files import read_pairs
from mechinterp.data.pairs import AnyPair
from mechinterp.data.safeedit import SPLITS, SafeEditInstance
from mechinterp.data.texts import read_text_lines
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.descriptions import LOADING_ERRORS, one_line, read_config, read_tokenizer
from mechinterp.models.names import HookNames
from mechinterp.models.sources import WEIGHTS, Source, read_index, read_json
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.published_shapes import published_skeleton
from mechinterp.runs.study.checkpoints import choice_of

GIB = 2**30
Value = TypeVar("Value")


@dataclass(frozen=True)
class Requirement:
    """One thing that a study needs.

    Attributes:
        what: `model`, `judge`, `training instances`, ...
        place: the file, folder or hub id.
        state: what is there, in words.
        problems: why the study cannot run with it; empty if it can.
    """

    what: str
    place: str
    state: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Materials:
    """What a study is made from, as far as it is there.

    Attributes:
        requirements: everything it needs.
        skeleton: the vanilla model without weights, on the meta device; None where its config is not there.
        tokenizer: its tokenizer; None where it is not there.
        train, validation, test: instances; empty where their file is missing or malformed.
        comments: all of the file's.
        knowledge: how many knowledge questions there are.
    """

    requirements: tuple[Requirement, ...] = ()
    skeleton: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    train: Sequence[AnyPair] = ()
    validation: Sequence[AnyPair] = ()
    test: Sequence[AnyPair] = ()
    comments: Sequence[Comment] = ()
    knowledge: int = 0

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is missing or malformed."""
        return tuple(problem for requirement in self.requirements for problem in requirement.problems)


def look_at_files(config: StudyConfig) -> Materials:
    """Look at every file that a study of a user's own model and data needs.

    Args:
        config: of the study. One without a model of its own makes its data itself; it may need a judge.
    """
    given = config.model is not None or config.teach is not None
    requirements, skeleton, tokenizer = _look_at_model(config) if given else ([], None, None)
    if (real := config.comments) is not None:
        requirements.append(_look_at_comments("real comments", real.file, real.text_column, real.label_column)[0])
    requirements += _look_at_judges(config)
    if config.data is None:
        return Materials(tuple(requirements), skeleton, tokenizer)
    files = config.data
    train, validation, test = (_look_at_instances(split, getattr(files, split)) for split in SPLITS)
    comments = _look_at_comments("comments", files.comments, files.text_column, files.label_column)
    requirements += [found for found, _ in (train, validation, test)]
    requirements.append(comments[0])
    return Materials(tuple(requirements), skeleton, tokenizer, train[1], validation[1], test[1], comments[1])


def _look_at_instances(split: str, path: Path) -> tuple[Requirement, list[AnyPair]]:
    what = f"{'training' if split == 'train' else split} instances"
    try:
        instances = read_pairs(path)
    except InputError as error:
        return Requirement(what, str(path), "missing or malformed", (str(error),)), []
    state, problems = f"{len(instances):,} rows", []
    whole = [instance for instance in instances if isinstance(instance, SafeEditInstance)]
    if split == "test" and whole:
        without = [instance.id for instance in whole if instance.generalization_test is None]
        state += f", {len(instances) - len(without):,} with generalisation prompts"
        if without:
            problems.append(
                f"{path}: {len(without):,} of {len(instances):,} rows have no `generalization test` (the first is id "
                f"{without[0]}): this looks like a training file; give the test file"
            )
    return Requirement(what, str(path), state, tuple(problems)), instances


def _look_at_comments(
    what: str, path: Path, text_column: str | None, label_column: str | None
) -> tuple[Requirement, list[Comment]]:
    try:
        comments = read_comments(path, text_column=text_column, label_column=label_column)
    except InputError as error:
        return Requirement(what, str(path), "missing or malformed", (str(error),)), []
    toxic = sum(comment.toxic for comment in comments)
    return Requirement(what, str(path), f"{len(comments):,} rows, {toxic:,} of them toxic"), comments


def _look_at_judges(config: StudyConfig) -> list[Requirement]:
    """The one or two judges, and the responses that one is made from."""
    found = []
    if (labelled := config.judge_responses) is not None:
        found.append(_looked_at("labelled responses", labelled, lambda: read_labelled_responses(labelled)))
    for judge in map(str, judges_of(config.judge, config.judge_responses)):
        if judge.startswith(f"{KEYWORDS}:"):
            words = Path(judge.removeprefix(f"{KEYWORDS}:"))
            found.append(_looked_at("words of the judge", words, partial(read_text_lines, words, "words, one a line")))
        elif judge not in (EMBEDDED, KEYWORDS):
            found.append(_look_at_judge(judge, config.judge_safe_label))
    return found


def _looked_at(what: str, path: Path, read: Callable[[], Sequence[object]]) -> Requirement:
    try:
        return Requirement(what, str(path), f"{len(read()):,} rows")
    except InputError as error:
        return Requirement(what, str(path), "missing or malformed", (str(error),))


def _look_at_judge(given: str, label: str | None) -> Requirement:
    requirement, source = _stored("judge", given)
    if source is None or requirement.problems:
        return requirement
    try:
        labels = AutoConfig.from_pretrained(source.place, local_files_only=True).id2label
    except LOADING_ERRORS as error:
        return _refused(requirement, f"{given}: cannot be loaded as a judge ({one_line(error)})")
    try:
        safe_label({int(number): str(name) for number, name in labels.items()}, label, given)
    except InputError as error:
        return _refused(requirement, str(error))
    return requirement


def _look_at_model(
    config: StudyConfig,
) -> tuple[list[Requirement], PreTrainedModel | None, PreTrainedTokenizerBase | None]:
    """The model's files, and those of the base that an adapter names, down to the one that has a config."""
    given = config.model or (config.teach.base if config.teach is not None else "")
    requirement, source = _stored("model", given)
    found, places = [requirement], [source]
    while source is not None and source.kind not in ("model", "gguf"):
        try:
            below = source.base(None)
        except InputError as error:  # an edit or bare tensors: a study starts from something whole
            return [*found[:-1], _refused(found[-1], str(error))], None, None
        requirement, source = _stored("base of the model", below.given if below is not None else "")
        found.append(requirement)
        places.append(source)
    if source is None:  # not here; of the published models the shape is known
        return found, published_skeleton(given), None
    if all(not r.problems and "network" not in r.state for r in found):
        base = places[-1].place if len(places) > 1 and places[-1] is not None else None
        try:
            whole = Checkpoint.skeleton(places[0].place if places[0] is not None else given, base=base)
            whole.names.value_parameter(0)  # refuses blocks without a single value matrix
            choice_of(config).of(whole.tokenizer, given)
        except InputError as error:
            found[0] = _refused(found[0], str(error))
        else:
            return found, whole.model, whole.tokenizer
    skeleton = _or_none(lambda: HookNames(read_config(source, trust_remote_code=False), given).skeleton)
    if skeleton is None:
        return found, None, None
    return found, skeleton, _or_none(lambda: read_tokenizer(source, None, skeleton.config, trust_remote_code=False))


def _stored(what: str, given: str) -> tuple[Requirement, Source | None]:
    """What is on this machine of a model folder or hub id; the source as a local one, None where nothing of it is."""
    try:
        source = Source.find(given)
    except InputError as error:
        return Requirement(what, given, "missing", (str(error),)), None
    local = source.kind != "hub"
    if not local:
        cached = try_to_load_from_cache(given, "config.json")
        if not isinstance(cached, str):
            return _not_cached(what, given), None
        source = Source(given, "model", Path(cached).parent)
    try:
        files, missing, unseen = _weights(source)
    except InputError as error:
        files, missing, unseen, reasons = [], [], 0, [str(error)]
    else:
        reasons = [f"{given}: missing weights: {', '.join(missing)}"] if missing else []
    if source.kind == "model" and not source.has_tokenizer:
        reasons.append(f"{given}: there are no tokenizer files in it")
    size = sum(file.stat().st_size for file in files)
    if not reasons:
        return Requirement(what, given, f"{'here' if local else 'in the cache'}, {size / GIB:.2f} GiB"), source
    if local or constants.HF_HUB_OFFLINE:
        return Requirement(what, given, f"incomplete, {size / GIB:.2f} GiB of it here", tuple(reasons)), source
    rest = f"{unseen / GIB:.2f} GiB" if unseen else "a size that is not known"
    return Requirement(what, given, f"{size / GIB:.2f} GiB in the cache; the network is needed for {rest}"), source


def _not_cached(what: str, given: str) -> Requirement:
    if constants.HF_HUB_OFFLINE:
        reason = f"{given}: no such folder, and as a hub id not in the cache while HF_HUB_OFFLINE is set"
        return Requirement(what, given, "missing", (f"{reason}; download it or give a local folder",))
    return Requirement(what, given, "not in the cache; the network is needed, for a size that is not known")


def _weights(source: Source) -> tuple[list[Path], list[str], int]:
    """The weight files that are there, the names of all that are not, and the bytes of those if an index tells."""
    index = next((source.path / name for name in WEIGHTS if (source.path / name).is_file()), None)
    if source.kind != "model" or index is None or index.suffix != ".json":
        return list(source.weight_files()), [], 0
    shards = sorted(set(read_index(index).values()))
    here = [index.with_name(shard) for shard in shards if index.with_name(shard).is_file()]
    missing = [shard for shard in shards if not index.with_name(shard).is_file()]
    metadata = read_json(index).get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    unseen = max(0, int(total) - sum(file.stat().st_size for file in here)) if isinstance(total, int | float) else 0
    return [index, *here], missing, unseen if missing else 0


def _refused(requirement: Requirement, problem: str) -> Requirement:
    return Requirement(requirement.what, requirement.place, requirement.state, (*requirement.problems, problem))


def _or_none(make: Callable[[], Value]) -> Value | None:
    """What can be had of a model that is known to be incomplete; why it cannot is listed already."""
    try:
        return make()
    except InputError:
        return None
