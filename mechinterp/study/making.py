"""What a study makes: organism and data, checkpoints, probe, toxic layer and edits; one function for each stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechinterp.data.benign import BenignPrompt, read_benign
from mechinterp.data.comments import Comment, read_comments, write_comments
from mechinterp.data.corpus import generate_corpus
from mechinterp.data.knowledge import read_knowledge
from mechinterp.data.safeedit import SafeEditInstance, read_safeedit, write_safeedit
from mechinterp.directions.probing import fit_probe, write_probe_tables
from mechinterp.errors import InputError
from mechinterp.evaluation import defense
from mechinterp.evaluation.judges import EmbeddedJudge
from mechinterp.files import replacing, write_json, write_table, write_text
from mechinterp.location import histogram, locate
from mechinterp.measures.statistics import wilson
from mechinterp.methods.dinm import checked
from mechinterp.methods.dpo import train_dpo
from mechinterp.methods.editing import edit_each
from mechinterp.methods.organism import train_organism
from mechinterp.methods.sft import train_sft
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.generation import generate
from mechinterp.reporting import Reporter

if TYPE_CHECKING:
    from mechinterp.study.study import Study


def make_organism(study: Study, reporter: Reporter) -> None:
    """The data, the judge, the vanilla model unless it is given, and how it behaves."""
    data = study.folder / "data"
    knowledge: list[tuple[str, str]] = []
    benign: list[BenignPrompt] = []
    if study.config.data is None:
        with _settings_blamed():
            corpus = generate_corpus(seed=study.seed, **study.config.corpus.model_dump())
        splits: dict[str, Sequence[SafeEditInstance]] = {
            "train": corpus.train,
            "validation": corpus.validation,
            "test": corpus.test,
        }
        comments: Sequence[Comment] = corpus.comments
        knowledge = [(question.prompt, question.keyword) for question in corpus.knowledge if question.held_out]
        benign = [BenignPrompt(question.prompt, question.answer) for question in corpus.benign]
        responses = [(response.text, response.safe) for response in corpus.responses]
    else:
        files = study.config.data
        splits = {name: read_safeedit(getattr(files, name)) for name in ("train", "validation", "test")}
        comments = read_comments(files.comments, text_column=files.text_column, label_column=files.label_column)
        if files.max_comments is not None and files.max_comments < len(comments):
            comments = _share_of(comments, files.max_comments, study.seed)
        knowledge = read_knowledge(files.knowledge) if files.knowledge is not None else []
        benign = read_benign(files.benign) if files.benign is not None else []
        # the judge is trained on the training split's responses, never on those of the instances it judges
        responses = [(i.safe_generation, True) for i in splits["train"]]
        responses += [(i.unsafe_generation, False) for i in splits["train"]]
    for name, instances in splits.items():
        write_safeedit(instances, data / f"{name}.json")
    write_comments(comments, data / "comments.csv")
    write_json(data / "knowledge.json", knowledge)
    lines = [json.dumps({"prompt": one.prompt, "answer": one.answer}, ensure_ascii=False) for one in benign]
    write_text(data / "benign.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(data / "responses.json", responses)
    judge = study.judge
    scores = {"judge": judge.name}
    if isinstance(judge, EmbeddedJudge):
        scores |= {key: value for key, value in vars(judge).items() if key not in ("pipeline", "name")}
    write_table(study.folder / "tables" / "judge.csv", pd.DataFrame([scores]))
    if study.config.model is None:
        with _settings_blamed():
            model, tokenizer, _ = train_organism(
                corpus, study.config.organism, seed=study.seed, progress=reporter.progress("organism: training")
            )
        Checkpoint("vanilla", model, tokenizer).save(study.folder / "checkpoints" / "vanilla")
    _measure_vanilla(study, splits["test"], knowledge, reporter)


def _measure_vanilla(
    study: Study, test: Sequence[SafeEditInstance], knowledge: Sequence[tuple[str, str]], reporter: Reporter
) -> None:
    """How the vanilla model behaves, over all test instances: `organism.csv`."""
    vanilla = study.checkpoint("vanilla")
    groups = {
        "adversarial prompts defended": list(dict.fromkeys(i.adversarial_prompt for i in test)),
        "bare questions defended": list(dict.fromkeys(i.question for i in test)),
    }
    rows = []
    for quantity, prompts in groups.items():
        answers = generate(
            vanilla,
            prompts,
            max_new_tokens=study.config.max_new_tokens,
            truncate=study.config.truncate,
            progress=reporter.progress(f"vanilla: {quantity}"),
        )
        scores = [score for score in defense.score_responses(study.judge, answers) if score is not None]
        rows.append((quantity, sum(score > 0.5 for score in scores), len(scores)))
    if knowledge:
        answers = generate(vanilla, [q for q, _ in knowledge], max_new_tokens=study.config.max_new_tokens)
        right = sum(defense.knows(answer, word) for answer, (_, word) in zip(answers, knowledge, strict=True))
        rows.append(("held-out knowledge phrasings answered", right, len(knowledge)))
    table = [
        {"quantity": quantity, "rate": rate.value, "low": rate.low, "high": rate.high, "n": n}
        for quantity, successes, n in rows
        for rate in [wilson(successes, n)]
    ]
    write_table(study.folder / "tables" / "organism.csv", pd.DataFrame(table))


def make_sft(study: Study, reporter: Reporter) -> None:
    """The fine-tuned checkpoint."""
    _tune(study, "sft", partial(train_sft, study.checkpoint("vanilla"), settings=study.config.sft), reporter)


def make_dpo(study: Study, reporter: Reporter) -> None:
    """The preference-tuned checkpoint, from SFT's."""
    _tune(study, "dpo", partial(train_dpo, study.checkpoint("sft"), settings=study.config.dpo), reporter)


