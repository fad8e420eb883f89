"""A model behind an OpenAI-compatible server as a policy: vLLM, SGLang, llama.cpp, hosted ones.

Prompts go as token ids where the server takes them: the very ids that `HFPolicy` reads, so that
the server's prefix cache finds what is shared. Completions of one prefix follow one another for
the same reason. What the server can do was seen by `prmkit.policies.probe`, not believed.

A completion is one request with a seed of its own, made from the prefix's seed and the
completion's number; so it does not depend on what else is under way, as far as the server's
arithmetic does not. A server that is seen to ignore seeds draws what it draws.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from prmkit.chat import Tokenizer, as_conversation, encode_question, encode_text
from prmkit.endpoint import Endpoint
from prmkit.errors import BackendError, InputTooLong, PolicyError, RequestRefused
from prmkit.ledger import seed_for
from prmkit.policies.base import Completion, Drawn, SamplingSettings, failed, given_each
from prmkit.policies.parallel import in_threads
from prmkit.policies.probe import probe
from prmkit.policies.wire import (
    Answer,
    Capabilities,
    Prompt,
    body_of,
    completion_of,
    prompt_of,
    prompt_of_ids,
    read_answer,
    spelled_by,
)
from prmkit.records import Problem, Trajectory
from prmkit.settings import at_least

logger = logging.getLogger(__name__)

SEEDS = 2**31 - 2**20
"""Where a prefix's seeds begin is below this: seeds that are counted up from there stay below
2**31, which every server takes."""
TOGETHER = 16
"""Completions in one request at most, where one request may ask for several."""
UNREACHED = 8
"""Prefixes that a server may leave without an answer, one after the other, before a call of
`complete` gives up the rest of its completions."""


class Usage(NamedTuple):
    """What was used, as the server counts it.

    A prompt counts once in a request, however many completions the request asks for.

    Attributes:
        requests: that were answered.
        prompt_tokens: read.
        completion_tokens: drawn.
        cached_tokens: of the prompts' tokens, those that were in the server's prefix cache, where
            it tells.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class _Job(NamedTuple):
    """One request: completions of a prefix, from a number on."""

    prefix: int
    first: int
    n: int


def _none_drawn(reason: str, n: int) -> list[Drawn]:
    return [Drawn(failed(reason))] * n


