"""A recorded search, read again: its tree, and what another scorer would have chosen of its pool.

The text is there already, so a replay costs no policy token. What it tells is who picks better from
the same candidates; a search that is guided by another scorer would have written others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from prmkit.errors import FormatError, InvalidSetting, NothingToMeasure
from prmkit.policies.sampling import Judge, Outcome
from prmkit.records import Problem, Semantics, StepScores
from prmkit.scorers.base import Scorer
from prmkit.search.acting import outcome_of, turn
from prmkit.search.choice import Chosen, choose
from prmkit.search.grafting import cut_off, joined
from prmkit.search.requests import Pool
from prmkit.search.settings import SearchSettings
from prmkit.search.trace import Event, read_events
from prmkit.search.tree import Cost, Node
from prmkit.splitting import splitter


class Recorded(NamedTuple):
    """A search that a trace tells of.

    Attributes:
        problem: what was solved.
        about: how: algorithm, settings, budget, policy and scorer.
        root: of the tree, with the scores that were noted.
        nodes: of the tree, by path.
        notes: what the algorithm decided.
        end: the choice, where the search came to it.
        path: of the trace.
        cost: all that was spent, in vain too.
        outcomes: of episodes that ended, by path, as their environment had it.
    """

    problem: Problem
    about: Mapping[str, Any]
    root: Node
    nodes: dict[tuple[int, ...], Node]
    notes: list[Event]
    end: Event | None
    path: Path
    cost: Cost
    outcomes: Mapping[tuple[int, ...], Outcome]

    def outcome(self, node: Node, judge: Judge) -> Outcome:
        """What a solution comes to: as its environment had it, or else as it is judged."""
        known = self.outcomes.get(node.path)
        return judge(self.problem, node.solution()) if known is None else known

    @property
    def candidates(self) -> Pool:
        """What was chosen from; every whole solution where the search did not come to its end."""
        if self.end is None or self.end["ended"] != "done":
            return Pool(tuple(node for node in self.root.walk() if node.is_drawn_solution))
        nodes = tuple(self.nodes[tuple(path)] for path in self.end["candidates"])
        return Pool(nodes)


def traces_in(path: Path | str) -> list[Path]:
    """A trace, or all traces of a folder or of a run's folder.

    Raises:
        NothingToMeasure: if there is none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    for folder in (path / "traces", path):
        found = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
        if found:
            return found
    raise NothingToMeasure(
        f"{path} holds no trace of a search; give a trace, or the run folder of prm search"
    )


def recorded(path: Path | str) -> Recorded:
    """Read a trace.

    Raises:
        FormatError: if it is none, or a line of it does not fit the lines before.
    """
    path = Path(path)
    start: Event | None = None
    notes: list[Event] = []
    end: Event | None = None
    nodes: dict[tuple[int, ...], Node] = {}
    split: Callable[[str], list[str]] | None = None
    cost = Cost()
    outcomes: dict[tuple[int, ...], Outcome] = {}
    for line, event in enumerate(read_events(path), 1):
        try:
            if event["event"] == "start":
                start = event
                nodes[()] = Node(Problem.model_validate(event["problem"]))
                split = splitter(event["settings"]["split"])
            elif event["event"] == "child":
                assert split is not None
                _grow(nodes, event, split)
                outcomes.pop(tuple(event["path"]), None)
                if (told := outcome_of(event)) is not None:
                    outcomes[tuple(event["path"])] = told
            elif event["event"] == "score":
                _score(nodes, event)
            elif event["event"] == "note":
                notes.append(event)
                _graft(nodes, event)
                for given_up in event["paths"] if event["kind"] == "abort" else ():
                    nodes[tuple(given_up)].finish = "aborted"
            elif event["event"] == "likelihood":
                node = nodes[tuple(event["path"])]
                node.cost = node.cost.plus(Cost(*event["cost"]))
            elif event["event"] == "end":
                end = event
            if "cost" in event and event["event"] != "end":
                cost = cost.plus(Cost(*event["cost"]))
        except (KeyError, TypeError, ValidationError, AssertionError) as error:
            raise FormatError(f"no event that fits here ({error!r})", path, line) from None
    if start is None:
        raise FormatError("the trace is empty", path)
    return Recorded(nodes[()].problem, start, nodes[()], nodes, notes, end, path, cost, outcomes)


def _grow(
    nodes: dict[tuple[int, ...], Node], event: Event, split: Callable[[str], list[str]]
) -> None:
    *before, number = event["path"]
    parent = nodes[tuple(before)]
    # It could not be drawn, and was drawn again.
    _displace(nodes, tuple(event["path"]))
    text = event["text"]
    observation = event.get("observation")
    if "observation" in event:
        steps = turn(text, observation)
    else:
        pieces = split(text) if event["whole"] else [text]
        steps = (parent.lead + pieces[0], *pieces[1:]) if text.strip() else ()
    node = Node(
        parent.problem,
        parent,
        number,
        text=text,
        steps=steps,
        finish=event["finish"],
        error=event.get("error"),
        cost=Cost(*event["cost"]),
        observation=observation,
    )
    if node.is_open and not steps:
        node.lead = parent.lead + text
    nodes[node.path] = node


