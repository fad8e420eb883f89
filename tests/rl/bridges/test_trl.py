"""TRL's protocol, as recorded from its source; and a real `GRPOTrainer` where TRL is installed."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from bridge_children import told_by
from prmkit.errors import InvalidSetting, MissingTrainer, ScoringError
from prmkit.rl.bridges import trl
from prmkit.rl.bridges.placing import Row
from prmkit.rl.bridges.scoring import StepRewards
from prmkit.scorers.scripted import ScriptedScorer


def by_length(problem, steps):
    return None if "long" in steps[-1] else len(steps[-1]) / 10


REWARDS = StepRewards(scorer=ScriptedScorer(by_length), how="min", split="line")


def called(function, prompts, completions, **columns):
    """As TRL 1.13.0 calls a reward function, and what was logged by it."""
    logged = {}
    rewards = function(
        prompts=prompts,
        completions=completions,
        completion_ids=[[1, 2]] * len(completions),
        trainer_state=object(),
        log_extra=logged.__setitem__,
        log_metric=logged.__setitem__,
        **columns,
    )
    return rewards, logged


def test_a_reward_function_gives_a_number_or_none_for_each():
    rewards, logged = called(
        trl.StepRewardFunc(REWARDS), ["q", "q", "q"], ["ab\nc", "long", "abc"], answer=["1"] * 3
    )
    assert rewards == [0.1, None, 0.3]
    assert logged == {
        "prm_steps": ["0.300 0.100", "", "0.300"],
        "prm/steps": pytest.approx(4 / 3),
        "prm/unscored": pytest.approx(1 / 3),
    }


def test_conversations_are_scored_like_texts():
    prompts = [[{"role": "user", "content": "q"}]] * 2
    completions = [[{"role": "assistant", "content": t}] for t in ("ab\nc", "long")]
    assert called(trl.StepRewardFunc(REWARDS), prompts, completions)[0] == [0.1, None]


def test_trl_finds_a_name_and_no_coroutine():
    function = trl.StepRewardFunc(REWARDS, name="steps")
    # TRL asks a callable for its name so, and runs coroutines elsewhere.
    assert getattr(function, "__name__", type(function).__name__) == "steps"
    assert not inspect.iscoroutinefunction(function)


def test_rewards_of_another_number_are_refused_with_both():
    class Short(ScriptedScorer):
        def score(self, trajectories):
            return super().score(trajectories)[:-1]

    function = trl.StepRewardFunc(StepRewards(scorer=Short(by_length), how="min"))
    with pytest.raises(ScoringError, match="gave 1 results for 2 completions"):
        called(function, ["q", "q"], ["a", "b"])
    with pytest.raises(ScoringError, match="1 prompts for 2 completions"):
        called(function, ["q"], ["a", "b"])


class Letters:
    """A tokenizer of one letter a token; 0 is special."""

    def decode(self, ids, **settings):
        return "".join(chr(i) for i in ids if i)


def test_dense_rewards_are_of_the_tokens_text_and_are_taken_once():
    function = trl._PlacedRewardFunc(REWARDS, Letters())
    ids = [[*map(ord, "ab\nc"), 0], [*map(ord, "long"), 0]]
    # What a parser left of the completions is not what was drawn.
    assert function(["q", "q"], ["parsed", "parsed"], ids) == [0.1, None]
    assert function.take(2) == [Row((0.3, 0.1), (2, 4), 5), Row((), (), 5)]
    with pytest.raises(ScoringError, match="of None completions, and trains on 2"):
        function.take(2)
    function(["q", "q"], ["", ""], ids)
    with pytest.raises(ScoringError, match="of 2 completions, and trains on 3"):
        function.take(3)
    with pytest.raises(ScoringError, match="the tokens of 1 completions for 2"):
        function(["q", "q"], ["", ""], ids[:1])


def test_dense_training_without_trl_says_what_to_install():
    if "trl" in sys.modules:
        pytest.skip("TRL is here")
    with pytest.raises(MissingTrainer, match=r"pip install 'trl>=1.13'"):
        trl.dense_trainer(None, REWARDS, args=None, processing_class=None)


class Settings:
    use_liger_kernel = False
    off_policy_mask_threshold = None
    loss_type = "dapo"
    importance_sampling_level = "token"


@pytest.mark.parametrize(
    ("named", "value"),
    [
        ("use_liger_kernel", True),
        ("off_policy_mask_threshold", 0.5),
        ("loss_type", "vespo"),
        ("importance_sampling_level", "sequence"),
        ("tools", [print]),
        ("environment_factory", print),
    ],
)
def test_settings_for_one_advantage_a_response_are_refused(monkeypatch, named, value):
    monkeypatch.setattr(trl, "version", lambda package: "1.13.0")
    settings = Settings()
    trl._check(settings, {})
    given = {}
    if hasattr(settings, named):
        setattr(settings, named, value)
    else:
        given[named] = value
    with pytest.raises(InvalidSetting, match=named):
        trl._check(settings, given)


def test_an_old_trl_is_refused(monkeypatch):
    monkeypatch.setattr(trl, "version", lambda package: "0.25.1")
    with pytest.raises(InvalidSetting, match=r"TRL is 0.25.1; dense advantages need trl>=1.13"):
        trl._check(Settings(), {})


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What `trl_child.py` saw in TRL's own environment."""
    child = Path(__file__).with_name("trl_child.py")
    return told_by(child, "trl", tmp_path_factory.mktemp("trl"))


