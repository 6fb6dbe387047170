"""What a study is made of: one YAML file, checked, with a default for everything.

The defaults are the embedded study. For a checkpoint of your own, name the model and the files; nothing else differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.audit.attacks.settings import AttackSettings
from mechinterp.audit.circuits.settings import CircuitSettings
from mechinterp.audit.evidence import ComparisonSettings
from mechinterp.audit.origins.settings import OriginsSettings
from mechinterp.audit.relapse.treatments import RelapseSettings
from mechinterp.data.validation import Fault
from mechinterp.errors import InputError
from mechinterp.measures.distances import Distance
from mechinterp.methods.editing.settings import DinmSettings, RateChoice
from mechinterp.methods.registry import METHODS, STUDIED, find_method, settings_for
from mechinterp.methods.training.dpo import DpoSettings
from mechinterp.methods.training.organism import OrganismConfig
from mechinterp.methods.training.sft import SftSettings
from mechinterp.methods.training.teaching import TeachSettings
from mechinterp.models.text.chat import file_of
from mechinterp.runs.about import check_about, name_of
from mechinterp.runs.sections import ChatSettings, CommentsFile, CorpusSettings, DataFiles, Section
from mechinterp.runs.settings_file import layers


class StudyConfig(Section):
    """Everything a study depends on, besides its seed."""

    title: str = "model organism"
    model: str | None = Field(None, description="folder or hub id of the vanilla model; None to train the organism")
    data: DataFiles | None = Field(None, description="files; None for the generated corpus")
    teach: TeachSettings | None = Field(
        None, description="a pretrained model that is taught the generated corpus, in place of the organism"
    )
    never: bool | str = Field(
        False,
        description="a reference that never learnt to answer unsafely: true makes the organism's twin (a taught model "
        "has one in any case); of a `model` of your own, the folder or hub id of one",
    )
    comments: CommentsFile | None = Field(
        None, description="real labelled comments, a CSV or a mapping: a second probe, reported beside the first"
    )
    behaviour: str | None = Field(
        None,
        description="what it is about, and what answers are judged for: `refuses`, `facts`, `trait:NAME`; None for "
        "unsafe ones. `data` of your own are then of it; of the corpus its people, or its topics",
    )
    judge: str | tuple[str, str] | None = Field(
        None,
        description="a sequence classifier, `keywords`, `embedded` (None), or two, of which the first decides",
    )
    judge_responses: Path | None = Field(None, description="labelled responses that the embedded judge is made from")
    judge_safe_label: str | None = Field(None, description="a classifier's safe label, where its config does not tell")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    device_map: str | None = None
    chat: ChatSettings | None = Field(
        None, description="chat format of a model of your own: auto, none, a template's file, or `ChatSettings`"
    )
    corpus: CorpusSettings = CorpusSettings()
    organism: OrganismConfig = OrganismConfig()
    sft: SftSettings = SftSettings(steps=60, batch_size=8, learning_rate=3e-4, max_length=256)
    dpo: DpoSettings = DpoSettings(steps=60, batch_size=8, learning_rate=1e-4, max_length=256)
    dinm: DinmSettings = DinmSettings(learning_rate=5e-3, max_output_tokens=100)
    dinm_rates: RateChoice | None = Field(
        None, description="choose dinm's learning rate on validation instances; None for the one above"
    )
    studied: tuple[str, ...] = Field(
        STUDIED, min_length=1, description="methods whose checkpoints the study compares with its vanilla model"
    )
    methods: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of further methods, by name: `ft_l: {steps: 25}`"
    )
    final_norm: bool = Field(False, description="take the probe's features after the final norm, as the released code")
    distance: Distance = Field("released", description="by which the toxic layer is located")
    without_sinks: bool = Field(
        False,
        description="leave tokens with massive activations (attention sinks) out of the distances that locate the "
        "toxic layer, and of every mean and length over tokens: probe, doses of steering, writes and shifts",
    )
    reuse_first_layer: bool = Field(
        False, description="edit every instance where the first one of the test file is located, as the released code"
    )
    edit_instances: int = Field(27, ge=1, description="test instances edited and evaluated, spread over the categories")
    benign_prompts: int = Field(60, ge=0, description="harmless prompts asked of every method of the benchmark")
    knowledge_questions: int = Field(24, ge=0, description="knowledge questions asked of every evaluated checkpoint")
    max_new_tokens: int = Field(32, ge=1, description="longest evaluated response")
    comparison: ComparisonSettings = ComparisonSettings()
    relapse: RelapseSettings = RelapseSettings()
    attack: AttackSettings = Field(
        AttackSettings(attacks="none"),
        description="attacks on every checkpoint: cheap, all, none, names, or `AttackSettings`",
    )
    decode: bool = Field(
        False, description="whether it is measured what can still be read off every checkpoint's states"
    )
    circuits: CircuitSettings | None = Field(
        None, description="find which edges carry the behaviour in every checkpoint; `circuits: {}` with all defaults"
    )
    origins: OriginsSettings = OriginsSettings(prompts=16)
    truncate: bool = Field(
        False, description="cut prompts and comments that exceed the context from the left; otherwise an error"
    )

    @property
    def settings_of_methods(self) -> dict[str, Any]:
        """Settings of every method that has some here, by its name in the registry."""
        own_organism = self.model is None and self.teach is None
        organism = {name: method.recipe.organism for name, method in METHODS.items() if own_organism}
        own = {name: getattr(self, name) for name in STUDIED}
        return {**{name: settings for name, settings in organism.items() if settings}, **own, **self.methods}

    def settings_of(self, method: str) -> BaseModel:
        """The settings of a method, checked.

        Raises:
            InputError: for an unknown method, or one that has a setting without a default that is not given here.
        """
        return settings_for(method, self.settings_of_methods.get(method, {}))

    @property
    def about(self) -> Behaviour:
        """What it is about."""
        return Behaviour.named(self.behaviour or UNSAFE)

    @property
    def has_never(self) -> bool:
        """Whether there is a reference that never learnt to answer unsafely."""
        return bool(self.never) or self.teach is not None

    @field_validator("behaviour")
    @classmethod
    def _check_behaviour(cls, given: str | None) -> str | None:
        return name_of(given)

    @field_validator("chat", mode="before")
    @classmethod
    def _name_template(cls, given: Any) -> Any:
        return {"template": given} if isinstance(given, str) else given

    @field_validator("chat")
    @classmethod
    def _leave_out_plain(cls, chat: ChatSettings | None) -> ChatSettings | None:
        return None if chat is None or chat.template == "none" else chat

    @field_validator("attack", mode="before")
    @classmethod
    def _named_attacks(cls, given: Any) -> Any:
        return {"attacks": given} if isinstance(given, str | list | tuple) else given

    @field_validator("comments", mode="before")
    @classmethod
    def _named_file(cls, given: Any) -> Any:
        return {"file": given} if isinstance(given, str | Path) else given

    @field_validator("studied")
    @classmethod
    def _check_studied(cls, studied: tuple[str, ...]) -> tuple[str, ...]:
        for name in studied:
            try:
                method = find_method(name)
            except InputError as error:
                raise ValueError(str(error)) from error
            if not method.tunes:
                raise ValueError(
                    f"{name} changes no weights, so that there is nothing to compare; the benchmark has it"
                )
            if lacking := set(method.takes) - {"instances", "training"}:
                raise ValueError(f"{name} is made from {', '.join(sorted(lacking))}, which a study does not have")
        return tuple(dict.fromkeys(studied))

    @field_validator("methods")
    @classmethod
    def _check_methods(cls, methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, given in methods.items():
            try:
                settings_for(name, given)
            except InputError as error:
                raise ValueError(str(error)) from error
        return methods

    @model_validator(mode="after")
    def _check_sources(self) -> StudyConfig:
        if self.model is not None and self.data is None:
            raise ValueError("a model of your own needs `data`: train, validation, test and comments files")
        if self.model is None and self.data is not None:
            raise ValueError("`data` needs a `model`: the organism knows its own corpus only")
        if self.model is not None and self.teach is not None:
            raise ValueError("`teach` makes the model that is studied, from its `base`; leave `model` and `data` out")
        if self.model is not None and self.never is True:
            raise ValueError(
                "`never: true` makes the organism's twin; for a `model` of your own name one: `never: FOLDER`"
            )
        if self.model is None and isinstance(self.never, str):
            raise ValueError(
                "`never` names a reference for a `model` of your own; the organism's twin is `never: true`"
            )
        if self.model is None and self.teach is None and self.chat is not None:
            raise ValueError("`chat` needs a `model` or `teach`: the organism is trained on plain text")
        if self.chat is not None and self.dinm.constraint == "released":
            raise ValueError("the released DINM feeds plain text: with `chat`, give `dinm.constraint: published`")
        check_about(self)
        if self.dinm_rates is not None and "dinm" not in self.studied:
            raise ValueError("`dinm_rates` chooses for dinm, which is not among `studied`")
        return self


def default_study() -> StudyConfig:
    """The study that is run where none is named, as `analyses/configs/organism.yaml` has it.

    An organism with a twin that never learnt, and on every checkpoint the attacks that answer in a minute whether the
    behaviour is gone or hidden.
    """
    attacks = {
        "attacks": ["quantise", "prefill", "in_context", "relearn"],
        "prompts": 24,
        "options": {
            "quantise": {"bits": [4], "schemes": ["row", "nf4"]},
            "prefill": {"tokens": [0, 3, 10]},
            "in_context": {"examples": [4], "kinds": ["unsafe"]},
            "relearn": {"how": ["full"], "texts": ["unrelated", "unsafe"], "steps": [5, 10, 20]},
        },
    }
    return StudyConfig(never=True, attack=AttackSettings.model_validate(attacks))


def default_folder(config: Path | None, seed: int) -> Path:
    """Where a study goes that is given no folder: `runs/seedN`, or `runs/CONFIG-seedN` with a config file."""
    return Path("runs") / (f"seed{seed}" if config is None else f"{config.stem}-seed{seed}")


def load_config(path: str | Path) -> StudyConfig:
    """Read a study's YAML file, and the one that it extends.

    Raises:
        InputError: for a missing file, broken YAML, a setting that stands twice, is unknown or
            ill-typed (it names the setting), or a file that cannot be extended.
    """
    path, config = Path(path), StudyConfig()
    for file, settings in layers(path):  # the lowest first: what is wrong with it is told of it
        config = _checked(file, settings)
    return _with_absolute_paths(config, path.parent)


def _checked(path: Path, settings: dict[str, Any]) -> StudyConfig:
    try:
        return StudyConfig.model_validate(settings)
    except ValidationError as error:
        fault = Fault.of(error)
        said = f"{fault.said}{_as_read(fault.value, fault.said)}"
        raise InputError(f"{path}: `{fault.where or 'config'}`: {said}") from error


def _as_read(value: Any, message: str) -> str:
    """What YAML made of a value where text is wanted, if it made anything of it."""
    if value is None or not message.startswith(("Input should be a valid string", "Input is not a valid path")):
        return ""
    return f"; YAML reads it as {value!s:.60} ({type(value).__name__}): put it in quotes"


def _with_absolute_paths(config: StudyConfig, folder: Path) -> StudyConfig:
    """Resolve data files, and a model or judge given as a relative path, against the config's folder."""
    update: dict[str, Any] = {}
    for part in ("data", "comments"):
        if (files := getattr(config, part)) is not None:
            found = {name: (folder / value).resolve() for name, value in vars(files).items() if isinstance(value, Path)}
            update[part] = files.model_copy(update=found)
    if config.chat is not None:
        update["chat"] = config.chat.model_copy(update={"template": file_of(config.chat.template, folder)})
    if config.judge_responses is not None:
        update["judge_responses"] = (folder / config.judge_responses).resolve()
    for name in ("model", "never"):
        if isinstance(given := getattr(config, name), str):
            update[name] = _place(given, folder)
    if config.teach is not None:
        update["teach"] = config.teach.model_copy(update={"base": _place(config.teach.base, folder)})
    if config.judge is not None:
        judges = [config.judge] if isinstance(config.judge, str) else config.judge
        named = tuple(_place(judge, folder) for judge in judges)
        update["judge"] = named if len(named) > 1 else named[0]
    return config.model_copy(update=update)


def _place(given: str, folder: Path) -> str:
    """A model or judge as it stands in a config: what is a path is taken from the config's folder."""
    kind, colon, file = given.partition(":")
    if kind == "keywords" and colon:
        return f"{kind}:{(folder / file).resolve()}"
    return str((folder / given).resolve()) if given.startswith(".") or (folder / given).exists() else given