def _tune(study: Study, name: str, train: Callable[..., Any], reporter: Reporter) -> None:
    tuned, log = train(study.instances("train"), seed=study.seed, progress=reporter.progress(f"{name}: training"))
    tuned.save(study.folder / "checkpoints" / name)
    write_table(study.folder / "tables" / f"training_{name}.csv", pd.DataFrame(log))


def make_probe(study: Study, reporter: Reporter) -> None:
    """The toxic probe of the vanilla model."""
    probe = fit_probe(
        study.checkpoint("vanilla"),
        study.comments,
        seed=study.seed,
        final_norm=study.config.final_norm,
        truncate=study.config.truncate,
        progress=reporter.progress("probe: reading comments"),
    )
    probe.save(study.folder / "probe.safetensors")
    write_probe_tables(probe, study.folder / "tables")


def make_locate(study: Study, reporter: Reporter) -> None:
    """The toxic layer of every test instance."""
    vanilla = study.checkpoint("vanilla")
    progress = reporter.progress("locate: instances")
    located = locate(vanilla, study.instances("test"), truncate=study.config.truncate, progress=progress)
    write_table(study.folder / "tables" / "located.csv", located)
    write_table(study.folder / "tables" / "toxic_layer.csv", histogram(located, vanilla.n_blocks))


def make_dinm(study: Study, reporter: Reporter) -> None:
    """An edit per chosen instance; the one that stands for `dinm` first."""
    vanilla, chosen, blocks = study.checkpoint("vanilla"), study.edit_instances(), study.blocks
    # the one that stands for `dinm` is edited where the others are compared with it
    chosen.sort(key=lambda instance: blocks[instance.id] != study.block)
    blocks[chosen[0].id] = study.block
    with replacing(study.folder / "edits") as partial_folder:
        partial_folder.mkdir()
        progress = reporter.progress("dinm: edits")
        for found in edit_each(vanilla, chosen, blocks=blocks, settings=study.config.dinm, progress=progress):
            checked(found).save(partial_folder / str(found.instance))
        write_json(partial_folder / "order.json", [instance.id for instance in chosen])


@contextmanager
def _settings_blamed() -> Iterator[None]:
    """Settings of the organism that do not go together are the user's mistake."""
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        raise InputError(f"the organism cannot be made with these settings: {error}") from error


def _share_of(comments: Sequence[Comment], n: int, seed: int) -> list[Comment]:
    """A seeded, stratified share of the comments."""
    from sklearn.model_selection import train_test_split

    labels = [comment.toxic for comment in comments]
    return train_test_split(list(comments), train_size=n, random_state=seed, stratify=labels)[0]
