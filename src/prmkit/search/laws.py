"""The laws of search algorithms, over a policy and a scorer that follow scripts.

`prmkit.testing.check_search` runs them all. Each takes an algorithm; what they search is a small
world of its own (`Maze`), in which some texts end, some are cut, some are blank, some cannot be
drawn and some cannot be scored.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.errors import LawBroken
from prmkit.policies.base import Completion, SamplingSettings, failed
from prmkit.policies.sampling import Outcome
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Trajectory
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search.drive import DriveSettings, Found, search
from prmkit.search.replay import recorded, traces_in
from prmkit.search.run import Algorithm
from prmkit.search.settings import Budget, SearchSettings
from prmkit.search.trace import Event, read_events
from prmkit.search.tree import Cost
from prmkit.splitting import by_line

WORDS = ("a", "bb", "日本", "e\u0301", "<s>", "\u2028", "Step 1:", "+ - ки")
SETTINGS = SearchSettings(
    step_stop=("\n",), split="line", max_step_tokens=24, max_tokens=90, answers="text", seed=3
)


class Maze(NamedTuple):
    """How likely things happen at each step.

    Attributes:
        ends: that a solution ends after it.
        blank: that a blank line comes first.
        long: that it is longer than a step may be.
        fails: that it cannot be drawn.
        unscored: that it cannot be scored.
        most: steps at most.
    """

    ends: float = 0.3
    blank: float = 0.1
    long: float = 0.05
    fails: float = 0.0
    unscored: float = 0.0
    most: int = 6

    def script(self, prefix: Trajectory, rng: random.Random) -> str:
        """The rest of a solution."""
        lines = []
        written = sum(bool(line.strip()) for line in prefix.text.split("\n"))
        for i in range(written, self.most):
            if rng.random() < self.blank:
                lines.append("\n")
            if rng.random() < self.long:
                lines.append("long " * 8 + "\n")
            if rng.random() < self.ends or i == self.most - 1:
                lines.append(f"= {rng.randrange(3)}")
                break
            lines.append(f"{rng.choice(WORDS)} {rng.randrange(10)}\n")
        return "".join(lines)

    def score(self, problem: Problem, steps: Sequence[str]) -> float | None:
        """The score of the last of some steps."""
        rng = random.Random(json.dumps([problem.id, *steps]))
        return None if rng.random() < self.unscored else rng.random()

    def likely(self, prefix: Trajectory, text: str, ends: bool) -> float:
        """How likely it writes a text step by step: the logarithm."""
        del ends  # It ends where it says what it comes to, and nowhere else.
        at = sum(bool(line.strip()) for line in prefix.text.split("\n"))
        chance = 1.0
        for line in by_line(text):
            if not line.strip():
                chance *= self.blank
                continue
            over = 1.0 if at == self.most - 1 else self.ends
            last = line.startswith("= ")
            chance *= (1 - self.blank) * (1 - self.long) * (over / 3 if last else (1 - over) / 80)
            at += 1
        return math.log(chance) if chance > 0 else -math.inf


class MazePolicy(ScriptedPolicy):
    """The maze's policy; counts what it draws, and fails where the maze says so.

    Args:
        maze: the maze.
        takes_ids: whether it goes on from tokens.
    """

    def __init__(self, maze: Maze, takes_ids: bool = True):
        super().__init__(maze.script, split=by_line, likely=maze.likely)
        self.takes_ids = takes_ids
        self._fails = maze.fails
        self.drawn = Cost()

    def log_likelihoods(
        self,
        prefixes: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        ends: Sequence[bool],
        temperature: float,
    ) -> list[float]:
        """See `prmkit.policies.base.LikelihoodPolicy.log_likelihoods`."""
        self.drawn = self.drawn.plus(Cost(readings=len(prefixes)))
        return super().log_likelihoods(prefixes, continuations, ends, temperature)

    def _completions(
        self, prefix: Trajectory, n: int, settings: SamplingSettings, seed: int, begin: int
    ) -> list[Completion]:
        found = []
        for i, one in enumerate(super()._completions(prefix, n, settings, seed, begin), begin):
            lost = random.Random(f"{seed}/{i}/fails").random() < self._fails
            found.append(failed("the maze") if lost else one)
            if not lost:
                more = Cost(completions=1, policy_tokens=one.n_tokens)
                self.drawn = self.drawn.plus(more)
        return found


def judge(problem: Problem, text: str) -> Outcome:
    """The answer is what stands after the last equals sign; 0 is right."""
    del problem
    answer = text.rpartition("= ")[2].strip() if "= " in text else None
    return Outcome(answer, None if answer is None else answer == "0")


def _problems(n: int) -> list[Problem]:
    return [Problem(id=f"p{i}", prompt="?" * (i + 1)) for i in range(n)]


class _Went(NamedTuple):
    """A search that was run: what was found, the events of each problem, and who did it."""

    found: list[Found]
    events: dict[str, list[dict[str, Any]]]
    policy: MazePolicy
    scorer: ScriptedScorer


def _go(
    algorithm: Algorithm,
    maze: Maze,
    n: int = 3,
    *,
    budget: Budget | None = None,
    driving: DriveSettings | None = None,
    traces: Path | None = None,
    tokens: bool = True,
) -> _Went:
    policy = MazePolicy(maze, takes_ids=tokens)
    scorer = ScriptedScorer(maze.score, extends=tokens)
    events: dict[str, list[dict[str, Any]]] = {}

    def note(problem: Problem, event: Event) -> None:
        events.setdefault(problem.id, []).append({k: v for k, v in event.items() if k != "t"})

    found = search(
        _problems(n),
        algorithm,
        policy,
        scorer,
        settings=SETTINGS,
        budget=budget,
        driving=driving,
        judge=judge,
        traces=traces,
        on_event=note,
    )
    return _Went(list(found), events, policy, scorer)


def _expect(holds: bool, law: str, detail: str) -> None:
    if not holds:
        raise LawBroken(f"{law}: {detail}")


def _tree(found: Found, prompts: bool = True) -> list[Any]:
    """The tree; a request that is cut in two by a kill reads its prompt twice."""
    return [
        (
            node.path,
            node.text,
            node.finish,
            node.scores,
            node.cost if prompts else node.cost._replace(prompt_tokens=0, cached_tokens=0),
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


def never_more_than_the_budget(algorithm: Algorithm) -> None:
    """No limit is passed, and something is found all the same."""
    mazes = (MAZES[0], MAZES[1], Maze(fails=0.3, long=0.3))
    for (i, maze), budget in itertools.product(enumerate(mazes), BUDGETS):
        tokens = i != 1
        for found in _go(algorithm, maze, budget=budget, tokens=tokens).found:
            _expect(
                budget.fits(found.cost),
                "never more than the budget",
                f"{found.cost} of {budget} in {maze}",
            )
            _expect(found.ended in ("done", "budget"), "a search ends", f"{found.ended} in {maze}")


def one_trace_whatever_drives(algorithm: Algorithm) -> None:
    """Alone, in batches or overlapping, with a budget or without: the same trees, in order."""
    for maze in (Maze(ends=0.05, blank=0.4), Maze(fails=0.3, unscored=0.2, long=0.2)):
        for budget in (None, BUDGETS[0], BUDGETS[2]):
            together = _go(algorithm, maze, budget=budget)
            for driving in (
                DriveSettings(in_flight=1),
                DriveSettings(overlap=True),
                DriveSettings(overlap=True, threads=3),
            ):
                other = _go(algorithm, maze, budget=budget, driving=driving)
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
        eager = _go(algorithm, maze, driving=DriveSettings(overlap=True, threads=3, strict=False))
        for mine, theirs in zip(_go(algorithm, maze).found, eager.found, strict=True):
            _expect(
                sorted(_tree(mine)) == sorted(_tree(theirs)),
                "without a budget an eager driver grows the same tree",
                f"{_tree(mine)}\n{_tree(theirs)}",
            )


def tokens_or_text(algorithm: Algorithm) -> None:
    """What a policy and a scorer can go on from changes what is paid, and nothing else."""
    for maze in MAZES:
        one, other = _go(algorithm, maze), _go(algorithm, maze, tokens=False)
        for mine, theirs in zip(one.found, other.found, strict=True):
            _expect(
                mine.answer == theirs.answer
                and [(n.path, n.text, n.finish) for n in mine.root.walk()]
                == [(n.path, n.text, n.finish) for n in theirs.root.walk()],
                "tokens or text, the tree is the same",
                f"{_tree(mine)}\n{_tree(theirs)}",
            )


def same_seed_same_trace(algorithm: Algorithm) -> None:
    """Every event is the same, and in the same order, when a search is run again."""
    for maze in MAZES:
        first, second = _go(algorithm, maze), _go(algorithm, maze)
        _expect(
            first.events == second.events, "same seed, same trace", f"{maze}: the events differ"
        )


def the_ledger_adds_up(algorithm: Algorithm) -> None:
    """What the traces say was spent is what the policy drew and the scorer read."""
    for maze, tokens in itertools.product(MAZES, (True, False)):
        went = _go(algorithm, maze, tokens=tokens)
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
        _expect(
            total.scorer_tokens == went.scorer.read,
            "the ledger is the scorer's own count",
            f"{total.scorer_tokens}, the scorer read {went.scorer.read} in {maze}",
        )


def resumes_where_it_was(algorithm: Algorithm) -> None:
    """Killed after any event, in the middle of a line too, it ends with the same, drawn once."""
    maze = Maze()
    with tempfile.TemporaryDirectory() as folder:
        whole = _go(algorithm, maze, 1, traces=Path(folder))
        (file,) = Path(folder).iterdir()
        lines = file.read_bytes().splitlines(keepends=True)
    for kept in range(0, len(lines), max(len(lines) // 8, 1)):
        with tempfile.TemporaryDirectory() as folder:
            left = Path(folder) / file.name
            left.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
            again = _go(algorithm, maze, 1, traces=Path(folder))
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
            paths = [e["path"] for e in read_events(left) if e["event"] == "child"]
            _expect(
                len(paths) == len({tuple(p) for p in paths}), "each child is noted once", f"{paths}"
            )


def gets_over_failures(algorithm: Algorithm) -> None:
    """Given again where draws no longer fail, it ends as one in which none did, and so it notes."""
    for maze in (Maze(fails=0.3), Maze(fails=0.5, blank=0.4), Maze(fails=1.0)):
        whole = _go(algorithm, maze._replace(fails=0.0))
        with tempfile.TemporaryDirectory() as folder:
            _go(algorithm, maze, traces=Path(folder))
            again = _go(algorithm, maze._replace(fails=0.0), traces=Path(folder))
            last = _go(algorithm, maze._replace(fails=0.0), traces=Path(folder))
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
            last.policy.drawn == Cost() and last.scorer.read == 0,
            "what was drawn is there",
            f"{last.policy.drawn}, {last.scorer.read} tokens scored",
        )


def failures_are_recorded(algorithm: Algorithm) -> None:
    """What cannot be drawn or scored ends nothing but itself."""
    for maze in (Maze(fails=0.4), Maze(unscored=0.5), Maze(unscored=1.0), Maze(fails=1.0)):
        for found in _go(algorithm, maze).found:
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


def dead_ends_are_no_solutions(algorithm: Algorithm) -> None:
    """A step that was cut, by its length or the budget, is never chosen or gone on from."""
    for budget in (None, Budget(policy_tokens=60)):
        for found in _go(algorithm, Maze(long=0.6), budget=budget).found:
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


def check_search(algorithm: Algorithm) -> None:
    """Run every law of search algorithms; raises `LawBroken` on the first that fails."""
    for law in SEARCH_LAWS:
        law(algorithm)
