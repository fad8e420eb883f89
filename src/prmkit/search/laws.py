"""The laws of search algorithms, over a policy and a scorer that follow scripts.

`prmkit.testing.check_search` runs them all. Each takes an algorithm; what they search is a small
world of its own (`prmkit.search.maze`). What holds of texts holds of actions: most laws can be run
in an environment, too, whose states can be kept (``snapshot``) or not (``replay``).
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

from prmkit.environments.base import Task
from prmkit.errors import LawBroken
from prmkit.policies.sampling import judge_by_answer
from prmkit.records import Problem
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search.acting import Acting, set_tasks
from prmkit.search.drive import DriveSettings, Found, search
from prmkit.search.maze import Acts, Maze, MazePolicy, Mazes, answer_in, judge
from prmkit.search.replay import recorded, traces_in
from prmkit.search.run import Algorithm
from prmkit.search.settings import Budget, SearchSettings
from prmkit.search.trace import Event, read_events
from prmkit.search.tree import Cost

SETTINGS = SearchSettings(
    step_stop=("\n",), split="line", max_step_tokens=24, max_tokens=90, answers="text", seed=3
)


def _problems(n: int) -> list[Problem]:
    return [Problem(id=f"p{i}", prompt="?" * (i + 1)) for i in range(n)]


class _Went(NamedTuple):
    """A search that was run: what was found, the events of each problem, who did it, and where."""

    found: list[Found]
    events: dict[str, list[dict[str, Any]]]
    policy: MazePolicy
    scorer: ScriptedScorer
    mazes: Mazes | None


def _go(
    algorithm: Algorithm,
    maze: Maze,
    n: int = 3,
    *,
    budget: Budget | None = None,
    driving: DriveSettings | None = None,
    traces: Path | None = None,
    tokens: bool = True,
    acts: Acts | None = None,
) -> _Went:
    policy = MazePolicy(maze, takes_ids=tokens)
    scorer = ScriptedScorer(maze.score, extends=tokens)
    events: dict[str, list[dict[str, Any]]] = {}

    def note(problem: Problem, event: Event) -> None:
        events.setdefault(problem.id, []).append({k: v for k, v in event.items() if k != "t"})

    problems, mazes = _problems(n), None if acts is None else Mazes(maze, acts)
    acting = None
    if mazes is not None:
        acting = Acting(make=mazes.make, max_steps=8, answer=lambda done: answer_in(done.text))
        tasks = [Task(seed) for seed in range(n)]
        problems = list(set_tasks(mazes.make, tasks, _never))
    found = search(
        problems,
        algorithm,
        policy,
        scorer,
        settings=SETTINGS,
        budget=budget,
        driving=driving,
        judge=judge if acting is None else judge_by_answer,
        acting=acting,
        traces=traces,
        on_event=note,
    )
    return _Went(list(found), events, policy, scorer, mazes)


def _never(problem: Problem, error: str) -> None:
    raise AssertionError(f"{problem.id}: {error}")


def _expect(holds: bool, law: str, detail: str) -> None:
    if not holds:
        raise LawBroken(f"{law}: {detail}")


def _tree(found: Found, again: bool = True) -> list[Any]:
    """The tree; what is cut in two by a kill reads its prompt twice, and its way is gone again."""
    return [
        (
            node.path,
            node.text,
            node.finish,
            node.scores,
            node.observation,
            node.cost
            if again
            else node.cost._replace(prompt_tokens=0, cached_tokens=0, replayed=0),
        )
        for node in found.root.walk()
    ]


MAZES = (Maze(), Maze(ends=0.05, blank=0.4), Maze(ends=1.0), Maze(long=0.5), Maze(fails=0.3))
BUDGETS = (
    Budget(policy_tokens=40),
    Budget(policy_tokens=7),
    Budget(scorer_tokens=30),
    Budget(calls=9),
    Budget(dollars=0.0001, prices=(0.0, 1.0, 0.5)),
    Budget(policy_tokens=200, scorer_tokens=150, calls=30),
)


ACTING_BUDGETS = (Budget(env_steps=3), Budget(env_steps=11), Budget(env_steps=40, calls=50))


def never_more_than_the_budget(algorithm: Algorithm, acts: Acts | None = None) -> None:
    """No limit is passed, and something is found all the same."""
    mazes = (MAZES[0], MAZES[1], Maze(fails=0.3, long=0.3))
    budgets = (*BUDGETS, *(ACTING_BUDGETS if acts else ()))
    for (i, maze), budget in itertools.product(enumerate(mazes), budgets):
        tokens = i != 1
        went = _go(algorithm, maze, budget=budget, tokens=tokens, acts=acts)
        _counted(went)
        for found in went.found:
            _expect(
                budget.fits(found.cost),
                "never more than the budget",
                f"{found.cost} of {budget} in {maze}",
            )
            _expect(found.ended in ("done", "budget"), "a search ends", f"{found.ended} in {maze}")


def one_trace_whatever_drives(algorithm: Algorithm, acts: Acts | None = None) -> None:
    """Alone, in batches or overlapping, with a budget or without: the same trees, in order."""
    for maze in (Maze(ends=0.05, blank=0.4), Maze(fails=0.3, unscored=0.2, long=0.2)):
        for budget in (None, BUDGETS[0], BUDGETS[2]):
            together = _go(algorithm, maze, budget=budget, acts=acts)
            for driving in (
                DriveSettings(in_flight=1),
                DriveSettings(overlap=True),
                DriveSettings(overlap=True, threads=3),
            ):
                other = _go(algorithm, maze, budget=budget, driving=driving, acts=acts)
                for mine, theirs in zip(together.found, other.found, strict=True):
                    _expect(
                        _tree(mine) == _tree(theirs),
                        "one trace whatever drives",
                        f"{driving} in {maze} with {budget}:\n{_tree(mine)}\n{_tree(theirs)}",
                    )
                    _expect(
                        mine.answer == theirs.answer and mine.weights == theirs.weights,
                        "one choice whatever drives",
                        f"{mine.answer} {mine.weights}, {theirs.answer} {theirs.weights}",
                    )
        eager = _go(
            algorithm, maze, driving=DriveSettings(overlap=True, threads=3, strict=False), acts=acts
        )
        for mine, theirs in zip(_go(algorithm, maze, acts=acts).found, eager.found, strict=True):
            _expect(
                sorted(_tree(mine)) == sorted(_tree(theirs)),
                "without a budget an eager driver grows the same tree",
                f"{_tree(mine)}\n{_tree(theirs)}",
            )


def tokens_or_text(algorithm: Algorithm, acts: Acts | None = None) -> None:
    """What a policy and a scorer can go on from changes what is paid, and nothing else."""
    for maze in MAZES:
        one, other = _go(algorithm, maze, acts=acts), _go(algorithm, maze, tokens=False, acts=acts)
        for mine, theirs in zip(one.found, other.found, strict=True):
            _expect(
                mine.answer == theirs.answer
                and [(n.path, n.text, n.finish) for n in mine.root.walk()]
                == [(n.path, n.text, n.finish) for n in theirs.root.walk()],
                "tokens or text, the tree is the same",
                f"{_tree(mine)}\n{_tree(theirs)}",
            )


def same_seed_same_trace(algorithm: Algorithm, acts: Acts | None = None) -> None:
    """Every event is the same, and in the same order, when a search is run again."""
    for maze in MAZES:
        first, second = _go(algorithm, maze, acts=acts), _go(algorithm, maze, acts=acts)
        _expect(
            first.events == second.events, "same seed, same trace", f"{maze}: the events differ"
        )


def the_ledger_adds_up(algorithm: Algorithm, acts: Acts | None = None) -> None:
    """What the traces say was spent is what the policy drew and the scorer read."""
    for maze, tokens in itertools.product(MAZES, (True, False)):
        went = _go(algorithm, maze, tokens=tokens, acts=acts)
        total = Cost()
        for found in went.found:
            total = total.plus(found.cost)
            nodes = Cost()
            for node in found.root.walk():
                nodes = nodes.plus(node.cost)
            _expect(nodes == found.cost, "the tree holds all costs", f"{nodes}, {found.cost}")
        drawn = went.policy.drawn
        _expect(
            (total.completions, total.policy_tokens, total.readings)
            == (drawn.completions, drawn.policy_tokens, drawn.readings),
            "the ledger is the policy's own count",
            f"{total}, the policy drew {drawn} in {maze}",
        )
        _counted(went)
        _expect(
            total.scorer_tokens == went.scorer.read,
            "the ledger is the scorer's own count",
            f"{total.scorer_tokens}, the scorer read {went.scorer.read} in {maze}",
        )


def _counted(went: _Went) -> None:
    """What an environment did is what was paid for it, and none is left open."""
    if went.mazes is not None:
        paid = sum(found.cost.steps_paid for found in went.found)
        _expect(
            (paid, 0) == (went.mazes.steps, went.mazes.open),
            "the ledger is the environment's own count",
            f"{paid} steps; {went.mazes.steps} were done, {went.mazes.open} environments are open",
        )


def resumes_where_it_was(algorithm: Algorithm, acts: Acts | None = None) -> None:
    """Killed after any event, in the middle of a line too, it ends with the same, drawn once."""
    maze = Maze()
    with tempfile.TemporaryDirectory() as folder:
        whole = _go(algorithm, maze, 1, traces=Path(folder), acts=acts)
        (file,) = Path(folder).iterdir()
        lines = file.read_bytes().splitlines(keepends=True)
    for kept in range(0, len(lines), max(len(lines) // 8, 1)):
        with tempfile.TemporaryDirectory() as folder:
            left = Path(folder) / file.name
            left.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
            again = _go(algorithm, maze, 1, traces=Path(folder), acts=acts)
            _expect(
                _tree(again.found[0], False) == _tree(whole.found[0], False),
                "resumes where it was",
                f"killed after {kept} of {len(lines)} events",
            )
            drawn_before = sum(
                json.loads(line)["cost"][1] for line in lines[:kept] if b'"child"' in line
            )
            _expect(
                drawn_before + again.policy.drawn.policy_tokens == whole.policy.drawn.policy_tokens,
                "nothing is drawn twice",
                f"{drawn_before} before, {again.policy.drawn.policy_tokens} after, "
                f"{whole.policy.drawn.policy_tokens} in one go",
            )
            done_before = sum(
                json.loads(line)["cost"][7] for line in lines[:kept] if b'"child"' in line
            )
            done = again.found[0].cost.env_steps
            _expect(
                done == whole.found[0].cost.env_steps
                and (again.mazes is None or again.mazes.steps >= done - done_before),
                "nothing new is done twice",
                f"{done_before} before, {done} in all",
            )
            paths = [e["path"] for e in read_events(left) if e["event"] == "child"]
            _expect(
                len(paths) == len({tuple(p) for p in paths}), "each child is noted once", f"{paths}"
            )


def gets_over_failures(algorithm: Algorithm, acts: Acts | None = None) -> None:
    """Given again where draws no longer fail, it ends as one in which none did, and so it notes."""
    for maze in (Maze(fails=0.3), Maze(fails=0.5, blank=0.4), Maze(fails=1.0)):
        whole = _go(algorithm, maze._replace(fails=0.0), acts=acts)
        with tempfile.TemporaryDirectory() as folder:
            _go(algorithm, maze, traces=Path(folder), acts=acts)
            again = _go(algorithm, maze._replace(fails=0.0), traces=Path(folder), acts=acts)
            last = _go(algorithm, maze._replace(fails=0.0), traces=Path(folder), acts=acts)
            read = {one.problem.id: one for one in map(recorded, traces_in(folder))}
        for mine, theirs in zip(again.found, whole.found, strict=True):
            _expect(
                _tree(mine, False) == _tree(theirs, False) and mine.answer == theirs.answer,
                "gets over failures",
                f"{maze}:\n{_tree(mine, False)}\n{_tree(theirs, False)}",
            )
            told = read[mine.problem.id]
            texts = [(n.path, n.text, n.scores) for n in told.root.walk() if told.end]
            kept = {n.path: (n.path, n.text, n.scores) for n in mine.root.walk()}
            _expect(
                [text for text in texts if text[0] in kept] == list(kept.values())
                and [n.path for n in told.candidates.nodes] == [n.path for n in mine.candidates],
                "a trace tells of what came after failures",
                f"{maze}:\n{texts}\n{kept}",
            )
            _expect(
                told.cost == mine.cost, "what was in vain was paid", f"{told.cost}, {mine.cost}"
            )
        _expect(
            last.policy.drawn == Cost()
            and last.scorer.read == 0
            and (last.mazes is None or not last.mazes.steps),
            "what was drawn is there",
            f"{last.policy.drawn}, {last.scorer.read} tokens scored, {last.mazes}",
        )


def failures_are_recorded(algorithm: Algorithm, acts: Acts | None = None) -> None:
    """What cannot be drawn or scored ends nothing but itself."""
    for maze in (Maze(fails=0.4), Maze(unscored=0.5), Maze(unscored=1.0), Maze(fails=1.0)):
        for found in _go(algorithm, maze, acts=acts).found:
            _expect(found.ended == "done", "failures end no search", f"{found.ended} in {maze}")
            nodes = list(found.root.walk())
            whole = any(node.is_finished for node in found.candidates)
            _expect(
                (found.node is not None) == whole,
                "who finds a solution has one",
                f"{found.node} of {found.candidates}",
            )
            if maze.fails == 1.0:
                _expect(
                    found.node is None and all(node.error for node in nodes[1:]),
                    "no draw, no answer",
                    f"{found}",
                )


def dead_ends_are_no_solutions(algorithm: Algorithm, acts: Acts | None = None) -> None:
    """A step that was cut, by its length or the budget, is never chosen or gone on from."""
    for budget in (None, Budget(policy_tokens=60)):
        for found in _go(algorithm, Maze(long=0.6), budget=budget, acts=acts).found:
            for node in found.root.walk():
                _expect(
                    node.is_open or not node.children,
                    "nothing follows an end",
                    f"{node.path} is {node.finish} and has {len(node.children)} children",
                )
            for node in found.candidates:
                _expect(node.finish in ("eos", "answer"), "candidates are whole", f"{node.finish}")


def steps_are_never_blank(algorithm: Algorithm) -> None:
    """Blank text begins the next step; every step was written, and the scores fit the steps."""
    for found in _go(algorithm, Maze(blank=0.6, ends=0.2)).found:
        for record in found.records:
            texts = [step.text for step in record.trajectory.steps]
            _expect(all(text.strip() for text in texts), "no step is blank", f"{texts}")


def snapshots_change_no_tree(algorithm: Algorithm, acts: Acts) -> None:
    """Where states are kept, less is done again, and that is all."""
    for maze in MAZES:
        one, other = _go(algorithm, maze, acts=acts), _go(algorithm, maze, acts="snapshot")
        for mine, theirs in zip(one.found, other.found, strict=True):
            _expect(
                _tree(mine, False) == _tree(theirs, False) and not theirs.cost.replayed,
                "snapshots change no tree",
                f"{maze}:\n{_tree(mine, False)}\n{_tree(theirs, False)}",
            )


SearchLaw = Callable[[Algorithm], None]
SEARCH_LAWS: tuple[SearchLaw, ...] = (
    never_more_than_the_budget,
    one_trace_whatever_drives,
    tokens_or_text,
    same_seed_same_trace,
    the_ledger_adds_up,
    resumes_where_it_was,
    gets_over_failures,
    failures_are_recorded,
    dead_ends_are_no_solutions,
    steps_are_never_blank,
)


ActingLaw = Callable[[Algorithm, Acts], None]
ACTING_LAWS: tuple[ActingLaw, ...] = (
    never_more_than_the_budget,
    one_trace_whatever_drives,
    tokens_or_text,
    same_seed_same_trace,
    the_ledger_adds_up,
    resumes_where_it_was,
    gets_over_failures,
    failures_are_recorded,
    dead_ends_are_no_solutions,
    snapshots_change_no_tree,
)
"""Those that hold in an environment, too; a turn may be blank there, and is answered."""


def check_search(algorithm: Algorithm, *, acting: bool = False) -> None:
    """Run every law of search algorithms; raises `LawBroken` on the first that fails.

    Args:
        algorithm: what is checked.
        acting: the laws of searches in an environment, instead.
    """
    if acting:
        for acting_law in ACTING_LAWS:
            for acts in get_args(Acts):
                acting_law(algorithm, acts)
        return
    for law in SEARCH_LAWS:
        law(algorithm)
