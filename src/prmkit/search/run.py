"""One problem's search under way: an algorithm, its tree, its budget and its trace.

A run calls no model. It says what it wants drawn and scored (`take`), as far as its budget
allows, and is given what came (`put_draws`, `put_scores`); drivers do the rest. What its trace
holds already is not wanted again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from prmkit.errors import SearchError
from prmkit.ledger import seed_for
from prmkit.policies.sampling import Outcome
from prmkit.records import Problem
from prmkit.search.events import child_event, likelihood_event, score_event
from prmkit.search.grafting import cut_off, joined
from prmkit.search.judging import Judging, Kept, Scores, scores_of
from prmkit.search.requests import (
    Abort,
    Cut,
    Expand,
    Join,
    Likelihood,
    Note,
    Pool,
    Scene,
    Score,
    Search,
    Together,
)
from prmkit.search.resuming import Known
from prmkit.search.settings import Budget, SearchSettings
from prmkit.search.speaking import Child, Draw, Passage, Speaker
from prmkit.search.trace import Trace
from prmkit.search.tree import Cost, Node
from prmkit.search.waiting import Expansion, Scoring, Taken, Thread, Weighing, Wish

Algorithm = Callable[[Scene], Search]
Key = tuple[tuple[int, ...], tuple[int, ...]]
Ended = Literal["done", "budget", "cancelled"]

BLANKS = 4
"""Blank pieces in a row that are drawn on; after them the policy is held to be stuck."""


class Tools(NamedTuple):
    """What runs share.

    Attributes:
        speaker: draws.
        judging: scores; None where nothing scores.
        outcome: of a solution: its answer, and whether that is right. Algorithms see the answer
            alone.
        group: classes of equal answers.
    """

    speaker: Speaker
    judging: Judging | None
    outcome: Callable[[Problem, str], Outcome]
    group: Callable[[Sequence[str | None]], list[int | None]]


class Run:
    """One problem's search.

    Args:
        problem: what is solved.
        algorithm: how; it is begun at once.
        settings: how to draw and score.
        budget: what it may spend.
        tools: what it shares with other runs.
        trace: where it notes what happens, and finds what happened.
        strict: whether side-by-side searches wait for each other, so that a trace does not depend
            on who answers first.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        problem: Problem,
        algorithm: Algorithm,
        settings: SearchSettings,
        budget: Budget,
        tools: Tools,
        trace: Trace,
        *,
        strict: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.problem, self.settings, self.budget, self.tools = problem, settings, budget, tools
        self.trace, self._clock = trace, clock
        self.root = Node(problem)
        self.nodes: dict[tuple[int, ...], Node] = {(): self.root}
        self.cost = Cost()
        self._promised = Cost()
        self.ended: Ended | None = None
        self.pool: Pool | None = None
        self._strict = strict
        self._wishes: deque[Wish] = deque()
        self._n_wishes = 0
        self._drawing: dict[tuple[int, ...], tuple[Wish, Cost]] = {}
        self._to_score: deque[Node] = deque()
        self._scoring: dict[tuple[int, ...], Cost] = {}
        self._awaiting: dict[tuple[int, ...], list[Scoring]] = {}
        self._to_tell: deque[Passage] = deque()
        self._telling: dict[Key, Cost] = {}
        self._told: dict[Key, float] = {}
        self._weighings: list[Weighing] = []
        self._ready: deque[tuple[Thread, Any]] = deque()
        self._outcomes: dict[tuple[int, ...], Outcome] = {}
        self._known = Known(trace.found)
        self._begun = clock() - max((e.get("t", 0.0) for e in trace.found), default=0.0)
        self.scene = self._scene()
        """What the algorithm knows."""
        self._main = Thread(algorithm(self.scene))
        self._ready.append((self._main, None))
        self._advance()

    @property
    def seconds(self) -> float:
        """Since it began; what was spent before it was resumed counts."""
        return self._clock() - self._begun

    def _scene(self) -> Scene:
        judging = self.tools.judging
        return Scene(
            root=self.root,
            seed=self.settings.seed,
            aggregation=self.settings.aggregation,
            semantics="correctness" if judging is None else judging.scorer.semantics,
            spent=lambda: self.cost,
            answers=lambda nodes: self.tools.group([self.outcome(n).answer for n in nodes]),
            acts=self.tools.speaker.acts,
            votes=self.tools.speaker.votes,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and nothing is under way."""
        return self.ended is not None and not self._under_way()

    def forget(self) -> None:
        """Drop what the scorer and an environment keep for it."""
        for node in self.nodes.values():
            node.state = None
        self.tools.speaker.forget(list(self.nodes.values()))

    def outcome(self, node: Node) -> Outcome:
        """What a node's solution comes to."""
        if node.path not in self._outcomes:
            self._outcomes[node.path] = self.tools.outcome(self.problem, node.solution())
        return self._outcomes[node.path]

    def take(self) -> Taken:
        """What is wanted now and what the budget allows of it; each is given out once."""
        self._from_trace()
        if self.ended is not None:
            return Taken([], [], [])
        waits = self._strict and self._under_way()
        nodes = [] if waits and self._limited else self._granted_scores()
        draws = [] if waits else self._granted_draws()
        passages = [] if waits else self._granted_passages()
        if not self._under_way() and (self._wishes or self._to_score or self._to_tell):
            self.end("budget")
        return Taken(draws, nodes, passages)

    @property
    def _limited(self) -> bool:
        """Whether scoring takes off the budget."""
        b = self.budget
        return not (b.scorer_tokens is None and b.dollars is None and b.calls is None)

    def _granted_scores(self) -> list[Node]:
        granted: list[Node] = []
        counts = self.budget.scorer_tokens is not None or self.budget.dollars is not None
        while self._to_score and not self._late():
            node = self._to_score[0]
            most = self._judging.most(node) if counts else 0
            one = Cost(scorings=1, scorer_tokens=most)
            if not self.budget.fits(self._spoken_for().plus(one)):
                break
            self._to_score.popleft()
            self._scoring[node.path] = one
            self._promised = self._promised.plus(one)
            granted.append(node)
        return granted

    def _granted_passages(self) -> list[Passage]:
        granted: list[Passage] = []
        while self._to_tell and not self._late():
            one = self.tools.speaker.reading(self._to_tell[0])
            if not self.budget.fits(self._spoken_for().plus(one)):
                break
            passage = self._to_tell.popleft()
            self._telling[passage.key] = one
            self._promised = self._promised.plus(one)
            granted.append(passage)
        return granted

    def _granted_draws(self) -> list[Draw]:
        granted: list[Draw] = []
        # Whoever answered first: those that were wished for first, which go on with a piece.
        self._wishes = deque(sorted(self._wishes, key=lambda wish: wish.serial))
        while self._wishes and not self._late():
            wish = self._wishes[0]
            draw, most = self._draw(wish)
            if draw is None:
                break
            self._wishes.popleft()
            self._drawing[(*wish.node.path, wish.number)] = (wish, most)
            self._promised = self._promised.plus(most)
            granted.append(draw)
        return granted

    def _draw(self, wish: Wish) -> tuple[Draw | None, Cost]:
        """A wish as far as the budget allows it, and what it may cost."""
        speaker = self.tools.speaker
        most = speaker.drawing(wish.whole, wish.temperature).max_new_tokens
        prompt = 0
        if self.budget.dollars is not None:
            prompt = speaker.prompt_tokens(wish.node)
        beside = speaker.beside(wish.node)
        before = self._spoken_for().plus(beside)
        limit = self.budget.tokens_for(before, prompt, most)
        one = beside.plus(Cost(completions=1, policy_tokens=limit, prompt_tokens=prompt))
        # The pieces that come after this one, until the wish is fulfilled.
        more = speaker.turns(wish.node, wish.whole) - 1
        rest = Cost(more, more * most, env_steps=more * beside.env_steps)
        cut = limit < most or not self.budget.fits(self._spoken_for().plus(one).plus(rest))
        if limit < 1 or (cut and self._under_way()):
            # What is under way may leave more than it was promised.
            return None, Cost()
        seed = seed_for(self.settings.seed, self.problem.id, *map(str, wish.node.path))
        draw = Draw(
            wish.node,
            wish.number,
            seed,
            wish.whole,
            wish.temperature,
            limit,
            "aborted" if limit < most else "length",
            speaker.leave(wish.node),
        )
        return draw, one if cut else one.plus(rest)

    def _spoken_for(self) -> Cost:
        """What was spent, and what is promised to what is under way."""
        return self.cost.plus(self._promised)

    def _under_way(self) -> bool:
        return bool(self._drawing or self._scoring or self._telling)

    def _late(self) -> bool:
        return self.budget.seconds is not None and self.seconds >= self.budget.seconds

    @property
    def _judging(self) -> Judging:
        if self.tools.judging is None:
            raise SearchError(
                "the algorithm asks for scores, and there is no scorer; give one (--model)"
            )
        return self.tools.judging

    # What came of it.

    def put_draws(self, draws: Sequence[Draw], children: Sequence[Child]) -> None:
        """Give it the children that it took."""
        events = []
        for draw, child in zip(draws, children, strict=True):
            wish, most = self._drawing.pop((*draw.node.path, draw.number))
            self._promised = self._promised.minus(most)
            node = self._grown(wish, child)
            self._known.displace(node.path)
            event = child_event(node, child, wish.whole, self.seconds)
            events.append(event | self.tools.speaker.noted(child))
        self.trace.write(events)
        self._advance()

    def put_scores(self, nodes: Sequence[Node], scores: Sequence[Scores]) -> None:
        """Give it the scores of the nodes that it took."""
        events = []
        for node, found in zip(nodes, scores, strict=True):
            self._promised = self._promised.minus(self._scoring.pop(node.path))
            self._scored(node, found)
            events.append(score_event(node, found, self.seconds))
        self.trace.write(events)
        self._advance()

    def put_likelihoods(self, passages: Sequence[Passage], logs: Sequence[float]) -> None:
        """Give it the likelihoods of the texts that it took."""
        events = []
        for passage, log in zip(passages, logs, strict=True):
            cost = self._telling.pop(passage.key)
            self._promised = self._promised.minus(cost)
            self._tell(passage, log, cost)
            events.append(likelihood_event(passage, log, cost, self.seconds))
        self.trace.write(events)
        self._advance()

    def _tell(self, passage: Passage, log: float, cost: Cost) -> None:
        self._told[passage.key] = log
        passage.node.cost = passage.node.cost.plus(cost)
        self.cost = self.cost.plus(cost)
        for weighing in list(self._weighings):
            if all(one.key in self._told for one in weighing.passages):
                self._weighings.remove(weighing)
                self._ready.append((weighing.thread, self._reply(weighing)))

    def _reply(self, weighing: Weighing) -> list[float]:
        return [self._told[passage.key] for passage in weighing.passages]

    def _grown(self, wish: Wish, child: Child) -> Node:
        """A child in its place; a blank one, or a turn of a rest, is gone on from at once."""
        node = Node(
            self.problem,
            wish.node,
            wish.number,
            text=child.text,
            steps=child.steps,
            ids=child.ids,
            finish=child.finish,
            error=child.error,
            cost=child.cost,
            observation=child.observation,
        )
        self.nodes[node.path] = node
        self.cost = self.cost.plus(child.cost)
        self.tools.speaker.arrived(node, child)
        if child.outcome is not None:
            self._outcomes[node.path] = child.outcome
        if node.is_open and (not node.steps or (wish.whole and self.tools.speaker.acts)):
            blanks = 0 if node.steps else wish.blanks + 1
            if blanks < BLANKS:
                node.lead = "" if node.steps else wish.node.lead + node.text
                node.n_children = 1
                self._wishes.append(wish._replace(node=node, number=0, blanks=blanks))
                return node
            node.finish = "length"
        expansion, (i, j) = wish.expansion, wish.place
        expansion.children[i][j] = node
        expansion.missing -= 1
        if expansion.score and node.n_steps and (node.is_open or node.is_finished):
            self._want_score(node, None)
        if not expansion.missing:
            self._drawn(expansion)
        return node

    def _drawn(self, expansion: Expansion) -> None:
        """All children of an expansion are there; they may have to be scored."""
        children = [[c for c in of_node if c is not None] for of_node in expansion.children]
        scoring = Scoring(expansion.thread, children, 0)
        if expansion.score:
            for of_node in children:
                for child in of_node:
                    if child.n_steps and (child.is_open or child.is_finished):
                        self._want_score(child, scoring)
        if not scoring.missing:
            self._ready.append((expansion.thread, children))

    def _want_score(self, node: Node, scoring: Scoring | None) -> None:
        if node.scores is not None or node.unscored is not None:
            return
        if node.path not in self._awaiting:
            if self._judging.extends and node.parent is not None:
                self._want_score(node.parent, None)
            self._awaiting[node.path] = []
            self._to_score.append(node)
        if scoring is not None:
            scoring.missing += 1
            self._awaiting[node.path].append(scoring)

    def _scored(self, node: Node, found: Scores) -> None:
        node.scores, node.unscored = found.values, found.unscored
        if node.state is None and found.values is not None and found.length is not None:
            node.state = Kept(None, found.values, found.length)
        node.cost = node.cost.plus(found.cost)
        self.cost = self.cost.plus(found.cost)
        for scoring in self._awaiting.pop(node.path, []):
            scoring.missing -= 1
            if not scoring.missing:
                self._ready.append((scoring.thread, scoring.reply))

    def _from_trace(self) -> None:
        """Answer from the trace what it holds."""
        more = self.ended is None and bool(self._known)
        while more:
            more = False
            for wish in list(self._wishes):
                event = self._known.child((*wish.node.path, wish.number), wish.whole)
                if event is not None:
                    self._wishes.remove(wish)
                    child = self.tools.speaker.known(wish.node, event)
                    self._grown(wish, child)
                    self.trace.write([event], known=True)
                    more = True
            for node in list(self._to_score):
                event = self._known.score(node.path)
                if event is not None:
                    self._to_score.remove(node)
                    self._scored(node, scores_of(event))
                    self.trace.write([event], known=True)
                    more = True
            for passage in list(self._to_tell):
                event = self._known.likelihood(passage.key)
                if event is not None:
                    self._to_tell.remove(passage)
                    log = float("-inf") if event["log"] is None else event["log"]
                    self._tell(passage, log, Cost(*event["cost"]))
                    self.trace.write([event], known=True)
                    more = True
            self._advance()

    # The algorithm.

    def _advance(self) -> None:
        """Send the threads that wait no longer what came."""
        if self._strict and self._under_way():
            return
        while self._ready and self.ended is None:
            thread, reply = self._ready.popleft()
            self._step(thread, reply)

    def _step(self, thread: Thread, reply: Any) -> None:
        while True:
            try:
                request = thread.steps.send(reply)
            except StopIteration as done:
                self._finished(thread, done.value)
                return
            if isinstance(request, Note):
                self._note(request)
                reply = None
                continue
            if isinstance(request, Cut | Join) and self.tools.speaker.acts:
                raise SearchError(
                    "the algorithm puts steps elsewhere in the tree, and an action that is done "
                    "elsewhere is answered otherwise; it has no meaning in an environment"
                )
            if isinstance(request, Cut):
                reply = self._cut(request)
                continue
            if isinstance(request, Join):
                reply = self._join(request)
                continue
            if isinstance(request, Likelihood):
                weighing = self._weigh(thread, request)
                if weighing in self._weighings:
                    return
                reply = self._reply(weighing)
                continue
            if isinstance(request, Abort):
                self._abort(request)
                reply = None
                continue
            if isinstance(request, Together):
                thread.replies = [None] * len(request.searches)
                thread.waits = len(request.searches)
                if not thread.waits:
                    reply = []
                    continue
                self._ready.extend(
                    (Thread(search, (thread, i)), None) for i, search in enumerate(request.searches)
                )
                return
            if isinstance(request, Score):
                scoring = Scoring(thread, None, 0)
                for node in dict.fromkeys(request.nodes):
                    self._want_score(node, scoring)
                if scoring.missing:
                    return
                reply = None
                continue
            if not sum(request.counts):
                reply = [[] for _ in request.nodes]
                continue
            self._expand(thread, request)
            return

    def _expand(self, thread: Thread, request: Expand) -> None:
        expansion = Expansion(
            thread,
            request.score,
            [[None] * count for count in request.counts],
            sum(request.counts),
        )
        for i, (node, count) in enumerate(zip(request.nodes, request.counts, strict=True)):
            if count and not node.is_open:
                raise SearchError(f"an algorithm goes on from {node.path}, which is {node.finish}")
            first = node.n_children if request.first is None else request.first[i]
            node.n_children = max(node.n_children, first + count)
            for j in range(count):
                self._wishes.append(
                    Wish(
                        expansion,
                        (i, j),
                        node,
                        first + j,
                        request.whole,
                        request.temperature,
                        self._n_wishes,
                    )
                )
                self._n_wishes += 1

    def _cut(self, request: Cut) -> Node:
        node, kept = request
        made = cut_off(node, kept, 0 if node.parent is None else node.parent.n_children)
        note = Note("cut", {"path": list(made.path), "of": list(node.path), "steps": kept})
        self._take_in([made], note)
        return made

    def _join(self, request: Join) -> list[list[Node]]:
        found = []
        told = []
        for node, rest in zip(request.nodes, request.rests, strict=True):
            made = joined(node, rest, node.n_children)
            node.n_children += bool(made)
            found.append(made)
            told.append(
                {
                    "after": list(node.path),
                    "number": made[0].number if made else None,
                    "of": [list(source.path) for source in rest],
                }
            )
        self._take_in([node for of_one in found for node in of_one], Note("join", {"joined": told}))
        return found

    def _take_in(self, made: Sequence[Node], note: Note) -> None:
        known = self._note(note)
        for node in made:
            assert node.parent is not None
            node.parent.n_children = max(node.parent.n_children, node.number + 1)
            self.nodes[node.path] = node
            if not known:
                self._known.displace(node.path)

    def _weigh(self, thread: Thread, request: Likelihood) -> Weighing:
        self.tools.speaker.check_likelihoods()
        weighing = Weighing(thread, tuple(map(Passage, request.nodes, request.after)))
        waiting = {one.key for one in self._to_tell} | self._telling.keys()
        new = {one.key: one for one in weighing.passages if one.key not in self._told}
        self._to_tell += [one for key, one in new.items() if key not in waiting]
        if new:
            self._weighings.append(weighing)
        return weighing

    def _abort(self, request: Abort) -> None:
        given_up = [node for node in request.nodes if node.is_open]
        for node in given_up:
            node.finish = "aborted"
        self.tools.speaker.forget(given_up)
        if given_up:
            self._note(Note("abort", {"paths": [list(node.path) for node in given_up]}))

    def _note(self, request: Note) -> bool:
        """Note a decision; whether it was noted already."""
        event = {"event": "note", "kind": request.kind, **request.data}
        known = self._known.note(event)
        self.trace.write([event], known=known)
        return known

    def _finished(self, thread: Thread, result: Any) -> None:
        if thread.parent is None:
            self.pool = result
            self.end("done")
            return
        parent, place = thread.parent
        parent.replies[place] = result
        parent.waits -= 1
        if not parent.waits:
            self._ready.append((parent, parent.replies))

    def end(self, why: Ended) -> None:
        """No more is wanted; what is under way is still taken."""
        if self.ended is None:
            self.ended = why
            self._main.steps.close()
