"""The policy's side of a search: nodes to new text, in shared batches, token by token exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prmkit.answers import extract_answer
from prmkit.errors import BackendError, InputTooLong, PolicyError, SearchError
from prmkit.policies.base import (
    FINISH_OF,
    BilledPolicy,
    Completion,
    Drawn,
    LikelihoodPolicy,
    Policy,
    SamplingSettings,
    TokenPolicy,
    failed,
)
from prmkit.policies.sampling import Outcome
from prmkit.records import Finish
from prmkit.search.settings import SearchSettings
from prmkit.search.tree import NOTHING, Cost, Node
from prmkit.splitting import Splitter, splitter


class Draw(NamedTuple):
    """A wish for one child of a node.

    Attributes:
        node: to be gone on from.
        number: of the child.
        seed: of the node.
        whole: to the end of the solution.
        temperature: other than the run's.
        limit: tokens at most.
        cut: what a child is that the limit cuts: ``length``, or ``aborted`` where there was no
            budget for more.
        place: where the environment may go on from; see `prmkit.search.acting`.
    """

    node: Node
    number: int
    seed: int
    whole: bool
    temperature: float | None
    limit: int
    cut: Finish = "length"
    place: Any = None


class Passage(NamedTuple):
    """A text that is there already, from behind a node to another.

    Attributes:
        node: its end.
        after: the node before it.
    """

    node: Node
    after: Node

    @property
    def key(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The paths of both."""
        return self.node.path, self.after.path


class Child(NamedTuple):
    """What was drawn.

    Attributes:
        text: of one step, or of the whole rest.
        steps: the same as steps; a blank end is none.
        ids: its tokens, where they are known.
        finish: see `prmkit.records.Finish`.
        cost: of drawing it.
        error: why it could not be drawn.
        observation: what an environment answered, where the text is an action.
        outcome: of an episode that has ended, as the environment has it.
        places: where the environment stands now, and where it stood before; None for neither.
    """

    text: str
    steps: tuple[str, ...]
    ids: tuple[int, ...] | None
    finish: Finish
    cost: Cost
    error: str | None = None
    observation: str | None = None
    outcome: Outcome | None = None
    places: tuple[Any, Any] = (None, None)


