"""Scores to probabilities: maps fitted on labelled steps, kept beside the model.

Three maps, each from a score to a probability, none of which changes an order but by ties:

- ``temperature``: p = sigmoid(logit(score) / T), for scores that are probabilities already
  (Guo et al. 2017, arXiv:1706.04599);
- ``platt``: p = sigmoid(a · x + b), x the log-odds of a probability or the score itself
  (Platt 1999);
- ``isotonic``: the non-decreasing step function closest to the labels (Zadrozny and Elkan 2002).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from prmkit.errors import CheckpointError, InvalidRecord, NothingToMeasure, ScoringError
from prmkit.files import write_json
from prmkit.records import Problem, Semantics, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.base import CountingScorer, PrefixScorer, Scorer
from prmkit.scorers.families.reading import sigmoid
from prmkit.scorers.logistic import fit_logistic

FILE = "calibration.json"
"""What a calibration is called beside a model."""
Method = Literal["temperature", "platt", "isotonic"]
EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken."""
RIDGE = 1e-9
"""Penalty of the weights: where scores separate right from wrong, the best ones are infinite."""


class _Map(BaseModel):
    """A fitted map.

    Attributes:
        family: of the model whose scores it was fitted on; another family's mean something else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    family: str | None = None


class Temperature(_Map):
    """p = sigmoid(logit(score) / temperature)."""

    method: Literal["temperature"] = "temperature"
    temperature: float = Field(gt=0)

    def __call__(self, score: float) -> float:
        """The probability of a score."""
        return sigmoid(log_odds(score) / self.temperature)


class Platt(_Map):
    """p = sigmoid(slope · x + intercept); x is the score, or its log-odds where `odds`."""

    method: Literal["platt"] = "platt"
    slope: float = Field(ge=0)
    intercept: float
    odds: bool

    def __call__(self, score: float) -> float:
        """The probability of a score."""
        return sigmoid(self.slope * (log_odds(score) if self.odds else score) + self.intercept)


class Isotonic(_Map):
    """A step function: `values[i]` for scores from `starts[i]` on; the first one also below."""

    method: Literal["isotonic"] = "isotonic"
    starts: tuple[float, ...] = Field(min_length=1)
    values: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_a_function(self) -> Self:
        if len(self.starts) != len(self.values):
            raise ValueError(f"{len(self.starts)} starts with {len(self.values)} values")
        if any(a >= b for a, b in pairwise(self.starts)):
            raise ValueError("the starts do not rise")
        if any(a > b for a, b in pairwise(self.values)):
            raise ValueError("the values fall")
        return self

    def __call__(self, score: float) -> float:
        """The probability of a score."""
        return self.values[max(bisect_right(self.starts, score) - 1, 0)]


Calibrator = Annotated[Temperature | Platt | Isotonic, Field(discriminator="method")]
_STORED: TypeAdapter[Temperature | Platt | Isotonic] = TypeAdapter(Calibrator)


def log_odds(probability: float) -> float:
    """log(p / (1 - p)), with p kept off 0 and 1."""
    p = min(max(probability, EDGE), 1 - EDGE)
    return math.log(p / (1 - p))


def fit(
    scores: Sequence[float], labels: Sequence[bool], method: Method, semantics: Semantics
) -> Temperature | Platt | Isotonic:
    """Fit a map from scores to probabilities.

    Args:
        scores: of steps.
        labels: whether each is right.
        method: which map.
        semantics: what the scores mean; ``temperature`` needs probabilities.

    Raises:
        NothingToMeasure: if all labels are alike, or there is none.
        InvalidRecord: if the method does not fit the scores.
    """
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores with {len(labels)} labels; one label per score")
    right = np.asarray(labels, dtype=np.float64)
    if not len(right) or right.min() == right.max():
        raise NothingToMeasure(
            f"a calibration needs right and wrong steps; all of the {len(right)} are alike"
        )
    values = np.asarray(scores, dtype=np.float64)
    probabilities = bool(((values >= 0) & (values <= 1)).all())
    if method == "isotonic":
        return _fit_isotonic(values, right)
    if method == "temperature":
        if semantics != "correctness" and not probabilities:
            raise InvalidRecord(
                f"a temperature is for probabilities, and these scores are of {semantics} with "
                f"values from {values.min():.3g} to {values.max():.3g}; use platt or isotonic"
            )
        odds = np.array([log_odds(v) for v in values])
        (slope,) = fit_logistic(odds[:, None], right, np.full(1, RIDGE))
        return Temperature(temperature=1 / max(slope, 1e-4))
    # By what the scores mean, not by those of this sample.
    by_odds = semantics == "correctness" or (semantics == "value" and probabilities)
    x = np.array([log_odds(v) for v in values]) if by_odds else values
    columns = np.column_stack([x, np.ones_like(x)])
    slope, intercept = fit_logistic(columns, right, np.full(2, RIDGE))
    if slope < 0:
        # Higher scores for wrong steps: the best map that never falls is a constant.
        slope, intercept = 0.0, log_odds(float(right.mean()))
    return Platt(slope=slope, intercept=intercept, odds=by_odds)


def _fit_isotonic(values: Any, right: Any) -> Isotonic:
    """Pool adjacent violators: equal scores together, then falling neighbours together."""
    starts, inverse = np.unique(values, return_inverse=True)
    weight = np.bincount(inverse).astype(np.float64)
    mean = np.bincount(inverse, weights=right) / weight
    pools: list[list[float]] = []
    for start, w, m in zip(starts.tolist(), weight.tolist(), mean.tolist(), strict=True):
        pools.append([start, w, m])
        while len(pools) > 1 and pools[-2][2] >= pools[-1][2]:
            _, w2, m2 = pools.pop()
            _, w1, m1 = pools[-1]
            pools[-1][1:] = [w1 + w2, (w1 * m1 + w2 * m2) / (w1 + w2)]
    return Isotonic(starts=tuple(p[0] for p in pools), values=tuple(p[2] for p in pools))


def save(folder: Path | str, calibrator: Temperature | Platt | Isotonic) -> Path:
    """Keep a calibration beside a model; returns its file."""
    file = Path(folder) / FILE
    write_json(file, calibrator.model_dump(mode="json"))
    return file


def load(folder: Path | str) -> Temperature | Platt | Isotonic | None:
    """The calibration kept beside a model, or None.

    Raises:
        CheckpointError: if there is one, and it is damaged.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        return None
    try:
        return _STORED.validate_python(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise CheckpointError(f"{file} is no calibration: {error}") from None


class CalibratedScorer:
    """A scorer whose scores go through a calibration: probabilities that a step is right.

    Args:
        scorer: what is calibrated.
        calibrator: fitted on its scores.
    """

    semantics: Semantics = "correctness"

    def __init__(self, scorer: Scorer, calibrator: Temperature | Platt | Isotonic):
        self._scorer, self._calibrator = scorer, calibrator
        self.name = f"{scorer.name}, calibrated ({calibrator.method})"

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """See `prmkit.scorers.base.Scorer.score`."""
        return [
            result
            if isinstance(result, Unscored)
            else StepScores(
                values=tuple(map(self._calibrator, result.values)),
                semantics=self.semantics,
                model=self.name,
            )
            for result in self._scorer.score(trajectories)
        ]

    @property
    def counts(self) -> bool:
        """Whether the scorer that is calibrated counts the tokens that it reads."""
        return isinstance(self._scorer, CountingScorer) and self._scorer.counts

    def n_tokens(self, trajectories: Sequence[Trajectory]) -> list[int]:
        """See `prmkit.scorers.base.CountingScorer.n_tokens`.

        Raises:
            ScoringError: if the scorer that is calibrated does not count them.
        """
        if not isinstance(self._scorer, CountingScorer):
            raise ScoringError(f"{self._scorer.name} does not count the tokens that it reads")
        return self._scorer.n_tokens(trajectories)

    @property
    def extends(self) -> bool:
        """Whether the scorer that is calibrated goes on from prefixes."""
        return isinstance(self._scorer, PrefixScorer) and self._scorer.extends

    def start(self, problem: Problem) -> Any:
        """See `prmkit.scorers.base.PrefixScorer.start`."""
        return self._prefixes.start(problem)

    def extend(self, states: Sequence[Any], steps: Sequence[Step]) -> tuple[list[float], list[Any]]:
        """See `prmkit.scorers.base.PrefixScorer.extend`."""
        values, new = self._prefixes.extend(states, steps)
        return [self._calibrator(value) for value in values], new

    def extend_by(
        self, states: Sequence[Any], steps: Sequence[Sequence[Step]]
    ) -> tuple[list[list[float]], list[Any]]:
        """See `prmkit.scorers.base.PrefixScorer.extend_by`."""
        values, new = self._prefixes.extend_by(states, steps)
        return [[self._calibrator(value) for value in own] for own in values], new

    def length(self, state: Any) -> int:
        """See `prmkit.scorers.base.PrefixScorer.length`."""
        return self._prefixes.length(state)

    @property
    def _prefixes(self) -> PrefixScorer:
        if not isinstance(self._scorer, PrefixScorer):
            raise ScoringError(f"{self._scorer.name} does not go on from prefixes; use score()")
        return self._scorer
