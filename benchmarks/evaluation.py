"""Evaluation speed: whole tables in seconds, and as ratios to a plain loop on the same input.

    python benchmarks/evaluation.py [--data DIR] [--out FILE]

DIR is the folder of real data (16,000 GSM8K solutions scored by seven models, PRMBench scored by
R-PRM-7B); without it, made-up data of the same size take its place, and the result says so. A plain
loop is run on a part of the input, and the ratio is for that part.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from prmkit import __version__
from prmkit.aggregate import Aggregation
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.benchmarks.best_of_n import pools_of
from prmkit.evaluation.best_of_n import shuffles
from prmkit.evaluation.cases import Case, group_numbers, is_repeated
from prmkit.evaluation.figures import Judged
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.pool_table import (
    PickSettings,
    Samples,
    pick_table,
    samples_of,
    without_scores,
)
from prmkit.evaluation.run import MeasureSettings, measure
from prmkit.evaluation.score_files import in_order, read_scores, stored_scores
from prmkit.evaluation.statistics import Bootstrap
from prmkit.files import write_json
from prmkit.records import StepScores, Unscored

RESULTS = Path(__file__).parent / "results" / "evaluation.json"
DATA = Path(os.environ.get("PRMKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
ROUNDS = 3
WAYS: tuple[Aggregation, ...] = get_args(Aggregation)
PART = 25
SILENT = Unscored(reason="no scores")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """The median of some rounds, and what the last one gave."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def make_pool(folder: Path) -> Path:
    """500 problems with 32 samples and the scores of seven models, made up."""
    rng = random.Random(0)
    with (
        (folder / "x_problems.jsonl").open("w") as problems,
        (folder / "x_candidates.jsonl").open("w") as candidates,
        (folder / "x_step_scores.jsonl").open("w") as scores,
    ):
        for p in range(500):
            hard = rng.random() ** 4
            samples = []
            for _ in range(32):
                right = rng.random() > hard
                answer = "1" if right else str(rng.randint(2, 5))
                steps = [f"step {k}" for k in range(rng.randint(2, 9))]
                samples.append({"steps": steps, "answer": answer, "is_correct": right})
            given = {
                f"model {m}": [[rng.random() for _ in s["steps"]] for s in samples]
                for m in range(7)
            }
            for file, row in (
                (problems, {"problem_id": str(p), "question": f"q {p}"}),
                (candidates, {"problem_id": str(p), "candidates": samples}),
                (scores, {"problem_id": str(p), "scores": given}),
            ):
                file.write(json.dumps(row) + "\n")
    return folder


def make_prmbench(folder: Path) -> Path:
    """6,216 rows with scores, made up."""
    rng = random.Random(0)
    kinds = list(BENCHMARKS["prmbench"].content)
    with (folder / "prmbench.jsonl").open("w") as data, (folder / "rprm7b.jsonl").open("w") as out:
        for i in range(6216):
            n, kind = rng.randint(5, 22), kinds[i % len(kinds)]
            row = {
                "modified_question": f"q {i}",
                "modified_process": [f"step {k}" for k in range(n)],
                "error_steps": [] if kind == "multi_solutions" else [rng.randint(1, n)],
                "idx": f"x_{i}",
                "classification": kind,
            }
            data.write(json.dumps(row) + "\n")
            scores = {"step_level_validity_scores": [rng.random() for _ in range(n)]}
            out.write(json.dumps({"idx": f"{kind}_x_{i}", "scores": scores}) + "\n")
    return folder


def plain_aggregate(values: Sequence[float], how: Aggregation) -> float:
    if how == "softmin":
        weights = [math.exp((min(values) - v) / 0.1) for v in values]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    plain: dict[str, Callable[[Sequence[float]], float]] = {
        "min": min,
        "max": max,
        "sum": sum,
        "product": math.prod,
        "mean": lambda v: sum(v) / len(v),
        "last": lambda v: v[-1],
    }
    return plain[how](values)


def values_of(judgement: Judgement) -> Sequence[float]:
    assert isinstance(judgement.scores, StepScores)
    return judgement.scores.values


