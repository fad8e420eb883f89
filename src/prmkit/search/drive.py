"""Runs searches: their wishes are answered by one policy and one scorer in shared batches.

`search` goes in rounds: all that is wanted of the policy, in one call, and all that is wanted of
the scorer, in another. With `overlap` both work at the same time, and no problem waits for
another: see `prmkit.search.overlap`. What comes of a problem is the same either way.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.answers import group_answers
from prmkit.errors import InvalidSetting
from prmkit.policies.base import Policy
from prmkit.policies.sampling import Judge, Outcome, judge_by_answer
from prmkit.records import Problem, Record
from prmkit.scorers.base import Scorer
from prmkit.search.acting import Acting, Actor
from prmkit.search.choice import choose
from prmkit.search.judging import Judging
from prmkit.search.overlap import Overlap
from prmkit.search.requests import Pool
from prmkit.search.run import Algorithm, Ended, Run, Tools
from prmkit.search.settings import Answers, Budget, SearchSettings
from prmkit.search.speaking import Speaker
from prmkit.search.trace import Event, Trace, as_read
from prmkit.search.tree import Cost, Node
from prmkit.settings import at_least


@dataclass(frozen=True, kw_only=True)
class DriveSettings:
    """How searches are run; nothing that is found depends on it, but for a limit of seconds.

    Attributes:
        in_flight: problems under way at a time; they share batches.
        overlap: the policy draws for some while the scorer scores for others.
        threads: with overlap: calls of the policy at the same time, for one behind a server: as
            many as the requests that it is to have under way.
        strict: with overlap: searches side by side in one problem go on in step, so that the
            order of a trace does not depend on who answers first, and a budget buys the same.
    """

    in_flight: int = 16
    overlap: bool = False
    threads: int = 1
    strict: bool = True

    def __post_init__(self) -> None:
        at_least(1, in_flight=self.in_flight, threads=self.threads)
        if not self.overlap and (self.threads != 1 or not self.strict):
            raise InvalidSetting("threads and strict have no meaning without overlap")


class Found(NamedTuple):
    """What a search found.

    Attributes:
        problem: what was solved.
        node: the solution that was chosen; None where there is none.
        answer: its final answer.
        correct: whether that is right, where known.
        candidates: the whole solutions that it was chosen from.
        weights: of their votes.
        share: of all votes, those for the answer.
        cost: all that was spent, what an earlier run drew in vain included.
        seconds: from the beginning.
        ended: ``done``, or what ended it.
        root: of the tree.
        records: of the candidates, scored; the meta of the chosen one says so.
        not_drawn: why pieces could not be drawn, one reason each; a run that is given again asks
            for them again.
    """

    problem: Problem
    node: Node | None
    answer: str | None
    correct: bool | None
    candidates: tuple[Node, ...]
    weights: tuple[float, ...]
    share: float | None
    cost: Cost
    seconds: float
    ended: Ended
    root: Node
    records: tuple[Record, ...]
    not_drawn: tuple[str, ...]


def search(
    problems: Iterable[Problem],
    algorithm: Algorithm,
    policy: Policy,
    scorer: Scorer | None = None,
    *,
    settings: SearchSettings | None = None,
    budget: Budget | None = None,
    driving: DriveSettings | None = None,
    judge: Judge = judge_by_answer,
    acting: Acting | None = None,
    traces: Path | str | None = None,
    on_event: Callable[[Problem, Event], None] | None = None,
    cancel: threading.Event | None = None,
) -> Iterator[Found]:
    """Search solutions of problems.

    Args:
        problems: what is to be solved; read as they are needed.
        algorithm: how; see `prmkit.search.catalogue`.
        policy: who writes.
        scorer: who judges steps; None for algorithms that need no scores.
        settings: how to draw, score and choose.
        budget: of each problem.
        driving: how searches are run.
        judge: the answer of a solution, and whether it is right. Algorithms never see the latter.
        acting: an environment in which steps are done; problems are then tasks of it
            (`prmkit.search.acting.set_tasks`), and it says which are solved, not `judge`.
        traces: folder where each problem's events are kept, and gone on from.
        on_event: told of each event of each problem as it happens.
        cancel: once it is set, nothing more is begun, and what was found is given.

    Yields:
        What was found for each problem, in order.

    Raises:
        SearchError: if the algorithm asks for scores and there is no scorer.
        InvalidSetting: if a limit cannot be kept with this policy or scorer, or there is a judge
            or a limit of environment steps that has no meaning.
        RunFolderError: if the folder holds traces of another search.
        EnvironmentFailed: if no environment can be made; one that fails later is recorded.
    """
    settings, budget = settings or SearchSettings(), budget or Budget()
    driving, cancel = driving or DriveSettings(), cancel or threading.Event()
    tools = _tools(policy, scorer, settings, judge, acting)
    about = {
        "algorithm": describe(algorithm),
        "settings": {**asdict(settings), "split": settings.splitting},
        "budget": asdict(budget),
        "policy": policy.name,
        "scorer": None if scorer is None else scorer.name,
        "semantics": None if scorer is None else scorer.semantics,
        **tools.speaker.described,
    }
    begin = _Beginning(algorithm, settings, budget, tools, about, traces, on_event, driving.strict)
    waiting = iter(problems)
    active: list[Run] = []
    driver = Overlap(tools, driving.threads) if driving.overlap else Rounds(tools)
    with ExitStack() as stack:
        stack.callback(tools.speaker.close)
        _check(budget, tools)
        while True:
            for problem in islice(waiting, driving.in_flight - len(active)):
                run = begin.run(problem)
                stack.callback(run.trace.close)
                active.append(run)
            if not active:
                return
            if cancel.is_set():
                for run in active:
                    run.end("cancelled")
            driver.round(active)
            # In order: the first may hold back those that are done before it.
            while active and active[0].is_over:
                yield settled(active.pop(0))


def _tools(
    policy: Policy,
    scorer: Scorer | None,
    settings: SearchSettings,
    judge: Judge,
    acting: Acting | None,
) -> Tools:
    if acting is not None and judge is not judge_by_answer:
        raise InvalidSetting("an environment says which tasks are solved; leave the judge out")
    return Tools(
        Speaker(policy, settings) if acting is None else Actor(policy, settings, acting),
        None if scorer is None else Judging(scorer),
        judge if acting is None else _not_judged,
        grouping(settings.answers),
    )


class _Beginning(NamedTuple):
    """What every run of a search begins with."""

    algorithm: Algorithm
    settings: SearchSettings
    budget: Budget
    tools: Tools
    about: dict[str, Any]
    traces: Path | str | None
    on_event: Callable[[Problem, Event], None] | None
    strict: bool

    def run(self, problem: Problem) -> Run:
        """The search of a problem."""
        trace = Trace(
            {"problem": problem.model_dump(mode="json"), **self.about},
            None if self.traces is None else Path(self.traces) / trace_name(problem.id),
            None if self.on_event is None else partial(self.on_event, problem),
        )
        try:
            return Run(
                problem,
                self.algorithm,
                self.settings,
                self.budget,
                self.tools,
                trace,
                strict=self.strict,
            )
        except BaseException:
            trace.close()
            raise


class Rounds:
    """Answers all wishes of all runs, round by round.

    Args:
        tools: the policy and the scorer.
    """

    def __init__(self, tools: Tools):
        self._tools = tools

    def round(self, runs: Sequence[Run]) -> None:
        """One call of the policy and one of the scorer for all runs."""
        taken = [(run, run.take()) for run in runs]
        nodes = [node for _, wanted in taken for node in wanted.nodes]
        draws = [draw for _, wanted in taken for draw in wanted.draws]
        passages = [passage for _, wanted in taken for passage in wanted.passages]
        scores = iter(self._tools.judging.score(nodes) if self._tools.judging and nodes else [])
        children = iter(self._tools.speaker.draw(draws) if draws else [])
        logs = iter(self._tools.speaker.log_likelihoods(passages) if passages else [])
        for run, wanted in taken:
            run.put_scores(wanted.nodes, list(islice(scores, len(wanted.nodes))))
            run.put_draws(wanted.draws, list(islice(children, len(wanted.draws))))
            run.put_likelihoods(wanted.passages, list(islice(logs, len(wanted.passages))))


def describe(algorithm: Algorithm) -> dict[str, Any]:
    """The name and the options of an algorithm, for the trace."""
    function = getattr(algorithm, "func", algorithm)
    options = getattr(algorithm, "keywords", {})
    return {"name": getattr(function, "__name__", repr(function)), **options}


def trace_name(problem_id: str) -> str:
    """The file name of a problem's trace; ids may be any text."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", problem_id)[:60]
    return f"{readable}-{hashlib.sha256(problem_id.encode()).hexdigest()[:10]}.jsonl"


