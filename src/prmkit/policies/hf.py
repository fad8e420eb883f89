"""Any causal language model in a Hugging Face folder as a policy.

What is shared is computed once. Keys and values of prefixes and completions are kept in a tree, so
that a prefix whose beginning was read or written before costs its new tokens alone. Completions of
one prefix are one row of the batch until they differ, and where the model allows it, they share the
prefix's keys and values from there on, too. Chance comes from one counter per completion, so a
completion does not depend on its neighbours in the batch, nor on what was kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prmkit.chat import as_conversation, encode_inside, encode_question, encode_text, spells
from prmkit.checkpoints import load_causal_lm, load_tokenizer
from prmkit.errors import InputTooLong, PolicyError
from prmkit.policies.base import (
    Completion,
    CompletionFinish,
    Drawn,
    SamplingSettings,
    given_each,
)
from prmkit.policies.continuing import Continuing, Copied, Shared, can_share
from prmkit.policies.reading import Ids, Read, Reader, without_gradients
from prmkit.records import Problem, Trajectory
from prmkit.settings import at_least

if TYPE_CHECKING:
    import torch

_DROP = 7 / 8
"""Finished completions are dropped when no more than this share goes on: dropping costs a copy."""

_Whole = np.ndarray[Any, np.dtype[np.int64]]

_RUNNING, _EOS, _STOP, _LENGTH = 0, 1, 2, 3
_FINISH: dict[int, CompletionFinish] = {_EOS: "eos", _STOP: "stop", _LENGTH: "length"}


class _Job(NamedTuple):
    """One completion.

    Attributes:
        prefix: token ids.
        seed: of its prefix.
        number: of the completion.
        limit: tokens at most.
    """

    prefix: Ids
    seed: int
    number: int
    limit: int


class HFPolicy:
    """Samples from a causal language model.

    Args:
        path: a folder with config, safetensors and a fast tokenizer.
        device: ``"cpu"``, ``"cuda"``, …; by default a GPU where there is one.
        max_rows: completions that are drawn at the same time.
        max_kept: tokens whose keys and values are kept for later calls at most; 0 keeps none. By
            default it is what fits into 2 GiB, at most 131,072: raise it for searches on large
            models. Models with other than plain rotary attention keep none.

    Raises:
        CheckpointError: if the folder is not such a model.
    """

    takes_ids = True
    tells_likelihoods = True

    def __init__(
        self,
        path: Path | str,
        *,
        device: str | None = None,
        max_rows: int = 256,
        max_kept: int | None = None,
    ):
        at_least(1, max_rows=max_rows)
        if max_kept is not None:
            at_least(0, max_kept=max_kept)
        self._model, self._device = load_causal_lm(path, device)
        self._tokenizer = load_tokenizer(path)
        self.name = Path(path).name
        self._max_rows = max_rows
        self._shares = can_share(self._model)
        self._reader = Reader(self._model, self._device, max_kept)
        eos = self._model.generation_config.eos_token_id
        if eos is None:
            eos = self._tokenizer.eos_token_id
        self._eos = set(eos if isinstance(eos, list) else [eos]) - {None}
        self._context: int | None = getattr(self._model.config, "max_position_embeddings", None)
        self._token_texts: list[str] | None = None
        self._stopping: tuple[tuple[str, ...], torch.Tensor] | None = None

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._tokenizer

    @property
    def end(self) -> int | None:
        """The token that ends a text; the first, where there are several."""
        return min(self._eos, default=None)

    def take(self, model: Any) -> None:
        """Go on with the weights of another copy of the model, such as one that is trained.

        Args:
            model: of the same shape, on any device and of any precision.

        Raises:
            ValueError: if it has other weights than this one.
        """
        import torch

        own, new = dict(self._model.named_parameters()), dict(model.named_parameters())
        if own.keys() != new.keys():
            raise ValueError(
                f"the other model has other weights: {sorted(own.keys() ^ new.keys())[:4]}"
            )
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(new[name])
        self._reader.forget()

    @property
    def computed(self) -> int:
        """Tokens that went through the model so far; what fills up a batch is not counted."""
        return self._reader.computed

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
        ids = [self._encode(prefix) for prefix in prefixes]
        drawn = self.continue_ids(ids, [n] * len(ids), settings, seeds, first)
        return [[one.completion for one in of_prefix] for of_prefix in drawn]

    def question_ids(self, problem: Problem) -> list[int]:
        """See `prmkit.policies.base.TokenPolicy.question_ids`."""
        return encode_question(self._tokenizer, problem)

    def text_ids(self, text: str) -> list[int]:
        """See `prmkit.policies.base.TokenPolicy.text_ids`."""
        return encode_text(self._tokenizer, text)

    def continue_ids(
        self,
        prefixes: Sequence[Sequence[int]],
        counts: Sequence[int],
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Drawn]]:
        """See `prmkit.policies.base.TokenPolicy.continue_ids`.

        A prefix is read once for all completions that are drawn at the same time, and they are
        one request.

        Raises:
            InputTooLong: if a prefix leaves no room for a token in the model's context.
        """
        begin = [0] * len(prefixes) if first is None else first
        given_each(len(prefixes), counts=counts, seeds=seeds, first=begin)
        rows = [tuple(ids) for ids in prefixes]
        limits = []
        for i, ids in enumerate(rows):
            self._fits(len(ids), f"prefix {i}")
            room = settings.max_new_tokens if self._context is None else self._context - len(ids)
            # Each row has its own limit, so that a long neighbour does not shorten it.
            limits.append(min(settings.max_new_tokens, room))
        # Like lengths together: less padding. And what is alike, so that it is read once.
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), rows[i]))
        jobs = [(i, begin[i] + j) for i in order for j in range(counts[i])]
        results: list[list[Drawn]] = [[] for _ in rows]
        for at in range(0, len(jobs), self._max_rows):
            batch = jobs[at : at + self._max_rows]
            unique = list(dict.fromkeys(rows[i] for i, _ in batch))
            some = [_Job(rows[i], seeds[i], number, limits[i]) for i, number in batch]
            drawn, n_found = self._draw(unique, some, settings)
            cached = dict(zip(unique, n_found, strict=True))
            asked: set[int] = set()
            for (i, _), one in zip(batch, drawn, strict=True):
                if i not in asked:
                    asked.add(i)
                    one = one._replace(n_prompt=len(rows[i]), n_cached=cached[rows[i]])
                    # The next who asks for the same has nothing left to compute.
                    cached[rows[i]] = len(rows[i])
                results[i].append(one)
        return results

    def log_likelihoods(
        self,
        prefixes: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        ends: Sequence[bool],
        temperature: float,
    ) -> list[float]:
        """See `prmkit.policies.base.LikelihoodPolicy.log_likelihoods`.

        All tokens of a text are read at once, after what is kept of its prefix.
        """
        import torch

        at_least(0, temperature=temperature)
        given_each(len(prefixes), continuations=continuations, ends=ends)
        found = [0.0] * len(prefixes)
        texts: dict[int, Ids] = {}
        for i, (prefix, more) in enumerate(zip(prefixes, continuations, strict=True)):
            drawn = len(more) + ends[i]
            if self._context is not None and len(prefix) + max(drawn, 1) > self._context:
                found[i] = float("-inf")
                continue
            self._fits(len(prefix), f"prefix {i}")
            if drawn:
                # Nothing is asked after the last token, unless it is whether the text ends.
                texts[i] = (*prefix, *(more if ends[i] else more[:-1]))
        of = [*texts]
        with without_gradients(self._device):
            for at, logits in self._reader.follow(
                [*texts.values()], [len(prefixes[i]) for i in of], self._max_rows
            ):
                i = of[at]
                chances = log_chances(logits, temperature)
                tokens = torch.tensor(continuations[i], dtype=torch.long, device=chances.device)
                total = chances[: len(tokens)].gather(1, tokens[:, None]).double().sum()
                if ends[i]:
                    total = total + chances[-1, sorted(self._eos)].double().logsumexp(0)
                found[i] = float(total)
        return found

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
        first = [encode_inside(self._tokenizer, choice)[:1] for choice in choices]
        if [] in first or len({token for (token,) in first}) < len(choices):
            raise PolicyError(
                f"{self.name!r} cannot choose between {list(choices)!r}: they do not begin with "
                "different tokens"
            )
        columns = [token for (token,) in first]
        ids = [tuple(self._encode(prefix)) for prefix in prefixes]
        unique = list(dict.fromkeys(ids))
        found: dict[Ids, list[float]] = {}
        with without_gradients(self._device):
            for at in range(0, len(unique), self._max_rows):
                batch = unique[at : at + self._max_rows]
                read = self._reader.read(batch)
                chances = read.logits[:, columns].float().softmax(dim=-1).cpu().tolist()
                found |= {prefix: chances[row] for prefix, row in zip(batch, read.row, strict=True)}
        return [list(found[prefix]) for prefix in ids]

    def _encode(self, prefix: Trajectory) -> list[int]:
        question, pieces = as_conversation(prefix)
        ids = self.question_ids(question)
        for piece in pieces:
            ids += self.text_ids(piece)
        self._fits(len(ids), f"the prefix of problem {prefix.problem.id!r}")
        return ids

    def _fits(self, length: int, prefix: str) -> None:
        if length == 0:
            raise ValueError(f"{prefix} has no token; begin with those of a question")
        if self._context is not None and length >= self._context:
            raise InputTooLong(
                f"{prefix} has {length} tokens; {self.name!r} reads at most {self._context}. "
                "Shorten the question or the steps"
            )

    def _draw(
        self, prefixes: Sequence[Ids], jobs: Sequence[_Job], settings: SamplingSettings
    ) -> tuple[list[Drawn], list[int]]:
        """One completion per job, all at the same time; of each prefix, the tokens found."""
        import torch

        limit = max(job.limit for job in jobs)
        chance = np.stack([_uniforms(job.seed, job.number, limit) for job in jobs])
        uniforms = torch.from_numpy(chance).to(self._device)
        with without_gradients(self._device):
            read = self._reader.read(prefixes)
            written, lengths, finish = self._decode(read, prefixes, jobs, uniforms, settings)
        return [
            self._drawn(tokens[:length].tolist(), _FINISH[end], settings)
            for tokens, length, end in zip(written, lengths, finish, strict=True)
        ], read.n_found

    def _decode(
        self,
        read: Read,
        prefixes: Sequence[Ids],
        jobs: Sequence[_Job],
        uniforms: torch.Tensor,
        settings: SamplingSettings,
    ) -> tuple[torch.Tensor, _Whole, _Whole]:
        """Draw token by token: the tokens [N, T] of N jobs, how many are valid, how they ended."""
        import torch

        limits = np.array([job.limit for job in jobs])
        written = torch.zeros(len(jobs), int(limits.max()), dtype=torch.long)
        lengths, finish = np.zeros(len(jobs), dtype=int), np.full(len(jobs), _RUNNING)
        eos = np.array(sorted(self._eos), dtype=np.int64)
        may_stop = self._may_stop(settings.stop)
        row_of_prefix = dict(zip(prefixes, read.row, strict=True))
        rows = _Rows(np.array([row_of_prefix[job.prefix] for job in jobs]))
        going: Continuing | None = None
        starts = read.mask.sum(1)
        logits, vocabulary = read.logits, read.logits.shape[-1]
        for t in range(written.shape[1]):
            who = rows.who
            tokens = pick(
                rows.each(logits), rows.each_job(uniforms[:, t]), settings.temperature,
                settings.top_p,
            ).cpu()  # fmt: skip
            drawn = tokens.numpy()
            written[who, t] = tokens
            lengths[who] = t + 1
            finish[who[np.isin(drawn, eos)]] = _EOS
            if may_stop is not None:
                for job in who[may_stop[tokens].numpy()]:
                    if finish[job] == _RUNNING and self._stopped(written[job, : t + 1], settings):
                        finish[job] = _STOP
            finish[(limits == t + 1) & (finish == _RUNNING)] = _LENGTH
            source, following = rows.go_on(finish[who] == _RUNNING, drawn, vocabulary)
            if len(rows.who) == 0:
                break
            if source is not None:
                chosen = torch.from_numpy(source).to(self._device)
                starts = starts[chosen]
                if going is None:
                    going = self._begin(read, chosen, written.shape[1])
                else:
                    self._keep(going, rows.left, jobs, written, lengths)
                    going.keep(chosen)
            assert going is not None
            # Rows that wait to be dropped must not read beyond the model's context.
            positions = starts + t
            if self._context is not None:
                positions = positions.clamp(max=self._context - 1)
            logits = going.read(torch.from_numpy(following).to(self._device), positions)
            self._reader.computed += rows.n_running
        if going is not None:
            self._keep(going, [*enumerate(rows.told)], jobs, written, lengths)
        return written, lengths, finish

    def _begin(self, read: Read, of_row: torch.Tensor, room: int) -> Continuing:
        if self._shares:
            return Shared(self._model, read.cache, read.mask, of_row, room)
        return Copied(self._model, read.cache, read.mask, of_row)

    def _keep(
        self,
        going: Continuing,
        rows: Sequence[tuple[int, int]],
        jobs: Sequence[_Job],
        written: torch.Tensor,
        lengths: _Whole,
    ) -> None:
        """Keep what was read in rows that end, each with one of the jobs that ended there."""
        if not self._reader.keeps:
            return
        for row, job in rows:
            # The last token that is drawn is not read.
            if (n := int(lengths[job]) - 1) > 0:
                prefix = jobs[job].prefix
                ids = prefix + tuple(written[job, :n].tolist())
                self._reader.keep(ids, len(prefix), *going.own(row, n))

    def _drawn(
        self, tokens: list[int], finish: CompletionFinish, settings: SamplingSettings
    ) -> Drawn:
        shown = tokens[:-1] if finish == "eos" else tokens
        text = self._text(shown)
        if finish == "stop":
            # The token that completed the stop text may hold more.
            text = text[: min(_ends(text, settings.stop))]
        exact = spells(self._tokenizer, shown, text)
        return Drawn(
            Completion(text, finish, len(tokens)),
            tuple(shown) if exact else None,
            end=tokens[-1] if finish == "eos" else None,
        )

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
        if self._stopping is not None and self._stopping[0] == stop:
            return self._stopping[1]
        if self._token_texts is None:
            size = self._model.get_input_embeddings().num_embeddings
            self._token_texts = [self._text([token]) for token in range(size)]
        last = {text[-1] for text in stop}
        found = torch.tensor(
            [
                # A token with a broken character may hold the last bytes of a stop text.
                not last.isdisjoint(text) or "�" in text
                for text in self._token_texts
            ]
        )
        self._stopping = (stop, found)
        return found


class _Rows:
    """Which completions stand in which row of the batch.

    Completions with the same prefix and the same tokens so far share a row.

    Args:
        at: the row of each completion.
    """

    def __init__(self, at: _Whole):
        self.who: _Whole = np.arange(len(at))
        """The completions that go on."""
        self._at = at
        self.told: _Whole = np.zeros(at.max() + 1, dtype=int)
        """Of each row, one of the completions that stand there or, at its end, stood there."""
        self.told[at] = self.who
        self.left: list[tuple[int, int]] = []
        """Rows that the last step has ended, with that completion."""
        self.n_running = len(self.told)
        """Rows in which some completion goes on."""
        self._begun = False

    def each(self, logits: torch.Tensor) -> torch.Tensor:
        """[N, V] of N completions, from [R, V] of R rows."""
        return _selected(logits, self._at)

    def each_job(self, table: torch.Tensor) -> torch.Tensor:
        """Of what each completion has, that of those that go on."""
        return _selected(table, self.who)

    def go_on(
        self, goes: np.ndarray[Any, np.dtype[np.bool_]], drawn: _Whole, vocabulary: int
    ) -> tuple[_Whole | None, _Whole]:
        """After a token was drawn for each completion.

        Args:
            goes: which of them go on.
            drawn: their tokens.
            vocabulary: tokens that there are.

        Returns:
            The old row of each new one, or None where the rows stay; and the token that each row
            is to read.
        """
        self.who, at, drawn = self.who[goes], self._at[goes], drawn[goes]
        if len(self.who) == 0:
            return None, drawn
        _, some, place = np.unique(at * vocabulary + drawn, return_index=True, return_inverse=True)
        source, following = at[some], drawn[some]
        self.n_running = len(source)
        stays = len(np.unique(source)) == len(source) > _DROP * len(self.told)
        if self._begun and stays:
            self._at = at
            self.told[source] = self.who[some]
            read = np.zeros(len(self.told), dtype=following.dtype)
            read[source] = following
            return None, read
        self._begun = True
        gone = np.setdiff1d(np.arange(len(self.told)), source)
        self.left = list(zip(gone.tolist(), self.told[gone].tolist(), strict=True))
        self._at, self.told = place, self.who[some]
        return source, following


def _selected(table: torch.Tensor, rows: _Whole) -> torch.Tensor:
    import torch

    if np.array_equal(rows, np.arange(len(table))):
        return table
    return table[torch.from_numpy(rows).to(table.device)]


def _ends(text: str, stop: tuple[str, ...]) -> list[int]:
    return [at + len(item) for item in stop if (at := text.find(item)) >= 0]


def _uniforms(seed: int, number: int, n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The chance of one completion: `n` numbers in [0, 1), by seed and number alone."""
    stream = np.random.Generator(np.random.Philox(key=[seed % 2**64, number]))
    return stream.random(n, dtype=np.float32)


def log_chances(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """How likely `pick` takes each token where it may take all: [N, V] logarithms."""
    import torch

    if temperature == 0:
        certain = torch.full_like(logits, float("-inf"), dtype=torch.float32)
        return certain.scatter(-1, logits.argmax(dim=-1, keepdim=True), 0.0)
    return torch.log_softmax(logits.float() / temperature, dim=-1)


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
