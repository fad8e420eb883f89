"""Who&When: which agent made the decisive mistake of a failed multi-agent run, and at which step?

    paper      arXiv:2505.00212
    data       git ag2ai/Agents_Failure_Attribution (Who&When/*/*.json); Kevin355/Who_and_When
               on the hub
    revision   59b9fcba1aaed7bbf206b5f4d3c68b8face2f49c of the hub
    licence    MIT in git, none stated on the hub
    published  Table 1 of the paper, by part

Steps are counted from 0 and every entry of the history is one. Every run holds one decisive
mistake, so a scorer blames the step that it scores lowest. The official evaluator asks whether the
true name is contained in the named one ("1" in "10"); figures by equality are given first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prmkit.errors import FormatError
from prmkit.evaluation.benchmarks import published
from prmkit.evaluation.cases import (
    Benchmark,
    Case,
    Content,
    Figures,
    Given,
    Protocol,
    data_files,
    first_error_labels,
    read_cases,
)
from prmkit.evaluation.figures import Judged, missing_as_wrong
from prmkit.evaluation.judgements import Judgement, Verdict
from prmkit.evaluation.statistics import Statistic
from prmkit.formats.base import Row, need
from prmkit.records import Problem, Record, Step, StepScores, Trajectory

ALGORITHM, HAND = "algorithm_generated", "hand_crafted"
_AGENT = re.compile(r"Agent Name:\s*(\w+)")
_STEP = re.compile(r"Step Number:\s*(\d+)")
_INDEX = re.compile(r"\d{1,6}", re.ASCII)
_BLOCK = re.compile(r"Prediction for ([^:\n]+)\.json:(.*?)(?=Prediction for |\Z)", re.DOTALL)


def read(path: Path) -> list[Case]:
    """The cases of a folder of logs, of a part of it, or of a file with a log per row."""
    return read_cases(data_files(path), lambda row: [_case(row)])


def _agent(entry: Mapping[str, Any]) -> str:
    """Who speaks: the name, or the role without what is in brackets after it."""
    name = entry.get("name") or entry.get("role") or ""
    return str(name).split(" (")[0].strip()


def _case(row: Row) -> Case:
    data = row.data
    history = need(data, "history", list)
    for index, entry in enumerate(history):
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise FormatError(f"entry {index} of 'history' is {entry!r:.60}; it needs a 'content'")
    split = ALGORITHM if any(entry.get("name") for entry in history) else HAND
    told = str(need(data, "mistake_step", (str, int))).strip()
    if not _INDEX.fullmatch(told) or int(told) >= len(history):
        raise FormatError(
            f"'mistake_step' is {data['mistake_step']!r}; the history has {len(history)} entries, "
            "counted from 0"
        )
    alone = row.path.suffix == ".json" and row.path.stem.isdigit()
    key = row.path.stem if alone else data.get("file", data.get("id", data.get("question_ID")))
    name = f"{split}/{str(key if key is not None else row.number).removesuffix('.json')}"
    agents = [_agent(entry) for entry in history]
    trajectory = Trajectory(
        problem=Problem(
            id=name,
            prompt=str(need(data, "question", str)),
            answer=_text(data.get("ground_truth", data.get("groundtruth"))),
        ),
        steps=tuple(
            Step(text=f"{agent}: {entry['content']}")
            for agent, entry in zip(agents, history, strict=True)
        ),
        separator="\n",
        correct=False,
    )
    record = Record(
        trajectory=trajectory,
        labels=first_error_labels(int(told), len(history), "Who&When"),
        meta={"agents": list(agents), "mistake_agent": need(data, "mistake_agent", str)},
    )
    return Case(name, record, split, name)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def judgement(row: Row, cases: Mapping[str, Case]) -> list[Given] | None:
    """A row with a named agent and step."""
    data = row.data
    agent = data.get("predicted_agent", data.get("agent", data.get("mistake_agent")))
    step = data.get("predicted_step", data.get("step", data.get("mistake_step")))
    key = data.get("id", data.get("file", data.get("question_ID")))
    if key is None or (agent is None and step is None):
        return None
    name = str(key).removesuffix(".json")
    matches = [c for c in cases if c == name or c.split("/", 1)[1] == name]
    if len(matches) > 1:
        raise FormatError(f"{name!r} is there in both parts; write {' or '.join(matches)}")
    case = matches[0] if matches else name
    model = data.get("model", data.get("judge"))
    if not matches:
        return [Given(model, case, Judgement(None))]
    n = len(cases[case].record.trajectory.steps)
    return [Given(model, case, Judgement(None, _verdict(agent, step, n)))]


def _verdict(agent: object, step: object, n: int) -> Verdict:
    text = "" if step is None else str(step).strip()
    index = int(text) if _INDEX.fullmatch(text) else None
    return Verdict((None,) * n, False, index, agent=None if agent is None else str(agent))


def read_log(path: Path, cases: Mapping[str, Case]) -> list[Given]:
    """The predictions of a log of the official inference scripts; the last of each file counts.

    Raises:
        FormatError: if there is none.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    lowered = path.name.lower()
    split = HAND if "hand" in lowered else ALGORITHM if "alg" in lowered else None
    found: dict[str, Given] = {}
    for stem, block in _BLOCK.findall(text):
        agent, step = _AGENT.search(block), _STEP.search(block)
        names = [f"{s}/{stem.strip()}" for s in (ALGORITHM, HAND) if split in (s, None)]
        name = next((n for n in names if n in cases), names[0])
        if agent is None or step is None:
            continue
        n = len(cases[name].record.trajectory.steps) if name in cases else 0
        verdict = _verdict(agent[1], step[1], n)
        found[name] = Given(None, name, Judgement(None, verdict))
    if not found:
        raise FormatError("no 'Prediction for N.json:' with an agent and a step is there", path)
    return list(found.values())


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """Accuracies of agents and steps, over all and by part; a missing prediction is wrong."""
    return Figures(missing_as_wrong(judged, _figures))