def _score(nodes: dict[tuple[int, ...], Node], event: Event) -> None:
    node = nodes[tuple(event["path"])]
    values = event.get("values")
    node.scores = None if values is None else tuple(values)
    node.unscored = event.get("unscored")
    node.cost = node.cost.plus(Cost(*event["cost"]))


def _graft(nodes: dict[tuple[int, ...], Node], event: Event) -> None:
    """What the algorithm put into the tree without drawing it."""
    if event["kind"] == "cut":
        _displace(nodes, tuple(event["path"]))
        made = [cut_off(nodes[tuple(event["of"])], event["steps"], event["path"][-1])]
    elif event["kind"] == "join":
        made = []
        for one in event["joined"]:
            after, rest = tuple(one["after"]), [nodes[tuple(path)] for path in one["of"]]
            if rest:
                _displace(nodes, (*after, one["number"]))
            made += joined(nodes[after], rest, one["number"])
    else:
        return
    nodes.update((node.path, node) for node in made)


def _displace(nodes: dict[tuple[int, ...], Node], path: tuple[int, ...]) -> None:
    """Take what was at a place, and behind it, out of the tree: a run came by there twice."""
    known = nodes.get(path)
    if known is None:
        return
    nodes[path[:-1]].children.remove(known)
    for node in known.walk():
        nodes.pop(node.path, None)


def scores_so_far(search: Recorded) -> Iterator[tuple[int, float, list[Node]]]:
    """Tokens and seconds spent, and the candidates, whenever there is one more.

    A whole solution is a candidate once it is scored, or at once where the search scores nothing.
    Its score is paid for right after its text: what is drawn in one call could have been drawn and
    scored one after the other, so that a best-of-N tells of every smaller N too.
    """
    scores = search.about["scorer"] is not None
    events = [e for e in read_events(search.path) if e["event"] in ("child", "score")]
    scored = {tuple(e["path"]): e for e in events if e["event"] == "score"}
    # A child that could not be drawn at first was drawn later.
    drawn = {tuple(e["path"]): i for i, e in enumerate(events) if e["event"] == "child"}
    tokens = 0
    there: list[Node] = []
    for i, event in enumerate(events):
        path = tuple(event["path"])
        node = search.nodes.get(path)
        whole = node is not None and node.is_drawn_solution
        if event["event"] == "score" and whole and event is scored[path]:
            continue
        tokens += Cost(*event["cost"]).tokens
        if node is None or not whole or i != drawn[path]:
            continue
        seconds = float(event["t"])
        if scores:
            own = scored.get(node.path)
            if own is None:
                continue
            tokens += Cost(*own["cost"]).tokens
            seconds = float(own["t"])
        there.append(node)
        yield tokens, seconds, list(there)


class Replayed(NamedTuple):
    """What would have been chosen.

    Attributes:
        recorded: the search.
        chosen: by the other scorer, or in the other way.
        answer: of it.
        correct: whether that is right, where known.
        before: the answer that the search itself gave, and whether that is right.
    """

    recorded: Recorded
    chosen: Chosen
    answer: str | None
    correct: bool | None
    before: tuple[str | None, bool | None]


def replay(
    searches: Iterable[Recorded],
    scorer: Scorer | None,
    settings: SearchSettings,
    judge: Judge,
    group: Callable[[Sequence[str | None]], list[int | None]],
) -> Iterator[Replayed]:
    """Choose again from recorded candidates.

    Args:
        searches: from `recorded`.
        scorer: scores the candidates anew; None keeps the scores that were noted.
        settings: how to choose: choice and aggregation count, nothing else.
        judge: the answer of a solution, and whether it is right.
        group: classes of equal answers.

    Raises:
        InvalidSetting: if the noted scores are to be kept and there are none.
    """
    for search in searches:
        pool = search.candidates
        nodes = [node for node in pool.nodes if node.is_finished]
        semantics: Semantics = search.about.get("semantics") or "correctness"
        if scorer is not None:
            semantics = scorer.semantics
            unique = {id(node): node for node in nodes}
            found = scorer.score([node.trajectory() for node in unique.values()])
            for node, scored in zip(unique.values(), found, strict=True):
                node.scores = scored.values if isinstance(scored, StepScores) else None
        elif settings.choice != "majority" and nodes and all(n.scores is None for n in nodes):
            raise InvalidSetting(
                f"{search.path} holds no scores of its candidates; name a model to score them "
                "(--model), or choose by majority (--choice majority)"
            )
        outcomes = {id(node): search.outcome(node, judge) for node in nodes}

        def value(node: Node, semantics: Semantics = semantics) -> float:
            found = node.value(settings.aggregation, semantics)
            return float("-inf") if found is None else found

        def answers(
            given: Sequence[Node], outcomes: Mapping[int, Any] = outcomes
        ) -> list[int | None]:
            return group([outcomes[id(node)].answer for node in given])

        chosen = choose(Pool(tuple(nodes)), settings.choice, value, answers, semantics)
        own = None if chosen.node is None else outcomes[id(chosen.node)]
        end = search.end or {}
        yield Replayed(
            search,
            chosen,
            None if own is None else own.answer,
            None if own is None else own.correct,
            (end.get("answer"), end.get("correct")),
        )
