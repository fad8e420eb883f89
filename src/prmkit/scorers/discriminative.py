"""Scorers with a head: one forward pass gives the scores of all steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prmkit.checkpoints import load_token_classifier, load_tokenizer, read_note
from prmkit.records import Semantics, StepScores, Trajectory, Unscored
from prmkit.scorers.batching import batches
from prmkit.scorers.families import Discriminative, Rendered, discriminative

MAX_TOKENS = 8192
"""Tokens of one forward pass, padding included."""


class DiscriminativeScorer:
    """Scores all steps of a trajectory in one forward pass of a token classifier.

    Args:
        path: a model folder with the note that `prm train` writes.
        family: how the model reads steps; by default what the note says.
        device: ``"cpu"``, ``"cuda"``, …; by default a GPU where there is one.
        max_tokens: tokens of one forward pass, padding included.

    Raises:
        CheckpointError: if the folder is not such a model.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        family: Discriminative | None = None,
        device: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ):
        self.family = family or discriminative(read_note(path)["family"])
        self._tokenizer = load_tokenizer(path)
        self._model, self._device = load_token_classifier(path, device)
        self._max_tokens = max_tokens
        self._context: int | None = getattr(self._model.config, "max_position_embeddings", None)
        self.name = Path(path).name

    @property
    def semantics(self) -> Semantics:
        """What its scores mean."""
        return self.family.semantics

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """See `prmkit.scorers.base.Scorer.score`.

        A trajectory longer than the model can read is `Unscored`, never cut.
        """
        rendered = [self.family.render(t, self._tokenizer) for t in trajectories]
        results: list[StepScores | Unscored] = [self._too_long(r) for r in rendered]
        fits = [i for i, r in enumerate(rendered) if not self._over(r)]
        for group in batches([len(rendered[i].ids) for i in fits], self._max_tokens):
            rows = [fits[g] for g in group]
            for row, logits in zip(rows, self._logits([rendered[i] for i in rows]), strict=True):
                results[row] = self._read(logits)
        return results

    def _over(self, rendered: Rendered) -> bool:
        return self._context is not None and len(rendered.ids) > self._context

    def _too_long(self, rendered: Rendered) -> Unscored:
        return Unscored(
            reason=f"{len(rendered.ids)} tokens; the model reads at most {self._context}",
            model=self.name,
        )

    def _read(self, logits: list[list[float]]) -> StepScores | Unscored:
        values = self.family.read(logits)
        if not all(map(math.isfinite, values)):
            return Unscored(reason="the model gave a number that is not finite", model=self.name)
        return StepScores(values=tuple(values), semantics=self.semantics, model=self.name)

    def _logits(self, rows: list[Rendered]) -> list[list[list[float]]]:
        """[S, K] numbers of each row."""
        import torch

        width = max((len(row.ids) for row in rows), default=0)
        if not any(row.positions for row in rows):
            return [[] for _ in rows]
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
        # Padding on the right of a causal model changes nothing before it: no mask is needed.
        which = torch.tensor([i for i, row in enumerate(rows) for _ in row.positions])
        where = torch.tensor([p for row in rows for p in row.positions])
        with torch.inference_mode():
            hidden = self._body(ids.to(self._device))
            picked = hidden[which.to(self._device), where.to(self._device)]
            flat: list[list[float]] = self._model.score(picked).float().cpu().tolist()
        counts = [len(row.positions) for row in rows]
        ends = [sum(counts[: i + 1]) for i in range(len(counts))]
        return [flat[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def _body(self, ids: Any) -> Any:
        """[N, T, H] last hidden states; the head is applied at the steps' ends alone."""
        body = getattr(self._model, self._model.base_model_prefix)
        return body(input_ids=ids, use_cache=False).last_hidden_state
