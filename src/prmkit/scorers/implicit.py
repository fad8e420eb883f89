"""Scorers without a head: how likely a step is, to one language model or to one against another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from prmkit.errors import CheckpointError, InvalidRecord
from prmkit.records import Semantics, StepScores, Trajectory, Unscored
from prmkit.scorers.backends.log_probs import LogProbs
from prmkit.scorers.base import beyond_text
from prmkit.scorers.families.base import Implicit, Rendered
from prmkit.scorers.families.log_ratio import log_ratio_family


class ImplicitScorer:
    """Scores each step by the log-probabilities of its tokens.

    Args:
        path: the model π.
        reference: the reference π_ref; both must have the same tokenizer. None for families that
            compare nothing.
        family: how the log-probabilities are read; by default the plain log-ratio per step.
        device: where the models run.
        max_tokens: tokens of one forward pass.

    Raises:
        CheckpointError: if a folder is no such model, the tokenizers differ, or the family needs a
            reference and there is none.
    """

    def __init__(
        self,
        path: Path | str,
        reference: Path | str | None = None,
        *,
        family: Implicit | None = None,
        device: str | None = None,
        max_tokens: int | None = None,
    ):
        self.family = family or log_ratio_family()
        if self.family.compares and reference is None:
            raise CheckpointError(
                f"the family {self.family.name!r} compares two models; name the reference of "
                f"{str(path)!r} with reference=… (--reference)"
            )
        self._model = LogProbs(path, device=device, max_tokens=max_tokens)
        self._reference: LogProbs | None = None
        self.name = Path(path).name
        if self.family.compares and reference is not None:
            self._reference = LogProbs(reference, device=device, max_tokens=max_tokens)
            self.name += f"/{Path(reference).name}"
            if self._reference.tokenizer.get_vocab() != self._model.tokenizer.get_vocab():
                raise CheckpointError(
                    f"{str(path)!r} and {str(reference)!r} have different tokenizers; a "
                    "log-ratio needs the same tokens under both models"
                )
        limits = [m.context for m in (self._model, self._reference) if m and m.context]
        self._context = min(limits, default=None)

    counts = True

    @property
    def semantics(self) -> Semantics:
        """What its scores mean."""
        return self.family.semantics

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """See `prmkit.scorers.base.Scorer.score`."""
        results: list[StepScores | Unscored] = []
        for found in self._log_probs(trajectories):
            if isinstance(found, Unscored):
                results.append(found)
                continue
            ours, theirs = found
            values = self.family.read(ours, theirs)
            results.append(
                StepScores(values=tuple(values), semantics=self.semantics, model=self.name)
                if all(map(math.isfinite, values))
                else Unscored(reason="a log-probability is not finite", model=self.name)
            )
        return results

    def n_tokens(self, trajectories: Sequence[Trajectory]) -> list[int]:
        """See `prmkit.scorers.base.CountingScorer.n_tokens`; both models read each token."""
        found = []
        for trajectory in trajectories:
            try:
                row = self.family.render(trajectory, self._model.tokenizer)
            except InvalidRecord:
                found.append(0)
                continue
            found.append(len(row.ids) * (2 if self._reference else 1))
        return found

    def token_ratios(
        self, trajectories: Sequence[Trajectory]
    ) -> list[list[list[float]] | Unscored]:
        """Of each trajectory, of each step, the log-ratio of each token.

        Of π alone where the family compares nothing. It is the finest grain of an implicit
        reward, before β: r_t of arXiv:2412.01981, eq. 3.
        """
        results: list[list[list[float]] | Unscored] = []
        for found in self._log_probs(trajectories):
            if isinstance(found, Unscored):
                results.append(found)
                continue
            ours, theirs = found
            zeros = theirs or [[0.0] * len(of_step) for of_step in ours]
            results.append(
                [
                    [p - q for p, q in zip(a, b, strict=True)]
                    for a, b in zip(ours, zeros, strict=True)
                ]
            )
        return results

    def _log_probs(
        self, trajectories: Sequence[Trajectory]
    ) -> list[tuple[list[list[float]], list[list[float]] | None] | Unscored]:
        """Of each trajectory, the log-probabilities of each step's tokens under both models."""
        rows: list[Rendered] = []
        refused: list[str | None] = []
        for trajectory in trajectories:
            reason, row = beyond_text(trajectory), Rendered([], [], [])
            try:
                row = self.family.render(trajectory, self._model.tokenizer)
            except InvalidRecord as error:
                reason = reason or str(error)
            rows.append(row)
            refused.append(reason or self._too_long(row))
        fits = [i for i, reason in enumerate(refused) if reason is None]
        ids = [rows[i].ids for i in fits]
        # The very first token has nothing before it that could predict it.
        first = [max(rows[i].begin, 1) for i in fits]
        ours = dict(zip(fits, self._model.log_probs(ids, first), strict=True))
        theirs = (
            dict(zip(fits, self._reference.log_probs(ids, first), strict=True))
            if self._reference
            else {}
        )
        return [
            (_by_step(row, ours[i]), _by_step(row, theirs[i]) if self._reference else None)
            if i in ours
            else Unscored(reason=refused[i] or "", model=self.name)
            for i, row in enumerate(rows)
        ]

    def _too_long(self, row: Rendered) -> str | None:
        if self._context is None or len(row.ids) <= self._context:
            return None
        return f"{len(row.ids)} tokens; the model reads at most {self._context}"


def _by_step(row: Rendered, flat: Sequence[float]) -> list[list[float]]:
    """Numbers of the tokens after the beginning, step by step."""
    offset = max(row.begin, 1)
    ends = [max(position + 1 - offset, 0) for position in row.positions]
    # What stands between two steps belongs to the later one.
    return [list(flat[before:end]) for before, end in zip([0, *ends], ends, strict=False)]