def plain_table(
    cases: Sequence[Case], judgements: Sequence[Judgement], samples: Samples
) -> dict[tuple[str, int], float]:
    """Best-of-N by the closed form and votes over the same draws, one problem and N at a time."""
    sums: dict[tuple[str, int], float] = defaultdict(float)
    pools = pools_of(cases)
    for p, pool in enumerate(pools):
        n = len(pool)
        correct = [bool(cases[i].record.trajectory.correct) for i in pool]
        orders = shuffles(n, PickSettings().draws, p).tolist()
        for how in WAYS:
            scores = [plain_aggregate(values_of(judgements[i]), how) for i in pool]
            ranked = sorted(range(n), key=lambda i: -scores[i])
            for k in range(1, n + 1):
                at, value = 0, 0.0
                while at < n:
                    end = at
                    while end < n and scores[ranked[end]] == scores[ranked[at]]:
                        end += 1
                    hits = sum(correct[i] for i in ranked[at:end]) / (end - at)
                    ways = math.comb(n - at, k) - math.comb(n - end, k)
                    value += ways / math.comb(n, k) * hits
                    at = end
                sums[f"best/{how}", k] += value / len(pools)
                won = 0.0
                for order in orders:
                    tally: dict[int, float] = defaultdict(float)
                    for i in order[:k]:
                        tally[int(samples.groups[p, i])] += scores[i]
                    top = max(tally.values())
                    tied = [a for a, weight in tally.items() if weight >= top * (1 - 1e-12)]
                    right = {int(samples.groups[p, i]) for i in range(n) if correct[i]}
                    won += sum(a in right for a in tied) / len(tied)
                sums[f"vote/{how}", k] += won / len(orders) / len(pools)
    return sums


def pools(folder: Path) -> dict[str, Any]:
    known = BENCHMARKS["best_of_n"]
    read_s, cases = timed(lambda: known.read(folder))
    judges = in_order(stored_scores(cases), cases)
    group_s, samples = timed(lambda: samples_of(_records(cases)))
    scored = {
        model: [[given[i].scores or SILENT for i in pool] for pool in pools_of(cases)]
        for model, given in judges.items()
    }

    def whole() -> None:
        without_scores(samples, PickSettings())
        for of_model in scored.values():
            pick_table(samples, of_model, PickSettings())

    table_s, _ = timed(whole)
    start = time.perf_counter()
    measure(known, cases, judges)
    measure_s = time.perf_counter() - start

    few = cases[: PART * 32]
    few_samples = samples_of(_records(few))
    given = next(iter(judges.values()))[: PART * 32]
    few_scored = [[given[i].scores or SILENT for i in pool] for pool in pools_of(few)]
    start = time.perf_counter()
    plain = plain_table(few, given, few_samples)
    plain_s = time.perf_counter() - start
    ours_s, ours = timed(lambda: pick_table(few_samples, few_scored, PickSettings()))
    for how in WAYS:
        for k in range(1, 33):
            a, b = plain[f"best/{how}", k], float(ours.best[how][:, k - 1].mean())
            assert abs(a - b) < 1e-9, (how, k, a, b)
            a, b = plain[f"vote/{how}", k], float(ours.weighted[how][:, k - 1].mean())
            # One of one is exact here, and a mean over draws there.
            assert k == 1 or abs(a - b) < 1e-9, (how, k, a, b)
    return {
        "solutions": len(cases),
        "models": len(judges),
        "numbers_of_samples": 32,
        "aggregations": len(WAYS),
        "seconds": {
            "read": round(read_s, 2),
            "group answers": round(group_s, 2),
            "table": round(table_s, 2),
            "read, group and table": round(read_s + group_s + table_s, 2),
            "all figures with intervals and diagnostics": round(measure_s, 2),
        },
        "plain_loop": {
            "problems": PART,
            "models": 1,
            "seconds": round(plain_s, 3),
            "ours": round(ours_s, 4),
            "ratio": round(plain_s / ours_s, 1),
        },
    }


def _records(cases: Sequence[Case]) -> list[list[Any]]:
    return [[cases[i].record for i in pool] for pool in pools_of(cases)]


