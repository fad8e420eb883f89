"""Agents: which tokens of an episode are learnt from, after what, and what becomes of failures."""

from __future__ import annotations

import logging

import pytest
import torch
from acting import (
    ASSISTANT,
    END,
    TASKS,
    USER,
    Away,
    Doors,
    Early,
    Letters,
    broken,
    codes,
    doors,
    early,
    says,
)
from safetensors.torch import load_file
from test_loop import CPU, plan, rows_of, same, stock_log_probs, weights

from prmkit.embedded.build import WEIGHTS
from prmkit.environments.actions import whole_text
from prmkit.environments.base import Task
from prmkit.environments.playing import EpisodeSettings
from prmkit.errors import EnvironmentFailed, InputTooLong, InvalidSetting, PolicyError
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import Outcome
from prmkit.records import StepScores, Unscored
from prmkit.rl import RewardSettings, UpdateSettings, parts, saving, train_policy
from prmkit.rl.batch import batch_of
from prmkit.rl.episodes import Acting, train_agent
from prmkit.rl.learner import Learner, Speaker, sequences
from prmkit.rl.rollouts import Rollout
from prmkit.rl.updates import PairUpdate, PolicyUpdate

SAMPLING = SamplingSettings(max_new_tokens=9)
SHORT = EpisodeSettings(max_steps=4)


def practice(make, tasks=TASKS, held_out=(), settings=SHORT):
    return Acting(make, tasks, held_out, settings, whole_text)


def played(voice, make, tasks=TASKS[:1], n=1, own=None, scorer=None, seed=0, settings=SHORT):
    own = range(len(tasks)) if own is None else own
    return practice(make, settings=settings).roll_out(voice, tasks, own, n, SAMPLING, seed, scorer)


def pieces(one: Rollout):
    """What was read and drawn in each turn that is learnt from, out of the texts to be read."""
    (asked,) = sequences([one])
    texts, places = asked.texts()
    found = []
    for text, own in zip(texts, places, strict=True):
        before = -2
        for place in own:
            if place != before + 1:
                found.append((tuple(text[: place + 1]), []))
            found[-1][1].append(text[place + 1])
            before = place
    return [(context, tuple(drawn)) for context, drawn in found]


# What is learnt from.


def test_an_episode_is_one_sequence_of_what_was_read_and_what_was_drawn():
    words = iter(["go", "by!"])
    voice = Letters(lambda prefix, seed: says(next(words)))
    (one,) = played(voice, doors())
    assert one.trajectory.correct is True
    assert [s.text for s in one.trajectory.steps] == ["go", "by!"]
    # The end token belongs to the turn; what the environment said is no token of the response.
    assert one.ids == (*codes("go"), END, *codes("by!"), END)
    assert one.ends == (2, 6)
    question = [USER, *codes("Go through.\n\nDoor 0."), ASSISTANT]
    assert one.prompt == tuple(question)
    (asked,) = sequences([one])
    whole = [
        *question, *codes("go"), END, USER, *codes("Behind 1."), ASSISTANT, *codes("by!"), END
    ]  # fmt: skip
    texts, places = asked.texts()
    assert texts == [whole]
    assert tuple(whole[p + 1] for p in places[0]) == one.ids
    assert asked.n_tokens == len(whole)
    assert pieces(one) == [(context, (*d.ids, END)) for context, d in voice.asked]
    batch = batch_of([one], [0])
    assert batch.mask.all()
    assert batch.mask.shape == (1, 7)


def test_a_template_that_drops_thoughts_makes_a_branch_and_each_turn_has_its_own_context():
    words = iter(["hm: go", "b: by", "c"])
    voice = Letters(lambda prefix, seed: says(next(words)), drops=True)
    (one,) = played(voice, doors(n=3))
    assert one.ids == (*codes("hm: go"), END, *codes("b: by"), END, *codes("c"), END)
    assert one.ends == (6, 12, 14)
    (asked,) = sequences([one])
    texts, _ = asked.texts()
    assert len(texts) == 3
    assert pieces(one) == [(context, (*d.ids, END)) for context, d in voice.asked]
    # What they share is computed once.
    shared = sum(len(text) for text in texts) - asked.n_tokens
    assert shared == sum(turn.kept for turn in one.turns)
    assert asked.n_tokens < sum(map(len, texts))


