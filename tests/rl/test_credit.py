"""What tokens are worth, by the names of the settings, against plain loops."""

from __future__ import annotations

import math
import random

import pytest
import torch

from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.rl.batch import batch_of
from prmkit.rl.credit import Credit, earned, step_rewards
from prmkit.rl.rollouts import Rollout
from prmkit.rl.settings import RewardSettings, UpdateSettings

PROBLEM = Problem(id="p", prompt="q")
GROUPS = [4, 1, 4, 1, 4, 9, 1, 4, 1]
BETA = 0.3


def response(n_tokens, ends, scores, correct):
    """One response; scores None: the scorer had none."""
    steps = tuple(Step(text="s") for _ in ends)
    told = (
        Unscored(reason="none")
        if scores is None
        else StepScores(values=tuple(scores), semantics="correctness", model="m")
    )
    trajectory = Trajectory(problem=PROBLEM, steps=steps, correct=correct)
    return Rollout(trajectory, (1,), tuple(range(5, 5 + n_tokens)), tuple(ends), told)


def responses():
    rng = random.Random(3)
    found = []
    for _ in GROUPS:
        n = rng.randint(4, 9)
        ends = [*sorted(rng.sample(range(n - 1), rng.randint(0, 3))), n - 1]
        scores = [round(rng.random(), 3) for _ in ends]
        found.append(response(n, ends, scores, rng.random() < 0.5))
    found[1] = response(6, [2, 5], [0.25, 0.8], True)
    found[2] = response(5, [1, 4], None, True)
    # The end of text at once, and a response that could not be taught.
    found[3] = response(1, [], None, False)
    found[7] = response(0, [], None, None)
    # Two steps that end with the same token.
    found[4] = response(5, [0, 2, 2, 4], [0.9, 0.1, 0.6, 0.4], False)
    return found


ROLLOUTS = responses()
RNG = random.Random(8)
RATIOS = [[RNG.gauss(0, 1) for _ in one.ids] for one in ROLLOUTS]
VALUES = [[RNG.gauss(0, 1) for _ in one.ids] for one in ROLLOUTS]


def tensor(rows):
    found = torch.full((len(rows), max(map(len, rows))), 7.0)
    for i, row in enumerate(rows):
        found[i, : len(row)] = torch.tensor(row)
    return found