def grouping(answers: Answers) -> Callable[[Sequence[str | None]], list[int | None]]:
    """How answers are put into classes of equal ones."""
    if answers == "equivalent":
        return group_answers

    def as_texts(given: Sequence[str | None]) -> list[int | None]:
        numbers: dict[str, int] = {}
        return [None if a is None else numbers.setdefault(a, len(numbers)) for a in given]

    return as_texts


def _not_judged(problem: Problem, text: str) -> Outcome:
    """What an episode comes to that has not ended: nothing yet."""
    del problem, text
    return Outcome(None, None)


def _check(budget: Budget, tools: Tools) -> None:
    """Refuse limits that could not be kept, or limit nothing."""
    if budget.env_steps is not None and not tools.speaker.acts:
        raise InvalidSetting("a budget of env_steps has no meaning without an environment")
    prices = budget.prices or (0.0, 0.0, 0.0)
    paid = budget.dollars is not None
    if paid and prices[0] > 0 and not tools.speaker.counts_prompts:
        raise InvalidSetting(
            f"a budget in dollars needs the length of each prompt before it is sent, and "
            f"{tools.speaker.policy.name!r} does not take token ids; give its tokenizer "
            "(--tokenizer), or a price of 0 for prompts"
        )
    if tools.judging is None or tools.judging.counts:
        return
    if budget.scorer_tokens is not None or (paid and prices[2] > 0):
        raise InvalidSetting(
            f"{tools.judging.scorer.name!r} does not count the tokens that it reads, so no limit "
            "of them can be kept; limit calls or seconds"
        )


