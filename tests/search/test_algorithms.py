"""Algorithms against exhaustive search, hand calculation and published counts."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.errors import InvalidSetting, UnknownName
from prmkit.policies.sampling import Outcome
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search.adaptive import posterior
from prmkit.search.beam import ranked, spread
from prmkit.search.catalogue import ALGORITHMS, PRESETS, algorithm, with_preset
from prmkit.search.drive import search
from prmkit.search.rebase import shared
from prmkit.search.self_consistency import beta_above_half, lead
from prmkit.search.settings import Budget, SearchSettings
from prmkit.search.tree import Node

DEPTH, LETTERS = 4, "abc"


def every_letter(prefix, rng):
    """Each next letter equally often, `DEPTH` of them."""
    done = len(prefix.steps)
    return "\n".join(rng.choice(LETTERS) for _ in range(DEPTH - done))


def run(name, script, score, *, seed=0, n_problems=1, budget=None, aggregation="last", **options):
    settings = SearchSettings(
        split="line", answers="text", aggregation=aggregation, choice="best", seed=seed
    )
    scorer, policy = ScriptedScorer(score), ScriptedPolicy(script)
    found = list(
        search(
            [Problem(id=f"p{i}", prompt="?") for i in range(n_problems)],
            algorithm(name, **options),
            policy,
            scorer,
            settings=settings,
            budget=budget,
            judge=lambda problem, text: Outcome(text, None),
        )
    )
    return found, policy, scorer


def letters(steps):
    return "".join(step.strip() for step in steps)


def random_tree(seed):
    """A score for every prefix: the mean of what lies below it, so that it is worth following."""
    values = {}
    rng = random.Random(seed)
    for whole in itertools.product(LETTERS, repeat=DEPTH):
        values["".join(whole)] = rng.random()
    for depth in range(DEPTH - 1, -1, -1):
        for prefix in map("".join, itertools.product(LETTERS, repeat=depth)):
            values[prefix] = max(values[prefix + letter] for letter in LETTERS)
    return values


@pytest.mark.parametrize("seed", range(5))
def test_beam_search_finds_the_optimum_where_scores_lead_to_it(seed):
    values = random_tree(seed)
    best = max(values[w] for w in map("".join, itertools.product(LETTERS, repeat=DEPTH)))
    (found,), _, _ = run("beam", every_letter, lambda p, s: values[letters(s)], n=24, width=24)
    assert values[letters(found.node.solution().split("\n"))] == best


@pytest.mark.parametrize("seed", range(5))
def test_mcts_finds_the_optimum_of_an_exhaustive_search(seed):
    """Scores of prefixes mislead: only whole solutions tell the truth."""
    rng = random.Random(seed)
    truth = {"".join(w): rng.random() for w in itertools.product(LETTERS, repeat=DEPTH)}

    def score(problem, steps):
        return truth.get(letters(steps), 0.5)

    options = {"n": 200, "width": 12, "exploration": 1.0}
    (found,), _, _ = run("mcts", every_letter, score, **options)
    assert truth[letters(found.node.solution().split("\n"))] == max(truth.values())
    assert found.ended == "done"


def test_mcts_spends_where_values_are_high():
    """A branch of high value gets most expansions; exploration still looks at the others."""

    def score(problem, steps):
        return 0.9 if letters(steps).startswith("a") else 0.2

    def visited(exploration):
        options = {"n": 10, "width": 8, "exploration": exploration, "max_depth": 9}
        (found,), _, _ = run("mcts", every_letter, score, **options)
        expanded = [node for node in found.root.walk() if node.children and node.path]
        inside = [node for node in expanded if letters(node.line()[1].steps) == "a"]
        return len(inside) / len(expanded)

    assert visited(0.0) == 1.0
    assert 0.5 < visited(2.0) < 1.0


def test_rollouts_are_candidates_and_values():
    (found,), _, _ = run("mcts", every_letter, lambda p, s: 0.5, n=1, width=2, rollouts=3)
    whole = [node for node in found.root.children if node.is_finished]
    assert len(whole) == 3
    assert len(found.candidates) == 3


def test_shares_of_rebase_by_hand():
    # exp(0/1), exp(log 2), exp(log 5): 1, 2 and 5 of 8.
    values = [0.0, math.log(2), math.log(5)]
    assert shared(8, values, 1.0, "largest_remainder") == [1, 2, 5]
    assert shared(16, values, 1.0, "ceiling") == [2, 4, 10]
    # 7 * (1, 2, 5) / 8 = 0.875, 1.75, 4.375: the remainders go to the first and the second.
    assert shared(7, values, 1.0, "largest_remainder") == [1, 2, 4]
    # From the best: ceil(7 * 5/8) = 5, ceil(2 * 2/3) = 2, and nothing is left.
    assert shared(7, values, 1.0, "ceiling") == [0, 2, 5]
    assert shared(3, [0.3, float("-inf")], 0.2, "largest_remainder") == [3, 0]
    assert shared(3, [float("-inf")] * 2, 0.2, "ceiling") == [2, 1]


@given(
    width=st.integers(1, 40),
    values=st.lists(st.floats(-5, 5), min_size=1, max_size=12),
    balance=st.floats(0.01, 10),
    sharing=st.sampled_from(["largest_remainder", "ceiling"]),
)
def test_all_of_a_width_is_shared_out(width, values, balance, sharing):
    counts = shared(width, values, balance, sharing)
    assert sum(counts) == width
    assert min(counts) >= 0
    if sharing == "largest_remainder":
        weights = np.exp((np.array(values) - max(values)) / balance)
        assert (np.abs(counts - width * weights / weights.sum()) < 1 + 1e-6).all()


def test_of_beams_with_the_same_text_the_first_stands_for_all():
    """Whichever of them is a last bit ahead."""
    root = Node(Problem(id="p", prompt="?"))
    nodes = [Node(root.problem, root, i, text=t, steps=(t,)) for i, t in enumerate("abab")]
    for tiny in (1e-9, -1e-9):
        values = {(0,): 0.5, (1,): 0.7, (2,): 0.5 + tiny, (3,): 0.7 + tiny}
        assert [n.path for n in ranked(nodes, values, distinct=True)] == [(1,), (0,)]
    assert [n.path for n in ranked(nodes, values)] == [(1,), (3,), (0,), (2,)]
    values[(2,)] = 0.9
    assert [n.path for n in ranked(nodes, values, distinct=True)] == [(0,), (1,)]


def test_spread():
    assert spread(7, 3) == [3, 2, 2]
    assert spread(2, 3) == [1, 1, 0]


def four_steps(prefix, rng):
    """Three lines and an end, as a model that always needs four steps."""
    rest = [f"line {rng.randrange(10**6)}\n"] * 3 + ["the end"]
    return "".join(rest[len(prefix.steps) :])


@pytest.mark.parametrize(("lookahead", "prompts"), [(0, 32), (2, 72)])
def test_sal_beam_asks_as_often_as_search_and_learn(lookahead, prompts):
    """Measured there: 32 prompts, 72 with a look-ahead of 2, and 32 scored texts both times."""
    (found,), _, scorer = run(
        "sal-beam", four_steps, lambda p, s: 0.5, n=8, width=4, lookahead=lookahead
    )
    assert found.cost.completions == prompts
    assert found.cost.scorings == 32
    assert max(len(steps) for steps in scorer.scored) == 4


def test_our_own_lookahead_is_scored():
    (found,), _, scorer = run("beam", four_steps, lambda p, s: 0.5, n=8, width=4, lookahead=2)
    assert found.cost.scorings > 32
    assert len(scorer.scored) > 32


def test_dvts_searches_subtrees_apart():
    (found,), _, _ = run("dvts", every_letter, lambda p, s: 0.5, n=8, width=2)
    kept = [child for child in found.root.children if child.children]
    assert len(found.root.children) == 8
    assert [child.number // 2 for child in kept] == [0, 1, 2, 3]


def test_early_rejection_gives_up_what_is_hopeless():
    def score(problem, steps):
        return 0.05 if letters(steps).startswith("a") else 0.8

    (found,), _, _ = run("early-rejection", every_letter, score, n=12, below=0.2)
    first = found.root.children
    assert {node.finish for node in first if node.text.startswith("a")} == {"aborted"}
    assert {node.finish for node in first if not node.text.startswith("a")} == {"open"}
    (kept,), _, _ = run("early-rejection", every_letter, lambda p, s: 0.01, n=5, below=0.2)
    assert kept.node is not None
    assert len(kept.candidates) == 1


def test_adaptive_self_consistency_stops_when_the_vote_is_settled():
    (sure,), _, _ = run("adaptive-self-consistency", lambda p, r: "7", lambda p, s: 0.5, n=32)
    # Beta(5, 1) is above 1/2 with 31/32; Beta(4, 1) with 15/16.
    assert sure.cost.completions == 4
    (split,), _, _ = run(
        "adaptive-self-consistency", lambda p, r: str(r.random()), lambda p, s: 0.5, n=9
    )
    assert split.cost.completions == 9


def test_lead_by_hand():
    assert beta_above_half(0, 0) == 0.5
    assert beta_above_half(3, 0) == pytest.approx(15 / 16)
    assert beta_above_half(4, 0) == pytest.approx(31 / 32)
    # Beta(4, 2): 1 - I_(1/2)(4, 2) = 26/32.
    assert beta_above_half(3, 1) == pytest.approx(26 / 32)
    assert lead([0, 0, 1, None, 0]) == pytest.approx(26 / 32)
    assert lead([]) == 0.5


def test_posterior_by_hand():
    # One solution: right with its score, or none is.
    assert posterior([0], [0.8], 1.0, 0.3) == (pytest.approx([0.8]), pytest.approx(0.2))
    # Two that agree: .8 * .6 against .2 * .4 * .5.
    both, none = posterior([0, 0], [0.8, 0.6], 1.0, 0.5)
    assert both == pytest.approx([0.48 / 0.52])
    assert none == pytest.approx(0.04 / 0.52)
    # Two that do not: .8 * .4, .2 * .6, .2 * .4.
    (a, b), none = posterior([0, 1], [0.8, 0.6], 1.0, 0.5)
    assert (a, b, none) == pytest.approx((0.32 / 0.52, 0.12 / 0.52, 0.08 / 0.52))
    # Without trust votes alone count: three that agree against one.
    (a, b), none = posterior([0, 0, 0, 1], [0.1, 0.1, 0.1, 0.9], 0.0, 0.5)
    assert (a, b, none) == pytest.approx((4 / 6, 1 / 6, 1 / 6))
    # What gives no answer is wrong, whoever is right.
    (a,), none = posterior([0, None], [0.8, 0.9], 1.0, 0.5)
    assert (a, none) == pytest.approx((0.8, 0.2))


@given(
    st.lists(st.tuples(st.sampled_from([None, 0, 1, 2]), st.floats(0, 1)), min_size=1, max_size=30),
    st.floats(0, 3),
    st.floats(0.01, 0.99),
)
def test_beliefs_add_up(solutions, trust, agreement):
    beliefs, none = posterior(*zip(*solutions, strict=True), trust, agreement)
    assert sum(beliefs) + none == pytest.approx(1.0)
    assert min([*beliefs, none]) >= 0


def test_adaptive_stops_early_where_it_is_sure_and_goes_on_where_not():
    sure, _, _ = run("adaptive", lambda p, r: "7", lambda p, s: 0.99, n=16)
    unsure, _, _ = run("adaptive", lambda p, r: str(r.random()), lambda p, s: 0.4, n=16)
    assert sure[0].cost.completions == 2
    assert unsure[0].cost.completions == 16


def test_adaptive_goes_on_from_a_good_beginning():
    """Beginnings are expensive and right; ends are cheap and mostly wrong."""

    def script(prefix, rng):
        end = "right" if rng.random() < 0.2 else f"wrong {rng.randrange(9)}"
        beginning = "a long and right beginning\n" * 3
        return beginning[len(prefix.text) :] + end

    def score(problem, steps):
        return 0.1 if "wrong" in steps[-1] else 0.97

    # One step that is wrong decides.
    (found,), _, _ = run("adaptive", script, score, n=16, seed=1, aggregation="min", repair=0.5)
    cuts = [node for node in found.root.children if not node.is_finished]
    assert len(cuts) == 1
    assert cuts[0].children
    assert all(child.n_steps == 4 for child in cuts[0].children)
    assert found.answer.endswith("right")
    assert found.cost.policy_tokens < 16 * 80


def test_budgets_buy_better_answers():
    """More tokens, more often the best solution; and never more than there are."""

    def score(problem, steps):
        return random.Random(problem.id + letters(steps)).random()

    def mean(tokens):
        found, _, _ = run(
            "best-of-n", every_letter, score, n=32, n_problems=20,
            budget=Budget(policy_tokens=tokens),
        )  # fmt: skip
        assert all(one.cost.policy_tokens <= tokens for one in found)
        return np.mean(
            [score(one.problem, one.node.solution().split("\n")) for one in found if one.node]
        )

    assert mean(16) < mean(64) < mean(256)


def test_names_and_options_are_checked():
    with pytest.raises(UnknownName, match="Did you mean 'beam'"):
        algorithm("beem")
    with pytest.raises(UnknownName, match="Did you mean 'width'"):
        algorithm("beam", widht=3)
    with pytest.raises(InvalidSetting, match="whole number"):
        algorithm("beam", width="2.5")
    with pytest.raises(InvalidSetting, match="a whole number"):
        algorithm("beam", width="wide")
    with pytest.raises(InvalidSetting, match="one of systematic"):
        algorithm("particle-filter", scheme="sistematic")
    assert algorithm("beam", width="2", distinct="false").keywords == {
        "width": 2,
        "distinct": False,
    }


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole(name):
    preset = PRESETS[name]
    assert preset.algorithm in ALGORITHMS
    assert preset.deviations
    assert algorithm(name).keywords == preset.options
    settings, changed = with_preset(name, SearchSettings(seed=4))
    assert settings.seed == 4
    assert all(getattr(settings, field) == value for field, value in changed.items())
    other = {"temperature": 0.123}
    assert with_preset(name, SearchSettings(**other))[0].temperature == 0.123
