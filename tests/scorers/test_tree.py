"""Prefixes that are kept: exact, shared, dropped and made again, and paid for once."""

from __future__ import annotations

import pytest

from prmkit.errors import InputTooLong, InvalidRecord
from prmkit.records import Problem, Step, Trajectory
from prmkit.scorers.backends.tree import PrefixTree
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import DISCRIMINATIVE
from prmkit.testing import tiny_checkpoint

QUESTION = Problem(id="q", prompt="Mia has 12 apples. Mia finds 5 more. How many now?")


@pytest.fixture
def scorer(tiny_prm):
    return DiscriminativeScorer(tiny_prm, device="cpu")


def whole(scorer, texts):
    trajectory = Trajectory(problem=QUESTION, steps=tuple(Step(text=t) for t in texts))
    return scorer.score([trajectory])[0].values


def grow(scorer, width, depth):
    """A tree of all texts of `width` letters; (texts, score of the last) of every node."""
    level = [((), scorer.start(QUESTION))]
    found = []
    for _ in range(depth):
        states = [state for _, state in level for _ in range(width)]
        texts = [(*before, f"step {k}") for before, _ in level for k in range(width)]
        scores, states = scorer.extend(states, [Step(text=t[-1]) for t in texts])
        found += list(zip(texts, scores, strict=True))
        level = list(zip(texts, states, strict=True))
    return found


def test_a_tree_has_the_scores_of_its_paths(scorer):
    for texts, score in grow(scorer, 2, 3):
        assert score == pytest.approx(whole(scorer, texts)[-1], abs=1e-5)


def test_every_token_of_a_tree_is_computed_once(scorer):
    grow(scorer, 2, 3)
    tokenizer = scorer._backend.tokenizer
    begin = len(scorer.family.begin(QUESTION, tokenizer))
    step = len(scorer.family.step(Step(text="step 0"), 0, tokenizer).ids)
    assert scorer._tree.computed == begin + (2 + 4 + 8) * step


def test_dropped_prefixes_are_made_again_and_change_nothing(scorer):
    expected = dict(grow(scorer, 2, 4))
    small = DiscriminativeScorer.__new__(DiscriminativeScorer)
    small.__dict__.update(scorer.__dict__)
    small._tree = PrefixTree(scorer._backend, max_kept=40)
    for texts, score in grow(small, 2, 4):
        assert score == pytest.approx(expected[texts], abs=1e-5)
    assert small._tree.computed > scorer._tree.computed
    assert small._tree._n_kept <= 40 + 60


def test_states_of_different_problems_share_a_call(scorer):
    other = Problem(id="o", prompt="Ben has 3 pens.")
    states = [scorer.start(QUESTION), scorer.start(other), scorer.start(QUESTION)]
    scores, _ = scorer.extend(states, [Step(text="a"), Step(text="b"), Step(text="b c d")])
    assert scores[0] == pytest.approx(whole(scorer, ["a"])[0], abs=1e-5)
    assert scores[2] == pytest.approx(whole(scorer, ["b c d"])[0], abs=1e-5)
    (alone,) = scorer.score([Trajectory(problem=other, steps=(Step(text="b"),))])
    assert scores[1] == pytest.approx(alone.values[0], abs=1e-5)
    assert scorer.extend([], []) == ([], [])


@pytest.mark.parametrize("family", ["outcome", "universal_prm", "reasoneval"])
def test_what_was_dropped_in_the_same_call_is_made_again(family, tmp_path):
    """Also where a step is read behind an end of its own, or at the token before it."""
    one = DiscriminativeScorer(
        tiny_checkpoint(family, tmp_path / "model"), family=DISCRIMINATIVE[family], device="cpu"
    )
    one._tree = PrefixTree(one._backend, max_kept=10)
    for texts, score in grow(one, width=3, depth=2):
        assert score == pytest.approx(whole(one, texts)[-1], abs=1e-5)


def test_what_cannot_be_extended_is_named(scorer, tmp_path):
    state = scorer.start(QUESTION)
    with pytest.raises(InputTooLong, match="reads at most 1024"):
        scorer.extend([state], [Step(text=" 1" * 2000)])
    with pytest.raises(ValueError, match="2 steps for 1 states"):
        scorer.extend([state], [Step(text="a"), Step(text="b")])
    strict = DiscriminativeScorer(
        tiny_checkpoint("qwen_prm", tmp_path / "qwen"),
        family=DISCRIMINATIVE["qwen_prm"],
        device="cpu",
        on_separator="error",
    )
    with pytest.raises(InvalidRecord, match="where the steps of this family"):
        strict.extend([strict.start(QUESTION)], [Step(text="a<extra_0>b")])


@pytest.mark.parametrize("family", ["reasoneval", "reasoneval_34b", "math_shepherd"])
def test_steps_without_tokens_of_their_own_are_read_before_them(family, tmp_path):
    one = DiscriminativeScorer(
        tiny_checkpoint(family, tmp_path / "model"), family=DISCRIMINATIVE[family], device="cpu"
    )
    texts = ["", "7", "", "So 3 + 4 = 7.", "7", ""]
    state, found = one.start(QUESTION), []
    for text in texts:
        (score,), (state,) = one.extend([state], [Step(text=text)])
        found.append(score)
    assert found == pytest.approx(whole(one, texts), abs=1e-5)


def test_the_end_behind_a_step_counts_as_input(tmp_path):
    """A solution that fits while what closes it does not is too long."""
    folder = tiny_checkpoint("outcome", tmp_path / "model")
    family = DISCRIMINATIVE["outcome"]
    one = DiscriminativeScorer(folder, family=family, device="cpu")
    solution = Trajectory(problem=QUESTION, steps=(Step(text="The answer is 17"),))
    row = family.render(solution, one._backend.tokenizer)
    needed = row.positions[0] + 1 + len(row.ends[0])
    assert needed > len(row.ids)
    for limit in (needed, needed - 1):
        one._backend.context = limit
        (scored,) = one.score([solution])
        if limit == needed:
            assert len(scored.values) == 1
            one.extend([one.start(QUESTION)], solution.steps)
        else:
            assert f"{needed} tokens; the model reads at most {limit}" in scored.reason
            with pytest.raises(InputTooLong, match=f"{needed} tokens"):
                one.extend([one.start(QUESTION)], solution.steps)
