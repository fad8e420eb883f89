"""A driver in which policy and scorer work at the same time.

The policy's calls and the scorer's run in threads of their own. Whoever is free takes all that is
wanted of it at that moment, of all problems; so there is no barrier between the levels of a search
or between problems, and a child is scored while its siblings are still being written.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from prmkit.search.judging import Scores
from prmkit.search.run import Run, Tools
from prmkit.search.speaking import Child, Draw, Passage
from prmkit.search.tree import Node

T = TypeVar("T")
R = TypeVar("R")


class _Drawn(NamedTuple):
    jobs: list[tuple[Run, Draw]]
    children: list[Child]


class _Told(NamedTuple):
    jobs: list[tuple[Run, Passage]]
    logs: list[float]


class _Scored(NamedTuple):
    jobs: list[tuple[Run, Node]]
    scores: list[Scores]


class Overlap:
    """Answers wishes as they come.

    Args:
        tools: the policy and the scorer.
        threads: calls of the policy at the same time. With one, a call takes all that is wanted;
            with more, a call for each node whose children are wanted, for a policy behind a
            server, which makes batches itself.
    """

    def __init__(self, tools: Tools, threads: int):
        self._tools, self._threads = tools, threads
        self._done: queue.SimpleQueue[_Drawn | _Told | _Scored | BaseException] = (
            queue.SimpleQueue()
        )
        self._draws: list[tuple[Run, Draw]] = []
        self._passages: list[tuple[Run, Passage]] = []
        self._nodes: list[tuple[Run, Node]] = []
        self._drawing = self._scoring = 0

    def round(self, runs: Sequence[Run]) -> None:
        """Give out what is wanted, and wait for one answer."""
        for run in runs:
            wanted = run.take()
            self._draws += ((run, draw) for draw in wanted.draws)
            self._passages += ((run, passage) for passage in wanted.passages)
            self._nodes += ((run, node) for node in wanted.nodes)
        self._begin()
        if not self._drawing and not self._scoring:
            return
        found = self._done.get()
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, _Drawn):
            self._drawing -= 1
            for run, draws, children in _by_run(found.jobs, found.children):
                run.put_draws(draws, children)
        elif isinstance(found, _Told):
            self._drawing -= 1
            for run, passages, logs in _by_run(found.jobs, found.logs):
                run.put_likelihoods(passages, logs)
        else:
            self._scoring -= 1
            for run, nodes, scores in _by_run(found.jobs, found.scores):
                run.put_scores(nodes, scores)

    def _begin(self) -> None:
        while self._draws and self._drawing < self._threads:
            jobs, self._draws = self._draws, []
            if self._threads > 1:
                node = jobs[0][1].node
                self._draws = [job for job in jobs if job[1].node is not node]
                jobs = [job for job in jobs if job[1].node is node]
            self._drawing += 1
            self._start(partial(self._draw, jobs))
        if self._passages and self._drawing < self._threads:
            passages, self._passages = self._passages, []
            self._drawing += 1
            self._start(partial(self._tell, passages))
        if self._nodes and not self._scoring:
            nodes, self._nodes = self._nodes, []
            self._scoring += 1
            self._start(partial(self._score, nodes))

    def _start(self, work: Callable[[], _Drawn | _Told | _Scored]) -> None:
        def run() -> None:
            try:
                self._done.put(work())
            except BaseException as error:
                self._done.put(error)

        # A program that is interrupted does not wait for what is under way.
        threading.Thread(target=run, name="prmkit-search", daemon=True).start()

    def _draw(self, jobs: list[tuple[Run, Draw]]) -> _Drawn:
        return _Drawn(jobs, self._tools.speaker.draw([draw for _, draw in jobs]))

    def _tell(self, jobs: list[tuple[Run, Passage]]) -> _Told:
        passages = [passage for _, passage in jobs]
        return _Told(jobs, self._tools.speaker.log_likelihoods(passages))

    def _score(self, jobs: list[tuple[Run, Node]]) -> _Scored:
        assert self._tools.judging is not None
        return _Scored(jobs, self._tools.judging.score([node for _, node in jobs]))


def _by_run(
    jobs: Sequence[tuple[Run, T]], answers: Sequence[R]
) -> Iterator[tuple[Run, list[T], list[R]]]:
    """Answers of a call, run by run, in order."""
    found: dict[int, tuple[Run, list[T], list[R]]] = {}
    for (run, job), answer in zip(jobs, answers, strict=True):
        _, own, got = found.setdefault(id(run), (run, [], []))
        own.append(job)
        got.append(answer)
    yield from found.values()
