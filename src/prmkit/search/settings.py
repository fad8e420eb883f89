"""How a search draws, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from prmkit.aggregate import Aggregation
from prmkit.errors import InvalidSetting, UnknownName
from prmkit.policies.base import SamplingSettings
from prmkit.search.tree import Cost
from prmkit.settings import at_least
from prmkit.splitting import splitter

Answers = Literal["equivalent", "text"]
Choice = Literal["weighted", "majority", "best", "algorithm"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    r"""How a search draws, scores and chooses.

    Attributes:
        temperature: of the policy.
        top_p: of the policy; see `SamplingSettings`.
        split: how a whole solution becomes steps (blank_line, line, number, sentence, thought,
            marker:TEXT); by default blank_line (line, of the embedded world).
        step_stop: texts that end a step and stay at its end; by default what the split is made at,
            where that is a text: blank_line, line and marker:TEXT.
        max_step_tokens: a step ends here at the latest; one that does is a dead end, no solution.
        max_tokens: the same of a solution that is drawn as a whole.
        answer_ends: a step that states a boxed answer ends the solution.
        aggregation: of step scores to one number (min, product, mean, sum, last, max, softmin).
        choice: of the final answer: by weighted vote of the candidates, by majority, the best
            candidate, or as the algorithm itself says.
        answers: which final answers are one: those that are mathematically equal (equivalent), or
            equal as texts.
        seed: of everything that is drawn.
    """

    temperature: float = 0.8
    top_p: float = 1.0
    split: str | None = None
    step_stop: tuple[str, ...] = ()
    max_step_tokens: int = 512
    max_tokens: int = 2048
    answer_ends: bool = True
    aggregation: Aggregation = "min"
    choice: Choice = "weighted"
    answers: Answers = "equivalent"
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, max_step_tokens=self.max_step_tokens, max_tokens=self.max_tokens)
        splitter(self.splitting)
        self.drawing(whole=False)
        for name, known in (("choice", Choice), ("answers", Answers), ("aggregation", Aggregation)):
            if getattr(self, name) not in get_args(known):
                raise UnknownName(name, getattr(self, name), get_args(known))

    @property
    def splitting(self) -> str:
        """The name of the splitter."""
        return self.split or "blank_line"

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a step.

        Raises:
            InvalidSetting: if there is none.
        """
        if self.step_stop:
            return self.step_stop
        kind, _, marker = self.splitting.partition(":")
        known = {"blank_line": ("\n\n",), "line": ("\n",), "marker": (marker,)}
        if kind not in known:
            raise InvalidSetting(
                f"a search draws step by step, and no text ends a step of {self.splitting}; give "
                "the text that does (--step-stop)"
            )
        return known[kind]

    def drawing(
        self, *, whole: bool, temperature: float | None = None, limit: int | None = None
    ) -> SamplingSettings:
        """How a step is drawn, or a whole rest of a solution."""
        most = self.max_tokens if whole else self.max_step_tokens
        return SamplingSettings(
            temperature=self.temperature if temperature is None else temperature,
            top_p=self.top_p,
            max_new_tokens=most if limit is None else min(limit, most),
            stop=() if whole else self.stops,
        )


LIMITS: dict[str, type] = {
    "policy_tokens": int,
    "scorer_tokens": int,
    "calls": int,
    "seconds": float,
    "dollars": float,
    "env_steps": int,
}
"""What a budget may limit, and what each limit is."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the search of one problem may spend at most; None for no limit.

    Nothing is begun that could cost more than is left, so no limit but that of seconds is ever
    passed: a piece of text is drawn with as many tokens as are left, and cut there.

    Attributes:
        policy_tokens: drawn by the policy.
        scorer_tokens: read by the scorer.
        calls: completions that the policy draws, and prefixes that the scorer scores, together.
        seconds: from the beginning; what is under way then is awaited.
        dollars: at the prices given.
        env_steps: that an environment does, those that are done again included.
        prices: dollars for a million tokens of prompts, of drawn ones, and of the scorer's.
    """

    policy_tokens: int | None = None
    scorer_tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None
    dollars: float | None = None
    env_steps: int | None = None
    prices: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in LIMITS:
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise InvalidSetting(f"a budget of {limit} {name} buys nothing; give more than 0")
        at_least(0, **{f"price {i + 1}": price for i, price in enumerate(self.prices or ())})
        if self.dollars is not None and self.prices is None:
            raise InvalidSetting(
                "a budget in dollars needs prices: of a million tokens of prompts, of drawn ones, "
                "and of those that the scorer reads"
            )

    def price(self, cost: Cost) -> float:
        """What a cost comes to in dollars; prompts that were cached cost as others do."""
        prompt, drawn, scored = self.prices or (0.0, 0.0, 0.0)
        return (
            prompt * cost.prompt_tokens + drawn * cost.policy_tokens + scored * cost.scorer_tokens
        ) / 1e6

    def share(self, cost: Cost, seconds: float) -> float:
        """The largest share of any limit that a cost takes; 0 where there is no limit."""
        used: tuple[tuple[float, float | None], ...] = (
            (cost.policy_tokens, self.policy_tokens),
            (cost.scorer_tokens, self.scorer_tokens),
            (cost.calls, self.calls),
            (seconds, self.seconds),
            (self.price(cost), self.dollars),
            (cost.steps_paid, self.env_steps),
        )
        return max((n / limit for n, limit in used if limit is not None), default=0.0)

    def fits(self, cost: Cost) -> bool:
        """Whether a cost is within all limits but that of seconds."""
        return self.share(cost, 0.0) <= 1.0

    def tokens_for(self, cost: Cost, prompt: int, most: int) -> int:
        """How many tokens one more completion may have, at most `most`; 0 for no completion.

        Args:
            cost: spent, and promised.
            prompt: tokens of its prompt.
            most: tokens that it may have anyway.
        """
        one = cost.plus(Cost(completions=1, prompt_tokens=prompt))
        if not self.fits(one):
            return 0
        room = most
        if self.policy_tokens is not None:
            room = min(room, self.policy_tokens - one.policy_tokens)
        if self.dollars is not None and self.prices is not None and self.prices[1] > 0:
            room = min(room, int((self.dollars - self.price(one)) * 1e6 / self.prices[1]))
        # Rounding of dollars must not carry it over.
        while room > 0 and not self.fits(one._replace(policy_tokens=one.policy_tokens + room)):
            room -= 1
        return max(room, 0)
