"""Score the steps of solutions with a PRM, and print where each goes wrong.

    python recipes/1_score.py [FILE] [--model DIR] [--threshold 0.5]

FILE is anything that `prm convert` reads; without one, six solutions of the embedded policy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prmkit import (
    DiscriminativeScorer,
    HFPolicy,
    SamplingSettings,
    Trajectory,
    Unscored,
    read_records,
    sample,
    splitter,
)
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import judge
from prmkit.embedded.world import problems
from prmkit.evaluation import predicted_first_error


def embedded_solutions() -> list[Trajectory]:
    """Three problems, two solutions of each."""
    policy = HFPolicy(WEIGHTS / "policy")
    settings = SamplingSettings(temperature=0.8, max_new_tokens=200)
    drawn = sample(policy, list(problems("test", 3)), 2, splitter("line"), judge, settings=settings)
    return [trajectory for pool in drawn for trajectory in pool]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--model", type=Path, default=WEIGHTS / "prm")
    parser.add_argument("--threshold", type=float, default=0.5)
    options = parser.parse_args()
    trajectories = (
        [record.trajectory for record in read_records(options.file)]
        if options.file
        else embedded_solutions()
    )
    prm = DiscriminativeScorer(options.model)
    for trajectory, scored in zip(trajectories, prm.score(trajectories), strict=True):
        print(trajectory.problem.text)
        if isinstance(scored, Unscored):
            print("  not scored:", scored.reason)
            continue
        found = predicted_first_error(scored.values, options.threshold)
        for index, (step, value) in enumerate(zip(trajectory.steps, scored.values, strict=True)):
            mark = "  <- first suspected error" if index == found else ""
            print(f"  {value:5.3f}  {step.text.strip()}{mark}")


if __name__ == "__main__":
    main()
