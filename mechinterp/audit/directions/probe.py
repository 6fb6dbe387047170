"""The toxic probe and the toxic direction (Wang et al. E.2; Lee et al. 3.1).

    P(toxic | x) = softmax(W_toxic h(x)),   W_toxic [2, d_model], no bias

h(x) is the mean over tokens of the last block's residual stream, before the final norm. The toxic direction w is the
toxic row of W_toxic minus its clean row, the normal of the class boundary.

A probe finds a direction along which the two kinds of comment differ. That the model uses the direction when it decides
how to answer is not established by a good probe; `decomposition` has the check.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score, roc_curve
from sklearn.model_selection import train_test_split
from torch import Tensor

from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.files import replacing
from mechinterp.data.storage.labels import check_dimensions, check_numbers, typed
from mechinterp.errors import InputError, near
from mechinterp.models.same_tokenizer import check_tokenizer

Selection = Literal["toxic_minus_clean", "toxic_row", "class_means"]
SELECTIONS: tuple[Selection, ...] = ("toxic_minus_clean", "toxic_row", "class_means")


@dataclass(frozen=True)
class ProbeScores:
    """How well one direction separates the held-out comments, beside the accuracy of always naming the larger class."""

    selection: str
    accuracy: float
    auroc: float
    f1: float
    majority_baseline: float
    cosine_with_direction: float
    n_train: int
    n_test: int


@dataclass(frozen=True)
class ToxicProbe:
    """W_toxic with what it was trained on.

    Attributes:
        weight: W_toxic, rows clean and toxic, float32 [2, d_model].
        class_means: mean of h over the clean and the toxic training comments, [2, d_model].
        scores: held-out scores of each way to take a direction.
        roc: false and true positive rates of the probe on the held-out comments, [2, threshold].
        seed: of the split.
        final_norm: whether h was taken after the final norm.
        fingerprint: of the model the probe belongs to.
        tokenizer: fingerprint of that model's tokenizer; empty where it is not known.
        without_sinks: whether h is a mean over the tokens without massive activations.
    """

    weight: Float[Tensor, "2 d_model"]
    class_means: Float[Tensor, "2 d_model"]
    scores: tuple[ProbeScores, ...]
    roc: Float[Tensor, "2 threshold"]
    seed: int = 0
    final_norm: bool = False
    fingerprint: str = ""
    tokenizer: str = ""
    without_sinks: bool = False

    def check(self, fingerprint: str, source: str, tokenizer: str | None = None) -> None:
        """Raise `InputError` if the probe was trained on other weights, or with another tokenizer, than these."""
        if self.fingerprint and self.fingerprint != fingerprint:
            raise InputError(
                f"the probe belongs to other weights ({self.fingerprint}) than {source} ({fingerprint}); "
                "make one for this base with `mechinterp probe`"
            )
        check_tokenizer("the probe", self.tokenizer, tokenizer, source, of_weights=self.fingerprint)

    @property
    def direction(self) -> Float[Tensor, " d_model"]:
        """The toxic direction w: toxic row minus clean row."""
        return self.direction_by("toxic_minus_clean")

    def direction_by(self, selection: Selection) -> Float[Tensor, " d_model"]:
        """A toxic direction: `toxic_minus_clean`, `toxic_row` (Lee et al.), or `class_means` (difference of means)."""
        if selection == "toxic_minus_clean":
            return self.weight[1] - self.weight[0]
        if selection == "toxic_row":
            return self.weight[1]
        if selection == "class_means":
            return self.class_means[1] - self.class_means[0]
        raise InputError(f"selection must be one of {SELECTIONS}, got {selection!r}{near(selection, SELECTIONS)}")

    @classmethod
    def fit(
        cls,
        features: Float[Tensor, "comment d_model"],
        toxic: Bool[Tensor, " comment"],
        *,
        seed: int,
        test_share: float = 0.1,
        regularisation: float = 1.0,
        final_norm: bool = False,
        fingerprint: str = "",
    ) -> ToxicProbe:
        """Train on a stratified, seeded share of the comments and score on the rest.

        Args:
            features: h of every comment, of distinct texts (see `splitting.Distinct`): what is repeated could stand on
                both sides of the split.
            toxic: its label.
            test_share: held out for the scores (the paper holds out a tenth).
            regularisation: scikit-learn's C, for features scaled as a whole to root mean square 1 (a single number,
                which leaves directions and the missing bias as they are).

        Raises:
            InputError: for non-finite features, or a class with fewer than two comments.
        """
        if not torch.isfinite(features).all():
            raise InputError(
                "the comments' activations are not finite; is the checkpoint damaged, or float16 too narrow?"
            )
        counts = int(toxic.sum()), int((~toxic).sum())
        if min(counts) < 2:
            raise InputError(f"the probe needs comments of both classes, got {counts[0]} toxic and {counts[1]} clean")
        x, y = features.double().numpy(), toxic.numpy().astype(int)
        try:
            train_x, test_x, train_y, test_y = train_test_split(
                x, y, test_size=test_share, random_state=seed, stratify=y
            )
        except ValueError as error:
            raise InputError(
                f"{many(len(y), 'comment')} cannot be split {1 - test_share:.0%} to {test_share:.0%}: {error}"
            ) from error
        scale = float(np.sqrt((train_x**2).mean()))
        model = LogisticRegression(fit_intercept=False, C=regularisation, max_iter=5000)
        model.fit(train_x / scale, train_y)
        # A penalised two-row softmax has opposite rows, each half of the single logistic row that scikit-learn returns.
        half = torch.from_numpy(model.coef_[0] / scale / 2)
        weight = torch.stack([-half, half]).float()
        means = torch.stack([torch.from_numpy(train_x[train_y == k].mean(0)) for k in (0, 1)]).float()
        rates = roc_curve(test_y, test_x @ (weight[1] - weight[0]).double().numpy())
        probe = cls(
            weight,
            means,
            (),
            torch.from_numpy(np.stack(rates[:2])).float(),
            seed=seed,
            final_norm=final_norm,
            fingerprint=fingerprint,
        )
        scores = tuple(probe._score(selection, test_x, test_y, len(train_y)) for selection in SELECTIONS)
        return cls(**{**vars(probe), "scores": scores})

    def scores_on(self, features: Float[Tensor, "comment d_model"], toxic: Bool[Tensor, " comment"]) -> ProbeScores:
        """How well its direction separates other comments, of which it has seen none."""
        n_train = self.scores[0].n_train
        return self._score("toxic_minus_clean", features.double().numpy(), toxic.numpy().astype(int), n_train)

    def _score(self, selection: Selection, x: np.ndarray, y: np.ndarray, n_train: int) -> ProbeScores:
        direction = self.direction_by(selection)
        # Means separate along their difference at their midpoint; the softmax has its boundary at 0.
        offset = float(self.class_means.mean(0) @ direction) if selection == "class_means" else 0.0
        logits = x @ direction.double().numpy() - offset
        return ProbeScores(
            selection=selection,
            accuracy=float(accuracy_score(y, logits > 0)),
            auroc=float(roc_auc_score(y, logits)),
            f1=float(f1_score(y, logits > 0, zero_division=0.0)),
            majority_baseline=float(max(y.mean(), 1 - y.mean())),
            cosine_with_direction=float(torch.cosine_similarity(direction, self.direction, dim=0)),
            n_train=n_train,
            n_test=len(y),
        )

    @property
    def table(self) -> pd.DataFrame:
        """A row per way to take the direction: its scores on the held-out comments."""
        return pd.DataFrame([vars(score) for score in self.scores]).rename(columns={"selection": "direction"})

    def __repr__(self) -> str:
        return one_line(
            self,
            f"d_model {self.weight.shape[1]}",
            f"AUROC {self.scores[0].auroc:.3f} on {many(self.scores[0].n_test, 'comment')} held out"
            if self.scores
            else "",
            f"of weights {self.fingerprint}" if self.fingerprint else "",
        )

    def _repr_html_(self) -> str:
        facts = {"of weights": self.fingerprint, "width": self.weight.shape[1], "seed": self.seed}
        return shown("toxic probe", facts, self.table)

    def save(self, path: str | Path) -> Path:
        """Save as safetensors, labels and scores in its metadata."""
        labels = {
            "scores": [asdict(score) for score in self.scores],
            "seed": self.seed,
            "final_norm": self.final_norm,
            "fingerprint": self.fingerprint,
            "tokenizer": self.tokenizer,
            "without_sinks": self.without_sinks,
        }
        tensors = {"weight": self.weight, "class_means": self.class_means, "roc": self.roc}
        with replacing(Path(path)) as partial:
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata={"probe": json.dumps(labels)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> ToxicProbe:
        """Load a saved probe.

        Raises:
            InputError: if the file is missing or is not a probe.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; make a probe with `mechinterp probe`")
        try:
            with safe_open(path, framework="pt") as file:
                labels = json.loads((file.metadata() or {})["probe"])
                tensors = {name: file.get_tensor(name) for name in ("weight", "class_means", "roc")}
            check_numbers(tensors)
            check_dimensions(tensors, 2)
            wanted = (2, tensors["weight"].shape[1])
            if any(tuple(tensors[name].shape) != wanted for name in ("weight", "class_means")):
                raise ValueError("weight and class_means are not two rows of one width")
            if not {"scores"} <= labels.keys():
                raise KeyError("scores")
            return cls(**tensors, **typed(cls, labels))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a probe written by `mechinterp probe` ({error})") from error
