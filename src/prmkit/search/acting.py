"""Searches in an environment: a step is an action, and is answered before the search goes on.

Algorithms know nothing of it. What they ask for is a child of a node; here that is the policy's
next turn in the conversation up to the node, and what the environment answers to the action in it.
The environment is brought to the node first: by a snapshot, or, where its state cannot be kept or
was given up, by doing the same again, which is counted apart. A whole rest is drawn turn by turn.
That a task was solved is kept for measuring; algorithms see that an episode is over, and no more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from prmkit.environments.actions import Extract, action_of
from prmkit.environments.base import Environment, MakeEnvironment, Reply, Task, guarded, task_of
from prmkit.environments.playing import Pool, close
from prmkit.environments.rollout import unbegun
from prmkit.errors import EnvironmentFailed, InputTooLong, SearchError
from prmkit.policies.base import Completion, Drawn, Policy, SamplingSettings
from prmkit.policies.parallel import in_threads
from prmkit.policies.sampling import Outcome
from prmkit.records import Finish, Problem, Step, Trajectory
from prmkit.search.settings import SearchSettings
from prmkit.search.speaking import Child, Draw, Passage, Speaker, cost_of
from prmkit.search.tree import NOTHING, Cost, Node
from prmkit.settings import at_least

_TOO_LONG = Completion("", "length", 0)
"""An episode is longer than the policy can read; it ends there, as one with too many turns."""


@dataclass(frozen=True, kw_only=True)
class Acting:
    """Where a search acts.

    Attributes:
        make: makes an environment; several may be in use at a time.
        max_steps: turns of an episode; one that has not ended by then has failed at its task.
        threads: environments that do something at once.
        kept: states that are kept of each tree, to go on from, at most: those that were used last.
            Where a state cannot be kept, an environment waits in it instead.
        extract: from what the policy wrote to its action.
        answer: of an episode that has ended, equal where answers are. By default tasks are solved
            by deeds, and nothing can be voted on.
    """

    make: MakeEnvironment
    max_steps: int = 20
    threads: int = 1
    kept: int = 32
    extract: Extract = action_of
    answer: Callable[[Trajectory], str | None] | None = None

    def __post_init__(self) -> None:
        at_least(1, max_steps=self.max_steps, threads=self.threads)
        at_least(0, kept=self.kept)


def set_tasks(
    make: MakeEnvironment, tasks: Sequence[Task], on_error: Callable[[Problem, str], None]
) -> Iterator[Problem]:
    """The problems that tasks are.

    Args:
        make: makes an environment.
        tasks: what is to be done.
        on_error: told of each task that could not be begun, with the reason; it is left out.

    Raises:
        UnknownName: if the environment knows no such kind of task.
    """
    pool = Pool(make)
    try:
        for task in tasks:
            environment: Environment | None = None
            try:
                environment = pool.take()
                problem = _reset(environment, task)
            except EnvironmentFailed as error:
                if environment is not None:
                    pool.give(environment, failed=True)
                on_error(unbegun(task), str(error))
                continue
            pool.give(environment)
            yield problem
    finally:
        pool.close()


def _reset(environment: Environment, task: Task) -> Problem:
    return guarded("a reset failed", lambda: environment.reset(task)).problem


class _Kept(NamedTuple):
    """A state of the environment.

    Attributes:
        serial: when it was used last: the number of a draw.
        state: a snapshot.
        waits: instead, an environment that is in the state; whoever goes on from it takes it.
    """

    serial: int
    state: Any = None
    waits: Environment | None = None


class _Way(NamedTuple):
    """How to come to a node.

    Attributes:
        serial: of the draw that goes it.
        kept: a state at the node or before it; None for the beginning.
        done: steps that were done by then.
    """

    serial: int
    kept: _Kept | None
    done: int


@dataclass
class _Paid:
    """What a turn cost the environment so far."""

    env_steps: int = 0
    replayed: int = 0

    @property
    def cost(self) -> Cost:
        """The same as a cost."""
        return Cost(env_steps=self.env_steps, replayed=self.replayed)


@dataclass(eq=False)
class _Arrival:
    """The place that children of one node come from: kept here once one of them has come to it."""

    kept: _Kept | None = None
    is_new: bool = field(default=False)


class Actor(Speaker):
    """A speaker whose words are actions.

    Args:
        policy: who says what is done; it reads the episode as a conversation.
        settings: of the run; `max_step_tokens` are those of a turn, and texts of `step_stop` end
            one.
        acting: where.

    Raises:
        EnvironmentFailed: if no environment can be made.
    """

    acts = True

    def __init__(self, policy: Policy, settings: SearchSettings, acting: Acting):
        super().__init__(policy, settings)
        # What was observed is no token of the policy's, so prefixes go to it as conversations.
        self._tokens = self._telling = None
        self.acting, self.votes = acting, acting.answer is not None
        self._pool, self._lock = Pool(acting.make), threading.Lock()
        self._out: dict[int, Environment] = {}
        self._trees: dict[Node, dict[Node, _Kept]] = {}
        self._serial = 0
        environment = self._take()
        self.name, self._snapshots = environment.name, environment.can_snapshot
        self._give(environment)

    @property
    def described(self) -> dict[str, Any]:
        """See `Speaker.described`."""
        most = self.acting.max_steps
        return {"acting": {"environment": self.name, "max_steps": most, "votes": self.votes}}

    def close(self) -> None:
        """Close all environments."""
        self._pool.close()
        for environment in list(self._out.values()):
            self._give(environment, failed=True)
        self._trees.clear()

    def drawing(
        self, whole: bool, temperature: float | None, limit: int | None = None
    ) -> SamplingSettings:
        """See `Speaker.drawing`: whole or not, it is a turn."""
        run = self._settings
        most = run.max_step_tokens
        return replace(
            run.drawing(whole=True, temperature=temperature),
            max_new_tokens=most if limit is None else min(limit, most),
            stop=run.step_stop,
        )

    def check_likelihoods(self) -> None:
        """See `Speaker.check_likelihoods`.

        Raises:
            SearchError: always.
        """
        raise SearchError(
            "the algorithm asks how likely a text is after other ones, and in an environment an "
            "action is answered otherwise there; do without (ancestors=false of particle-gibbs)"
        )

    def log_likelihoods(self, passages: Sequence[Passage]) -> list[float]:
        """See `check_likelihoods`."""
        self.check_likelihoods()
        return []

    def turns(self, node: Node, whole: bool) -> int:
        """See `Speaker.turns`."""
        return self.acting.max_steps - node.n_steps if whole else 1

    def beside(self, node: Node) -> Cost:
        """The action itself, and those on the way to the node."""
        return Cost(env_steps=1, replayed=node.n_steps - self._way(node).done)

    # The states that are kept. A run alone asks for these, one call after the other.

    def leave(self, node: Node) -> _Way:
        """See `Speaker.leave`."""
        way = self._way(node)
        if way.kept is not None:
            kept = self._trees[node.line()[0]]
            place = node.line()[way.done]
            if way.kept.waits is not None:
                del kept[place]
            else:
                kept[place] = way.kept._replace(serial=way.serial)
        self._serial += 1
        return way

    def arrived(self, node: Node, child: Child) -> None:
        """See `Speaker.arrived`; what was used longest ago is given up."""
        tree = self._trees.setdefault(node.line()[0], {})
        for place, kept in zip((node, node.parent), child.places, strict=True):
            if kept is not None and place is not None and place.is_open:
                tree[place] = kept
        while len(tree) > self.acting.kept:
            self._drop(tree, min(tree, key=lambda place: tree[place].serial))

    def forget(self, nodes: Sequence[Node]) -> None:
        """See `Speaker.forget`."""
        for node in nodes:
            tree = self._trees.get(node.line()[0], {})
            if node in tree:
                self._drop(tree, node)
            if node.parent is None:
                self._trees.pop(node, None)

    def _drop(self, tree: dict[Node, _Kept], place: Node) -> None:
        waits = tree.pop(place).waits
        if waits is not None:
            self._give(waits)

    def _way(self, node: Node) -> _Way:
        line = node.line()
        tree = self._trees.get(line[0], {})
        for done in range(node.n_steps, -1, -1):
            kept = tree.get(line[done])
            # One that waits earlier is waiting for a child of that place.
            if kept is not None and (kept.waits is None or done == node.n_steps):
                return _Way(self._serial, kept, done)
        return _Way(self._serial, None, 0)

    # Turns. Several threads may be here at once.

    def draw(self, draws: Sequence[Draw]) -> list[Child]:
        """See `Speaker.draw`."""
        said = self.completions(draws)
        together: dict[int, list[int]] = {}
        for i, draw in enumerate(draws):
            # Where a state can be kept, one of the children goes the way and the others follow.
            together.setdefault(id(draw.node) if self._snapshots else i, []).append(i)
        groups = list(together.values())

        def turns(group: list[int]) -> list[Child]:
            arrival = _Arrival()
            return [self._turn(draws[i], said[i], arrival) for i in group]

        threads = self.acting.threads
        done = map(turns, groups) if threads == 1 else in_threads(turns, groups, threads)
        found = {
            i: child
            for group, children in zip(groups, done, strict=True)
            for i, child in zip(group, children, strict=True)
        }
        return [found[i] for i in range(len(draws))]

    def _refused(self, error: Exception) -> Completion:
        """An episode that has become longer than the policy can read has failed at its task."""
        return _TOO_LONG if isinstance(error, InputTooLong) else super()._refused(error)

    def _turn(self, draw: Draw, drawn: Drawn, arrival: _Arrival) -> Child:
        """What was said, done."""
        said, cost = drawn.completion, cost_of(drawn)
        way: _Way = draw.place
        ended: Child | None = None
        if said is _TOO_LONG:
            ended = Child("", (), None, "length", NOTHING, outcome=Outcome(None, False))
        elif said.finish == "error":
            ended = Child("", (), None, "error", cost, said.error or "no reason given")
        elif said.finish == "length" and draw.cut == "aborted":
            ended = Child(said.text, turn(said.text, None), None, "aborted", cost)
        if ended is not None:
            if way.kept is not None and way.kept.waits is not None:
                self._give(way.kept.waits)
            return ended
        paid = _Paid()
        environment: Environment | None = None
        try:
            environment = self._environment(way)
            return self._act(environment, draw, said.text, arrival, cost, paid)
        except EnvironmentFailed as error:
            if environment is not None:
                self._give(environment, failed=True)
            return Child("", (), None, "error", cost.plus(paid.cost), str(error))

    def _environment(self, way: _Way) -> Environment:
        waits = None if way.kept is None else way.kept.waits
        return self._take() if waits is None else waits

    def _act(
        self,
        environment: Environment,
        draw: Draw,
        text: str,
        arrival: _Arrival,
        cost: Cost,
        paid: _Paid,
    ) -> Child:
        node, way = draw.node, draw.place
        before = guarded(
            "the way back failed", lambda: self._come(environment, node, way, arrival, paid)
        )
        action = self.acting.extract(text)
        paid.env_steps += 1
        reply = guarded("a step failed", lambda: environment.step(action))
        step = guarded(
            "an observation is no text", lambda: Step(text=text, observation=reply.observation)
        )
        finish, outcome = self._ended(node, step, reply)
        now: _Kept | None = None
        if finish == "open" and self._snapshots:
            state = guarded("a snapshot failed", environment.snapshot)
            now = _Kept(way.serial, state)
        elif finish == "open" and self.acting.kept:
            now = _Kept(way.serial, waits=environment)
        if now is None or now.waits is None:
            self._give(environment)
        return Child(
            text,
            (text,),
            None,
            finish,
            cost.plus(paid.cost),
            observation=reply.observation,
            outcome=outcome,
            places=(now, before),
        )

    def _come(
        self, environment: Environment, node: Node, way: _Way, arrival: _Arrival, paid: _Paid
    ) -> _Kept | None:
        """Bring an environment to a node; its state there, where that was not kept before."""
        if arrival.kept is not None:
            environment.restore(arrival.kept.state)
            return None
        if way.kept is None:
            begun = environment.reset(task_of(node.problem)).problem
            if begun.text != node.problem.text:
                raise EnvironmentFailed(
                    f"{node.problem.id!r} begins otherwise than it did: {begun.text!r:.200}"
                )
        elif way.kept.waits is None:
            environment.restore(way.kept.state)
        for k, step in enumerate(node.trajectory().steps[way.done :], way.done):
            paid.replayed += 1
            reply = environment.step(self.acting.extract(step.text))
            if reply.observation != step.observation:
                raise EnvironmentFailed(
                    f"step {k} of {node.problem.id!r} is answered otherwise than it was: "
                    f"{reply.observation!r:.200}, then {step.observation!r:.200}"
                )
        if not self._snapshots or (way.kept is not None and way.done == node.n_steps):
            return None
        arrival.kept = _Kept(way.serial, environment.snapshot())
        return arrival.kept

    def _ended(self, node: Node, step: Step, reply: Reply) -> tuple[Finish, Outcome | None]:
        """How an episode ended with a step, and what came of it; not at all, as a rule."""
        if reply.done:
            before = node.trajectory()
            whole = before.model_copy(update={"steps": (*before.steps, step), "finish": "eos"})
            answer = None if self.acting.answer is None else self.acting.answer(whole)
            return "eos", Outcome(answer, reply.success)
        if node.n_steps + 1 >= self.acting.max_steps:
            return "length", Outcome(None, False)
        return "open", None

    def _take(self) -> Environment:
        environment = self._pool.take()
        with self._lock:
            self._out[id(environment)] = environment
        return environment

    def _give(self, environment: Environment, failed: bool = False) -> None:
        with self._lock:
            known = self._out.pop(id(environment), None)
        if known is None:
            close(environment)
        else:
            self._pool.give(environment, failed)

    # The trace.

    def noted(self, child: Child) -> dict[str, Any]:
        """See `Speaker.noted`."""
        told = {} if child.outcome is None else child.outcome._asdict()
        return {"observation": child.observation, **told}

    def known(self, node: Node, event: Mapping[str, Any]) -> Child:
        """See `Speaker.known`."""
        return Child(
            event["text"],
            turn(event["text"], event["observation"]),
            None,
            event["finish"],
            Cost(*event["cost"]),
            event.get("error"),
            event["observation"],
            outcome_of(event),
        )


def turn(text: str, observation: str | None) -> tuple[str, ...]:
    """A turn as a step; where nothing was said and nothing answered there is none."""
    return (text,) if observation is not None or text.strip() else ()


def outcome_of(event: Mapping[str, Any]) -> Outcome | None:
    """What an episode came to, as a trace noted it; None where it had not ended."""
    return Outcome(event["answer"], event["correct"]) if "correct" in event else None