def _figures(judged: Judged) -> dict[str, Statistic]:
    agents, steps, held, held_steps = [], [], [], []
    for case, given, verdict in zip(judged.cases, judged.judgements, judged.verdicts, strict=True):
        assert verdict is not None
        agent, step = _blamed(case, given, verdict)
        truth = str(case.record.meta["mistake_agent"])
        labels = case.record.labels
        place = labels.first_error if labels is not None else None
        agents.append(agent == truth)
        steps.append(step == place)
        held.append(agent is not None and truth in agent)
        held_steps.append(step is not None and str(place) in str(step))
    return {
        "agent_accuracy": judged.mean(agents),
        "step_accuracy": judged.mean(steps),
        "containing/agent_accuracy": judged.mean(held),
        "containing/step_accuracy": judged.mean(held_steps),
    }


def _blamed(case: Case, given: Judgement, verdict: Verdict) -> tuple[str | None, int | None]:
    scores = given.scores
    if given.verdict is None and isinstance(scores, StepScores) and scores.values:
        step: int | None = min(range(len(scores.values)), key=scores.values.__getitem__)
    else:
        step = verdict.first_error
    agents = case.record.meta["agents"]
    assert isinstance(agents, list)
    if verdict.agent is not None:
        return verdict.agent, step
    return (str(agents[step]) if step is not None and step < len(agents) else None), step


def _gold(case: Case) -> Judgement:
    n = len(case.record.trajectory.steps)
    assert case.record.labels is not None
    verdict = Verdict(
        (None,) * n,
        False,
        case.record.labels.first_error,
        agent=str(case.record.meta["mistake_agent"]),
    )
    return Judgement(None, verdict)


BENCHMARK = Benchmark(
    name="who_and_when",
    title="Who&When",
    about="the decisive mistake of 184 failed runs of several agents: whose it was, and when",
    paper="2505.00212",
    hub="Kevin355/Who_and_When",
    revision="59b9fcba1aaed7bbf206b5f4d3c68b8face2f49c",
    licence="MIT",
    read=read,
    figures=figures,
    headline="agent_accuracy",
    judgement=judgement,
    read_log=read_log,
    content={ALGORITHM: Content(126, 126), HAND: Content(58, 58)},
    published=published.WHO_AND_WHEN,
    gold=_gold,
    keeps_unscored=True,
    perfect=("agent_accuracy", "step_accuracy"),
    columns=lambda names: [
        n
        for n in (
            *("agent_accuracy", "step_accuracy"),
            *(
                f"{part}/containing/{what}_accuracy"
                for part in (ALGORITHM, HAND)
                for what in ("agent", "step")
            ),
        )
        if n in names
    ],
)