def plain_prm_scores(rows: Sequence[tuple[str, list[bool], list[bool]]]) -> dict[str, float]:
    """PRMScore over all and of each kind, one step at a time."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for kind, truth, called in rows:
        for t, c in zip(truth, called, strict=True):
            for key in ("all", kind):
                counts[key][0 if t and c else 1 if c else 3 if t else 2] += 1
    found = {}
    for key, (tp, fp, tn, fn) in counts.items():
        f1s = []
        for hit, false, missed in ((tp, fp, fn), (tn, fn, fp)):
            precision = hit / (hit + false) if hit + false else -1
            recall = hit / (hit + missed) if hit + missed else -1
            total = precision + recall
            f1s.append(2 * precision * recall / total if total else -1)
        found[key] = max(f1s[0] if key == "multi_solutions" else sum(f1s) / 2, 0)
    return found


def prmbench(folder: Path, scores: Path) -> dict[str, Any]:
    known = BENCHMARKS["prmbench"]
    read_s, cases = timed(lambda: known.read(folder))
    scores_s, judges = timed(lambda: in_order(read_scores(scores, known, cases), cases))
    ((name, given),) = judges.items()
    measure_s, result = timed(lambda: measure(known, cases, judges))
    # The same figures by a loop: PRMScore and sub-scores, with fewer resamples.
    resamples = 100
    kept = [(c, j) for c, j in zip(cases, given, strict=True) if not is_repeated(c)]
    once, said = [c for c, _ in kept], [j for _, j in kept]
    rows = [
        (c.split, [v == 1 for v in c.record.labels.values], [v > 0.5 for v in values_of(j)])
        for c, j in kept
        if c.record.labels
    ]
    groups = group_numbers(once)

    def ours() -> dict[str, Any]:
        protocol = MeasureSettings(use="scores").protocol
        bootstrap = Bootstrap(int(groups.max()) + 1, resamples)
        judged = Judged.of(once, said, groups, protocol, known.equal)
        figures = known.figures(judged, protocol).figures
        return {k: bootstrap.estimate(s) for k, s in figures.items()}

    ours_s, figures = timed(ours)
    start = time.perf_counter()
    plain = plain_prm_scores(rows)
    rng = random.Random(0)
    by_group = defaultdict(list)
    for case, row in zip(once, rows, strict=True):
        by_group[case.group].append(row)
    drawn_from = list(by_group.values())
    for _ in range(resamples):
        drawn = rng.choices(drawn_from, k=len(drawn_from))
        plain_prm_scores(list(itertools.chain(*drawn)))
    plain_s = time.perf_counter() - start
    assert abs(plain["all"] - figures["prm_score"].value) < 1e-9
    return {
        "rows": len(cases),
        "prm_score": round(result.models[name].figures["prm_score"].value or 0.0, 4),
        "seconds": {
            "read": round(read_s, 2),
            "read scores": round(scores_s, 2),
            "all figures with 1,000 resamples": round(measure_s, 2),
            "together": round(read_s + scores_s + measure_s, 2),
        },
        "plain_loop": {
            "what": f"PRMScore and sub-scores with {resamples} resamples",
            "seconds": round(plain_s, 2),
            "ours": round(ours_s, 3),
            "ratio": round(plain_s / ours_s, 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    real = (options.data / "bon_gsm8k").is_dir() and (options.data / "prmbench").is_dir()
    with tempfile.TemporaryDirectory() as place:
        if real:
            pool, bench = options.data / "bon_gsm8k", options.data / "prmbench"
            scores = bench / "rprm7b_step_scores_6216.jsonl"
        else:
            pool, bench = Path(place) / "pool", Path(place) / "bench"
            for folder in (pool, bench):
                folder.mkdir()
            make_pool(pool)
            make_prmbench(bench)
            scores = bench / "scores.jsonl"
            (bench / "rprm7b.jsonl").rename(scores)
        results = {
            "prmkit": __version__,
            "numpy": np.__version__,
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
            "data": "real" if real else "made up, of the same size",
            "best_of_n": pools(pool),
            "prmbench": prmbench(bench, scores),
        }
    print(json.dumps(results, indent=1))
    write_json(options.out, results)


if __name__ == "__main__":
    main()
