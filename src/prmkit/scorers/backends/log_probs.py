"""Log-probabilities of given tokens under a language model in this process.

The output matrix is applied to the tokens that are asked for, a few hundred at a time: a whole
sequence times a whole vocabulary is never held.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prmkit.checkpoints import check_folder, load_tokenizer
from prmkit.scorers.backends.hf import MAX_TOKENS
from prmkit.scorers.backends.packed import Segment, run
from prmkit.scorers.backends.weights import load_body, load_logits

if TYPE_CHECKING:
    import torch

CHUNK = 512
"""Tokens whose logits over the vocabulary are held at once."""


class LogProbs:
    """A language model that says how likely tokens are.

    Args:
        path: folder of a causal language model.
        device: ``"cpu"``, ``"cuda"``, …; by default a GPU where there is one; ``"auto"`` spreads a
            model over all GPUs.
        max_tokens: tokens of one forward pass.

    Raises:
        CheckpointError: if the folder is not such a model.
    """

    def __init__(
        self, path: Path | str, *, device: str | None = None, max_tokens: int | None = None
    ):
        self.tokenizer = load_tokenizer(path)
        self._body, self.device = load_body(path, device)
        self._logits = load_logits(check_folder(path), self._body.dtype).to(self.device)
        self.context: int | None = getattr(self._body.config, "max_position_embeddings", None)
        kind = "cpu" if self.device == "cpu" else "gpu"
        self._max_tokens = max_tokens or MAX_TOKENS[kind]

    def log_probs(self, rows: Sequence[Sequence[int]], first: Sequence[int]) -> list[list[float]]:
        """For each row of ids, the log-probability of each token from number `first` on.

        Args:
            rows: [N] token ids, of T tokens each.
            first: [N] the first token that is asked for, at least 1: before it there is a context.

        Returns:
            [N] lists of T - first numbers.
        """
        results: list[list[float]] = [[] for _ in rows]
        group: list[int] = []
        spent = 0
        for i, ids in enumerate(rows):
            if group and spent + len(ids) > self._max_tokens:
                self._run(group, rows, first, results)
                group, spent = [], 0
            if first[i] < len(ids):
                group.append(i)
                spent += len(ids)
        if group:
            self._run(group, rows, first, results)
        return results

    def _run(
        self,
        group: Sequence[int],
        rows: Sequence[Sequence[int]],
        first: Sequence[int],
        results: list[list[float]],
    ) -> None:
        import torch

        # The last token predicts nothing that is asked for.
        ran = run(self._body, [Segment(rows[i][:-1]) for i in group])
        where: list[int] = []
        targets: list[int] = []
        for i, start in zip(group, ran.starts, strict=True):
            where += range(start + first[i] - 1, start + len(rows[i]) - 1)
            targets += rows[i][first[i] :]
        flat: list[float] = []
        with torch.inference_mode():
            wanted = torch.tensor(targets, device=self.device)
            for at in range(0, len(where), CHUNK):
                hidden = ran.hidden[where[at : at + CHUNK]]
                flat += self._of(hidden, wanted[at : at + CHUNK])
        values = iter(flat)
        for i in group:
            results[i] = [next(values) for _ in range(len(rows[i]) - first[i])]

    def _of(self, hidden: torch.Tensor, targets: torch.Tensor) -> list[float]:
        logits = self._logits(hidden)
        found = logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=1)
        numbers: list[float] = found.cpu().tolist()
        return numbers