@pytest.mark.bridges
def test_a_real_trainer_trains_with_our_rewards(seen):
    for kind in ("conversational", "text"):
        rows = seen[kind]["rows"]
        assert len(rows) == 3
        for row in rows:
            assert row["reward"] == row["rewards/prm/mean"]
            assert 0 < row["reward"] < 1
            assert row["prm/unscored"] == 0
            assert 3 < row["prm/steps"] < 10
        assert 0 < seen[kind]["moved"] < 0.01
    # The same questions, the same samples: the template's text around them is left out.
    conversational, text = (seen[kind]["rows"][0]["reward"] for kind in ("conversational", "text"))
    assert conversational == pytest.approx(text, abs=1e-5)


@pytest.mark.bridges
def test_dense_advantages_reach_the_loss_of_a_real_trainer(seen):
    dense = seen["dense"]
    assert len(dense["shapes"]) == 3
    for advantages, ids in dense["shapes"]:
        assert advantages == ids
    # Ours against GRPO with process supervision written out in plain Python.
    assert dense["worst"] < 1e-4
    # They differ within responses, and TRL's loss is minus their mean at ratio 1.
    assert dense["spread"] > 0.5
    assert dense["loss_off"] < 1e-5
    # The number that is logged of the steps is no reward.
    assert all(row["reward"] == 0 < row["rewards/prm/mean"] for row in dense["rows"])


@pytest.mark.bridges
def test_one_steps_score_changes_the_tokens_up_to_its_end_alone(seen):
    one = seen["one_step"]
    assert one["same"]
    assert one["steps"] > 3
    assert len(one["upto"]) > 10
    assert one["upto"] == [pytest.approx(1.0, abs=1e-5)] * len(one["upto"])
    assert (one["after"], one["others"]) == (0.0, 0.0)


@pytest.mark.bridges
def test_other_rewards_are_added_as_trl_has_them(seen):
    outcome = seen["with_outcome"]
    assert outcome["unjudged"] == 3
    assert max(outcome["expected"]) > 0.5
    assert outcome["off"] < 1e-6
    assert outcome["joined"] < 1e-5


@pytest.mark.bridges
def test_a_real_configuration_is_checked(seen):
    names = ["off_policy", "vespo", "sequence", "2 reward_weights for 1"]
    for name, told in zip(names, seen["refused"], strict=True):
        assert name in told


@pytest.mark.bridges
def test_a_group_that_several_processes_share_is_one_group(tmp_path):
    seen = told_by(Path(__file__).with_name("trl_child.py"), "trl", tmp_path, processes=2)
    assert (seen["lines"], seen["groups"]) == (6, 1)
    assert seen["most"] > 0.5
    assert seen["worst"] < 1e-4
