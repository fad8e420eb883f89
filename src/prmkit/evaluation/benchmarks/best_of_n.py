"""Best-of-N pools: several solutions of each problem, of which it is known which are right.

    data       any file that prm convert reads, with solutions, answers and whether they are
               right: StrictPRMBench's pools, Qwen2.5-Math's and R-PRM's samples, PRM800K's scored
               samples, search-and-learn's completions, prmkit's own records

Picking is exact where a closed form is known (pass@N, best-of-N); votes are drawn. Ties are shared
unless told otherwise. Naming: best of N takes the highest score, majority the commonest answer,
the weighted vote the answer with the largest sum of scores, pass@N any right one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from prmkit.aggregate import Aggregation
from prmkit.answers import Checker, extract_answer
from prmkit.errors import FormatError
from prmkit.evaluation.cases import (
    Benchmark,
    Case,
    Figures,
    Given,
    Protocol,
    constant_scores,
    data_files,
)
from prmkit.evaluation.figures import Judged
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.pool_table import (
    PickSettings,
    Samples,
    aggregated,
    pick_table,
    samples_of,
    shown_numbers,
    trial_spread,
    without_scores,
)
from prmkit.evaluation.statistics import Floats, Statistic, Sums, ratio
from prmkit.formats.base import Row, need
from prmkit.formats.files import numbered_records, recognise
from prmkit.records import Problem, Record, StepScores

_WHOLE_ROWS = ("bon_pool", "qwen_math", "rprm_pool", "search_and_learn")
"""Formats in which a row holds all samples of a problem."""
BESIDE = ("_problems.", "_step_scores.")


def read(path: Path) -> list[Case]:
    """The samples of a file, or of the files of a folder that hold samples."""
    files = data_files(path)
    if path.is_dir():
        files = [f for f in files if not any(part in f.name for part in BESIDE)]
    if not files:
        raise FormatError("no file with samples is there", path)
    cases: list[Case] = []
    known: dict[str, tuple[Problem, tuple[Path, int]]] = {}
    for file in files:
        split = file.name.split(".")[0].removesuffix("_candidates")
        whole_rows = recognise(file).name in _WHOLE_ROWS
        number: dict[str, int] = {}
        for line, record in numbered_records(file):
            problem = record.trajectory.problem
            index = number.get(problem.id, 0)
            number[problem.id] = index + 1
            first, at = known.setdefault(problem.id, (problem, (file, line)))
            if first.text != problem.text or at[0] != file or (whole_rows and at[1] != line):
                raise FormatError(
                    f"the problem {problem.id!r} is there twice, first in {at[0].name}:{at[1]}; "
                    "samples of one problem belong into one row or file, and ids must differ",
                    file,
                    line,
                )
            cases.append(Case(f"{problem.id}/{index}", record, split, problem.id))
    if not cases:
        raise FormatError("there is no sample", path)
    return _graded(cases)


def _graded(cases: list[Case]) -> list[Case]:
    """Cases of which it is known whether they are right: by their answers, where it is not told."""
    if all(case.record.trajectory.correct is not None for case in cases):
        return cases
    graded = []
    with Checker() as checker:
        for case in cases:
            trajectory = case.record.trajectory
            gold = trajectory.problem.answer
            if trajectory.correct is None and gold is not None:
                answer = trajectory.answer or extract_answer(trajectory.text)
                right = answer is not None and checker.compare(gold, answer) == "equal"
                trajectory = trajectory.model_copy(update={"answer": answer, "correct": right})
                case = case._replace(record=case.record.replace(trajectory=trajectory))
            graded.append(case)
    return graded


def judgement(row: Row, cases: Mapping[str, Case]) -> list[Given] | None:
    """Rows of step scores: of all candidates of a problem by model, or of one candidate."""
    data = row.data
    problem = data.get("problem_id")
    if not isinstance(problem, str):
        return None
    if isinstance(data.get("scores"), dict):
        found = []
        for model, of_candidates in data["scores"].items():
            if not isinstance(of_candidates, list):
                raise FormatError(
                    f"the scores of {model!r} are {of_candidates!r:.60}; expected "
                    "a list of scores per candidate"
                )
            for index, values in enumerate(of_candidates):
                name = f"{problem}/{index}"
                found.append(Given(model, name, _scores(values, model, cases.get(name))))
        return found
    if "step_scores" in data:
        name = f"{problem}/{need(data, 'candidate_index', int)}"
        model = str(data.get("prm_name", row.path.name.split(".")[0]))
        return [Given(model, name, _scores(data["step_scores"], model, cases.get(name)))]
    return None


def _scores(values: object, model: str, case: Case | None) -> Judgement:
    if case is None:
        return Judgement(None)
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        raise FormatError(f"the scores of {case.id!r} are {values!r:.60}; expected numbers")
    skipped = case.record.meta.get("n_prompt_steps")
    kept = values[skipped if isinstance(skipped, int) else 0 :]
    n = len(case.record.trajectory.steps)
    if len(kept) != n:
        raise FormatError(f"{len(kept)} scores by {model!r} for {case.id!r}, which has {n} steps")
    return Judgement(StepScores(values=tuple(kept), semantics="value", model=model))


def pools_of(cases: Sequence[Case]) -> list[list[int]]:
    """The numbers of the cases of each problem, in order."""
    pools: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        pools.setdefault(case.group, []).append(i)
    return list(pools.values())


class Pools(NamedTuple):
    """What is the same for all judges of the same samples.

    Attributes:
        samples: as arrays.
        oracle: [P, n] pass@N.
        majority: [P, n] the plain vote.
    """

    samples: Samples
    oracle: Floats
    majority: Floats


_remembered: list[tuple[Sequence[Case], PickSettings, Pools]] = []


def grouped(cases: Sequence[Case], protocol: Protocol) -> Pools:
    """The samples as arrays; remembered for the next judge of the same cases."""
    for known, picks, pools in _remembered:
        if known is cases and picks == protocol.picks:
            return pools
    records: list[list[Record]] = [[cases[i].record for i in pool] for pool in pools_of(cases)]
    samples = samples_of(records, protocol.picks.answers)
    pools = Pools(samples, *without_scores(samples, protocol.picks))
    _remembered[:] = [(cases, protocol.picks, pools)]
    return pools


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """pass@N, majority, best of N and weighted vote for every N and aggregation."""
    samples, oracle, majority = grouped(judged.cases, protocol)
    scores = judged.scores
    scored = [[scores[i] for i in pool] for pool in pools_of(judged.cases)]
    table = pick_table(samples, scored, protocol.picks)
    n = oracle.shape[1]
    result: dict[str, Statistic] = {}
    for how, curve in table.best.items():
        result |= _named(f"best_of_{{}}/{how}", curve)
    for how, curve in table.weighted.items():
        result |= _named(f"weighted_vote_{{}}/{how}", curve)
    result |= _named("majority_{}", majority) | _named("pass_{}", oracle)
    headline = f"best_of_{n}/{protocol.aggregation}"
    first: dict[str, Statistic] = {headline: result[headline]} if headline in result else {}
    facts: dict[str, float | int | str] = {
        "problems": len(samples.problems),
        "samples": n,
        "samples_missing": int((~samples.there).sum()),
        "sampling": protocol.picks.sampling,
        "answers": protocol.picks.answers,
        "ties": protocol.picks.draws.ties,
    }
    if protocol.picks.sampling == "shuffled" and protocol.aggregation in table.best:
        overall = aggregated(scored, [protocol.aggregation], n)[protocol.aggregation]
        _, spread = trial_spread(samples, overall, protocol.picks)
        facts |= {
            f"sd_over_shuffles/best_of_{k}/{protocol.aggregation}": float(spread[k - 1])
            for k in shown_numbers(n)
        }
    return Figures({**first, **result}, facts)


def _named(pattern: str, curve: Floats) -> dict[str, Statistic]:
    ones = np.ones(len(curve))
    return {
        pattern.format(k + 1): Sums(np.stack([curve[:, k], ones], axis=1), ratio, len(curve))
        for k in range(curve.shape[1])
    }


def columns(names: Sequence[str]) -> list[str]:
    """Best of 8 and of all by every aggregation, and the votes and limits of all."""
    numbers = [int(n.removeprefix("pass_")) for n in names if n.startswith("pass_")]
    last = max(numbers, default=1)
    shown = sorted({min(8, last), last})
    ways = get_args(Aggregation)
    wanted = [f"best_of_{k}/{how}" for k in shown for how in ways]
    wanted += [f"weighted_vote_{last}/{how}" for how in ways]
    wanted += [f"majority_{last}", "pass_1", *(f"pass_{k}" for k in shown)]
    there = set(names)
    return list(dict.fromkeys(n for n in wanted if n in there))


def _gold(case: Case) -> Judgement:
    """1 for every step of a right solution, 0 for those of a wrong one."""
    return constant_scores(case, float(case.record.trajectory.correct is True))


BENCHMARK = Benchmark(
    name="best_of_n",
    title="Best-of-N pool",
    about="picking among several solutions of each problem: best of N, votes, pass@N",
    paper="2305.20050",
    hub=None,
    revision=None,
    licence="of the data that are given",
    read=read,
    figures=figures,
    headline="best_of_n",
    judgement=judgement,
    perfect=("solutions/within_problem_auc/min", "solutions/roc_auc/min"),
    gold=_gold,
    takes=frozenset({"picks"}),
    keeps_unscored=True,
    columns=columns,
    scale=1.0,
    digits=4,
)