class Slow:
    """The same in loops over numbers, from the formulas."""

    def __init__(self, algorithm, settings, update):
        self.algorithm, self.settings, self.update = algorithm, settings, update
        self.n = [len(one.ids) for one in ROLLOUTS]
        self.correct = [float(one.trajectory.correct is True) for one in ROLLOUTS]
        self.weight = settings.outcome_weight
        by_scores = settings.reward in ("score", "progress", "min", "clip", "delta")
        if self.weight is None:
            self.weight = 0.0 if by_scores else 1.0
        self.by_scores = by_scores
        # Who is compared with whom by steps.
        self.counted = [
            n > 0 and (not by_scores or isinstance(one.scores, StepScores))
            for n, one in zip(self.n, ROLLOUTS, strict=True)
        ]

    def steps(self, i):
        """What the steps of a response earn."""
        one, s = ROLLOUTS[i], self.settings
        if s.reward == "implicit":
            start, found = 0, []
            for end in one.ends:
                found.append(BETA * sum(RATIOS[i][start : end + 1]))
                start = max(start, end + 1)
            return found
        if not self.by_scores or not isinstance(one.scores, StepScores):
            return []
        q = list(one.scores.values)
        if s.consensus:
            right = one.trajectory.correct is True
            q = [x - s.threshold if (x - s.threshold > 0) == right else 0.0 for x in q]
        k_all = len(q)
        if s.reward == "score":
            found = q
        elif s.reward == "progress":
            before = [0.0 if s.consensus else 0.5, *q[:-1]]
            found = [a - b for a, b in zip(q, before, strict=True)]
        elif s.reward == "delta":
            found = [q[k] - (q[k + 1] if k + 1 < k_all else 0.0) for k in range(k_all)]
        elif s.reward == "clip":
            found = [min(x - s.threshold, 0.0) for x in q]
        elif s.softmin == 0:
            found = [x if k == q.index(min(q)) else 0.0 for k, x in enumerate(q)]
        else:
            chances = [math.exp(-x / s.softmin) for x in q]
            found = [x * w / sum(chances) for x, w in zip(q, chances, strict=True)]
        return [x / k_all**s.length_power for x in found]

    def tokens(self, i):
        """What the tokens of a response earn by steps."""
        found = [0.0] * self.n[i]
        if self.settings.reward == "implicit":
            return [BETA * r for r in RATIOS[i]]
        for end, x in zip(ROLLOUTS[i].ends, self.steps(i), strict=False):
            found[end] += x
        return found

    def others(self, i, among):
        return [j for j in range(len(GROUPS)) if j != i and GROUPS[j] == GROUPS[i] and among[j]]

    def to_go(self, rewards):
        found = [0.0] * len(rewards)
        later = 0.0
        for t in reversed(range(len(rewards))):
            later = rewards[t] + self.update.gamma * later
            found[t] = later
        return found

    def over_tokens(self, i, to_go):
        """Each token has the number of the step it belongs to."""
        ends = ROLLOUTS[i].ends
        found = []
        for t in range(self.n[i]):
            k = next((k for k, end in enumerate(ends) if end >= t), None)
            found.append(0.0 if k is None else to_go[k])
        return found

    def after(self, steps):
        return [sum(steps[k:]) for k in range(len(steps))]

    def deviation(self, centred):
        return math.sqrt(sum(x * x for x in centred) / max(len(centred) - 1, 1))

    def scaled(self, groups):
        """Numbers by group, less their mean, over what the settings say."""
        means = {g: sum(x) / len(x) for g, x in groups.items() if x}
        centred = {g: [x - means[g] for x in own] for g, own in groups.items()}
        everything = [x for own in groups.values() for x in own]
        overall = sum(everything) / max(len(everything), 1)
        whole = self.deviation([x - overall for x in everything])

        def of(g, x):
            by = {"group": self.deviation(centred[g]) + 1e-6, "batch": whole + 1e-6, "none": 1.0}
            return (x - means[g]) / by[self.update.scale]

        return of

    def grpo(self):
        found = [[0.0] * n for n in self.n]
        if self.settings.reward not in ("none", "prl"):
            steps = [self.steps(i) for i in range(len(GROUPS))]
            groups = {g: [] for g in GROUPS}
            for g, own in zip(GROUPS, steps, strict=True):
                groups[g] += own
            of = self.scaled(groups)
            for i, g in enumerate(GROUPS):
                if steps[i] and self.others(i, [bool(s) for s in steps]):
                    found[i] = self.over_tokens(i, self.after([of(g, x) for x in steps[i]]))
        groups = {g: [] for g in GROUPS}
        for g, c in zip(GROUPS, self.correct, strict=True):
            groups[g].append(c)
        of = self.scaled(groups)
        return [
            [x + self.weight * of(g, c) for x in own]
            for own, g, c in zip(found, GROUPS, self.correct, strict=True)
        ]

    def by_outcome(self, i):
        others = self.others(i, [True] * len(GROUPS))
        if not others:
            return 0.0
        return self.correct[i] - sum(self.correct[j] for j in others) / len(others)

    def less_others(self, i, tokens):
        others = self.others(i, self.counted)
        if not others or not self.counted[i]:
            return [0.0] * self.n[i]
        base = sum(sum(tokens[j]) / self.n[j] for j in others) / len(others)
        return self.to_go([r - base for r in tokens[i]])

    def pure(self, i):
        others = self.others(i, self.counted)
        if not others or not self.counted[i]:
            return [0.0] * self.n[i]
        base = sum(sum(self.steps(j)) for j in others) / sum(self.n[j] for j in others)
        ends, start, rest = ROLLOUTS[i].ends, 0, []
        for end, x in zip(ends, self.steps(i), strict=True):
            rest.append(x - base * max(end + 1 - start, 0))
            start = max(start, end + 1)
        return self.over_tokens(i, self.after(rest))

    def rloo(self):
        tokens = [self.tokens(i) for i in range(len(GROUPS))]
        found = []
        for i, n in enumerate(self.n):
            s = self.settings
            if s.reward in ("none", "prl"):
                own = [0.0] * n
            elif s.reward == "min" and not s.consensus and not s.length_power:
                own = self.pure(i)
            else:
                own = self.less_others(i, tokens)
            found.append([x + self.weight * self.by_outcome(i) for x in own])
        return found

    def prime(self):
        tokens = [self.tokens(i) for i in range(len(GROUPS))]
        largest = max(abs(sum(own[t:])) for own in tokens for t in range(len(own)))
        tokens = [[x / largest for x in own] for own in tokens]
        return [
            [x + self.weight * self.by_outcome(i) for x in self.less_others(i, tokens)]
            for i in range(len(GROUPS))
        ]

    def where_they_fall(self):
        found = []
        for i, n in enumerate(self.n):
            own = self.tokens(i)
            if n:
                own[-1] += self.weight * self.correct[i]
            found.append(own if self.counted[i] else [])
        return found

    def whitened(self, rows):
        every = [x for row in rows for x in row]
        mean = sum(every) / len(every)
        by = self.deviation([x - mean for x in every]) + 1e-8
        return [[(x - mean) / by for x in row] for row in rows]

    def filled(self, rows):
        return [row or [0.0] * n for row, n in zip(rows, self.n, strict=True)]

    def reinforce_plus_plus(self):
        return self.filled(self.whitened([self.to_go(row) for row in self.where_they_fall()]))

    def reinforce(self):
        rows = self.where_they_fall()
        found = []
        for i, row in enumerate(rows):
            others = [sum(rows[j]) for j in range(len(rows)) if j != i and self.counted[j]]
            base = sum(others) / max(len(others), 1)
            found.append([x - base for x in self.to_go(row)])
        return self.filled(found)

    def ppo(self):
        rows = self.where_they_fall()
        found, goals = [], []
        for i, row in enumerate(rows):
            own, later = [0.0] * len(row), 0.0
            for t in reversed(range(len(row))):
                following = VALUES[i][t + 1] if t + 1 < len(row) else 0.0
                surprise = row[t] + self.update.gamma * following - VALUES[i][t]
                later = surprise + self.update.gamma * self.update.lam * later
                own[t] = later
            found.append(own)
            goals.append([a + v for a, v in zip(own, VALUES[i], strict=False)] or VALUES[i])
        return self.filled(self.whitened(found)), goals

    def prl(self, i):
        if not self.n[i] or not ROLLOUTS[i].ends:
            return [0.0] * self.n[i]
        of_steps = [-sum(RATIOS[i][end:]) / self.settings.eta for end in ROLLOUTS[i].ends]
        return self.over_tokens(i, of_steps)

    def __call__(self):
        goals = None
        if self.algorithm == "ppo":
            found, goals = self.ppo()
        else:
            name = self.algorithm.replace("++", "_plus_plus")
            found = getattr(self, name)()
        if self.settings.reward == "prl":
            found = [
                [x + y for x, y in zip(own, self.prl(i), strict=True)]
                for i, own in enumerate(found)
            ]
        total = [
            self.weight * self.correct[i] + sum(self.tokens(i))
            if self.settings.reward not in ("none", "prl")
            else self.weight * self.correct[i]
            for i in range(len(GROUPS))
            if self.counted[i]
        ]
        return found, total, goals


