"""Any causal language model in a Hugging Face folder as a policy.

The prefixes of a batch are read once, and where the model allows it their keys and values are kept
once for the `n` completions of each, so that a prefix is never computed twice. Chance comes from
one counter per completion, so a completion does not depend on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prmkit.chat import encode_inside, encode_question, encode_text
from prmkit.checkpoints import load_causal_lm, load_tokenizer
from prmkit.errors import InputTooLong, PolicyError
from prmkit.policies.base import Completion, CompletionFinish, SamplingSettings
from prmkit.policies.continuing import Continuing, Copied, Shared, can_share
from prmkit.records import Trajectory

if TYPE_CHECKING:
    import torch

_DROP = 7 / 8
"""Finished completions are dropped when no more than this share goes on: dropping costs a copy."""

_RUNNING, _EOS, _STOP, _LENGTH = 0, 1, 2, 3
_FINISH: dict[int, CompletionFinish] = {_EOS: "eos", _STOP: "stop", _LENGTH: "length"}


class HFPolicy:
    """Samples from a causal language model.

    Args:
        path: a folder with config, safetensors and a fast tokenizer.
        device: ``"cpu"``, ``"cuda"``, …; by default a GPU where there is one.
        max_rows: completions that are drawn at the same time.

    Raises:
        CheckpointError: if the folder is not such a model.
    """

    def __init__(self, path: Path | str, *, device: str | None = None, max_rows: int = 256):
        self._model, self._device = load_causal_lm(path, device)
        self._tokenizer = load_tokenizer(path)
        self.name = Path(path).name
        self._max_rows = max_rows
        self._shares = can_share(self._model)
        eos = self._model.generation_config.eos_token_id
        if eos is None:
            eos = self._tokenizer.eos_token_id
        self._eos = set(eos if isinstance(eos, list) else [eos]) - {None}
        self._context: int | None = getattr(self._model.config, "max_position_embeddings", None)
        self._token_texts: list[str] | None = None

    def complete(
        self,
        prefixes: Sequence[Trajectory],
        n: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See `prmkit.policies.base.Policy.complete`.

        Raises:
            InputTooLong: if a prefix leaves no room for a token in the model's context.
        """
        if len(prefixes) != len(seeds):
            raise ValueError(f"{len(seeds)} seeds for {len(prefixes)} prefixes; give one each")
        ids = [self._encode(prefix) for prefix in prefixes]
        # Like lengths together: less padding.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        results: dict[int, list[Completion]] = {i: [] for i in order}
        begin = [0] * len(prefixes) if first is None else list(first)
        jobs = [(i, begin[i] + j) for i in order for j in range(n)]
        for at in range(0, len(jobs), self._max_rows):
            batch = jobs[at : at + self._max_rows]
            drawn = self._draw(ids, batch, settings, seeds)
            for (i, _), completion in zip(batch, drawn, strict=True):
                results[i].append(completion)
        return [results[i] for i in range(len(prefixes))]

    def choose(self, prefixes: Sequence[Trajectory], choices: Sequence[str]) -> list[list[float]]:
        """Of each prefix, how likely each choice is as its next token, among the choices alone.

        Args:
            prefixes: open trajectories.
            choices: K texts that begin with different tokens.

        Returns:
            [N, K] probabilities; each row adds up to 1.

        Raises:
            InputTooLong: if a prefix leaves no room for a token in the model's context.
            PolicyError: if two choices begin with the same token.
        """
        import torch

        first = [encode_inside(self._tokenizer, choice)[:1] for choice in choices]
        if [] in first or len({token for (token,) in first}) < len(choices):
            raise PolicyError(
                f"{self.name!r} cannot choose between {list(choices)!r}: they do not begin with "
                "different tokens"
            )
        columns = [token for (token,) in first]
        found: list[list[float]] = []
        ids = [self._encode(prefix) for prefix in prefixes]
        with torch.inference_mode():
            for at in range(0, len(ids), self._max_rows):
                batch = ids[at : at + self._max_rows]
                logits, _, _ = self._prefill(batch, max(len(row) for row in batch))
                found += logits[:, columns].float().softmax(dim=-1).cpu().tolist()
        return found

    def _encode(self, prefix: Trajectory) -> list[int]:
        ids = encode_question(self._tokenizer, prefix.problem)
        for index, step in enumerate(prefix.steps):
            ids += encode_text(self._tokenizer, (prefix.separator if index else "") + step.text)
        if self._context is not None and len(ids) >= self._context:
            raise InputTooLong(
                f"the prefix of problem {prefix.problem.id!r} has {len(ids)} tokens; "
                f"{self.name!r} reads at most {self._context}. Shorten the question or the steps"
            )
        return ids

    def _draw(
        self,
        ids: list[list[int]],
        jobs: list[tuple[int, int]],
        settings: SamplingSettings,
        seeds: Sequence[int],
    ) -> list[Completion]:
        """Draw one completion per job ``(prefix, number)``, all at the same time."""
        import torch

        unique = sorted({i for i, _ in jobs})
        width = max(len(ids[i]) for i in unique)
        # Each row has its own limit, so that a long neighbour does not shorten it.
        limits = np.full(len(jobs), settings.max_new_tokens)
        if self._context is not None:
            limits = np.minimum(limits, [self._context - len(ids[i]) for i, _ in jobs])
        chance = np.stack([_uniforms(seeds[i], j, limits.max()) for i, j in jobs])
        uniforms = torch.from_numpy(chance).to(self._device)
        with torch.inference_mode():
            logits, cache, mask = self._prefill([ids[i] for i in unique], width)
            place = {i: row for row, i in enumerate(unique)}
            of_row = torch.tensor([place[i] for i, _ in jobs], device=self._device)
            going: Continuing = (
                Shared(self._model, cache, mask, of_row, int(limits.max()))
                if self._shares
                else Copied(self._model, cache, mask, of_row)
            )
            starts = mask.sum(1)[of_row]
            return self._decode(logits[of_row], going, starts, uniforms, settings, limits)

    def _prefill(self, ids: list[list[int]], width: int) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Read the prefixes, padded on the left; the logits of their last tokens and the cache."""
        import torch
        from transformers import DynamicCache

        tokens = torch.zeros(len(ids), width, dtype=torch.long)
        mask = torch.zeros(len(ids), width, dtype=torch.long)
        for row, prefix in enumerate(ids):
            tokens[row, width - len(prefix) :] = torch.tensor(prefix)
            mask[row, width - len(prefix) :] = 1
        tokens, mask = tokens.to(self._device), mask.to(self._device)
        cache = DynamicCache(config=self._model.config)
        out = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1], cache, mask

    def _decode(
        self,
        logits: torch.Tensor,
        going: Continuing,
        starts: torch.Tensor,
        uniforms: torch.Tensor,
        settings: SamplingSettings,
        limits: np.ndarray[Any, np.dtype[Any]],
    ) -> list[Completion]:
        """Draw token by token, from the logits after the prefixes, of lengths `starts`."""
        import torch

        n_rows, limit = logits.shape[0], int(limits.max())
        row_of = torch.arange(n_rows, device=self._device)
        rows = np.arange(n_rows)
        written = torch.zeros(n_rows, limit, dtype=torch.long)
        lengths, finish = np.zeros(n_rows, dtype=int), np.full(n_rows, _RUNNING)
        eos = np.array(sorted(self._eos), dtype=np.int64)
        may_stop = self._may_stop(settings.stop)
        for t in range(limit):
            tokens = pick(logits, uniforms[row_of, t], settings.temperature, settings.top_p)
            drawn = tokens.cpu()
            running = finish[rows] == _RUNNING
            now = rows[running]
            written[now, t] = drawn[running]
            lengths[now] = t + 1
            finish[now[np.isin(drawn.numpy()[running], eos)]] = _EOS
            if may_stop is not None:
                for row in now[may_stop[drawn].numpy()[running]]:
                    if finish[row] == _RUNNING and self._stopped(written[row, : t + 1], settings):
                        finish[row] = _STOP
            finish[(limits == t + 1) & (finish == _RUNNING)] = _LENGTH
            alive = np.flatnonzero(finish[rows] == _RUNNING)
            if len(alive) == 0:
                break
            if len(alive) <= _DROP * len(rows):
                kept = torch.from_numpy(alive).to(self._device)
                going.keep(kept)
                row_of, tokens, starts, rows = row_of[kept], tokens[kept], starts[kept], rows[alive]
            # Rows that wait to be dropped must not read beyond the model's context.
            positions = starts + t
            if self._context is not None:
                positions = positions.clamp(max=self._context - 1)
            logits = going.read(tokens, positions)
        return [
            self._completion(written[row, : lengths[row]].tolist(), _FINISH[finish[row]], settings)
            for row in range(n_rows)
        ]

    def _completion(
        self, tokens: list[int], finish: CompletionFinish, settings: SamplingSettings
    ) -> Completion:
        shown = tokens[:-1] if finish == "eos" else tokens
        text = self._text(shown)
        if finish == "stop":
            # The token that completed the stop text may hold more.
            text = text[: min(_ends(text, settings.stop))]
        return Completion(text, finish, len(tokens))

    def _text(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _stopped(self, tokens: torch.Tensor, settings: SamplingSettings) -> bool:
        longest = max(len(text.encode()) for text in settings.stop)
        # A token is at least a byte, so the stop text lies in this many last tokens.
        tail = self._text(tokens[-longest - 1 :].tolist())
        return bool(_ends(tail, settings.stop))

    def _may_stop(self, stop: tuple[str, ...]) -> torch.Tensor | None:
        """Which tokens can complete a stop text: those that hold its last character."""
        import torch

        if not stop:
            return None
        if self._token_texts is None:
            size = self._model.get_input_embeddings().num_embeddings
            self._token_texts = [self._text([token]) for token in range(size)]
        last = {text[-1] for text in stop}
        return torch.tensor(
            [
                # A token with a broken character may hold the last bytes of a stop text.
                not last.isdisjoint(text) or "�" in text
                for text in self._token_texts
            ]
        )


def _ends(text: str, stop: tuple[str, ...]) -> list[int]:
    return [at + len(item) for item in stop if (at := text.find(item)) >= 0]


def _uniforms(seed: int, number: int, n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The chance of one completion: `n` numbers in [0, 1), by seed and number alone."""
    stream = np.random.Generator(np.random.Philox(key=[seed % 2**64, number]))
    return stream.random(n, dtype=np.float32)


def pick(
    logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float
) -> torch.Tensor:
    """One token per row, by inversion of the cumulative probabilities.

    Args:
        logits: [N, V].
        uniforms: [N] in [0, 1).
        temperature: divides the logits; 0 takes the likeliest token (the first of equals).
        top_p: nucleus sampling (arXiv:1904.09751): only the likeliest tokens that together
            first reach this probability may be drawn.

    Returns:
        [N] token ids.
    """
    import torch

    if temperature == 0:
        return logits.argmax(dim=-1)
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        ordered, index = torch.sort(probs, dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered >= top_p
        probs = probs.masked_fill(torch.zeros_like(outside).scatter(1, index, outside), 0.0)
    # In the order of the vocabulary, not of the probabilities: other batches give logits that
    # differ in the last bits, and two tokens that are nearly alike must not change places.
    cumulative = probs.cumsum(dim=-1, dtype=torch.float64)
    target = uniforms.double()[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, target, right=True)
    # Rounding may carry the target to the very end, past the last token that may be drawn.
    possible = torch.arange(probs.shape[1], device=probs.device).where(probs > 0, 0)
    return torch.minimum(chosen, possible.amax(dim=-1, keepdim=True)).squeeze(1)
