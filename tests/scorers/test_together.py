"""Ensembles, and agreement with the majority."""

from __future__ import annotations

import math

import pytest

from prmkit.errors import InputTooLong, InvalidRecord, NothingToMeasure
from prmkit.policies.base import SamplingSettings, failed
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.ensemble import Combination, EnsembleScorer, fit_combination
from prmkit.scorers.self_consistency import SelfConsistencyScorer
from prmkit.testing import check_scorer

SOLUTION = Trajectory(
    problem=Problem(id="p", prompt="q"), steps=(Step(text="a"), Step(text="b")), separator="\n"
)


class Fixed:
    def __init__(self, *values, semantics="correctness", name="fixed"):
        self.values, self.semantics, self.name = values, semantics, name

    def score(self, trajectories):
        if not self.values:
            return [Unscored(reason="too long", model=self.name) for _ in trajectories]
        return [
            StepScores(
                values=self.values[: len(t.steps)], semantics=self.semantics, model=self.name
            )
            for t in trajectories
        ]


def test_mean_and_minimum_by_hand():
    scorers = [Fixed(0.2, 0.9), Fixed(0.6, 0.5)]
    assert EnsembleScorer(scorers, "mean").score([SOLUTION])[0].values == pytest.approx((0.4, 0.7))
    assert EnsembleScorer(scorers, "min").score([SOLUTION])[0].values == (0.2, 0.5)
    assert EnsembleScorer(scorers, "min").name == "min(fixed + fixed)"


def test_a_combination_by_hand():
    combined = EnsembleScorer(
        [Fixed(0.5, 1.0), Fixed(-1.0, 2.0, semantics="log_ratio")],
        Combination(weights=(2.0, 0.5), bias=-1.0),
    )
    (found,) = combined.score([SOLUTION])
    assert found.values == pytest.approx((1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-2.0))))
    assert found.semantics == "correctness"


def test_a_fitted_combination_finds_the_weights_that_made_the_labels():
    """Labels in the proportions that weights (1, -2) and bias 0.5 give, in four cells."""
    scores, labels = [], []
    for a in (0.0, 1.0):
        for b in (0.0, 1.0):
            share = 1 / (1 + math.exp(-(0.5 + a - 2 * b)))
            n = round(1000 * share)
            scores += [(a, b)] * 1000
            labels += [True] * n + [False] * (1000 - n)
    found = fit_combination(scores, labels, ridge=1e-9)
    assert found.weights == pytest.approx((1.0, -2.0), abs=0.01)
    assert found.bias == pytest.approx(0.5, abs=0.01)


def test_what_cannot_be_combined_is_named():
    with pytest.raises(InvalidRecord, match="mean different things"):
        EnsembleScorer([Fixed(0.5), Fixed(1.0, semantics="value")], "mean")
    with pytest.raises(InvalidRecord, match="at least one"):
        EnsembleScorer([], "mean")
    with pytest.raises(InvalidRecord, match="2 weights for 1 scorers"):
        EnsembleScorer([Fixed(0.5)], Combination((1.0, 1.0), 0.0))
    with pytest.raises(NothingToMeasure, match="alike"):
        fit_combination([(1.0,)], [True])


def test_unscored_by_one_is_unscored_by_all():
    (found,) = EnsembleScorer([Fixed(0.5, 0.5), Fixed(name="short")], "mean").score([SOLUTION])
    assert found.reason == "short: too long"


def test_an_ensemble_keeps_the_laws(tiny_prm):
    from prmkit.scorers.discriminative import DiscriminativeScorer

    one = DiscriminativeScorer(tiny_prm, device="cpu")
    check_scorer(EnsembleScorer([one, one], "mean"))


def agreeing(prefix, rng):
    """Without a step most say 4; after "a" all do, after "b" none."""
    if not prefix.steps:
        return f"The answer is {rng.choice([4, 4, 4, 5])}."
    return "The answer is 4." if prefix.steps[-1].text == "a" else "The answer is 6."


def test_agreement_with_the_majority_by_hand():
    policy = ScriptedPolicy(agreeing)
    scorer = SelfConsistencyScorer(policy, SamplingSettings(), n_votes=32, n_rollouts=4)
    (found,) = scorer.score([SOLUTION])
    assert found.values == (1.0, 0.0)
    # One vote on the problem, and rollouts after each step; a second solution shares the vote.
    assert [n for _, n in policy.requests] == [32, 4, 4]
    policy.requests.clear()
    scorer.score([SOLUTION, SOLUTION.prefix(1)])
    assert [n for _, n in policy.requests] == [32, 4, 4, 4]


def test_no_majority_is_unscored():
    even = SelfConsistencyScorer(
        ScriptedPolicy(lambda p, r: f"The answer is {r.random()}."), SamplingSettings(), n_votes=4
    )
    assert "votes each" in even.score([SOLUTION])[0].reason
    silent = SelfConsistencyScorer(ScriptedPolicy(lambda p, r: "Hm."), SamplingSettings())
    assert "has an answer" in silent.score([SOLUTION])[0].reason


def test_agreement_keeps_the_laws():
    check_scorer(SelfConsistencyScorer(ScriptedPolicy(_script), SamplingSettings(), n_rollouts=3))


def _script(prefix, rng):
    return f"The answer is {rng.choice([1, 1, 2])}."


def test_what_is_too_long_or_has_images_drops_out_alone():
    class Short(ScriptedPolicy):
        def complete(self, prefixes, n, settings, seeds, first=None):
            if any(len(p.text) > 500 for p in prefixes):
                raise InputTooLong("5000 tokens")
            return super().complete(prefixes, n, settings, seeds, first)

    fine = SOLUTION
    long = SOLUTION.model_copy(update={"steps": (Step(text="x" * 1000),)})
    seen = SOLUTION.model_copy(
        update={"problem": SOLUTION.problem.model_copy(update={"images": ("a.png",)})}
    )
    scorer = SelfConsistencyScorer(Short(agreeing), SamplingSettings(), n_votes=32, n_rollouts=2)
    found = scorer.score([fine, long, seen])
    assert isinstance(found[0], StepScores)
    assert "5000 tokens" in found[1].reason
    assert "reads text alone" in found[2].reason


def test_votes_that_could_not_be_drawn_are_no_votes():
    class Flaky(ScriptedPolicy):
        def complete(self, prefixes, n, settings, seeds, first=None):
            drawn = super().complete(prefixes, n, settings, seeds, first)
            for prefix, completions in zip(prefixes, drawn, strict=True):
                if len(prefix.steps) == 2:
                    completions[1] = failed("fell over")
            return drawn

    scorer = SelfConsistencyScorer(Flaky(agreeing), SamplingSettings(), n_votes=32, n_rollouts=4)
    whole, short = scorer.score([SOLUTION, SOLUTION.prefix(1)])
    assert "1 of 4 completions were not drawn: fell over" in whole.reason
    assert short.values == (1.0,)


def test_what_is_drawn_depends_on_the_seed():
    def script(prefix, rng):
        return f"The answer is {rng.choice([1, 1, 2])}."

    def shares(seed):
        scorer = SelfConsistencyScorer(
            ScriptedPolicy(script), SamplingSettings(), n_votes=33, n_rollouts=64, seed=seed
        )
        return scorer.score([SOLUTION])[0].values

    assert shares(1) == shares(1)
    assert shares(1) != shares(2)
