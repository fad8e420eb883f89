"""AgentProcessBench: is each turn of a tool-using agent helpful, neutral or harmful?

    paper      arXiv:2603.14465
    data       git RUCBM/AgentProcessBench (data/); LulaCola/AgentProcessBench on the hub
    revision   cd81f326aece8b0a3f6359e20df370690d3a98bf of the hub
    licence    MIT on the hub, none stated in git; for evaluation
    published  Table 3 of the paper

Labels are 1, 0 or -1, by the index of the assistant's message. As in the official evaluator, a
label that is missing is wrong, a trajectory that is missing has no label, and the first error of a
trajectory without any is found by a judge that names none. The mean is over all steps. Of several
results of one trajectory the newest counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    gold_scores,
    read_cases,
)
from prmkit.evaluation.figures import Judged, missing_as_wrong, share, true_first_error
from prmkit.evaluation.judgements import Judgement, Verdict
from prmkit.evaluation.statistics import Statistic, Sums
from prmkit.formats.base import Row, need
from prmkit.records import Message, Problem, Record, Step, StepLabels, StepScores, Trajectory

_INDEX = re.compile(r"\d{1,6}", re.ASCII)
SUBSETS = ("hotpotqa", "gaia_dev", "bfcl", "tau2")
_EACH = 250
_STAMPS = ("updated_at", "created_at", "timestamp")
_JUDGES = ("judge", "model", "judge_model", "annotator", "username")


def subset_and_number(data: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """Which subset a row is of, and which of its trajectories.

    Raises:
        FormatError: if the row does not say.
    """
    total = data.get("total_index")
    if isinstance(total, int) and not isinstance(total, bool):
        if not 0 <= total < _EACH * len(SUBSETS):
            raise FormatError(f"'total_index' is {total}; it is from 0 to 999")
        return SUBSETS[total // _EACH], str(total % _EACH)
    query, sample = data.get("query_index"), data.get("sample_index")
    if not isinstance(query, int) or not isinstance(sample, int):
        raise FormatError("a row needs 'total_index', or 'query_index' and 'sample_index'")
    told = f"{data.get('dataset', '')} {data.get('data_source', '')} {path.name}".lower()
    subset = next((s for s in SUBSETS if s.split("_")[0] in told), None)
    if subset is None:
        raise FormatError(f"'dataset' is {data.get('dataset')!r}; expected {', '.join(SUBSETS)}")
    return subset, str(5 * query + sample)


def read(path: Path) -> list[Case]:
    """The cases of a file, or of a folder: whole trajectories or labels alone."""
    files = data_files(path)
    if path.is_dir():
        files = [f for f in files if any(f.name.startswith(s) for s in SUBSETS)] or files
        # Where whole trajectories and labels are side by side, the former are read.
        full = [f for f in files if "AnswerOnly" not in f.parts and "gold_labels" not in f.parts]
        whole = {f.name.split(".")[0].removesuffix("_final") for f in full}
        files = full + [
            f
            for f in files
            if f not in full and f.name.split(".")[0].removesuffix("_final") not in whole
        ]
    return read_cases(files, lambda row: [_case(row)])


def labels_of(data: Mapping[str, Any], *, reference: bool) -> dict[int, int]:
    """Labels by the index of the message; of a judge, what is no label is left out."""
    given = need(data, "step_labels", (dict, list))
    items = enumerate(given) if isinstance(given, list) else given.items()
    labels: dict[int, int] = {}
    for key, value in items:
        try:
            number = int(value)
            whole = number == float(value)
        except (TypeError, ValueError, OverflowError):
            number, whole = 0, False
        if reference and (not whole or number not in (-1, 0, 1)):
            raise FormatError(f"the label of message {key} is {value!r}; expected -1, 0 or 1")
        if not _INDEX.fullmatch(str(key)):
            raise FormatError(f"{key!r} labels no message; keys are indices of messages")
        if whole:
            labels[int(key)] = number
    return dict(sorted(labels.items()))


def _case(row: Row) -> Case:
    data = row.data
    subset, number = subset_and_number(data, row.path)
    labels = labels_of(data, reference=True)
    name = f"{subset}:{number}"
    messages = data.get("messages")
    keys = list(labels)
    if isinstance(messages, list):
        keys = [i for i, m in enumerate(messages) if _role(m) == "assistant"]
        unknown = set(labels) - set(keys)
        if unknown:
            raise FormatError(
                f"'step_labels' names message {min(unknown)}, which is none of the assistant's"
            )
        trajectory = _trajectory(name, data, messages, keys)
    else:
        steps = tuple(Step(text="") for _ in keys)
        problem = Problem(id=name, prompt=str(data.get("question", "")))
        trajectory = Trajectory(problem=problem, steps=steps)
    values = tuple(None if key not in labels else float(labels[key]) for key in keys)
    record = Record(
        trajectory=trajectory,
        labels=StepLabels(values=values, kind="human", source="AgentProcessBench"),
        meta={"messages": list(keys), "labels_only": not isinstance(messages, list)},
    )
    query = data.get("query_index")
    group = f"{subset}:{query if isinstance(query, int) else int(number) // 5}"
    return Case(name, record, subset, group)


def _role(message: object) -> str:
    return str(message.get("role")) if isinstance(message, dict) else ""


def _trajectory(
    name: str, data: Mapping[str, Any], messages: Sequence[Any], keys: Sequence[int]
) -> Trajectory:
    first = keys[0] if keys else len(messages)
    before = tuple(Message(role=_role(m), content=_content(m)) for m in messages[:first])
    tools = data.get("tools")
    steps = []
    for key, following in zip(keys, [*keys[1:], len(messages)], strict=True):
        answered = [_content(m) for m in messages[key + 1 : following]]
        steps.append(Step(text=_content(messages[key]), observation="\n".join(answered) or None))
    problem = Problem(
        id=name,
        messages=before or None,
        prompt=None if before else str(data.get("question", "")),
        meta={"tools": tools} if tools else {},
    )
    return Trajectory(problem=problem, steps=tuple(steps), separator="\n", finish="eos")


def _content(message: Any) -> str:
    """What a message says, with the tools that it calls."""
    text = message.get("content") or "" if isinstance(message, dict) else ""
    parts = [text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)]
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function", {}) if isinstance(call, dict) else {}
        parts.append(f"{function.get('name')}({function.get('arguments')})")
    return "\n".join(part for part in parts if part)


def judgement(row: Row, cases: Mapping[str, Case]) -> list[Given] | None:
    """A row of a judge's predictions."""
    data = row.data
    if "step_labels" not in data:
        return None
    subset, number = subset_and_number(data, row.path)
    name = f"{subset}:{number}"
    model = next((str(data[k]).strip() for k in _JUDGES if data.get(k)), None)
    case = cases.get(name)
    if case is None:
        return [Given(model, name, Judgement(None))]
    labels = labels_of(data, reference=False)
    keys = case.record.meta["messages"]
    assert isinstance(keys, list)
    found = next((key for key, label in labels.items() if label == -1), None)
    place = {key: i for i, key in enumerate(keys)}
    # A message that is none of the reference's is a place of its own, which nothing equals.
    first = None if found is None else place.get(found, len(keys))
    steps = tuple(labels.get(key) if isinstance(key, int) else None for key in keys)
    stamp = str(next((data[k] for k in _STAMPS if data.get(k)), ""))
    return [Given(model, name, Judgement(None, Verdict(steps, first is None, first)), stamp)]


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """Accuracy of labels and of first errors, over all and by subset."""
    return Figures(missing_as_wrong(judged, _figures))