def check(algorithm, settings, update=None):
    update = update or UpdateSettings()
    batch = batch_of(ROLLOUTS, GROUPS)
    credit = Credit(algorithm, settings, update, "correctness", BETA)
    found, total, goals = credit(batch, tensor(RATIOS), tensor(VALUES))
    expected, paid, aims = Slow(algorithm, settings, update)()
    close = {"rtol": 1e-4, "atol": 1e-5}
    for i, row in enumerate(expected):
        torch.testing.assert_close(found[i, : len(row)], torch.tensor(row), **close)
        assert not found[i, len(row) :].any()
    torch.testing.assert_close(total, torch.tensor(paid), **close)
    assert (goals is None) == (aims is None)
    for i, row in enumerate(aims or ()):
        torch.testing.assert_close(goals[i, : len(row)], torch.tensor(row), **close)
    assert found.any()


SCORED = [
    {"reward": name, "outcome_weight": weight, "consensus": consensus, "length_power": power}
    for name in ("score", "progress", "min", "clip", "delta")
    for weight in (None, 0.7)
    for consensus in (False, True)
    for power in (0.0, 0.5)
]
ANY = [
    {},
    {"outcome_weight": 0.7},
    {"reward": "prl", "eta": 3.0},
    {"reward": "implicit"},
    {"reward": "implicit", "outcome_weight": 0.0},
    {"reward": "min", "softmin": 0.0},
    {"reward": "clip", "threshold": 0.8},
    *SCORED,
]


@pytest.mark.parametrize("rewards", ANY, ids=lambda r: "-".join(map(str, r.values())))
@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "reinforce", "reinforce++", "ppo"])
def test_advantages_are_those_of_loops(algorithm, rewards):
    check(algorithm, RewardSettings(**rewards))


@pytest.mark.parametrize("weight", [None, 0.0, 0.7])
def test_prime_is_that_of_loops(weight):
    settings = RewardSettings(reward="implicit", outcome_weight=weight)
    check("prime", settings)
    check("prime", settings, UpdateSettings(gamma=0.9))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_what_grpo_divides_by(scale):
    for rewards in ({}, {"reward": "score", "outcome_weight": 0.5}, {"reward": "implicit"}):
        check("grpo", RewardSettings(**rewards), UpdateSettings(scale=scale))


@pytest.mark.parametrize("algorithm", ["rloo", "reinforce", "reinforce++", "ppo"])
def test_a_discount_and_lambda(algorithm):
    for rewards in ({"reward": "score", "outcome_weight": 0.5}, {"reward": "implicit"}):
        check(algorithm, RewardSettings(**rewards), UpdateSettings(gamma=0.8, lam=0.6))