class OpenAIPolicy:
    """Samples from a model on a server.

    Args:
        endpoint: the server.
        model: the name under which it serves the model; by default the only one that it lists.
        tokenizer: the model's, from a folder on this machine; without it prompts go as chats.
        concurrency: requests under way at once.
        capabilities: what the server can do, where that is known; by default it is probed.

    Raises:
        PolicyError: if the server draws no completion in any way.
        UnknownName: if it lists other models than the one named.
        BackendError: if it does not answer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str | None = None,
        *,
        tokenizer: Tokenizer | None = None,
        concurrency: int = 32,
        capabilities: Capabilities | None = None,
    ):
        at_least(1, concurrency=concurrency)
        self._endpoint, self._tokenizer = endpoint, tokenizer
        self._concurrency = concurrency
        self._room = threading.BoundedSemaphore(concurrency)
        self._counting = threading.Lock()
        self.usage = Usage()
        """What was used so far."""
        self.capabilities = capabilities or probe(endpoint, model, tokenizer, concurrency)
        """What the server can do."""
        self.name = self.capabilities.model
        if not self.capabilities.usage and tokenizer is None:
            raise PolicyError(f"{endpoint.shown} does not count tokens; give the model's tokenizer")
        if not self.capabilities.seed:
            logger.warning(
                "%s does not keep to seeds (%s): what it draws cannot be drawn again",
                endpoint.shown,
                self.capabilities.how.get("seed", "as was said"),
            )

    def complete(
        self,
        prefixes: Sequence[Trajectory],
        n: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See `prmkit.policies.base.Policy.complete`.

        A completion that the server does not give after all retries has the finish ``error``.

        Raises:
            InputTooLong: if a prefix leaves no room for a token in the model's context.
            PolicyError: if the server was seen to be unable to do what is asked for.
        """
        drawn = self.complete_counted(prefixes, n, settings, seeds, first)
        return [[one.completion for one in of_prefix] for of_prefix in drawn]

    def complete_counted(
        self,
        prefixes: Sequence[Trajectory],
        n: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Drawn]]:
        """See `prmkit.policies.base.BilledPolicy.complete_counted`; raises as `complete` does."""
        begin = [0] * len(prefixes) if first is None else first
        given_each(len(prefixes), seeds=seeds, first=begin)
        self._check(settings)
        prompts = [self._prompt(prefix) for prefix in prefixes]
        return self._draw(prompts, [n] * len(prompts), settings, seeds, begin)

    @property
    def takes_ids(self) -> bool:
        """See `prmkit.policies.base.TokenPolicy.takes_ids`."""
        return self._tokenizer is not None and self.capabilities.continuation == "token_ids"

    def question_ids(self, problem: Problem) -> list[int]:
        """See `prmkit.policies.base.TokenPolicy.question_ids`.

        Raises:
            PolicyError: if the server does not take token ids, or there is no tokenizer here.
        """
        return encode_question(self._reading_ids(), problem)

    def text_ids(self, text: str) -> list[int]:
        """See `prmkit.policies.base.TokenPolicy.text_ids`.

        Raises:
            PolicyError: if the server does not take token ids, or there is no tokenizer here.
        """
        return encode_text(self._reading_ids(), text)

    def continue_ids(
        self,
        prefixes: Sequence[Sequence[int]],
        counts: Sequence[int],
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Drawn]]:
        """See `prmkit.policies.base.TokenPolicy.continue_ids`.

        A completion that the server does not give after all retries has the finish ``error``.
        What was read for the completions together is what `usage` counts of their requests.

        Raises:
            InputTooLong: if a prefix leaves no room for a token in the model's context.
            PolicyError: if the server does not take token ids, there is no tokenizer here, or the
                server was seen to be unable to do what is asked for.
        """
        begin = [0] * len(prefixes) if first is None else first
        given_each(len(prefixes), counts=counts, seeds=seeds, first=begin)
        self._reading_ids()
        self._check(settings)
        for i, ids in enumerate(prefixes):
            self._fits(len(ids), f"prefix {i}")
        prompts = [prompt_of_ids(ids) for ids in prefixes]
        return self._draw(prompts, counts, settings, seeds, begin)

    def _reading_ids(self) -> Tokenizer:
        """The tokenizer, where the server takes its ids."""
        if self._tokenizer is None or not self.takes_ids:
            lacks = (
                "there is no tokenizer here"
                if self._tokenizer is None
                else f"it takes prompts as {self.capabilities.continuation}"
            )
            raise PolicyError(
                f"{self._endpoint.shown} is given no token ids: {lacks}. Serve the model with "
                "vLLM, SGLang or llama.cpp and give its tokenizer, or use `complete`, which needs "
                "neither"
            )
        return self._tokenizer

    def _draw(
        self,
        prompts: Sequence[Prompt | str],
        counts: Sequence[int],
        settings: SamplingSettings,
        seeds: Sequence[int],
        begin: Sequence[int],
    ) -> list[list[Drawn]]:
        """Completions of prompts; of one that there is not, why, as their error."""
        step = self._per_request(settings)
        jobs = [
            _Job(i, number, min(step, begin[i] + n - number))
            for i, n in enumerate(counts)
            # Without chance one completion is all of them.
            for number in range(
                begin[i], begin[i] + (n if settings.temperature else min(n, 1)), step
            )
        ]
        cancelled = threading.Event()
        unreached: set[int] = set()

        def draw(job: _Job) -> list[Drawn]:
            prompt = prompts[job.prefix]
            if isinstance(prompt, str):
                return _none_drawn(prompt, job.n)
            if len(unreached) >= UNREACHED:
                return _none_drawn(
                    f"not asked for: {UNREACHED} prefixes in a row got no answer", job.n
                )
            try:
                with self._room:
                    drawn = self._request(prompt, job, settings, seeds[job.prefix], cancelled)
            except BackendError as error:
                # Who refuses is there; it is this prompt that it does not like.
                if not isinstance(error, RequestRefused):
                    unreached.add(job.prefix)
                return _none_drawn(str(error), job.n)
            unreached.clear()
            return drawn

        results: list[list[Drawn]] = [[] for _ in prompts]
        for job, drawn in zip(
            jobs, in_threads(draw, jobs, self._concurrency, cancelled), strict=True
        ):
            results[job.prefix] += drawn
        if not settings.temperature:
            for found, n in zip(results, counts, strict=True):
                # What was read, was read once.
                found += [one._replace(n_prompt=0, n_cached=0) for one in found] * (n - 1)
        return results

    def _check(self, settings: SamplingSettings) -> None:
        """Refuse what would silently go wrong."""
        can = self.capabilities
        if settings.temperature and not can.samples:
            raise PolicyError(
                f"{self._endpoint.shown} does not sample: {can.how.get('samples', '')}"
            )
        if settings.stop and not (can.keeps_stop or can.tells_stop):
            raise PolicyError(
                f"{self._endpoint.shown} neither keeps stop texts nor says whether one came "
                f"({can.how.get('keeps_stop', '')}); a completion that it ended and one that the "
                "model ended would look alike. Draw without stop texts"
            )

    def _prompt(self, prefix: Trajectory) -> Prompt | str:
        """The prompt of a prefix, or why there is none."""
        can = self.capabilities
        question, pieces = as_conversation(prefix)
        if pieces and can.continuation == "none":
            raise PolicyError(
                f"{self._endpoint.shown} does not continue a partial answer "
                f"({can.how.get('continuation', '')}). Whole solutions can be drawn; for prefixes "
                "serve the model with vLLM, SGLang or llama.cpp and give its tokenizer"
            )
        try:
            prompt = prompt_of(can, self._tokenizer, question, pieces)
        except PolicyError as error:
            return str(error)
        if prompt.ids is not None:
            self._fits(len(prompt.ids), f"the prefix of problem {prefix.problem.id!r}")
        return prompt

    def _fits(self, length: int, prefix: str) -> None:
        context = self.capabilities.context
        if length == 0:
            raise ValueError(f"{prefix} has no token; begin with those of a question")
        if context is not None and length >= context:
            raise InputTooLong(
                f"{prefix} has {length} tokens; {self.name!r} reads at most {context} on "
                f"{self._endpoint.shown}. Shorten the question or the steps"
            )

    def _per_request(self, settings: SamplingSettings) -> int:
        """How many completions one request may ask for without a change in what is drawn."""
        can = self.capabilities
        if not settings.temperature or not can.n:
            return 1
        return TOGETHER if can.n_seeds or not can.seed else 1

    def _request(
        self,
        prompt: Prompt,
        job: _Job,
        settings: SamplingSettings,
        seed: int,
        cancelled: threading.Event,
    ) -> list[Drawn]:
        can = self.capabilities
        limit = settings.max_new_tokens
        if can.context is not None and prompt.ids is not None:
            limit = min(limit, can.context - len(prompt.ids))
        seeded = can.seed and settings.temperature > 0
        body = body_of(
            can,
            prompt,
            max_tokens=limit,
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop=settings.stop,
            seed=seed_for(seed, "server") % SEEDS + job.first if seeded else None,
            n=job.n,
        )
        answer: Answer = self._endpoint.post(
            can.route, body, partial(read_answer, can, n=job.n), cancelled
        )
        self._count(answer)
        try:
            drawn = self._read(answer, prompt, settings, limit)
        except PolicyError as error:
            drawn = _none_drawn(str(error), job.n)
        # Answered is paid for, whatever the answer is good for.
        drawn[0] = drawn[0]._replace(
            n_prompt=answer.prompt_tokens or 0, n_cached=answer.cached_tokens or 0
        )
        return drawn

    def _read(
        self, answer: Answer, prompt: Prompt, settings: SamplingSettings, limit: int
    ) -> list[Drawn]:
        """The completions of an answer."""
        can = self.capabilities
        if can.route != "/v1/chat/completions" and answer.prompt_tokens != len(prompt.ids or []):
            raise PolicyError(
                f"{self._endpoint.shown} read {answer.prompt_tokens} tokens where the prompt has "
                f"{len(prompt.ids or [])}: it serves another tokenizer than the one here"
            )
        drawn = []
        for index, choice in enumerate(answer.choices):
            n_tokens = min(limit, self._n_tokens(answer, index))
            completion = completion_of(can, choice, settings.stop, n_tokens)
            ids = (
                None
                if self._tokenizer is None
                else spelled_by(self._tokenizer, choice.ids, completion)
            )
            drawn.append(Drawn(completion, ids))
        return drawn

    def _n_tokens(self, answer: Answer, index: int) -> int:
        """Tokens of one completion: as the server counts them, else as the tokenizer here does.

        A server that counts several completions together, and shows no token ids to somebody who
        has no tokenizer, leaves no more than their mean; they add up to what it counts.
        """
        choice = answer.choices[index]
        if len(answer.choices) == 1 and answer.completion_tokens is not None:
            return answer.completion_tokens
        if choice.ids is not None:
            return len(choice.ids)
        if self._tokenizer is not None:
            return len(encode_text(self._tokenizer, choice.text)) + (choice.finish == "stop")
        if answer.completion_tokens is None:
            raise PolicyError(f"{self._endpoint.shown} did not count the tokens of an answer")
        each, more = divmod(answer.completion_tokens, len(answer.choices))
        return each + (index < more)

    def _count(self, answer: Answer) -> None:
        with self._counting:
            told = self.usage
            self.usage = Usage(
                told.requests + 1,
                told.prompt_tokens + (answer.prompt_tokens or 0),
                told.completion_tokens + (answer.completion_tokens or 0),
                told.cached_tokens + (answer.cached_tokens or 0),
            )
