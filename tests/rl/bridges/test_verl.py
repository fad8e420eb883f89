"""verl's protocol, as recorded from its source; and verl's own code where it is installed."""

from __future__ import annotations

import logging
import pickle
import sys
from pathlib import Path

import pytest
import torch

from bridge_children import told_by
from prmkit.errors import InvalidRecord, InvalidSetting, MissingTrainer, ScoringError
from prmkit.rl.bridges import verl
from prmkit.rl.bridges.placing import Row
from prmkit.rl.bridges.scoring import StepRewards
from prmkit.scorers.scripted import ScriptedScorer


def by_length(problem, steps):
    assert problem.text == "q"
    return None if "long" in steps[-1] else len(steps[-1].strip("0\n")) / 10


REWARDS = StepRewards(scorer=ScriptedScorer(by_length), how="min", split="line")
ASKED = {"question": "q", "num_turns": None}


def test_a_function_gives_a_score_and_what_is_logged():
    function = verl.ScoreFunction(REWARDS)
    # As verl calls it, settings of the configuration included.
    told = function.compute_score(
        data_source="d", solution_str="ab\nc", ground_truth="1", extra_info=ASKED, setting=1
    )
    assert told == {"score": 0.1, "prm_steps": 2, "prm_unscored": 0}
    many = function.compute_scores(
        data_sources=["d"] * 2,
        solution_strs=["ab\nc", "abc"],
        ground_truths=["1"] * 2,
        extra_infos=[ASKED] * 2,
    )
    assert [one["score"] for one in many] == [0.1, 0.3]


def test_a_function_needs_the_question_and_a_number():
    function = verl.ScoreFunction(REWARDS, question="asked")
    with pytest.raises(InvalidRecord, match="holds 'question', 'num_turns', .* at 'asked'"):
        function.compute_score("d", "a", "1", ASKED)
    with pytest.raises(InvalidRecord, match="extra_info holds nothing"):
        function.compute_score("d", "a", "1")
    assert function.compute_score("d", "a", "1", {"asked": "q"})["score"] == 0.1
    with pytest.raises(ScoringError, match=r"gives no score.*unscored=…"):
        function.compute_score("d", "long", "1", {"asked": "q"})
    told = verl.ScoreFunction(REWARDS, unscored=-1.0).compute_score("d", "long", "1", ASKED)
    assert told == {"score": -1, "prm_steps": 1, "prm_unscored": 1}


class Letters:
    """A tokenizer of one letter a token; 0 is special."""

    def decode(self, ids, **settings):
        return "".join(chr(i) for i in ids if i)


class Batch:
    """What a ``DataProto`` of verl shows of itself."""

    def __init__(self, *texts, **others):
        # The end of text is a token of its own, padding is another.
        ids = [[*map(ord, text), 0] if text is not None else [] for text in texts]
        longest = max(map(len, ids)) + 1
        self.batch = {
            "responses": torch.tensor([one + [99] * (longest - len(one)) for one in ids]),
            "attention_mask": torch.tensor(
                [[0, 1] + [1] * len(one) + [0] * (longest - len(one)) for one in ids]
            ),
        }
        self.non_tensor_batch = {
            "extra_info": [ASKED] * len(texts),
            "data_source": ["d"] * len(texts),
            "reward_model": [{"ground_truth": "1"}] * len(texts),
            **others,
        }


def test_a_manager_puts_scores_at_the_last_tokens_of_steps(caplog):
    manager = verl.StepRewardManager(Letters(), 1, None, rewards=REWARDS, unscored=-1.0)
    with caplog.at_level(logging.INFO):
        told = manager(Batch("ab\nc", "long", None), return_dict=True)
    assert told["reward_tensor"].tolist() == [
        [0, 0, pytest.approx(0.2), 0, pytest.approx(0.1), 0],
        [0, 0, 0, 0, -1, 0],
        [0] * 6,
    ]
    assert told["reward_extra_info"] == {
        "score": [0.1, -1, -1],
        "prm_steps": [2, 1, 0],
        "prm_unscored": [0, 1, 1],
    }
    assert len(caplog.records) == 1
    assert "'ab\\nc'" in caplog.text
    with pytest.raises(ScoringError, match="gives no score"):
        verl.StepRewardManager(Letters(), rewards=REWARDS)(Batch("long"))


def test_a_step_with_a_score_of_zero_still_shows_where_it_ended():
    (line,) = verl.StepRewardManager(Letters(), rewards=REWARDS)(Batch("0\nc")).tolist()
    assert [value > 0 for value in line] == [False, True, False, True, False]
    assert line[1] < 1e-30


def test_the_outcome_is_asked_as_verl_asks_and_added_at_the_end():
    asked = []

    def outcome(**given):
        asked.append(given)
        return {"score": 1.0} if given["solution_str"] == "ab\nc" else 0.0

    manager = verl.StepRewardManager(Letters(), 0, outcome, rewards=REWARDS, outcome=2.0)
    told = manager(Batch("ab\nc", "a"), return_dict=True)
    assert told["reward_tensor"][0].tolist() == pytest.approx([0, 0, 0.2, 0, 2.1, 0])
    assert told["reward_tensor"][1].tolist() == pytest.approx([0, 0.1, 0, 0, 0, 0])
    assert told["reward_extra_info"]["outcome"] == [1, 0]
    expected = {"data_source": "d", "solution_str": "a", "ground_truth": "1", "extra_info": ASKED}
    assert asked[1] == expected
    with pytest.raises(InvalidSetting, match="outcome is 2.0, and no compute_score was given"):
        verl.StepRewardManager(Letters(), rewards=REWARDS, outcome=2.0)


