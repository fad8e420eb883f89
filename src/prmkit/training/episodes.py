"""Recorded episodes of agents to what a model is trained on, without labels of their turns.

temporal  outcomes alone: the targets of turns come of the model's own promises, as it is at each
          optimiser step (Xi et al. 2025, arXiv:2511.08325)
inverse   demonstrations and a learner's episodes, without outcomes: the change of a promise tells
          one's turns from the other's (Choudhury 2025, InversePRM, arXiv:2502.10325)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from prmkit.chat import Tokenizer
from prmkit.environments.actions import turns_of
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.records import Record, Step, Trajectory
from prmkit.scorers.families.base import Discriminative, Rendered
from prmkit.scorers.separators import guard
from prmkit.training.targets import Dropped, Example

Targets = Literal["labels", "temporal"]

_ALTERNATIVES = 8
"""Different turns of a learner in one situation that are read at most, the most frequent ones."""


@dataclass(frozen=True, kw_only=True)
class PromiseSettings:
    """How promises of agents' turns are learnt from whole episodes.

    Attributes:
        targets: of the kind value: labels are those of the records; temporal takes outcomes alone,
            and makes targets of the model's own promises, anew in each optimiser step.
        gamma: of temporal targets and the loss inverse: what is left of a promise one turn earlier.
        lam: of temporal targets: how far they look ahead, from 0 (the next promise) to 1 (the
            outcome).
    """

    targets: Targets = "labels"
    gamma: float = 1.0
    lam: float = 0.95

    def __post_init__(self) -> None:
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidSetting(f"{name} is {getattr(self, name)!r}; it must be from 0 to 1")

    @property
    def temporal(self) -> bool:
        """Whether targets are made of the model's own promises."""
        return self.targets == "temporal"

    def check(self, kind: str, loss: str) -> None:
        """Refuse what has no meaning for a kind and a loss.

        Raises:
            InvalidSetting: saying what it is of.
        """
        if self.temporal and (kind != "value" or loss == "inverse"):
            raise InvalidSetting(
                f"temporal targets are promises of the kind value; they mean nothing to the kind "
                f"{kind} with the loss {loss}"
            )
        if self.lam != PromiseSettings.lam and not self.temporal:
            raise InvalidSetting("lam has no meaning without temporal targets (--targets temporal)")
        if self.gamma != PromiseSettings.gamma and not self.temporal and loss != "inverse":
            raise InvalidSetting(
                "gamma has no meaning without temporal targets (--targets temporal) or the loss "
                "inverse"
            )


class Episodes(NamedTuple):
    """What whole episodes teach.

    Attributes:
        examples: a row per episode; of the loss inverse further ones, of a learner's other turns.
        dropped: what is left out.
        told: what is worth knowing of how they were made, in words.
    """

    examples: list[Example]
    dropped: Dropped
    told: tuple[str, ...]


def make_episodes(
    records: Iterable[Record],
    family: Discriminative,
    tokenizer: Tokenizer,
    max_tokens: int | None,
    settings: PromiseSettings,
) -> Episodes:
    """The examples of episodes with outcomes; the outcome stands at each of their turns.

    An episode that is too long is left out whole: its outcome is not that of a part. So is one
    whose outcome is not known; both are counted.

    Args:
        records: episodes; labels of turns, where there are any, are not looked at.
        family: how the model reads.
        tokenizer: the model's.
        max_tokens: of one sequence; None for no limit.
        settings: for which targets.
    """
    examples: list[Example] = []
    counts = dict.fromkeys(("unlabelled", "too_long"), 0)
    for number, record in enumerate(records):
        trajectory = record.trajectory
        if trajectory.correct is None or not trajectory.steps:
            counts["unlabelled"] += 1
            continue
        rendered = _rendered(trajectory, family, tokenizer)
        if max_tokens is not None and rendered.positions[-1] + 1 > max_tokens:
            counts["too_long"] += 1
            continue
        n = len(trajectory.steps)
        outcome = float(trajectory.correct)
        examples.append(
            _row(rendered, range(n), [outcome] * n, [1.0] * n, number, trajectory.problem.text)
        )
    told = (
        f"targets: temporal differences of the model's own promises, made anew in each step, "
        f"gamma {settings.gamma:g}, lambda {settings.lam:g}; a label here is the outcome, told at "
        "each turn",
    )
    return Episodes(examples, Dropped(**counts), told)