def test_a_first_step_progresses_from_even_chances_where_scores_are_probabilities():
    batch = batch_of([response(3, [0, 2], [0.25, 1.0], True)], [0])
    settings = RewardSettings(reward="progress")
    for semantics, first in (
        ("correctness", -0.25), ("value", -0.25), ("advantage", 0.25), (None, 0.25),
    ):  # fmt: skip
        assert step_rewards(batch, settings, semantics).tolist() == [[first, 0.75]]


def test_what_is_earned_in_all_is_for_each_response_and_none_without_scores():
    settings = RewardSettings(reward="clip", threshold=0.5)
    paid = earned(ROLLOUTS, settings)
    slow = Slow("grpo", settings, UpdateSettings())
    assert paid == pytest.approx([sum(slow.steps(i)) for i in range(len(GROUPS))], abs=1e-6)
    assert earned(ROLLOUTS, RewardSettings()) is None
    assert earned([], settings) is None


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "reinforce", "reinforce++", "ppo"])
def test_what_cannot_be_scored_is_not_praised_for_it(algorithm):
    """The trap: where all rewards are losses, no score would be the best of scores."""
    rollouts = [
        response(4, [1, 3], [0.2, 0.4], False),
        response(4, [1, 3], None, False),
        response(4, [1, 3], [0.3, 0.9], False),
    ]
    credit = Credit(algorithm, RewardSettings(reward="clip"), UpdateSettings())
    batch = batch_of(rollouts, [0, 0, 0])
    found, total, goals = credit(batch, None, torch.full((3, 4), 0.25))
    assert not found[1].any()
    assert total.tolist() == pytest.approx([-0.4, -0.2])
    without, _, aims = credit(batch_of(rollouts[::2], [0, 0]), None, torch.full((2, 4), 0.25))
    torch.testing.assert_close(found[::2], without)
    if goals is not None:
        torch.testing.assert_close(goals[::2], aims)
        assert goals[1].tolist() == [0.25] * 4


def test_ppo_by_steps_gives_all_tokens_of_a_step_its_advantage():
    # Rewards of 0.5 and 0.25 for the two steps of the one, 1 for the step of the other; values
    # before their first tokens 0.25, 0.75 and 0.5; γ = 1/2, λ = 1.
    #   δ = 0.5 + 1/2 · 0.75 - 0.25 = 0.625,  0.25 - 0.75 = -0.5;  1 - 0.5 = 0.5
    #   A = 0.625 + 1/2 · -0.5 = 0.375, -0.5; 0.5, of mean 0.125 and deviation (sample) 0.5449
    rollouts = [response(5, [2, 4], [0.5, 0.25], True), response(2, [1], [1.0], True)]
    settings = UpdateSettings(gamma=0.5, lam=1.0)
    credit = Credit("ppo", RewardSettings(reward="score"), settings, by_steps=True)
    values = torch.tensor([[0.25, 9, 9, 0.75, 9], [0.5, 9, 9, 9, 9]])
    found, total, goals = credit(batch_of(rollouts, [0, 1]), None, values)
    raw = torch.tensor([0.375, -0.5, 0.5])
    one, two, three = ((raw - raw.mean()) / raw.std()).tolist()
    expected = torch.tensor([[one] * 3 + [two] * 2, [three] * 2 + [0.0] * 3])
    torch.testing.assert_close(found, expected)
    assert total.tolist() == [0.75, 1]
    # The critic is asked where a step begins, and nowhere else.
    assert goals.isnan().tolist() == [[False, True, True, False, True], [False] + [True] * 4]
    assert goals[~goals.isnan()].tolist() == [0.625, 0.25, 1]


@pytest.mark.parametrize("algorithm", ["reinforce", "rloo", "prime"])
def test_the_discount_by_steps_counts_steps(algorithm):
    reward = "implicit" if algorithm == "prime" else "score"
    settings = RewardSettings(reward=reward, outcome_weight=0.0)
    rollouts = [response(4, [1, 3], [0.0, 1.0], True), response(4, [1, 3], [0.0, 0.0], True)]
    ratios = torch.tensor([[0.0, 0, 0, 1], [0, 0, 0, 0]])
    update = UpdateSettings(gamma=0.5)
    plain = Credit(algorithm, settings, update, beta=1.0, scaled=False)
    by_steps = Credit(algorithm, settings, update, beta=1.0, scaled=False, by_steps=True)
    for credit, shares in ((plain, [0.125, 0.25, 0.5, 1]), (by_steps, [0.5, 0.5, 1, 1])):
        found, _, _ = credit(batch_of(rollouts, [0, 0]), ratios)
        assert found[0].tolist() == pytest.approx(shares)