class Speaker:
    """Answers wishes for children.

    What it says can be text alone, or actions: `prmkit.search.acting.Actor` is a speaker who acts.

    Args:
        policy: where it takes token ids, a prefix goes to it as the very tokens that it drew, so
            that its cache holds all of them.
        settings: of the run.
    """

    acts = False
    """Whether a step is an action, so that a whole rest is drawn step by step."""
    votes = True
    """Whether what it says gives answers."""

    def __init__(self, policy: Policy, settings: SearchSettings):
        self.policy, self._settings = policy, settings
        self._tokens = policy if isinstance(policy, TokenPolicy) and policy.takes_ids else None
        self._telling = (
            policy if isinstance(policy, LikelihoodPolicy) and policy.tells_likelihoods else None
        )
        self._split: Splitter = splitter(settings.splitting)

    @property
    def counts_prompts(self) -> bool:
        """Whether it knows the tokens of a prompt before it draws."""
        return self._tokens is not None

    def prompt_tokens(self, node: Node) -> int:
        """Tokens of the prompt of a node's children; 0 where they are not known before."""
        return 0 if self._tokens is None else len(self._prefix(self._tokens, node))

    def drawing(
        self, whole: bool, temperature: float | None, limit: int | None = None
    ) -> SamplingSettings:
        """How a piece is drawn."""
        return self._settings.drawing(whole=whole, temperature=temperature, limit=limit)

    def turns(self, node: Node, whole: bool) -> int:
        """Pieces that may have to be drawn until a wish is fulfilled."""
        return 1

    def beside(self, node: Node) -> Cost:
        """What a piece after a node costs at most beside its text."""
        return NOTHING

    def leave(self, node: Node) -> Any:
        """Where the piece that was just granted is to go on from; see `Draw.place`."""
        return None

    def arrived(self, node: Node, child: Child) -> None:
        """A child is in the tree, as this node."""

    def forget(self, nodes: Sequence[Node]) -> None:
        """Nothing will go on from these nodes."""

    def noted(self, child: Child) -> dict[str, Any]:
        """What a trace holds of a child beside its text."""
        return {}

    @property
    def described(self) -> dict[str, Any]:
        """What a trace says of where it speaks."""
        return {}

    def close(self) -> None:
        """Give back what it holds."""

    def check_likelihoods(self) -> None:
        """Refuse to tell how likely texts are.

        Raises:
            SearchError: if that is not to be had.
        """
        instead = "or do without (ancestors=false of particle-gibbs)"
        if self._telling is None:
            raise SearchError(
                "the algorithm asks how likely the policy is to write a text, and "
                f"{self.policy.name!r} does not tell; search with a model in this "
                f"process, {instead}"
            )
        if self._settings.top_p < 1:
            raise SearchError(
                "the algorithm asks how likely the policy is to write a text, which is told of "
                f"draws from all tokens alone, and top_p is {self._settings.top_p}; set it to 1 "
                f"(--top-p 1), {instead}"
            )

    def reading(self, passage: Passage) -> Cost:
        """What it costs to tell how likely a text is."""
        if self._telling is None:
            return NOTHING
        return Cost(readings=1, prompt_tokens=len(self._prefix(self._telling, passage.node)))

    def log_likelihoods(self, passages: Sequence[Passage]) -> list[float]:
        """How likely texts are written, in order."""
        self.check_likelihoods()
        assert self._telling is not None
        before = [self._prefix(self._telling, passage.after) for passage in passages]
        whole = [self._prefix(self._telling, passage.node) for passage in passages]
        return self._telling.log_likelihoods(
            before,
            [ids[len(start) :] for ids, start in zip(whole, before, strict=True)],
            [passage.node.finish == "eos" for passage in passages],
            self._settings.temperature,
        )

    def draw(self, draws: Sequence[Draw]) -> list[Child]:
        """Draw children, in order."""
        said = self.completions(draws)
        return [self._child(draw, one) for draw, one in zip(draws, said, strict=True)]

    def completions(self, draws: Sequence[Draw]) -> list[Drawn]:
        """What the policy writes for each, in order."""
        found: dict[int, Drawn] = {}
        how = [self.drawing(draw.whole, draw.temperature, draw.limit) for draw in draws]
        for settings in dict.fromkeys(how):
            members = [i for i, own in enumerate(how) if own == settings]
            drawn = self._alike([draws[i] for i in members], settings)
            found |= zip(members, drawn, strict=True)
        return [found[i] for i in range(len(draws))]

    def _alike(self, draws: Sequence[Draw], settings: SamplingSettings) -> list[Drawn]:
        """Completions that are drawn in the same way; what cannot be drawn is an error of its own.

        A policy that refuses one prefix refuses the batch, so then the halves are asked for.
        """
        try:
            return self._ask(draws, settings)
        except (InputTooLong, PolicyError, BackendError) as error:
            if len(draws) == 1:
                return [Drawn(self._refused(error))]
        half = len(draws) // 2
        return self._alike(draws[:half], settings) + self._alike(draws[half:], settings)

    def _refused(self, error: Exception) -> Completion:
        """What comes of a prefix that the policy does not take."""
        return failed(str(error))

    def _ask(self, draws: Sequence[Draw], settings: SamplingSettings) -> list[Drawn]:
        # Neighbouring children of a node are one prompt with several completions.
        begins = [
            i
            for i, draw in enumerate(draws)
            if not i or (draws[i - 1].node, draws[i - 1].number) != (draw.node, draw.number - 1)
        ]
        counts = [b - a for a, b in zip(begins, [*begins[1:], len(draws)], strict=True)]
        heads = [draws[i] for i in begins]
        if self._tokens is None:
            found = self._completed(heads, counts, settings)
        else:
            found = self._tokens.continue_ids(
                [self._prefix(self._tokens, draw.node) for draw in heads],
                counts,
                settings,
                [draw.seed for draw in heads],
                [draw.number for draw in heads],
            )
        return [drawn for of_one in found for drawn in of_one]

    def _completed(
        self, heads: Sequence[Draw], counts: Sequence[int], settings: SamplingSettings
    ) -> list[list[Drawn]]:
        """Completions of text, from each head's number on, as many as its count."""
        found: list[list[Drawn]] = [[] for _ in heads]
        for n in dict.fromkeys(counts):
            members = [i for i, count in enumerate(counts) if count == n]
            asked = (
                [heads[i].node.trajectory() for i in members],
                n,
                settings,
                [heads[i].seed for i in members],
                [heads[i].number for i in members],
            )
            drawn = (
                self.policy.complete_counted(*asked)
                if isinstance(self.policy, BilledPolicy)
                else [[Drawn(one) for one in own] for own in self.policy.complete(*asked)]
            )
            for i, own in zip(members, drawn, strict=True):
                found[i] = own
        return found

    def _prefix(self, policy: TokenPolicy, node: Node) -> list[int]:
        """The token ids up to a node: those that were drawn, where they are known."""
        ids = policy.question_ids(node.problem)
        lead = ""
        for part in node.line():
            if part.ids is not None:
                ids += part.ids
            elif len(part.steps) > 1:
                for text in (part.steps[0].removeprefix(lead), *part.steps[1:]):
                    ids += policy.text_ids(text)
            else:
                ids += policy.text_ids(part.text)
            lead = part.lead
        return ids

    def _child(self, draw: Draw, drawn: Drawn) -> Child:
        completion = drawn.completion
        cost = cost_of(drawn)
        if completion.finish == "error":
            return Child("", (), None, "error", cost, completion.error or "no reason given")
        text = completion.text
        finish: Finish = FINISH_OF[completion.finish]
        if completion.finish == "length":
            finish = draw.cut
        elif finish == "open" and self._settings.answer_ends and extract_answer(text) is not None:
            finish = "answer"
        return Child(text, self._steps(draw.node, text, draw.whole), drawn.ids, finish, cost)

    def _steps(self, node: Node, text: str, whole: bool) -> tuple[str, ...]:
        """A text as steps; blanks are none: they begin the next one, or are nothing."""
        if not text.strip():
            return ()
        steps = self._split(text) if whole else [text]
        return (node.lead + steps[0], *steps[1:])

    def known(self, node: Node, event: Mapping[str, Any]) -> Child:
        """A child as a trace noted it."""
        text, ids = event["text"], event["ids"]
        return Child(
            text,
            self._steps(node, text, event["whole"]),
            None if ids is None else tuple(ids),
            event["finish"],
            Cost(*event["cost"]),
            event.get("error"),
        )


def cost_of(drawn: Drawn) -> Cost:
    """What a completion cost; one that could not be drawn is none."""
    return Cost(
        completions=0 if drawn.completion.finish == "error" else 1,
        policy_tokens=drawn.completion.n_tokens,
        prompt_tokens=drawn.n_prompt,
        cached_tokens=drawn.n_cached,
    )