def test_tokens_are_those_that_were_drawn_though_their_text_is_read_in_others():
    # One token for two letters, which nothing that encodes text would make.
    words = iter([says("go", ids=[999]), says("by")])
    voice = Letters(lambda prefix, seed: next(words))
    (one,) = played(voice, doors())
    assert one.ids == (999, END, *codes("by"), END)
    assert one.ends == (1, 4)
    first, second = pieces(one)
    assert first == (voice.asked[0][0], (999, END))
    assert second == (voice.asked[1][0], (*codes("by"), END))
    assert 999 not in second[0]


def test_a_turn_that_was_cut_off_has_no_end_token_and_the_end_that_was_drawn_counts():
    words = iter([says("go", finish="length"), says("by", end=7)])
    (one,) = played(Letters(lambda prefix, seed: next(words)), doors())
    assert one.ids == (*codes("go"), *codes("by"), 7)
    assert one.ends == (1, 4)


@pytest.mark.parametrize(
    ("unknown", "ids", "ends"),
    [
        ((0,), (*codes("by"), END, *codes("c"), END), (0, 2, 4)),
        ((1,), (*codes("go"), END, *codes("c"), END), (2, 2, 4)),
        ((2,), (*codes("go"), END, *codes("by"), END), (2, 5, 5)),
        ((0, 1, 2), (), (0, 0, 0)),
    ],
)
def test_a_turn_whose_tokens_do_not_spell_its_text_teaches_nothing(unknown, ids, ends):
    texts = ["go", "by", "c"]
    turns = iter(says(t, ids="unknown" if i in unknown else None) for i, t in enumerate(texts))
    voice = Letters(lambda prefix, seed: next(turns))
    (one,) = played(voice, doors(n=3), scorer=Early())
    # It is an attempt all the same.
    assert one.trajectory.correct is True
    assert (one.ids, one.ends) == (ids, ends)
    assert len(one.scores.values) == 3
    if ids:
        asked = [asked for i, asked in enumerate(voice.asked) if i not in unknown]
        assert pieces(one) == [(context, (*d.ids, END)) for context, d in asked]
    assert batch_of([one], [0]).scores.shape == (1, 3)


# Which episodes there are.


def letters(prefix, seed):
    return says("abcz"[seed % 4] + str(seed % 1000))


def test_a_task_that_comes_again_is_played_by_other_chance():
    found = played(Letters(letters), doors(), [TASKS[0], TASKS[1], TASKS[0]], n=2)
    assert [one.trajectory.problem.meta["seed"] for one in found] == [0, 0, 1, 1, 0, 0]
    assert len({one.ids for one in found}) == 6


def test_a_share_of_the_tasks_plays_what_the_whole_would():
    chosen = [TASKS[0], TASKS[1], TASKS[0], TASKS[2]]
    whole = played(Letters(letters), doors(), chosen, n=2, seed=3)
    parts = [
        one
        for own in (range(1), range(1, 3), range(3, 4))
        for one in played(Letters(letters), doors(), chosen, n=2, seed=3, own=own)
    ]
    assert parts == whole
    assert whole != played(Letters(letters), doors(), chosen, n=2, seed=4)


def test_success_is_the_outcome_and_too_many_turns_are_a_failure():
    found = played(Letters(lambda p, s: says("a")), doors(n=9))
    assert found[0].trajectory.correct is False
    assert found[0].trajectory.finish == "length"
    assert len(found[0].ends) == SHORT.max_steps
    (lost,) = played(Letters(lambda p, s: says("z")), doors())
    assert lost.trajectory.correct is False
    assert lost.trajectory.finish == "eos"


def test_an_episode_that_fails_is_no_attempt_and_the_others_are_played():
    scorer = Early()
    found = played(Letters(lambda p, s: says("a")), broken(1), TASKS[:3], n=2, scorer=scorer)
    errors = [one.error for one in found]
    assert [error is not None for error in errors] == [False, False, True, True, False, False]
    assert "ZeroDivisionError: the hinge broke" in errors[2]
    for one in found[2:4]:
        assert one.trajectory.correct is None
        assert one.trajectory.finish == "error"
        # The step before is on record, and was paid.
        assert len(one.trajectory.steps) == 1
        assert (one.ids, one.ends) == ((), ())
        assert one.scores == Unscored(reason="it could not be played")
    assert len(scorer.seen) == 4
    assert all(isinstance(one.scores, StepScores) for one in (*found[:2], *found[4:]))


def test_an_environment_that_does_not_begin_is_told():
    (one,) = played(Letters(letters), lambda: Away(Doors()))
    assert one.error == "nobody is there"
    assert one.trajectory.steps == ()
    with pytest.raises(EnvironmentFailed, match="nobody is there"):
        practice(lambda: Away(Doors())).question()
    assert practice(doors()).question().prompt == "Go through.\n\nDoor 0."


