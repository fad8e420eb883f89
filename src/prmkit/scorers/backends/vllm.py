"""Numbers from a vLLM server: ``/pooling`` for heads, ``/v1/completions`` for pairs of tokens.

Token ids are sent, never text: the server's own way to tokenise and to find steps plays no part.
With a head the server answers one row per step (STEP pooling) or one per token; positions are
ours, so either will do. For token pairs each step is one request whose prompt ends where the step
is read, and the server's prefix cache pays for the rest; the log-probabilities of both tokens come
back.

Written for vLLM 0.32 and 0.33. Launch lines: `prm models --launch vllm MODEL`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prmkit.chat import single_token
from prmkit.checkpoints import load_tokenizer
from prmkit.endpoint import Endpoint
from prmkit.errors import BackendError, CheckpointError
from prmkit.records import Unscored
from prmkit.scorers.families.base import Rendered
from prmkit.scorers.families.heads import Head, TokenRows, TokenShare, n_numbers

Numbers = Sequence[Sequence[float]] | Unscored
TOP = 20
"""Log-probabilities that a server gives at most without being told otherwise."""


class VLLMBackend:
    """A model on a vLLM server.

    Args:
        endpoint: the server.
        model: the name under which it serves the model.
        folder: with the model's tokenizer, on this machine.
        head: which head of it is read.
        concurrency: requests under way at once; the server batches them.
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
        self.tokenizer = load_tokenizer(folder)
        self.context: int | None = None
        self._endpoint, self._model, self._head = endpoint, model, head
        self._concurrency = concurrency

    def numbers(self, rows: Sequence[Rendered]) -> list[Numbers]:
        """[S, K] numbers of each row; `Unscored` with the server's reason where one fails."""
        with ThreadPoolExecutor(max_workers=self._concurrency) as pool:
            return list(pool.map(self._row, rows))

    def _row(self, row: Rendered) -> Numbers:
        if not row.positions:
            return []
        if row.ends:
            return Unscored(
                reason="this family reads each step behind an end of its own; use the hf backend",
                model=self._model,
            )
        try:
            if isinstance(self._head, TokenRows):
                return [self._pair(row.ids[: p + 1], self._head.tokens) for p in row.positions]
            if isinstance(self._head, TokenShare):
                found = self._token_log_probs
                token = single_token(self.tokenizer, self._head.token)
                return [[found(row.ids[: p + 1], [token])[0]] for p in row.positions]
            return self._pooled(row)
        except BackendError as error:
            return Unscored(reason=str(error), model=self._model)
        except (AttributeError, TypeError, ValueError) as error:
            # An answer of another shape than this server's version gives.
            reason = f"the server's answer cannot be read: {error!r}"
            return Unscored(reason=reason, model=self._model)

    def _pooled(self, row: Rendered) -> Numbers:
        answer = self._endpoint.post(
            "/pooling",
            {
                "model": self._model,
                "input": row.ids,
                "task": "token_classify",
                # The family's own reading turns logits into scores.
                "use_activation": False,
                "encoding_format": "float",
            },
        )
        found = _rows(answer)
        width = n_numbers(self._head)
        if width is not None and any(len(row) != width for row in found):
            raise BackendError(
                f"the server gives {len(found[0])} numbers where this family reads {width}; does "
                "it serve the model of this family?"
            )
        if len(found) == len(row.positions):
            return found
        if len(found) == len(row.ids):
            return [found[position] for position in row.positions]
        raise BackendError(
            f"the server answers {len(found)} rows for {len(row.positions)} steps and "
            f"{len(row.ids)} tokens; is it the model and the pooling of this family? See: "
            "prm models --launch vllm"
        )

    def _pair(self, prompt: Sequence[int], tokens: Sequence[str]) -> list[float]:
        ids = [single_token(self.tokenizer, token) for token in tokens]
        return self._token_log_probs(prompt, ids)

    def _token_log_probs(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """The log-probability of each token after a prompt."""
        answer = self._endpoint.post(
            "/v1/completions",
            {
                "model": self._model,
                "prompt": list(prompt),
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": TOP,
                "return_tokens_as_token_ids": True,
                "add_special_tokens": False,
            },
        )
        try:
            top = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        except (KeyError, IndexError, TypeError):
            raise BackendError("the server's answer has no top_logprobs") from None
        found = {name: float(value) for name, value in top.items()}
        return [
            found[f"token_id:{token}"]
            if f"token_id:{token}" in found
            else self._as_prompt(prompt, token)
            for token in tokens
        ]

    def _as_prompt(self, prompt: Sequence[int], token: int) -> float:
        """The log-probability of a token that is not among the likeliest: as the prompt's last."""
        answer = self._endpoint.post(
            "/v1/completions",
            {
                "model": self._model,
                "prompt": [*prompt, token],
                "max_tokens": 1,
                "temperature": 0,
                "prompt_logprobs": 0,
                "add_special_tokens": False,
            },
        )
        try:
            last = answer["choices"][0]["prompt_logprobs"][-1][str(token)]
            return float(last["logprob"])
        except (KeyError, IndexError, TypeError):
            raise BackendError("the server's answer has no prompt_logprobs") from None


def _rows(answer: dict[str, Any]) -> list[list[float]]:
    try:
        found = answer["data"][0]["data"]
        rows = [[float(x) for x in (row if isinstance(row, list) else [row])] for row in found]
    except (KeyError, IndexError, TypeError, ValueError):
        raise BackendError(f"the server's answer is no pooling: {str(answer)[:200]}") from None
    if not all(math.isfinite(x) for row in rows for x in row):
        raise BackendError("the server gave a number that is not finite")
    return rows


def check_vllm_head(head: Head) -> None:
    """Say whether vLLM can serve this head at all.

    Raises:
        CheckpointError: if it has no class for it.
    """
    name = type(head).__name__
    if name in ("StackedHeads", "MeanRow"):
        raise CheckpointError(f"vLLM has no class for a head of {name}; use the hf backend")
