"""Scorers that compare two language models: implicit rewards, without a head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prmkit.checkpoints import load_causal_lm, load_tokenizer
from prmkit.errors import CheckpointError
from prmkit.records import Semantics, StepScores, Trajectory, Unscored
from prmkit.scorers.batching import batches
from prmkit.scorers.families.base import Implicit, Rendered
from prmkit.scorers.families.log_ratio import log_ratio_family

MAX_TOKENS = 4096
"""Tokens of one forward pass, padding included."""


class ImplicitScorer:
    """Scores each step by the log-ratio of two causal language models.

    Args:
        path: the model π.
        reference: the reference π_ref; both must have the same tokenizer.
        family: how the log-probabilities are read; by default the plain log-ratio per step.
        device: where the models run.
        max_tokens: tokens of one forward pass, padding included.

    Raises:
        CheckpointError: if a folder is no such model, or the tokenizers differ.
    """

    def __init__(
        self,
        path: Path | str,
        reference: Path | str,
        *,
        family: Implicit | None = None,
        device: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ):
        self.family = family or log_ratio_family()
        self._tokenizer = load_tokenizer(path)
        if load_tokenizer(reference).get_vocab() != self._tokenizer.get_vocab():
            raise CheckpointError(
                f"{str(path)!r} and {str(reference)!r} have different tokenizers; a log-ratio "
                "needs the same tokens under both models"
            )
        self._model, self._device = load_causal_lm(path, device)
        self._reference, _ = load_causal_lm(reference, device)
        self._max_tokens = max_tokens
        self._context: int | None = getattr(self._model.config, "max_position_embeddings", None)
        self.name = f"{Path(path).name}/{Path(reference).name}"

    @property
    def semantics(self) -> Semantics:
        """What its scores mean."""
        return self.family.semantics

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """See `prmkit.scorers.base.Scorer.score`."""
        rendered = [self.family.render(t, self._tokenizer) for t in trajectories]
        results: list[StepScores | Unscored] = [
            Unscored(
                reason=f"{len(r.ids)} tokens; the model reads at most {self._context}",
                model=self.name,
            )
            for r in rendered
        ]
        fits = [
            i
            for i, r in enumerate(rendered)
            if self._context is None or len(r.ids) <= self._context
        ]
        for group in batches([len(rendered[i].ids) for i in fits], self._max_tokens):
            rows = [fits[g] for g in group]
            batch = [rendered[i] for i in rows]
            log_probs = self._log_probs(self._model, batch)
            reference = self._log_probs(self._reference, batch)
            for i, ours, theirs in zip(rows, log_probs, reference, strict=True):
                results[i] = self._read(ours, theirs, rendered[i])
        return results

    def _read(self, ours: list[float], theirs: list[float], row: Rendered) -> StepScores | Unscored:
        values = self.family.read(ours, theirs, row)
        if not all(map(math.isfinite, values)):
            return Unscored(reason="a log-probability is not finite", model=self.name)
        return StepScores(values=tuple(values), semantics=self.semantics, model=self.name)

    def _log_probs(self, model: Any, rows: list[Rendered]) -> list[list[float]]:
        """The log-probability of each token after the first, for each row."""
        import torch

        width = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
        ids = ids.to(self._device)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            of_token = logits.gather(2, ids[:, 1:, None]).squeeze(2) - logits.logsumexp(2)
            flat: list[list[float]] = of_token.cpu().tolist()
        return [values[: len(row.ids) - 1] for values, row in zip(flat, rows, strict=True)]