def _figures(judged: Judged) -> dict[str, Statistic]:
    hits, steps, first, exact = [], [], [], []
    for case, verdict in zip(judged.cases, judged.verdicts, strict=True):
        assert case.record.labels is not None
        assert verdict is not None
        given = verdict.steps or (None,) * len(case.record.labels.values)
        pairs = [
            (truth, said)
            for truth, said in zip(case.record.labels.values, given, strict=True)
            if truth is not None
        ]
        hits.append(sum(truth == said for truth, said in pairs))
        steps.append(len(pairs))
        first.append(verdict.first_error == true_first_error(case))
        exact.append(hits[-1] == len(pairs))
    sums = judged.sums([hits, steps])
    return {
        "step_accuracy": Sums(sums, lambda s: share(s[:, 0], s[:, 1]), int(np.sum(steps))),
        "first_error_accuracy": judged.mean(first),
        "trajectory_accuracy": judged.mean(exact),
    }


def _gold(case: Case) -> Judgement:
    """Scores of 1, 0.5 and 0 for helpful, neutral and harmful."""
    assert case.record.labels is not None
    values = tuple(0.5 if v is None else (v + 1) / 2 for v in case.record.labels.values)
    scores = gold_scores(case).scores
    assert isinstance(scores, StepScores)
    return Judgement(scores.model_copy(update={"values": values}))


BENCHMARK = Benchmark(
    name="agent_process_bench",
    title="AgentProcessBench",
    about="8,509 labelled turns of 1,000 trajectories of tool-using agents",
    paper="2603.14465",
    hub="LulaCola/AgentProcessBench",
    revision="cd81f326aece8b0a3f6359e20df370690d3a98bf",
    licence="MIT on the hub",
    read=read,
    figures=figures,
    headline="step_accuracy",
    judgement=judgement,
    equal="neutral",
    published=published.AGENT_PROCESS_BENCH,
    content={subset: Content(_EACH) for subset in SUBSETS},
    newest_counts=True,
    gold=_gold,
    keeps_unscored=True,
    perfect=("step_accuracy", "first_error_accuracy", "trajectory_accuracy"),
    columns=lambda names: [
        n
        for s in ("", *(f"{subset}/" for subset in SUBSETS))
        for n in (f"{s}step_accuracy", f"{s}first_error_accuracy")
        if n in names
    ],
)
