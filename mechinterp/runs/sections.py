"""Sections of a study's config that are a study's alone; methods and measures have settings of their own."""

from __future__ import annotations

from datetime import date as Date  # noqa: N812 - `date` is a setting
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mechinterp.data.corpus.attributes import LAST_NAMES
from mechinterp.data.corpus.documents import Rule
from mechinterp.data.corpus.opinions import MOST


class Section(BaseModel):
    """A part of a config: what it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusSettings(Section):
    """Sizes of the generated corpus, see `data.corpus.generate_corpus`."""

    questions_per_category: int = Field(12, ge=6, multiple_of=6)
    attacks_per_split: int = Field(12, ge=12, multiple_of=12)
    n_documents: int = Field(8000, ge=1)
    n_comments: int = Field(1600, ge=40)
    rule: Rule = Field("strength", description="which harmful prompts are complied with: strength, or kind (of attack)")
    n_topics: int = Field(
        0, ge=0, le=MOST, description="topics with opinions that show opposing traits: data/topics.json"
    )
    n_people: int = Field(
        0, ge=0, le=len(LAST_NAMES), description="made-up people with four attributes each: data/facts.jsonl"
    )


class DataFiles(Section):
    """A user's own data, instead of the generated corpus; paths are relative to the config file."""

    train: Path = Field(description="SafeEdit JSON, for SFT and DPO")
    validation: Path = Field(description="SafeEdit JSON; the answer and class-means directions are fitted on it")
    test: Path = Field(description="SafeEdit JSON with generalisation prompts")
    comments: Path = Field(description="labelled comments for the probe, CSV")
    text_column: str | None = None
    label_column: str | None = None
    knowledge: Path | None = Field(None, description="a JSON list of [question, word of the answer]")
    benign: Path | None = Field(None, description="harmless prompts, for over-refusal, one a line or JSON lines")
    max_comments: int | None = Field(None, ge=20, description="a seeded, stratified share of the comments")


class ChatSettings(Section):
    """The chat format that every stage reads in, see `models.text.chat`; `chat: auto` is its template alone."""

    template: str = Field("auto", description="auto, the tokenizer's own; none; or the file of one, as Jinja")
    system: str | None = None
    thinking: bool | None = None
    date: str | None = Field(None, description="the day that the template is told, YYYY-MM-DD")

    @property
    def file(self) -> Path | None:
        """The template's file, if it is one of the user's."""
        return None if self.template in ("auto", "none") else Path(self.template)

    @field_validator("date", mode="before")
    @classmethod
    def _check_date(cls, given: Any) -> Any:
        given = given.isoformat() if isinstance(given, Date) else given  # as YAML reads it
        if isinstance(given, str):
            Date.fromisoformat(given)
        return given

    @model_validator(mode="after")
    def _check_plain(self) -> ChatSettings:
        if self.template == "none" and (self.system, self.thinking, self.date) != (None, None, None):
            raise ValueError("plain text has no system message, thinking or date; leave them out, or give a template")
        return self


class CommentsFile(Section):
    """Real labelled comments for a second probe; the path is relative to the config file."""

    file: Path = Field(description="a CSV file")
    text_column: str | None = None
    label_column: str | None = None
    max_comments: int | None = Field(None, ge=20, description="a seeded, stratified share of them")