def make_transitions(
    demonstrations: Sequence[Record],
    learner: Sequence[Record],
    family: Discriminative,
    tokenizer: Tokenizer,
    max_tokens: int | None,
) -> Episodes:
    """The examples of demonstrations (targets 1) and of a learner's episodes (targets 0).

    What a turn's reward takes away is the mean promise of the learner's next turn:

    - after a learner's turn that is its own next one, a draw of what it does there;
    - after a demonstrated turn, the turns of the learner that were recorded in the situation it
      led to, by how often (the eight most frequent): each is read behind the demonstration's own
      beginning. Where the learner never came there, the demonstration's own next turn stands for
      them, as if the learner did as is shown; how often that was so is told;
    - after the last turn of an episode that ended, nothing. One that did not end (no outcome, and
      not the environment's end) says by its last turn what the learner does, and no more.

    So a learner that is let go on from demonstrated situations, if only for a turn, makes them
    exact; the paper draws them so. A turn beyond `max_tokens` is lost, with the reward of the one
    before it, and counted.

    Args:
        demonstrations: episodes of an expert.
        learner: episodes of learners so far; of all iterations.
        family: how the model reads.
        tokenizer: the model's.
        max_tokens: of one sequence; None for no limit.

    Raises:
        NothingToMeasure: if one of the two has no turn to learn from.

    Reference: Choudhury 2025, InversePRM, arXiv:2502.10325.
    """
    maker = _Transitions(family, tokenizer, max_tokens)
    met = _turns_met(learner)
    for record in demonstrations:
        maker.add(record.trajectory, 1.0, met)
    for record in learner:
        maker.add(record.trajectory, 0.0, {})
    for target, whose in ((1.0, "demonstrations"), (0.0, "a learner's episodes")):
        if not any(target in e.targets and any(e.weights) for e in maker.examples):
            raise NothingToMeasure(
                f"{whose} hold no turn whose next one is known, that fits into {max_tokens} tokens"
            )
    told = (
        f"{maker.n_known} of {maker.n_following} demonstrated turns lead where the learner was "
        "seen to go on; after the others the demonstration's own next turn stands for its",
    )
    return Episodes(maker.examples, Dropped(**maker.counts), told)


def _turns_met(learner: Iterable[Record]) -> dict[str, Counter[str]]:
    """What the learner wrote, by situation."""
    met: dict[str, Counter[str]] = {}
    for record in learner:
        trajectory = record.trajectory
        for turn, step in zip(turns_of(trajectory), trajectory.steps, strict=True):
            met.setdefault(turn.before, Counter())[step.text] += 1
    return met


class _Transitions:
    """Makes the examples of episodes, and counts."""

    def __init__(self, family: Discriminative, tokenizer: Tokenizer, most: int | None):
        self._family, self._tokenizer, self._most = family, tokenizer, most
        self.examples: list[Example] = []
        self.counts = dict.fromkeys(("unlabelled", "too_long", "cut", "cut_labels"), 0)
        self.n_following = self.n_known = 0
        self._number = 0

    def add(self, trajectory: Trajectory, target: float, met: Mapping[str, Counter[str]]) -> None:
        """An episode, with what a learner did where it leads."""
        if not trajectory.steps:
            self.counts["unlabelled"] += 1
            return
        rendered = _rendered(trajectory, self._family, self._tokenizer)
        n = sum(self._fits(place) for place in rendered.positions)
        if not n:
            self.counts["too_long"] += 1
            return
        lost = len(trajectory.steps) - n
        self.counts["cut"] += lost > 0
        self.counts["cut_labels"] += lost
        weights = [1.0] * n
        if lost or not _has_ended(trajectory):
            # Its next turn is not known.
            weights[-1] = 0.0
        shares = [1.0] * n
        others: list[Example] = []
        if target:
            before = [turn.before for turn in turns_of(trajectory)]
            for k in range(1, n):
                found = met.get(before[k], Counter())
                rows = self._others(trajectory, k, found)
                self.n_following += 1
                self.n_known += bool(rows)
                if rows:
                    shares[k] = 0.0
                    others += rows
        row = _row(rendered, range(n), [target] * n, weights, self._number, trajectory.problem.text)
        self.examples += [row._replace(shares=tuple(shares)), *others]
        self._number += 1

    def _others(self, trajectory: Trajectory, k: int, found: Counter[str]) -> list[Example]:
        """The turns of a learner in place of turn `k`, each read behind what came before it."""
        rows: list[tuple[Rendered, int]] = []
        for text, n in found.most_common(_ALTERNATIVES):
            steps = (*trajectory.steps[:k], Step(text=text))
            other = trajectory.model_copy(update={"steps": steps})
            rendered = _rendered(other, self._family, self._tokenizer)
            if self._fits(rendered.positions[k]):
                rows.append((rendered, n))
        total = sum(n for _, n in rows)
        return [
            _row(
                rendered, [k], [0.0], [0.0], self._number, trajectory.problem.text
            )._replace(shares=(n / total,))
            for rendered, n in rows
        ]  # fmt: skip

    def _fits(self, place: int) -> bool:
        return self._most is None or place + 1 <= self._most


def _has_ended(trajectory: Trajectory) -> bool:
    return trajectory.correct is not None or trajectory.finish in ("eos", "answer")


def _rendered(trajectory: Trajectory, family: Discriminative, tokenizer: Tokenizer) -> Rendered:
    """As the scorer reads it; text that spells a tag of the family is tokenised otherwise.

    Raises:
        InvalidSetting: if the family reads each step in a sequence of its own.
    """
    rendered = guard(trajectory, family, tokenizer, "escape").rendered
    if rendered.ends:
        raise InvalidSetting(
            f"the family {family.name} reads each step in a sequence of its own, and whole "
            "episodes are read in one; take turn_value, turn_state, step_value or step_rank"
        )
    return rendered


def _row(
    rendered: Rendered,
    turns: Sequence[int],
    targets: list[float],
    weights: list[float],
    number: int,
    problem: str,
) -> Example:
    """One sequence, read at some of its turns."""
    positions = [rendered.positions[k] for k in turns]
    return Example(
        rendered.ids[: positions[-1] + 1],
        positions,
        targets,
        weights,
        [rendered.starts[k] for k in turns],
        number,
        problem,
        turns=tuple(turns),
        shares=(1.0,) * len(positions),
    )
