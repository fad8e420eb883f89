"""On a GPU: the same scores and log-ratios as on the CPU, to the precision of bfloat16."""

from __future__ import annotations

import pytest
import torch

from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.world import make_problem
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.records import Step, Trajectory
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.implicit import ImplicitScorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]


@pytest.fixture(scope="module")
def solutions():
    policy = HFPolicy(WEIGHTS / "policy", device="cuda")
    prefixes = [Trajectory(problem=make_problem("test", i)) for i in range(8)]
    settings = SamplingSettings(temperature=0.8, max_new_tokens=200)
    drawn = policy.complete(prefixes, 4, settings, list(range(8)))
    assert {c.finish for of_one in drawn for c in of_one} == {"eos"}
    return [
        Trajectory(
            problem=p.problem,
            steps=tuple(Step(text=line) for line in c.text.splitlines(keepends=True)),
        )
        for p, of_one in zip(prefixes, drawn, strict=True)
        for c in of_one
    ]


def test_scores(solutions):
    on_cpu, on_gpu = (
        DiscriminativeScorer(WEIGHTS / "prm", device=d).score(solutions) for d in ("cpu", "cuda")
    )
    gaps = [
        abs(a - b)
        for x, y in zip(on_cpu, on_gpu, strict=True)
        for a, b in zip(x.values, y.values, strict=True)
    ]
    # bfloat16 keeps eight bits: single scores may differ, the mean may not.
    assert sum(gaps) / len(gaps) < 0.02


def test_log_ratios(solutions):
    on_cpu, on_gpu = (
        ImplicitScorer(WEIGHTS / "base", WEIGHTS / "policy", device=d).score(solutions)
        for d in ("cpu", "cuda")
    )
    gaps = [
        abs(a - b)
        for x, y in zip(on_cpu, on_gpu, strict=True)
        for a, b in zip(x.values, y.values, strict=True)
    ]
    assert sum(gaps) / len(gaps) < 0.1
