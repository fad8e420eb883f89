"""Implicit PRMs: step scores from outcomes alone, by the log-ratio of a policy to its reference.

    python recipes/pipelines/implicit_prm.py OUT [--policy MODEL | --server URL] [--base MODEL]
        [--reference MODEL] [--data FILE --test FILE] [--problems 32] [--samples 8] [--best-of 16]

A policy solves training problems several times; nobody looks at a step. A language model learns to
be likelier than its reference where the final answer is right, by cross-entropy of each solution
or by preference (DPO) of right over wrong ones of the same problem. Its log-ratio, summed over a
step, is the step's score; the sum of all, and the lowest, pick the best of N, against the majority.
DATA and TEST are problems with answers, in any format that `prm convert` reads (GSM8K's files).
Without them all is the embedded world's, whose small model learns little from so few solutions.

Reference: Yuan et al. 2024, arXiv:2412.01981 and PRIME-RL/ImplicitPRM (run_ce.sh, run_dpo.sh):
beta 0.05, learning rate 5e-7, 64 solutions, one epoch, from Llama-3.1-8B-Instruct.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prmkit import (
    PolicySettings,
    Problem,
    Record,
    SamplingSettings,
    TrainSettings,
    Trajectory,
    load_policy,
    load_scorer,
    read_records,
    sample,
    splitter,
    train,
)
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.world import Split, problems
from prmkit.errors import NothingToMeasure
from prmkit.evaluation import within_group_auc
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.cases import Case
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.run import MeasureSettings, measure
from prmkit.evaluation.tables import interval
from prmkit.ledger import Ledger
from prmkit.policies.sampling import judge_by_answer
from prmkit.records import Scored, StepScores
from prmkit.training.batches import BatchSettings
from prmkit.training.implicit import ImplicitSettings


def problems_of(file: Path | None, split: Split, n: int) -> list[Problem]:
    if file is None:
        return list(problems(split, n))
    found = {r.trajectory.problem.id: r.trajectory.problem for r in read_records(file)}
    return list(found.values())[:n]


def tell_steps(name: str, solutions: list[Trajectory], scores: list[Scored]) -> None:
    """How often a right step is above a wrong one of the same problem: this world knows which."""
    rows = [
        (value, label == 1, t.problem.id)
        for t, one in zip(solutions, scores, strict=True)
        if isinstance(one, StepScores)
        for value, label in zip(one.values, true_labels(t).values, strict=True)
        if label is not None
    ]
    values, right, home = (list(column) for column in zip(*rows, strict=True))
    try:
        auc = within_group_auc(values, right, home).auc
        print(f"{name}, AUC of steps within a problem: {auc:.3f}")
    except NothingToMeasure as error:
        print(f"{name}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    for name in ("--policy", "--server", "--base", "--reference"):
        parser.add_argument(name)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--split", default="line", help="where steps end; blank_line, …")
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--test-problems", type=int, default=40)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--best-of", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--beta", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--epochs", type=float)
    options = parser.parse_args()
    small = options.base is None
    place = None if options.server else str(WEIGHTS / "policy")
    policy = load_policy(PolicySettings(policy=options.policy or place, server=options.server))
    drawing = SamplingSettings(temperature=0.8, max_new_tokens=options.max_new_tokens)

    def solutions(file: Path | None, split: Split, n: int, of_each: int) -> list[Trajectory]:
        items, steps = problems_of(file, split, n), splitter(options.split)
        about = {"policy": policy.name, "problems": [p.id for p in items], "of each": of_each}
        with Ledger(options.out / f"{split}.sqlite", about) as ledger:
            drawn = sample(
                policy, items, of_each, steps, judge_by_answer, settings=drawing, ledger=ledger
            )
            return [trajectory for pool in drawn for trajectory in pool]

    learnt = solutions(options.data, "train", options.problems, options.samples)
    records = [Record(trajectory=t) for t in learnt if t.steps and t.correct is not None]
    right = sum(bool(r.trajectory.correct) for r in records)
    print(f"{len(records)} solutions, {right} with the right answer")
    asked = solutions(options.test, "test", options.test_problems, options.best_of)
    cases = [Case(f"{i}", Record(trajectory=t), "", t.problem.id) for i, t in enumerate(asked)]
    judges = {}
    for name, loss in (("ce", "cross_entropy"), ("dpo", "preference")):
        settings = TrainSettings(
            base=options.base or str(WEIGHTS / "policy"),
            out=options.out / name,
            kind="implicit",
            loss=loss,
            learning_rate=options.learning_rate or (2e-4 if small else 5e-7),
            epochs=options.epochs or (2 if small else 1),
        )
        result = train(
            records,
            settings,
            batches=BatchSettings(batch_size=16 if small else 64),
            implicit=ImplicitSettings(beta=options.beta, reference=options.reference),
        )
        print(f"{name}: loss {result.losses[0][1]:.3f} to {result.losses[-1][1]:.3f}, {result.out}")
        scores = load_scorer(result.out).score(asked)
        judges[name] = [Judgement(one) for one in scores]
        if small and options.test is None:
            tell_steps(name, asked, scores)
    evaluation = measure(BENCHMARKS["best_of_n"], cases, judges, MeasureSettings())
    n = options.best_of
    for name, model in evaluation.models.items():
        for figure in (f"majority_{n}", f"best_of_{n}/sum", f"best_of_{n}/min", f"pass_{n}"):
            print(f"{name}, {figure}: {interval(model.figures[figure], 1, 3)}")


if __name__ == "__main__":
    main()
