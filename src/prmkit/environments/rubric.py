"""A reward model as a rubric of OpenEnv: rewards of the steps of its environments' episodes.

OpenEnv's environments ask a `TrajectoryRubric` of openenv-core for the reward of an episode, and
trainers ask it for those of its steps (`compute_step_rewards`). `PRMRubric` answers with a scorer:
step rewards are its step scores, and the reward of an episode is one number made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.environments.objects import words_of
from prmkit.errors import MissingTrainer, ScoringError
from prmkit.records import Problem, Step, StepScores, Trajectory
from prmkit.settings import at_least

if TYPE_CHECKING:
    from prmkit.scorers.base import Scorer

try:
    _Base: Any = import_module("openenv.core.rubrics.trajectory").TrajectoryRubric
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "openenv":
        raise
    raise MissingTrainer("openenv-core", "", "a rubric of OpenEnv") from None

Taken = Sequence[tuple[Any, Any]]
"""An episode as OpenEnv keeps it: each action with the observation that came of it."""

Asked = Callable[[Taken], str]
"""From an episode to what the agent was asked to do."""


class PRMRubric(_Base):  # type: ignore[misc]
    """Rewards steps by a reward model.

    An episode is scored once, when it has ended or when its step rewards are asked for; until then
    the reward of a step is `intermediate_reward`, as in OpenEnv's own rubrics.

    Args:
        scorer: of steps.
        asked: what the agent was asked to do, or how an episode tells that; it is the problem.
        say: from an action to what the agent wrote.
        observe: from an observation to what it was answered.
        aggregate: step scores to the reward of the episode.
        intermediate_reward: of steps before the end.
        longest: steps of an episode at most; longer ones are an error and not cut.
    """

    def __init__(
        self,
        scorer: Scorer,
        asked: str | Asked,
        *,
        say: Callable[[Any], str] = words_of,
        observe: Callable[[Any], str] = words_of,
        aggregate: Aggregation = "last",
        intermediate_reward: float = 0.0,
        longest: int = 1000,
    ):
        at_least(1, longest=longest)
        super().__init__(intermediate_reward=intermediate_reward)
        self.aggregate, self.longest = aggregate, longest
        self._scorer, self._asked, self._say, self._observe = scorer, asked, say, observe
        self._found: tuple[Trajectory, StepScores] | None = None

    def score_trajectory(self, trajectory: Taken) -> float:
        """The reward of an episode.

        Raises:
            ScoringError: if it has no step, is too long, or could not be scored.
        """
        if not trajectory:
            raise ScoringError("an episode without a step has no score; act first")
        return aggregate_scores(self._scores([trajectory])[0], self.aggregate)

    def compute_step_rewards(self) -> list[float]:
        """The scores of the steps so far; none where nothing was done.

        Raises:
            ScoringError: if the episode is too long, or could not be scored.
        """
        return self.step_rewards([self._trajectory])[0]

    def step_rewards(self, episodes: Sequence[Taken]) -> list[list[float]]:
        """The scores of the steps of many episodes, by one call of the scorer.

        Args:
            episodes: such as the `trajectory` of each of many rubrics.

        Raises:
            ScoringError: naming the first one that is too long, or could not be scored.
        """
        there = [i for i, episode in enumerate(episodes) if episode]
        found = self._scores([episodes[i] for i in there])
        rewards: list[list[float]] = [[] for _ in episodes]
        for i, scores in zip(there, found, strict=True):
            rewards[i] = list(scores.values)
        return rewards

    def state_dict(self) -> dict[str, Any]:
        """What is set; of the scorer nothing."""
        return {**super().state_dict(), "aggregate": self.aggregate, "longest": self.longest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what `state_dict` told."""
        super().load_state_dict(state)
        self.aggregate = state.get("aggregate", self.aggregate)
        self.longest = state.get("longest", self.longest)

    def _scores(self, episodes: Sequence[Taken]) -> list[StepScores]:
        read = [self._read(number, episode) for number, episode in enumerate(episodes)]
        if len(read) == 1 and self._found is not None and self._found[0] == read[0]:
            return [self._found[1]]
        found: list[StepScores] = []
        for number, scores in enumerate(self._scorer.score(read) if read else []):
            if not isinstance(scores, StepScores):
                raise ScoringError(
                    f"episode {number} of {len(read)}, of {len(read[number].steps)} steps, has no "
                    f"scores: {scores.reason}"
                )
            found.append(scores)
        if len(read) == 1:
            self._found = (read[0], found[0])
        return found

    def _read(self, number: int, episode: Taken) -> Trajectory:
        if len(episode) > self.longest:
            raise ScoringError(
                f"episode {number} has {len(episode)} steps, and longest is {self.longest}; end it "
                "earlier, or raise longest if the model reads as much"
            )
        asked = self._asked if isinstance(self._asked, str) else self._asked(episode)
        steps = (
            Step(text=self._say(action), observation=self._observe(seen))
            for action, seen in episode
        )
        return Trajectory(
            problem=Problem(id="openenv", prompt=asked), steps=tuple(steps), separator="\n"
        )
