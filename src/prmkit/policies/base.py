"""Who speaks: a policy continues prefixes of trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from prmkit.errors import InvalidSetting
from prmkit.records import Finish, Problem, Trajectory
from prmkit.settings import at_least

CompletionFinish = Literal["eos", "stop", "length", "error"]


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How completions are drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: keep the smallest set of likeliest tokens with at least this probability.
        max_new_tokens: a completion ends here at the latest.
        stop: texts that end a completion; they stay at its end.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        at_least(0, temperature=self.temperature)
        at_least(1, max_new_tokens=self.max_new_tokens)
        if not 0 < self.top_p <= 1:
            raise InvalidSetting(f"top_p is {self.top_p!r}; it must be above 0 and at most 1")
        if any(not text for text in self.stop):
            raise InvalidSetting(
                "stop holds an empty text, which would end every completion at once"
            )


class Completion(NamedTuple):
    """What a policy wrote after a prefix.

    Attributes:
        text: the new text alone.
        finish: ``eos`` (the model ended it), ``stop`` (a stop text came; it is the end of
            `text`), ``length`` (the limit of tokens, or of the model's context) or ``error``
            (it could not be drawn: no text, no token).
        n_tokens: how many tokens were drawn, the end token included.
        error: why it could not be drawn.
    """

    text: str
    finish: CompletionFinish
    n_tokens: int
    error: str | None = None


def given_each(n: int, **values: Sequence[object]) -> None:
    """Refuse lists that are not as long as the list of prefixes.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, found in values.items():
        if len(found) != n:
            raise ValueError(f"{len(found)} {name} for {n} prefixes; give one each")


def failed(reason: str) -> Completion:
    """A completion that could not be drawn. It is no attempt: neither right nor wrong."""
    return Completion("", "error", 0, reason)


class Policy(Protocol):
    """Continues prefixes. The laws are in `prmkit.testing.check_policy`."""

    @property
    def name(self) -> str:
        """Who it is; written into the trajectories it makes."""

    def complete(
        self,
        prefixes: Sequence[Trajectory],
        n: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """Draw `n` completions of each prefix.

        Args:
            prefixes: open trajectories; with no step, the completion begins the solution. Where
                the last step has an observation, it is the policy's turn to answer that
                (`prmkit.chat.as_conversation`).
            n: completions of each prefix.
            settings: how to draw.
            seeds: one per prefix. A completion depends on its prefix, its seed and its number
                alone, not on what else is in the batch.
            first: the number of the first completion of each prefix; by default 0. So more
                completions can be asked for later, and are those that would have come.

        Returns:
            One list of `n` completions per prefix, in order. One that a server fails to draw has
            the finish ``error``; the others are not touched by it.
        """


@runtime_checkable
class Chooser(Policy, Protocol):
    """A policy whose logits are to be had: it says how likely each of a few words comes next."""

    def choose(self, prefixes: Sequence[Trajectory], choices: Sequence[str]) -> list[list[float]]:
        """[N, K] probabilities of K choices after each of N prefixes, among the choices alone."""


class Drawn(NamedTuple):
    """A completion with its tokens, and what was read for it.

    Attributes:
        completion: text and finish.
        ids: tokens of its text, without the end token; None where they do not spell exactly the
            text, such as where a stop text ended inside a token, or where they are not known.
        n_prompt: tokens of its prompt, as servers bill them: the prompt of a request counts with
            the request's first completion alone.
        n_cached: of those, the ones that were found and not computed.
        end: the end token that was drawn; None where none was, or it is not known.
    """

    completion: Completion
    ids: tuple[int, ...] | None = None
    n_prompt: int = 0
    n_cached: int = 0
    end: int | None = None


@runtime_checkable
class BilledPolicy(Policy, Protocol):
    """A policy that says what was read for each completion: one behind a server that counts."""

    def complete_counted(
        self,
        prefixes: Sequence[Trajectory],
        n: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Drawn]]:
        """As `complete`, with what was read for it."""


@runtime_checkable
class TokenPolicy(Policy, Protocol):
    """A policy that goes on from tokens, so that a search over texts pays for new tokens alone.

    What is put together from a question's ids and the ids of pieces is what `complete` reads of
    the same question and steps. Pieces that the policy wrote keep the tokens that it drew; their
    text may be encoded in another way, of which nothing would be found in a cache.
    """

    @property
    def takes_ids(self) -> bool:
        """Whether it does; a server may not. Where not, the methods below raise `PolicyError`."""

    def question_ids(self, problem: Problem) -> list[int]:
        """Tokens of a question, up to where the answer begins."""

    def text_ids(self, text: str) -> list[int]:
        """Tokens of a piece of the answer, as `complete` encodes a step."""

    def continue_ids(
        self,
        prefixes: Sequence[Sequence[int]],
        counts: Sequence[int],
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Drawn]]:
        """Draw completions of tokens.

        Args:
            prefixes: token ids of each, from the question's first on; none is empty.
            counts: completions of each prefix.
            settings: how to draw.
            seeds: one per prefix. A completion depends on its prefix, its seed and its number
                alone: not on the others, and not on what was read before.
            first: the number of the first completion of each prefix; by default 0.

        Returns:
            One list per prefix, of as many completions as its count.
        """


@runtime_checkable
class LikelihoodPolicy(TokenPolicy, Protocol):
    """A policy that says how likely it is to write a text, not just what it writes."""

    @property
    def tells_likelihoods(self) -> bool:
        """Whether it does. Where not, the method below raises `PolicyError`."""

    def log_likelihoods(
        self,
        prefixes: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        ends: Sequence[bool],
        temperature: float,
    ) -> list[float]:
        """How likely texts are written, token for token.

        Args:
            prefixes: N lists of token ids, from the question's first on; none is empty.
            continuations: the tokens after each; there may be none.
            ends: whether the policy ends its text after them; where not, it may go on.
            temperature: at which it would draw, from all tokens (`top_p` 1).

        Returns:
            [N] natural logarithms of the probabilities that `continue_ids` draws these tokens;
            minus infinity for what it never draws, such as what is beyond its context.
        """


FINISH_OF: dict[CompletionFinish, Finish] = {
    "eos": "eos",
    "stop": "open",
    "length": "length",
    "error": "error",
}
"""How a trajectory ended, by how its last completion ended."""
