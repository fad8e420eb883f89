"""Train a PRM on labelled steps, and see what it learnt on solutions it has not seen.

    python recipes/3_train.py OUT [--data FILE] [--base DIR] [--solutions 2000]

Without --data, solutions with mistakes are written and judged by the embedded world, as many as
you like. --neutral, --threshold and --after-error decide what labels of other origin become.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from prmkit import (
    DiscriminativeScorer,
    LabelPolicy,
    Record,
    Step,
    TrainSettings,
    Trajectory,
    read_records,
    train,
)
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.solutions import MistakeRates, write_solution
from prmkit.embedded.world import problems
from prmkit.evaluation import processbench_f1, roc_auc


def written(split: str, n: int, start: int = 0) -> list[Record]:
    """Solutions with a learner's mistakes, with the world's true labels."""
    rng = random.Random(start)
    records = []
    for problem in problems(split, n, start):
        steps = tuple(Step(text=text) for text in write_solution(problem, rng, MistakeRates()))
        trajectory = Trajectory(problem=problem, steps=steps, finish="eos")
        records.append(Record(trajectory=trajectory, labels=true_labels(trajectory)))
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--base", type=Path, default=WEIGHTS / "policy")
    parser.add_argument("--solutions", type=int, default=2000)
    parser.add_argument("--neutral", choices=("positive", "negative", "drop"))
    parser.add_argument("--after-error", choices=("keep", "negative", "drop"), default="keep")
    parser.add_argument("--threshold", type=float)
    options = parser.parse_args()
    policy = LabelPolicy(
        neutral=options.neutral, after_error=options.after_error, threshold=options.threshold
    )
    records = (
        [r.replace(labels=policy.apply(r.labels)) for r in read_records(options.data) if r.labels]
        if options.data
        else written("train", options.solutions, start=1_000_000)
    )
    settings = TrainSettings(base=str(options.base), out=options.out, learning_rate=3e-4)
    result = train(records, settings)
    print(f"{result.n_examples} solutions, {result.n_labels} labelled steps: {result.out}")
    if options.data:
        return
    held_out = written("test", 200)
    prm = DiscriminativeScorer(options.out)
    scored = prm.score([record.trajectory for record in held_out])
    truth = [true_labels(record.trajectory) for record in held_out]
    pairs = [
        (value, label == 1)
        for scores, labels in zip(scored, truth, strict=True)
        for value, label in zip(scores.values, labels.values, strict=True)
    ]
    print(f"step AUC {roc_auc([v for v, _ in pairs], [right for _, right in pairs]):.3f}")
    print(f"first error F1 {processbench_f1(scored, [t.first_error for t in truth]).f1:.3f}")


if __name__ == "__main__":
    main()