def test_a_turn_that_could_not_be_drawn_ends_the_step():
    voice = Letters(lambda p, s: says("", finish="error"))
    with pytest.raises(PolicyError, match="letters could not go on with 'doors/two/0'"):
        played(voice, doors())


def test_a_task_that_is_too_long_to_be_read_teaches_nothing():
    def script(prefix, seed):
        raise InputTooLong("too long")

    (one,) = played(Letters(script), doors())
    assert one.trajectory.correct is False
    assert one.error is None
    assert (one.ids, one.ends) == ((), ())


@pytest.mark.parametrize(
    ("practised", "held_out", "message"),
    [
        ([TASKS[0], TASKS[0]], [], "a task to practise on comes twice"),
        (TASKS[:2], [TASKS[3], TASKS[3]], "a task held out comes twice"),
        (TASKS[:2], [TASKS[1]], "1 tasks are held out and practised on too"),
    ],
)
def test_tasks_are_each_named_once(practised, held_out, message):
    with pytest.raises(InvalidSetting, match=message):
        practice(doors(), practised, held_out)


# What is computed of it, by real models.


@pytest.fixture(scope="module")
def voice(tiny_lm):
    return HFPolicy(tiny_lm, device="cpu", max_kept=0)


@pytest.fixture(scope="module")
def some(voice):
    """Episodes of three turns, as a real policy plays them."""
    return played(
        voice, doors(fatal=False, n=99), TASKS[:2], n=2, settings=EpisodeSettings(max_steps=3)
    )


def test_log_probabilities_of_an_episode_are_those_of_its_turns_each_after_its_context(
    some, tiny_lm, voice
):
    items = sequences(some)
    # A turn with a special token in it is not learnt from, as random weights draw them.
    assert sum(len(pieces(one)) for one in some) > 2 * len(some)
    width = max(len(one.ids) for one in some)
    speaker = Speaker(tiny_lm, CPU)
    found, _ = speaker.read(items, width)
    lonely, _ = Speaker(tiny_lm, CPU._replace(tokens=1)).read(items, width)
    for one, row, alone in zip(some, found, lonely, strict=True):
        turns = pieces(one)
        expected = torch.cat([stock_log_probs(tiny_lm, *turn, 1.0)[0] for turn in turns])
        torch.testing.assert_close(row[: len(one.ids)], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone[: len(one.ids)], expected, rtol=1e-4, atol=1e-4)
        assert not row[len(one.ids) :].any()


def test_what_the_environment_said_has_no_part_in_the_gradient(some, tiny_lm, monkeypatch):
    from transformers import AutoModelForCausalLM

    gradients = {}

    def noted(learner):
        gradients.update(
            {n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None}
        )
        return 0.0

    monkeypatch.setattr(Learner, "step", noted)
    batch = batch_of(some, [0, 0, 1, 1])
    generator = torch.Generator().manual_seed(3)
    worth = torch.randn(batch.mask.shape, generator=generator) * batch.mask
    PolicyUpdate(Speaker(tiny_lm, CPU, learning_rate=1e-3), UpdateSettings(), True, 9)(
        batch, worth, torch.zeros(batch.mask.shape), None
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    total, kept = torch.zeros(()), []
    for one, own in zip(some, worth, strict=True):
        at = 0
        for context, drawn in pieces(one):
            logits = model(torch.tensor([[*context, *drawn]])).logits[0]
            logits.retain_grad()
            kept.append((logits, len(context)))
            logs = logits.log_softmax(-1)[len(context) - 1 : -1]
            told = logs[torch.arange(len(drawn)), torch.tensor(drawn)]
            total = total - (told * own[at : at + len(drawn)]).sum()
            at += len(drawn)
    (total / batch.mask.sum()).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-3, atol=1e-5)
    # So it is: nothing asks what comes next inside of a context.
    assert all(not logits.grad[: n - 1].any() for logits, n in kept)


# Runs.


def agent_plan(out, policy, max_steps=2, **changes):
    from dataclasses import replace

    base = {
        "run": {"steps": 2, **changes.pop("run", {})},
        "rollouts": {
            "problems": 2, "samples": 3, "max_new_tokens": 4, "split": "blank_line",
            **changes.pop("rollouts", {}),
        },
    }  # fmt: skip
    return replace(
        plan(out, policy, **base, **changes), episodes=EpisodeSettings(max_steps=max_steps)
    )


