"""Qwen2.5-Math-PRM's recipe: labels by rollouts and by a judge, and only what both agree on.

    python recipes/pipelines/qwen_consensus.py OUT [--policy MODEL | --server URL] [--base MODEL]
        [--judge MODEL | --judge-server URL] [--data FILE --test PROCESSBENCH] [--problems 48]

A policy's solutions are labelled by 8 completions of each step (right if any is, nothing after the
first wrong one) and by a chat model that names the first wrong paragraph. Where both name the same
one the solution is kept, and a head with two classes learns from it; so it does from each
labeller's whole set. The three are measured on ProcessBench (TEST: its file or folder).

Without these all is the embedded world's: its policy, its solutions as the benchmark, and its PRM,
trained further; so few solutions hardly change its verdicts, but show how true the labels are. The
judge there is the log-ratio of base to policy: the first step below -1. Reference: Zhang et al.
2025, arXiv:2501.07301 (500,000 queries, 6 to 8 solutions each; 40 % survive; F1 40.1 by rollouts,
46.5 by the judge, 66.5 after the filter). Their head has two layers, ours one; rates are ours.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from prmkit import (
    ImplicitScorer,
    PolicySettings,
    SamplingSettings,
    StepLabels,
    TrainSettings,
    Trajectory,
    Unscored,
    label,
    load_policy,
    load_scorer,
    monte_carlo,
    read_records,
    sample,
    splitter,
    train,
)
from prmkit.embedded.benchmark import BENCHMARKS as EMBEDDED
from prmkit.embedded.benchmark import make
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.quickstart import LOG_RATIO_THRESHOLD
from prmkit.embedded.world import problems
from prmkit.evaluation import predicted_first_error
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.run import MeasureSettings, measure
from prmkit.evaluation.tables import interval
from prmkit.labelling import consensus, judge, places
from prmkit.ledger import Ledger
from prmkit.policies.sampling import judge_by_answer
from prmkit.records import Record
from prmkit.training.batches import BatchSettings


def sampled(options: argparse.Namespace) -> Iterator[Record]:
    """Solutions with labels by rollouts."""
    place = None if options.server else str(WEIGHTS / "policy")
    policy = load_policy(PolicySettings(policy=options.policy or place, server=options.server))
    drawing = SamplingSettings(temperature=0.8, max_new_tokens=options.max_new_tokens)
    items = list(problems("train", options.problems))
    if options.data:
        found = {r.trajectory.problem.id: r.trajectory.problem for r in read_records(options.data)}
        items = list(found.values())[: options.problems]
    about = {"policy": policy.name, "problems": [p.id for p in items]}
    steps, method = splitter(options.split), partial(monte_carlo, stop_at_error=True)
    with Ledger(options.out / "rollouts.sqlite", about) as ledger:
        pools = sample(
            policy, items, options.samples, steps, judge_by_answer, settings=drawing, ledger=ledger
        )
        solutions = [trajectory for pool in pools for trajectory in pool if trajectory.steps]
        yield from label(
            solutions, method, policy, judge_by_answer, settings=drawing, ledger=ledger
        )


def judged(options: argparse.Namespace, solutions: list[Trajectory]) -> Iterator[Record]:
    """The same solutions with a judge's labels."""
    if options.judge or options.judge_server:
        policy = load_policy(PolicySettings(policy=options.judge, server=options.judge_server))
        drawing = SamplingSettings(temperature=0, max_new_tokens=4096)
        with Ledger(options.out / "critiques.sqlite", {"policy": policy.name}) as ledger:
            yield from label(
                solutions, judge, policy, judge_by_answer, settings=drawing, ledger=ledger
            )
        return
    scores = ImplicitScorer(WEIGHTS / "base", WEIGHTS / "policy").score(solutions)
    for solution, scored in zip(solutions, scores, strict=True):
        if isinstance(scored, Unscored):
            yield Record(trajectory=solution, scores=(scored,))
            continue
        n = len(solution.steps)
        first = predicted_first_error(scored.values, LOG_RATIO_THRESHOLD)
        right = n if first is None else first
        values = (1.0,) * right + (0.0,) * (right < n) + (None,) * (n - right - 1)
        labels = StepLabels(values=values, kind="hard", source="log-ratio")
        yield Record(trajectory=solution, labels=labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    for name in ("--policy", "--server", "--base", "--judge", "--judge-server"):
        parser.add_argument(name)
    parser.add_argument("--data", type=Path, help="problems with answers")
    parser.add_argument("--test", type=Path, help="ProcessBench's file or folder")
    parser.add_argument("--split", default="line", help="where steps end; blank_line, …")
    parser.add_argument("--problems", type=int, default=48)
    parser.add_argument("--test-problems", type=int, default=40, help="of the embedded world")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--epochs", type=float, default=1)
    options = parser.parse_args()
    rolled = list(sampled(options))
    words = [r for r in judged(options, [r.trajectory for r in rolled]) if r.labels]
    agreed = list(consensus(rolled, places(words)))
    kept = [one.record for one in agreed if one.outcome == "agree"]
    print(f"{len(kept)} of {len(rolled)} kept:", dict(Counter(one.outcome for one in agreed)))

    known = BENCHMARKS["processbench"] if options.test else EMBEDDED["embedded"]
    cases = known.read(options.test) if options.test else make(options.test_problems, split="test")
    asked = [case.record.trajectory for case in cases]
    small, judges = options.base is None, {}
    if small:
        judges["before"] = [Judgement(one) for one in load_scorer(WEIGHTS / "prm").score(asked)]
    for name, records in (("rollouts", rolled), ("judge", words), ("consensus", kept)):
        settings = TrainSettings(
            base=options.base or str(WEIGHTS / "prm"),
            out=options.out / name,
            learning_rate=options.learning_rate or (5e-5 if small else 1e-5),
            epochs=options.epochs,
        )
        result = train(records, settings, batches=BatchSettings(batch_size=16 if small else 128))
        print(f"{name}: {result.n_examples} solutions, {result.n_labels} labels, {result.out}")
        if not options.data:
            hits = [r.labels.first_error == true_labels(r.trajectory).first_error for r in records]
            print(f"{name}: the first error is the true one in {sum(hits) / len(hits):.3f}")
        judges[name] = [Judgement(scored) for scored in load_scorer(result.out).score(asked)]
    for name, model in measure(known, cases, judges, MeasureSettings()).models.items():
        print(f"{name}, F1: {interval(model.figures[known.headline], 1, 3)}")


if __name__ == "__main__":
    main()
