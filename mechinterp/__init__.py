"""Did a tuned language model have a behaviour erased, or does it only hide it? `import mechinterp as mi`.

Load checkpoints with `mi.load`, set them against their base with `mi.compare`, look inside with `mi.record`,
`mi.steer`, `mi.patch` and their kin; `mi.reproduce` runs a whole study, `mi.open_run` reads one. mechinterp/README.md
has an example of every name. The import is instant: what a name needs is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechinterp.answers.behaviour import Behaviour
    from mechinterp.answers.fed_tokens import FedTokens
    from mechinterp.answers.fold_judge import FoldJudge
    from mechinterp.answers.judges import ClassifierJudge, EmbeddedJudge
    from mechinterp.answers.keyword_judge import KeywordJudge
    from mechinterp.answers.known_facts import KnownFacts
    from mechinterp.answers.spoken import Responses, ResponseScores
    from mechinterp.answers.two_judges import TwoJudges
    from mechinterp.audit.attacks.settings import AttackSettings
    from mechinterp.audit.circuits.settings import CircuitSettings
    from mechinterp.audit.directions.making import effective_direction, means_direction, svd_direction
    from mechinterp.audit.directions.probe import ToxicProbe
    from mechinterp.audit.directions.toxic_direction import ToxicDirection
    from mechinterp.audit.evidence import Baseline, ComparisonSettings, Evidence
    from mechinterp.audit.listed_vectors import VectorTables
    from mechinterp.audit.origins.settings import OriginsSettings
    from mechinterp.audit.relapse.treatments import RelapseSettings
    from mechinterp.audit.weights_alone.difference import Difference
    from mechinterp.audit.weights_alone.regions import RegionTables
    from mechinterp.data.comments import Comment, read_comments, write_comments
    from mechinterp.data.concepts import Concept
    from mechinterp.data.facts.common import common_facts
    from mechinterp.data.facts.conflicts import Conflict, Round
    from mechinterp.data.facts.fact import Fact, write_facts
    from mechinterp.data.facts.files import read_facts
    from mechinterp.data.facts.pitfalls import read_conflicts, read_rounds
    from mechinterp.data.facts.queries import Query
    from mechinterp.data.pair_files import Columns, read_pairs, write_pairs
    from mechinterp.data.pairs import Pair
    from mechinterp.data.personality import Topic, read_personality, trait_concept, write_personality
    from mechinterp.data.prompt_pairs import PromptPair
    from mechinterp.data.question_files import read_questions, read_scopes
    from mechinterp.data.safeedit import read_safeedit, write_safeedit
    from mechinterp.data.scopes import Scopes
    from mechinterp.errors import InputError
    from mechinterp.face.attacking import attack
    from mechinterp.face.circuits import Circuits, circuit
    from mechinterp.face.comparing import compare, relapse
    from mechinterp.face.decoding import decodability
    from mechinterp.face.depth import Depths, depth
    from mechinterp.face.editing import edit_facts
    from mechinterp.face.edits import EditTables, edits_in_conflict, round_trip
    from mechinterp.face.facts import FactTables, evaluate_facts, known_facts
    from mechinterp.face.loading import load
    from mechinterp.face.origins import OriginTables, origins
    from mechinterp.face.passes import fit_probe, generate, record, score, show_tokens
    from mechinterp.face.personality import TraitTables, trait_effects
    from mechinterp.face.showing import show
    from mechinterp.face.studies import open_run, open_study, reproduce
    from mechinterp.face.unlearning import UnlearningTables, evaluate_unlearning, locate_by_gradient, unlearn
    from mechinterp.face.verdict import verdict
    from mechinterp.face.weights import diff, regions, vectors
    from mechinterp.methods.facts.easyedit import read_easyedit
    from mechinterp.methods.unlearning.region import GradientRegion
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.deltas import WeightDelta
    from mechinterp.models.interventions.contexts import (
        ablate,
        patch,
        project_out,
        scale_keys,
        scale_values,
        steer,
        transplant,
    )
    from mechinterp.models.names import attn_out, h_down, h_mid, mlp_out, resid_post, resid_pre
    from mechinterp.models.passes.recorded import Recording
    from mechinterp.models.passes.second_moments import SecondMoments, second_moments
    from mechinterp.runs.folder import RunFolder

_HOMES = {
    "answers.behaviour": ("Behaviour",),
    "answers.fed_tokens": ("FedTokens",),
    "answers.fold_judge": ("FoldJudge",),
    "answers.judges": ("ClassifierJudge", "EmbeddedJudge"),
    "answers.keyword_judge": ("KeywordJudge",),
    "answers.known_facts": ("KnownFacts",),
    "answers.spoken": ("ResponseScores", "Responses"),
    "answers.two_judges": ("TwoJudges",),
    "audit.attacks.settings": ("AttackSettings",),
    "audit.circuits.settings": ("CircuitSettings",),
    "audit.directions.making": ("effective_direction", "means_direction", "svd_direction"),
    "audit.directions.probe": ("ToxicProbe",),
    "audit.directions.toxic_direction": ("ToxicDirection",),
    "audit.evidence": ("Baseline", "ComparisonSettings", "Evidence"),
    "audit.listed_vectors": ("VectorTables",),
    "audit.origins.settings": ("OriginsSettings",),
    "audit.relapse.treatments": ("RelapseSettings",),
    "audit.weights_alone.difference": ("Difference",),
    "audit.weights_alone.regions": ("RegionTables",),
    "data.comments": ("Comment", "read_comments", "write_comments"),
    "data.facts.common": ("common_facts",),
    "data.concepts": ("Concept",),
    "data.facts.files": ("read_facts",),
    "data.facts.fact": ("Fact", "write_facts"),
    "data.facts.conflicts": ("Conflict", "Round"),
    "data.personality": ("Topic", "read_personality", "trait_concept", "write_personality"),
    "data.facts.pitfalls": ("read_conflicts", "read_rounds"),
    "data.facts.queries": ("Query",),
    "data.pair_files": ("Columns", "read_pairs", "write_pairs"),
    "data.pairs": ("Pair",),
    "data.question_files": ("read_questions", "read_scopes"),
    "data.prompt_pairs": ("PromptPair",),
    "data.safeedit": ("read_safeedit", "write_safeedit"),
    "data.scopes": ("Scopes",),
    "errors": ("InputError",),
    "face.attacking": ("attack",),
    "face.circuits": ("Circuits", "circuit"),
    "face.comparing": ("compare", "relapse"),
    "face.decoding": ("decodability",),
    "face.depth": ("Depths", "depth"),
    "face.editing": ("edit_facts",),
    "face.edits": ("EditTables", "edits_in_conflict", "round_trip"),
    "face.facts": ("FactTables", "evaluate_facts", "known_facts"),
    "face.loading": ("load",),
    "face.origins": ("OriginTables", "origins"),
    "face.passes": ("fit_probe", "generate", "record", "score", "show_tokens"),
    "face.personality": ("TraitTables", "trait_effects"),
    "face.showing": ("show",),
    "face.studies": ("open_run", "open_study", "reproduce"),
    "face.unlearning": ("UnlearningTables", "evaluate_unlearning", "locate_by_gradient", "unlearn"),
    "face.verdict": ("verdict",),
    "face.weights": ("diff", "regions", "vectors"),
    "methods.unlearning.region": ("GradientRegion",),
    "methods.facts.easyedit": ("read_easyedit",),
    "models.checkpoints": ("Checkpoint",),
    "models.deltas": ("WeightDelta",),
    "models.interventions.contexts": (
        *("ablate", "patch", "project_out", "scale_keys", "scale_values", "steer", "transplant"),
    ),
    "models.names": ("attn_out", "h_down", "h_mid", "mlp_out", "resid_post", "resid_pre"),
    "models.passes.recorded": ("Recording",),
    "models.passes.second_moments": ("SecondMoments", "second_moments"),
    "runs.folder": ("RunFolder",),
}
"""The module that each name of the face comes from; the imports above, for type checkers, say the same."""
_HOME_OF = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "AttackSettings",
    "Baseline",
    "Behaviour",
    "Checkpoint",
    "CircuitSettings",
    "Circuits",
    "ClassifierJudge",
    "Columns",
    "Comment",
    "ComparisonSettings",
    "Concept",
    "Conflict",
    "Depths",
    "Difference",
    "EditTables",
    "EmbeddedJudge",
    "Evidence",
    "Fact",
    "FactTables",
    "FedTokens",
    "FoldJudge",
    "GradientRegion",
    "InputError",
    "KeywordJudge",
    "KnownFacts",
    "OriginTables",
    "OriginsSettings",
    "Pair",
    "PromptPair",
    "Query",
    "Recording",
    "RegionTables",
    "RelapseSettings",
    "ResponseScores",
    "Responses",
    "Round",
    "RunFolder",
    "Scopes",
    "SecondMoments",
    "Topic",
    "ToxicDirection",
    "ToxicProbe",
    "TraitTables",
    "TwoJudges",
    "UnlearningTables",
    "VectorTables",
    "WeightDelta",
    "ablate",
    "attack",
    "attn_out",
    "circuit",
    "common_facts",
    "compare",
    "decodability",
    "depth",
    "diff",
    "edit_facts",
    "edits_in_conflict",
    "effective_direction",
    "evaluate_facts",
    "evaluate_unlearning",
    "fit_probe",
    "generate",
    "h_down",
    "h_mid",
    "known_facts",
    "load",
    "locate_by_gradient",
    "means_direction",
    "mlp_out",
    "open_run",
    "open_study",
    "origins",
    "patch",
    "project_out",
    "read_comments",
    "read_conflicts",
    "read_easyedit",
    "read_facts",
    "read_pairs",
    "read_personality",
    "read_questions",
    "read_rounds",
    "read_safeedit",
    "read_scopes",
    "record",
    "regions",
    "relapse",
    "reproduce",
    "resid_post",
    "resid_pre",
    "round_trip",
    "scale_keys",
    "scale_values",
    "score",
    "second_moments",
    "show",
    "show_tokens",
    "steer",
    "svd_direction",
    "trait_concept",
    "trait_effects",
    "transplant",
    "unlearn",
    "vectors",
    "verdict",
    "write_comments",
    "write_facts",
    "write_pairs",
    "write_personality",
    "write_safeedit",
]


def __getattr__(name: str) -> Any:
    """Load a name of the face when it is first asked for.

    Raises:
        AttributeError: for any other name; with the nearest that there is.
    """
    if name not in _HOME_OF:
        from mechinterp.errors import near

        raise AttributeError(f"module {__name__!r} has no {name!r}{near(name, __all__)}", name=name)
    with warnings.catch_warnings():  # what the libraries look for in a notebook when they are imported
        warnings.filterwarnings("ignore", message="IProgress not found")
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The face alone, for completion."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