def settled(run: Run) -> Found:
    """The choice of a run that is over; noted in its trace unless it was cancelled."""
    pool = run.pool
    if pool is None:
        # It did not come to its end: every whole solution is a candidate.
        pool = Pool(tuple(node for node in run.root.walk() if node.is_drawn_solution))
    settings, scene = run.settings, run.scene
    chosen = choose(pool, settings.choice, scene.value, scene.answers, scene.semantics)
    outcome = None if chosen.node is None else run.outcome(chosen.node)
    model = "" if run.tools.judging is None else run.tools.judging.scorer.name
    generator = run.tools.speaker.policy.name
    records = []
    for node, weight in zip(chosen.candidates, chosen.weights, strict=True):
        own = run.outcome(node)
        trajectory = node.trajectory(generator).model_copy(
            update={"answer": own.answer, "correct": own.correct}
        )
        scores = (node.scored(scene.semantics, model),) if model else ()
        meta: dict[str, Any] = {"path": list(node.path), "weight": weight}
        if node is chosen.node:
            meta["chosen"] = True
        records.append(Record(trajectory=trajectory, scores=scores, meta={"search": meta}))
    assert run.ended is not None
    cost = total_cost([*run.trace.found, *run.trace.new])
    found = Found(
        run.problem,
        chosen.node,
        None if outcome is None else outcome.answer,
        None if outcome is None else outcome.correct,
        chosen.candidates,
        chosen.weights,
        chosen.share,
        cost,
        run.seconds,
        run.ended,
        run.root,
        tuple(records),
        tuple(node.error for node in run.root.walk() if node.error is not None),
    )
    if run.ended != "cancelled":
        _note_end(run.trace, found)
    run.trace.close()
    run.forget()
    return found


def total_cost(events: Iterable[Event]) -> Cost:
    """All that a trace says was spent."""
    total = Cost()
    for event in events:
        if "cost" in event and event["event"] != "end":
            total = total.plus(Cost(*event["cost"]))
    return total


def _note_end(trace: Trace, found: Found) -> None:
    """Note the choice, unless the trace ends with it."""
    event = as_read(
        {
            "event": "end",
            "ended": found.ended,
            "chosen": None if found.node is None else list(found.node.path),
            "answer": found.answer,
            "correct": found.correct,
            "candidates": [list(node.path) for node in found.candidates],
            "weights": list(found.weights),
            "share": found.share,
            "cost": list(found.cost),
            "t": round(found.seconds, 4),
        }
    )
    ends = [e for e in trace.found if e["event"] == "end"]
    # What could not be drawn the last time may have been, and changed the choice.
    if not ends or len(trace.new) or {**ends[-1], "t": 0} != {**event, "t": 0}:
        trace.write([event])