def run(out, policy, make=None, tasks=TASKS, scorer=None, held_out=(), on_row=None, **changes):
    return train_agent(
        make or doors(fatal=False), tasks, agent_plan(out, policy, **changes), scorer=scorer,
        held_out=held_out, extract=whole_text, on_row=on_row,
    )  # fmt: skip


FEW = [
    ("ppo", {"reward": "progress", "outcome_weight": 1.0}, {"gamma": 0.9}),
    ("prime", {"reward": "implicit"}, {"low": 0.0, "high": 1.0}),
]
MORE = [
    ("grpo", {}, {}),
    ("grpo", {"reward": "score"}, {}),
    ("grpo", {"reward": "prl"}, {}),
    ("rloo", {"reward": "min", "outcome_weight": 1.0}, {}),
    ("rloo", {"reward": "score"}, {"gamma": 0.9}),
    ("reinforce", {"reward": "score"}, {"gamma": 0.9}),
    ("reinforce++", {"reward": "implicit"}, {"gamma": 0.9}),
    ("ppo", {"reward": "implicit"}, {"per": "token"}),
    ("dpo", {"reward": "score", "margin": 0.0}, {}),
]


@pytest.mark.parametrize(
    ("algorithm", "rewards", "update"),
    [*FEW, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE)],
)
def test_every_algorithm_teaches_an_agent(tmp_path, tiny_lm, algorithm, rewards, update):
    result = run(
        tmp_path, tiny_lm, scorer=Early(), run={"algorithm": algorithm}, rewards=rewards,
        update=update, held_out=[Task(50, "two")],
    )  # fmt: skip
    rows = [row for row in result.rows if row["step"]]
    for row in rows:
        assert all(v == v for v in row.values() if isinstance(v, float)), row
        assert row["not_played"] == 0
        assert row["steps"] == 2
    assert [row["env_steps"] for row in rows] == [12, 24]
    assert rows[-1]["eval_problems"] == 1
    assert not same(weights(result), {k: v.float() for k, v in load_file(
        tiny_lm / "model.safetensors").items()})  # fmt: skip


def test_failures_are_on_record_and_the_run_goes_on(tmp_path, tiny_lm, caplog):
    with caplog.at_level(logging.WARNING, "prmkit.rl.loop"):
        result = run(
            tmp_path, tiny_lm, broken(0, 2, 4), run={"steps": 3}, held_out=[Task(50, "two")]
        )
    rows = [row for row in result.rows if row["step"]]
    # All six tasks have their turn in three steps.
    assert sum(row["not_played"] for row in rows) == 9
    # Nine episodes of two steps, and nine that broke at their second.
    assert rows[-1]["env_steps"] == 27
    for row in rows:
        if row["not_played"] < 6:
            assert row["known"] == 1
            assert row["steps"] == 2
    broke = [row["step"] for row in rows if row["not_played"]]
    told = [record.getMessage() for record in caplog.records]
    assert [
        f"episodes of step {step} could not be played" in text
        for step, text in zip(broke, told, strict=True)
    ] == [True] * len(broke)
    assert all("the hinge broke" in text for text in told)


def test_a_run_whose_episodes_all_fail_stops_and_says_why(tmp_path, tiny_lm):
    with pytest.raises(EnvironmentFailed, match=r"6 of 6 episodes of step 1.*the hinge broke"):
        run(tmp_path / "a", tiny_lm, broken(*range(6)))
    with pytest.raises(
        EnvironmentFailed, match="no episode of an evaluation could be played: a st"
    ):
        run(tmp_path / "b", tiny_lm, broken(50), held_out=[Task(50, "two")])


def test_an_evaluation_leaves_out_what_could_not_be_played(tmp_path, tiny_lm):
    result = run(
        tmp_path, tiny_lm, broken(50), held_out=[Task(50, "two"), Task(51, "two")],
        run={"eval_samples": 2},
    )  # fmt: skip
    # Nobody comes through 99 doors; those that broke are no failures, and no successes either.
    assert result.rows[0]["eval_greedy"] == result.rows[0]["eval_accuracy"] == 0
    assert result.rows[0]["eval_problems"] == 2


