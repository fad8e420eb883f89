"""Every scorer keeps the laws; and a scorer that breaks one is caught."""

from __future__ import annotations

import pytest

from prmkit.records import StepScores, Unscored
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.implicit import ImplicitScorer
from prmkit.testing import SCORER_LAWS, LawBroken, check_scorer, ugly_trajectories


@pytest.fixture(scope="module", params=["discriminative", "implicit"])
def scorer(request):
    prm, lm = request.getfixturevalue("tiny_prm"), request.getfixturevalue("tiny_lm")
    if request.param == "discriminative":
        return DiscriminativeScorer(prm, device="cpu", max_tokens=400)
    return ImplicitScorer(lm, lm, device="cpu", max_tokens=400)


@pytest.mark.parametrize("law", SCORER_LAWS, ids=lambda law: law.__name__)
def test_law(scorer, law):
    law(scorer, ugly_trajectories())


class Constant:
    name = "constant"
    semantics = "correctness"

    def values(self, trajectory, batch):
        return [0.5] * len(trajectory.steps)

    def score(self, trajectories):
        return [
            StepScores(
                values=tuple(self.values(t, trajectories)), semantics="correctness", model="c"
            )
            for t in trajectories
        ]


class Short(Constant):
    def values(self, trajectory, batch):
        return [0.5 for step in trajectory.steps if step.text]


class Relative(Constant):
    def values(self, trajectory, batch):
        return [1 / len(batch)] * len(trajectory.steps)


class Looking(Constant):
    """Looks at later steps."""

    def values(self, trajectory, batch):
        return [1 / (1 + len(trajectory.steps))] * len(trajectory.steps)


class Counting(Constant):
    calls = 0

    def values(self, trajectory, batch):
        type(self).calls += 1
        return [1 / self.calls] * len(trajectory.steps)


class Silent(Constant):
    def score(self, trajectories):
        return [Unscored(reason="") for _ in trajectories]


class Mislabelled(Constant):
    semantics = "value"


def test_a_good_scorer_passes():
    check_scorer(Constant())


@pytest.mark.parametrize("broken", [Short, Relative, Looking, Counting, Silent, Mislabelled])
def test_a_broken_scorer_is_caught(broken):
    with pytest.raises(LawBroken):
        check_scorer(broken())
