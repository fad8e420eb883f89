"""Episodes as responses: an agent learns from what it drew in each of its turns.

An episode is played as everywhere (`prmkit.environments.rollout`), and its turns are its steps.
What it teaches are the tokens that were drawn, each after what the policy had read by then: the
question, its own turns and what the environment answered, as its chat template shows them at that
turn. What was read only is context, and is no part of a response: no gradient, no KL, no entropy,
no length. Where a template goes on to show all that was drawn, an episode is one sequence; where it
shows a turn otherwise once it is past (without its thoughts, or in other tokens), the sequence
branches there, and what is learnt is still what was drawn (`prmkit.rl.learner.Asked`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prmkit.chat import as_conversation
from prmkit.environments.actions import Extract, action_of
from prmkit.environments.base import MakeEnvironment, Task, guarded
from prmkit.environments.playing import Episode, EpisodeSettings, close, turn_seed
from prmkit.environments.rollout import episode_seed, rollout
from prmkit.errors import InvalidSetting, PolicyError
from prmkit.ledger import seed_for
from prmkit.policies.base import Completion, Drawn, SamplingSettings, TokenPolicy
from prmkit.records import Problem, Trajectory
from prmkit.rl.loop import Loop, Plan, RLResult
from prmkit.rl.practice import Verdict, end_of
from prmkit.rl.rollouts import Rollout, Turn, scored
from prmkit.scorers.base import Scorer

if TYPE_CHECKING:
    from prmkit.rl.voices import Voice


def train_agent(
    make: MakeEnvironment,
    tasks: Sequence[Task],
    plan: Plan,
    *,
    scorer: Scorer | None = None,
    held_out: Sequence[Task] = (),
    extract: Extract = action_of,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> RLResult:
    """Teach a policy to act; as `prmkit.rl.train_policy`, but in an environment.

    In each step of the run episodes of some tasks are played; what counts as right is success.

    Args:
        make: makes an environment; each episode under way has one of its own.
        tasks: what it practises on, each once, in an order of the seed's.
        plan: the settings; `episodes` by default those of `EpisodeSettings`.
        scorer: a reward model that scores turns.
        held_out: tasks of evaluations.
        extract: from what the policy wrote in a turn to its action.
        on_row: told each row of metrics.jsonl, evaluations too.

    Raises:
        InvalidSetting: if settings do not go together, or a task comes twice.
        EnvironmentFailed: if no episode of a step could be played.
        CheckpointError: if a model cannot be loaded.
        RunFolderError: if a checkpoint is damaged.
    """
    plan = replace(plan, episodes=plan.episodes or EpisodeSettings())
    assert plan.episodes is not None
    return Loop(Acting(make, tasks, held_out, plan.episodes, extract), plan, scorer).run(on_row)


class Acting:
    """Tasks of an environment; see `prmkit.rl.practice.Practice`.

    Args:
        make: makes an environment.
        practised: the tasks.
        held_out: those of evaluations.
        settings: how long episodes are, and how many are played at once.
        extract: from what the policy wrote to its action.

    Raises:
        InvalidSetting: if a task comes twice.
    """

    def __init__(
        self,
        make: MakeEnvironment,
        practised: Sequence[Task],
        held_out: Sequence[Task],
        settings: EpisodeSettings,
        extract: Extract = action_of,
    ):
        for tasks, what in ((practised, "to practise on"), (held_out, "held out")):
            if len({*tasks}) < len(tasks):
                raise InvalidSetting(f"a task {what} comes twice; name each once")
        both = {*practised} & {*held_out}
        if both:
            one = min(both)
            raise InvalidSetting(
                f"{len(both)} tasks are held out and practised on too, such as "
                f"'{one.name}/{one.seed}'"
            )
        self.practised, self.held_out = practised, held_out
        self._make, self._settings, self._extract = make, settings, extract

    def question(self) -> Problem:
        """See `prmkit.rl.practice.Practice.question`."""
        one = guarded("an environment could not be made", self._make)
        try:
            return guarded("a reset failed", lambda: one.reset(self.practised[0])).problem
        finally:
            close(one)

    def roll_out(
        self,
        voice: Voice,
        chosen: Sequence[Task],
        own: range,
        n: int,
        sampling: SamplingSettings,
        seed: int,
        scorer: Scorer | None = None,
    ) -> list[Rollout]:
        """See `prmkit.rl.practice.Practice.roll_out`.

        An episode that could not be played to its end has its `error`, its turns so far in its
        trajectory, and no tokens: it teaches nothing. A turn whose tokens do not spell its text
        (half a character, a special token in it) is not learnt from; the others are.

        Raises:
            PolicyError: if a turn could not be drawn.
        """
        found: dict[int, list[Rollout]] = {}
        # A task that comes again is played once more, by other chance; all in one go otherwise.
        times = [[*chosen[:i]].count(chosen[i]) for i in range(len(chosen))]
        for time in sorted({times[i] for i in own}):
            places = [i for i in own if times[i] == time]
            of_time = seed_for(seed, "time", str(time))
            tasks = [chosen[i] for i in places]
            groups = self._played(voice, tasks, n, sampling, of_time)
            found |= dict(zip(places, groups, strict=True))
        made = [one for place in own for one in found[place]]
        return made if scorer is None else scored(made, scorer)

    def judged(
        self, voice: Voice, own: range, n: int, sampling: SamplingSettings, seed: int
    ) -> list[Verdict]:
        """See `prmkit.rl.practice.Practice.judged`; right is an episode that succeeds."""
        tasks = self.held_out[own.start : own.stop]
        return [
            Verdict(one.trajectory.correct, one.error)
            for group in self._played(voice, tasks, n, sampling, seed)
            for one in group
        ]

    def _played(
        self, voice: Voice, tasks: Sequence[Task], n: int, sampling: SamplingSettings, seed: int
    ) -> list[list[Rollout]]:
        """The episodes of each task."""
        noting = Noting(voice)
        groups = rollout(
            noting,
            self._make,
            tasks,
            n,
            sampling=sampling,
            settings=self._settings,
            extract=self._extract,
            seed=seed,
            # The loop tells of them, all at once.
            on_error=lambda problem, error: None,
        )
        found = []
        for task, group in zip(tasks, groups, strict=True):
            seeds = [episode_seed(seed, task, number) for number in range(n)]
            found.append([noting.rollout(*each) for each in zip(group, seeds, strict=True)])
        return found


class Noting:
    """A policy that speaks for another one, and notes what it read and drew, token for token.

    Args:
        voice: who draws.
    """

    def __init__(self, voice: Voice):
        self._voice, self._end, self.name = voice, end_of(voice), voice.name
        self._noted: dict[int, tuple[list[int], Drawn]] = {}

    def complete(
        self,
        prefixes: Sequence[Trajectory],
        n: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        first: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See `prmkit.policies.base.Policy.complete`; what is noted is known by its seed.

        Raises:
            InputTooLong: if a prefix leaves no room for a token in the model's context.
            PolicyError: if one could not be drawn: a step is learnt from whole, or not at all.
        """
        if n != 1 or first is not None:
            raise ValueError("an episode draws one turn at a time, the first")
        contexts = [context_of(self._voice, prefix) for prefix in prefixes]
        drawn = self._voice.continue_ids(contexts, [1] * len(contexts), settings, seeds)
        for prefix, seed, context, (one,) in zip(prefixes, seeds, contexts, drawn, strict=True):
            if one.completion.finish == "error":
                raise PolicyError(
                    f"{self.name} could not go on with {prefix.problem.id!r}: "
                    f"{one.completion.error or 'no reason'}"
                )
            self._noted[seed] = context, one
        return [[one.completion] for (one,) in drawn]

    def rollout(self, episode: Episode, seed: int) -> Rollout:
        """An episode that was played with this policy.

        Args:
            episode: from its beginning on.
            seed: of the episode.
        """
        trajectory = episode.trajectory
        n_turns = len(trajectory.steps)
        noted = [self._noted.pop(turn_seed(seed, k)) for k in range(n_turns)]
        if episode.error is not None:
            return Rollout(trajectory, (), (), (), None, error=episode.error)
        prompt: tuple[int, ...] = ()
        ids: list[int] = []
        ends: list[int] = []
        turns: list[Turn] = []
        before: list[int] = []
        for context, one in noted:
            drawn = self._drawn(one)
            if drawn and not ids:
                prompt = tuple(context)
            elif drawn:
                kept = _alike(before, context)
                turns.append(Turn(kept, tuple(context[kept:]), len(drawn)))
            if drawn:
                before = [*context, *drawn]
            ids += drawn
            ends.append(max(len(ids) - 1, 0))
        return Rollout(trajectory, prompt, tuple(ids), tuple(ends), None, tuple(turns))

    def _drawn(self, one: Drawn) -> list[int]:
        """The tokens of a turn, its end among them; none where they are not known."""
        if one.ids is None:
            return []
        if one.completion.finish != "eos":
            return [*one.ids]
        return [*one.ids, self._end if one.end is None else one.end]


def context_of(policy: TokenPolicy, prefix: Trajectory) -> list[int]:
    """The tokens that a policy reads of a prefix before it goes on, as its `complete` does."""
    question, pieces = as_conversation(prefix)
    ids = policy.question_ids(question)
    for piece in pieces:
        ids += policy.text_ids(piece)
    return ids


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