def test_tokens_of_an_environment_are_refused():
    data = Batch("ab\nc")
    own = data.batch["attention_mask"][:, 2:].clone()
    data.batch["response_mask"] = own.clone()
    assert verl.StepRewardManager(Letters(), rewards=REWARDS)(data).sum() == pytest.approx(0.3)
    data.batch["response_mask"][0, 1] = 0
    with pytest.raises(InvalidRecord, match="did not write"):
        verl.StepRewardManager(Letters(), rewards=REWARDS)(data)


def test_a_placed_reward_is_a_number_that_travels():
    one = verl.PlacedReward(0.25, Row((0.5, 0.25), (1, 3), 4))
    copy = pickle.loads(pickle.dumps(one))
    assert (copy, copy.row) == (0.25, Row((0.5, 0.25), (1, 3), 4))
    assert torch.tensor([one, copy]).tolist() == [0.25, 0.25]


REWARD = torch.tensor([[0.0, 1, 0, 2, 0], [0, 3, 0, 0, 9], [5, 0, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])


def test_estimators_compare_steps_within_what_verl_calls_a_group():
    found, returns = verl.grpo_process(REWARD, MASK, config={}, index=["x", "x", "y"], batch=None)
    # Steps 1, 2 and 3: mean 2, deviation 1. What stands outside of the mask is no step.
    expected = [[-1, -1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert found.tolist() == [pytest.approx(line, abs=1e-3) for line in expected]
    assert returns is found


def test_token_rewards_have_the_others_token_mean_for_a_baseline():
    """PRIME's process part, arXiv:2502.01456 equation 5, by hand."""
    config = {"gamma": 0.5, "use_kl_in_reward": True}
    found, _ = verl.rloo_process(REWARD, MASK, config=config, index=["x", "x", "y"])
    # The mean over tokens is 3/5 of the first and 3/3 of the second.
    for line, rewards, baseline in ((0, [0, 1, 0, 2, 0], 1.0), (1, [0, 3, 0], 0.6)):
        later, expected = 0.0, []
        for reward in reversed(rewards):
            later = reward - baseline + 0.5 * later
            expected.append(later)
        n = len(rewards)
        assert found[line, :n].tolist() == pytest.approx(expected[::-1], abs=1e-5)
        assert found[line, n:].tolist() == [0] * (5 - n)
    assert found[2].tolist() == [0] * 5


def test_an_estimator_that_cannot_see_steps_says_so():
    with pytest.raises(InvalidSetting, match="use_kl_in_reward puts a reward at each token"):
        verl.grpo_process(REWARD, MASK, config={"use_kl_in_reward": True}, index=["x"] * 3)
    for estimator in verl.ESTIMATORS.values():
        with pytest.raises(InvalidSetting, match="told no index"):
            estimator(REWARD, MASK)


def test_without_verl_the_install_command_is_named():
    if "verl" in sys.modules:
        pytest.skip("verl is here")
    for make in (lambda: verl.reward_loop_manager(REWARDS), verl.register):
        with pytest.raises(MissingTrainer, match=r"pip install 'verl>=0.9'"):
            make()


@pytest.fixture(scope="module")
def seen():
    """What `verl_child.py` saw in verl's own environment."""
    return told_by(Path(__file__).with_name("verl_child.py"), "verl")


@pytest.mark.bridges
def test_verls_own_managers_take_the_functions(seen):
    for kind in ("naive", "batch"):
        rewards, notes = seen[kind]
        assert rewards == pytest.approx(seen["mins"], abs=1e-5)
        assert notes["score"] == pytest.approx(seen["mins"], abs=1e-5)
        assert notes["prm_steps"] == [3, 2, 1, 3]
    rewards, notes = seen["loop"]
    assert rewards == pytest.approx(seen["mins"], abs=1e-5)
    assert notes["prm_steps"] == 3
    assert len({round(value, 3) for value in seen["mins"]}) == 4


@pytest.mark.bridges
def test_step_scores_are_placed_in_verls_batches(seen):
    assert max(seen[k] for k in ("dense_off", "messages_off", "joined_off")) < 1e-5
    assert seen["dense_notes"]["score"] == pytest.approx(seen["mins"], abs=1e-5)


@pytest.mark.bridges
def test_the_reward_loop_gets_one_number_or_all(seen):
    assert seen["is_manager"]
    assert seen["assembled_off"] < 1e-5
    for kind in ("streamed", "as_float"):
        assert seen[kind] == pytest.approx(seen["mins"], abs=1e-5)


@pytest.mark.bridges
def test_verl_computes_advantages_by_our_estimators(seen):
    assert seen["known"] == "prmkit.rl.bridges.verl"
    assert seen["returns_off"] == 0
    found = seen["advantages"]["prmkit_grpo_process"]
    pool = [v for v, g in zip(seen["values"], seen["groups"], strict=True) if g == "a" for v in v]
    mean = sum(pool) / len(pool)
    deviation = (sum((v - mean) ** 2 for v in pool) / (len(pool) - 1)) ** 0.5
    lines = zip(seen["values"], seen["places"], seen["groups"], seen["n_tokens"], strict=True)
    for i, (values, places, group, n_tokens) in enumerate(lines):
        for t, value in enumerate(found[i]):
            later = [v for v, end in zip(values, places, strict=True) if end >= t]
            expected = sum((v - mean) / deviation for v in later) if group == "a" else 0.0
            assert value == pytest.approx(expected if t < n_tokens else 0.0, abs=1e-3)
    assert any(value for line in seen["advantages"]["prmkit_rloo_process"] for value in line)
