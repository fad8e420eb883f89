"""Numbers from an SGLang server: ``/v1/score`` gives the shares of a few tokens after a prompt.

For families that read pairs of tokens. Each step is one item, the tokens before it the query; the
shares of the family's tokens come back, and their logarithms differ as the logits do.

Written from the source of SGLang 0.5.23 and tried against a server of our own that answers as it
does; not run against SGLang itself, which needs a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prmkit.chat import single_token
from prmkit.checkpoints import load_tokenizer
from prmkit.endpoint import Endpoint
from prmkit.errors import BackendError, CheckpointError
from prmkit.records import Unscored
from prmkit.scorers.families.base import Rendered
from prmkit.scorers.families.heads import Head, TokenRows

SMALLEST = 1e-38
"""Shares below this are taken for it, so that a logarithm is finite."""


class SGLangBackend:
    """A language model on an SGLang server.

    Args:
        endpoint: the server.
        model: the name under which it serves the model.
        folder: with the model's tokenizer, on this machine.
        head: which tokens are read.
        concurrency: requests under way at once.

    Raises:
        CheckpointError: if the family does not read pairs of tokens.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        folder: Path | str,
        head: Head,
        *,
        concurrency: int = 32,
    ):
        if not isinstance(head, TokenRows):
            raise CheckpointError(
                f"SGLang scores tokens, and this family has a head of {type(head).__name__}; "
                "use the vllm or the hf backend"
            )
        self.tokenizer = load_tokenizer(folder)
        self.context: int | None = None
        self._endpoint, self._model, self._concurrency = endpoint, model, concurrency
        self._labels = [single_token(self.tokenizer, token) for token in head.tokens]

    def numbers(self, rows: Sequence[Rendered]) -> list[Sequence[Sequence[float]] | Unscored]:
        """[S, K] numbers of each row; `Unscored` with the server's reason where one fails."""
        with ThreadPoolExecutor(max_workers=self._concurrency) as pool:
            return list(pool.map(self._row, rows))

    def _row(self, row: Rendered) -> Sequence[Sequence[float]] | Unscored:
        if not row.positions:
            return []
        begin = min(row.begin, row.positions[0])
        try:
            answer = self._endpoint.post(
                "/v1/score",
                {
                    "model": self._model,
                    "query": row.ids[:begin],
                    "items": [row.ids[begin : position + 1] for position in row.positions],
                    "label_token_ids": self._labels,
                    "apply_softmax": True,
                    "item_first": False,
                },
            )
            scores = answer.get("scores")
            if not isinstance(scores, list) or len(scores) != len(row.positions):
                raise BackendError(
                    f"the server answers {str(answer)[:200]}; expected {len(row.positions)} scores"
                )
            return [[math.log(max(float(x), SMALLEST)) for x in of_step] for of_step in scores]
        except (BackendError, TypeError, ValueError) as error:
            return Unscored(reason=str(error), model=self._model)