class Stop(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "rewards"), [("ppo", {"reward": "score"}), ("prime", {"reward": "implicit"})]
)
def test_a_run_that_is_resumed_has_the_weights_of_one_that_was_not(
    tmp_path, tiny_lm, algorithm, rewards
):
    changes = {
        "run": {"algorithm": algorithm, "steps": 4, "save_every": 2, "eval_every": 3},
        "rewards": rewards, "held_out": [Task(50, "two")], "scorer": Early(),
        "update": {"low": 0.0, "high": 1.0, "epochs": 2},
    }  # fmt: skip

    def stop(row):
        if row["step"] == 3:
            raise Stop

    whole = run(tmp_path / "whole", tiny_lm, **changes)
    with pytest.raises(Stop):
        run(tmp_path / "torn", tiny_lm, on_row=stop, **changes)
    assert [p.name for p in saving.points(tmp_path / "torn")] == ["step-2"]
    resumed = run(tmp_path / "torn", tiny_lm, **changes)
    assert rows_of(whole) == rows_of(resumed)
    assert [row["env_steps"] for row in resumed.rows][-1] > 0
    assert same(weights(whole), weights(resumed))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_an_agent_learns_which_of_two_words_opens_doors(tmp_path, algorithm):
    # Of the two the shipped policy prefers the other one.
    result = train_agent(
        doors(), TASKS,
        agent_plan(
            tmp_path, WEIGHTS / "policy",
            run={"algorithm": algorithm, "steps": 12, "save_every": 100},
            rollouts={"problems": 6, "samples": 8, "max_new_tokens": 2},
            update={"learning_rate": 2e-4},
        ),
        extract=lambda text: "z" if early(text) else "a",
    )  # fmt: skip
    right = [row["accuracy"] for row in result.rows if row["step"]]
    assert sum(right[:3]) / 3 < 0.6
    assert sum(right[-3:]) / 3 > 0.9


def test_what_is_known_of_episodes_reaches_those_who_learn(tmp_path, tiny_lm, monkeypatch):
    told = {}

    def watched(name, keep):
        original = getattr(parts, name)

        def made(*arguments):
            told[name] = keep(arguments)
            return original(*arguments)

        monkeypatch.setattr(parts, name, made)

    watched("Credit", lambda arguments: arguments[6:])
    watched("PolicyUpdate", lambda arguments: arguments[3:])
    run(tmp_path, tiny_lm, run={"steps": 1})
    # A step of time is a turn; an episode has two turns of four tokens at most.
    assert told == {"Credit": (True,), "PolicyUpdate": (8,)}


def test_pairs_of_episodes_keep_their_turns():
    def script(prefix, seed):
        return says("ab" if seed % 2 else "z")

    # One door behind which all is well, whatever is said before.
    found = played(Letters(script), doors(fatal=False), TASKS[:1], n=8, scorer=Early())
    made = PairUpdate(
        "dpo", None, None, None, RewardSettings(reward="score", margin=0.01), UpdateSettings()
    )._pairs(found)
    assert len(made) >= 2
    known = sequences(found)
    assert all(one in known for one in made)
    assert all(one.turns for one in made)


# What is refused.


def test_what_means_nothing_for_episodes_is_refused(tmp_path, tiny_lm):
    def refused(**changes):
        with pytest.raises(InvalidSetting) as told:
            agent_plan(tmp_path, tiny_lm, **changes).check(has_scorer=True)
        return str(told.value)

    assert "dpo compares whole episodes" in refused(
        run={"algorithm": "step-dpo"}, rewards={"reward": "score"}
    )
    assert "split is 'line'" in refused(rollouts={"split": "line"})
    assert "per is 'step'" in refused(update={"per": "step"})
    own = agent_plan(tmp_path, tiny_lm)
    with pytest.raises(InvalidSetting, match="train_agent"):
        train_policy([], own, lambda problem, text: Outcome(None, True))
    with pytest.raises(InvalidSetting, match="there is no task to practise on"):
        train_agent(doors(), [], own)
    with pytest.raises(InvalidSetting, match="eval_every has no meaning without tasks"):
        run(tmp_path, tiny_lm, run={"eval_every": 1})


def test_a_step_of_time_is_a_turn_unless_it_is_said(tmp_path, tiny_lm):
    assert agent_plan(tmp_path, tiny_lm).by_steps
    assert not plan(tmp_path, tiny_lm).by_steps
    ppo = {"run": {"algorithm": "ppo"}}
    assert not agent_plan(tmp_path, tiny_lm, **ppo, update={"per": "token"}).by_steps
    assert plan(tmp_path, tiny_lm, **ppo, update={"per": "step"}).by_steps
    # Of Dr. GRPO's mean: all that an episode could have.
    assert agent_plan(tmp_path, tiny_lm, max_steps=5).longest == 20
    assert plan(tmp_path, tiny_lm).longest == 24
