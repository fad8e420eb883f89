"""Whole episodes without labels: temporal targets of the model's own, and inverse rewards."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

from prmkit import load_scorer
from prmkit.checkpoints import load_tokenizer, read_note
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.labelling.promise_progress import temporal_targets
from prmkit.records import Problem, Record, Step, Trajectory
from prmkit.scorers.families import discriminative
from prmkit.training.batches import BatchSettings
from prmkit.training.checkpoints import newest
from prmkit.training.episodes import PromiseSettings, make_episodes, make_transitions
from prmkit.training.heads import HeadObjective
from prmkit.training.parts import make_part
from prmkit.training.targets import Dropped
from prmkit.training.trainer import TrainSettings, prepare, train

VALUE, RANK = discriminative("step_value"), discriminative("step_rank")
TEMPORAL = PromiseSettings(targets="temporal")


def episode(moves, correct=None, finish="eos", problem="Mia?", seen="So 3."):
    steps = tuple(Step(text=f"Mia has 3 {m}.\n", observation=seen) for m in moves)
    return Record(
        trajectory=Trajectory(
            problem=Problem(id=problem, prompt=problem), steps=steps, correct=correct, finish=finish
        )
    )


def test_episodes_are_read_as_the_scorer_reads_them(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    records = [
        episode(["apples", "pens"], True), episode(["cups"], False), episode(["cups"]),
        episode(["cups"] * 40, True), episode([], True),
    ]  # fmt: skip
    found, dropped, told = make_episodes(records, VALUE, tokenizer, 300, TEMPORAL)
    rendered = VALUE.render(records[0].trajectory, tokenizer)
    assert found[0].positions == rendered.positions
    assert found[0].ids == rendered.ids[: rendered.positions[-1] + 1]
    assert [e.targets for e in found] == [[1, 1], [0]]
    assert [e.turns for e in found] == [(0, 1), (0,)]
    # Without an outcome, or without a turn; and an outcome is not that of a part.
    assert dropped == Dropped(unlabelled=2, too_long=1)
    assert "gamma 1, lambda 0.95" in told[0]


@pytest.mark.parametrize("loss", ["progress", "squared_error", "cross_entropy"])
def test_the_targets_of_a_pass_are_those_of_each_episode(tiny_lm, loss):
    """Of episodes of 3, 1 and 2 turns, by the function that labels one episode."""
    numbers = torch.tensor([[0.3], [-1.0], [2.0], [0.1], [-0.4], [0.9]])
    outcomes = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    owner, nothing = torch.tensor([0, 0, 0, 1, 2, 2]), torch.zeros(6)
    how = PromiseSettings(targets="temporal", gamma=0.9, lam=0.6)
    found = HeadObjective(loss, None, (), 1, promises=how).of_numbers(
        numbers, outcomes, torch.ones(6), owner, nothing
    )
    own = torch.sigmoid(numbers[:, 0]).tolist()
    targets = [
        target
        for promises, outcome in ((own[:3], 1.0), (own[3:4], 0.0), (own[4:], 1.0))
        for target in temporal_targets(promises, outcome, gamma=0.9, lam=0.6)
    ]
    expected = HeadObjective(loss, None, (), 1).of_numbers(
        numbers, torch.tensor(targets), torch.ones(6), owner, nothing
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


CHAINS = [(["apples"] * 4, True), (["pens"] * 3, False), (["cups", "apples"], True)]
"""What is done first decides: each turn's promise is known."""


def chains():
    return [episode(moves, won) for moves, won in CHAINS for _ in range(2)]


def settings_for(tiny_lm, out, **changes):
    return TrainSettings(
        **{
            "base": str(tiny_lm), "out": out, "kind": "value", "loss": "progress",
            "learning_rate": 3e-3, "warmup": 0.0, "save_every": 1000, **changes,
        }
    )  # fmt: skip


def test_promises_come_to_what_the_function_of_one_episode_comes_to(tiny_lm, tmp_path):
    how = PromiseSettings(targets="temporal", gamma=0.9, lam=0.8)
    settings = settings_for(tiny_lm, tmp_path / "prm", epochs=250)
    train(chains(), settings, batches=BatchSettings(batch_size=6), promises=how)
    records = [episode(moves, won) for moves, won in CHAINS]
    scores = load_scorer(tmp_path / "prm").score([r.trajectory for r in records])
    for (moves, won), scored in zip(CHAINS, scores, strict=True):
        promises = [0.5] * len(moves)
        for _ in range(2000):
            promises = temporal_targets(promises, float(won), gamma=0.9, lam=0.8)
        # By hand: M_t = γλ / (1 - γ (1 - λ)) M_{t+1}, which is .72 / .82.
        assert promises == pytest.approx(
            [won * (0.72 / 0.82) ** k for k in reversed(range(len(moves)))]
        )
        assert scored.values == pytest.approx(promises, abs=0.02)
    note = read_note(tmp_path / "prm")
    assert (note["targets"], note["gamma"], note["lam"]) == ("temporal", 0.9, 0.8)
    card = (tmp_path / "prm" / "README.md").read_text()
    assert "targets: temporal differences of the model's own promises" in card
    assert "gamma 0.9, lambda 0.8" in card


def test_a_fork_comes_to_its_chances_by_squared_error(tiny_lm, tmp_path):
    """Of five that begin alike four succeed: 4/5 before the fork, 1 and 0 behind it."""
    records = [
        *(episode(["apples", "cups"], True) for _ in range(4)), episode(["apples", "pens"], False)
    ]  # fmt: skip
    settings = settings_for(tiny_lm, tmp_path / "prm", loss="squared_error", epochs=200)
    train(records, settings, batches=BatchSettings(batch_size=5), promises=TEMPORAL)
    scorer = load_scorer(tmp_path / "prm")
    won, lost = scorer.score([records[0].trajectory, records[4].trajectory])
    assert won.values == pytest.approx([0.8, 1.0], abs=0.03)
    assert lost.values == pytest.approx([0.8, 0.0], abs=0.03)


def digest(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("loss", ["progress", "inverse"])
def test_an_interrupted_run_goes_on_to_the_same_weights(tiny_lm, tmp_path, loss):
    more = {"promises": TEMPORAL}
    if loss == "inverse":
        more = {"learner": [episode(["pens", "cups"], False), episode(["cups", "apples"])]}
    eight = BatchSettings(batch_size=2)

    def run(name, **told):
        settings = settings_for(tiny_lm, tmp_path / name, loss=loss, epochs=3, save_every=2)
        train(chains(), settings, batches=eight, **more, **told)

    def killer(done, total, logs):
        if done == 5:
            raise KeyboardInterrupt

    run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut", on_progress=killer)
    assert newest(tmp_path / "cut.checkpoints").name == "checkpoint-4"
    run("cut")
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "promises", "message"),
    [
        ({"kind": "step", "loss": None}, TEMPORAL, "mean nothing to the kind step"),
        ({"kind": "rank", "loss": None}, TEMPORAL, "mean nothing to the kind rank"),
        ({"kind": "implicit", "loss": None}, TEMPORAL, "mean nothing to the kind implicit"),
        ({"loss": "inverse"}, TEMPORAL, "with the loss inverse"),
        ({}, PromiseSettings(lam=0.5), "lam has no meaning"),
        ({}, PromiseSettings(gamma=0.5), "gamma has no meaning"),
        ({"weighting": "certainty"}, TEMPORAL, "and temporal targets; leave it out"),
        ({"loss": "inverse"}, None, "given are 0 with the loss inverse"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_lm, tmp_path, changes, promises, message):
    with pytest.raises(InvalidSetting, match=message):
        prepare(chains(), settings_for(tiny_lm, tmp_path, **changes), None, promises)


def test_settings_out_of_range_and_too_little_to_learn_from(tiny_lm, tmp_path):
    for wrong in ({"lam": 1.5}, {"gamma": -0.1}, {"gamma": math.nan}):
        with pytest.raises(InvalidSetting, match="must be from 0 to 1"):
            PromiseSettings(**wrong)
    settings = settings_for(tiny_lm, tmp_path)
    with pytest.raises(NothingToMeasure, match="2 have no known outcome"):
        prepare([episode(["cups"])] * 2, settings, None, TEMPORAL)
    with pytest.raises(NothingToMeasure, match="all labels are 1"):
        prepare([episode(["cups"], True)], settings, None, TEMPORAL)
    with pytest.raises(InvalidSetting, match="given are 6 with the loss progress"):
        prepare(chains(), settings, None, TEMPORAL, chains())


def transitions(tiny_lm, demonstrations, learner, most=None):
    return make_transitions(demonstrations, learner, RANK, load_tokenizer(tiny_lm), most)


def test_the_next_turn_of_a_demonstration_is_the_learners(tiny_lm):
    shown = episode(["apples", "pens", "cups"], True)
    learner = [
        episode(["apples", "cups"], False), episode(["apples", "cups"], False),
        episode(["apples", "apples", "pens"], finish="open"),
    ]  # fmt: skip
    found, dropped, told = transitions(tiny_lm, [shown], learner)
    assert not dropped
    assert told == (
        "1 of 2 demonstrated turns lead where the learner was seen to go on; after the others the "
        "demonstration's own next turn stands for its",
    )
    own, twice, once, *episodes = found
    # Of turn 1 the learner's two counted, two to one; of turn 2 the demonstration's own.
    assert (own.turns, own.shares, own.weights) == ((0, 1, 2), (1, 0, 1), [1, 1, 1])
    assert [(e.turns, e.weights) for e in (twice, once)] == [((1,), [0])] * 2
    assert [*twice.shares, *once.shares] == pytest.approx([2 / 3, 1 / 3])
    assert {e.solution for e in (own, twice, once)} == {0}
    tokenizer = load_tokenizer(tiny_lm)
    other = shown.trajectory.model_copy(
        update={"steps": (shown.trajectory.steps[0], Step(text="Mia has 3 cups.\n"))}
    )
    assert twice.ids == RANK.render(other, tokenizer).ids
    assert twice.ids[: twice.starts[0]] == own.ids[: own.starts[1]]
    # What does not end says by its last turn what the learner does, and no more.
    assert [e.weights for e in episodes] == [[1, 1], [1, 1], [1, 1, 0]]
    assert [e.targets for e in episodes] == [[0, 0], [0, 0], [0, 0, 0]]
    assert [e.shares for e in episodes] == [(1, 1), (1, 1), (1, 1, 1)]


def test_another_answer_is_another_situation(tiny_lm):
    shown = episode(["apples", "pens"], True)
    for learner, known in (
        (episode(["apples", "cups"], False), 1),
        (episode(["apples", "cups"], False, seen="So 4."), 0),
        (episode(["apples", "cups"], False, problem="Ben?"), 0),
        (episode(["cups", "cups"], False), 0),
    ):
        told = transitions(tiny_lm, [shown], [learner]).told
        assert told[0].startswith(f"{known} of 1 demonstrated")


def test_a_turn_that_is_lost_takes_the_reward_before_it_along(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    shown = episode(["apples", "pens", "cups"], True)
    most = RANK.render(shown.trajectory, tokenizer).positions[1] + 1
    learner = [episode(["cups"], False), episode([], False)]
    found, dropped, _ = transitions(tiny_lm, [shown], learner, most)
    assert [e.weights for e in found] == [[1, 0], [1]]
    assert dropped == Dropped(cut=1, cut_labels=1, unlabelled=1)
    with pytest.raises(NothingToMeasure, match="demonstrations hold no turn"):
        transitions(tiny_lm, [episode(["cups"] * 60, True)], learner, most)
    with pytest.raises(NothingToMeasure, match="a learner's episodes hold no turn"):
        transitions(tiny_lm, [shown], [episode(["cups"], finish="open")])


def test_the_loss_of_changes_by_hand(tiny_lm):
    """Q of a demonstration: 1, (0), 2, the learner's in its place .5 and -1; of an episode: 3."""
    shown = episode(["apples", "pens", "cups"], True)
    learner = [episode(["apples", "cups"], finish="open"), episode(["apples", "apples"])]
    learner = [r.replace(trajectory=r.trajectory.model_copy(update={"finish": "open"}))
               for r in learner] + [episode(["pens"], False)]  # fmt: skip
    found, _, _ = transitions(tiny_lm, [shown], learner)
    rows = [found[0], found[1], found[2], found[-1]]
    values = torch.tensor([1.0, 0.0, 2.0, 0.5, -1.0, 3.0])
    head = HeadObjective("inverse", None, (), 1, promises=PromiseSettings(gamma=0.5))
    # r: 1 - .5 · (.5 - 1)/2 = 1.125, 0 - .5 · 2 = -1, 2, and the learner's 3.
    expected = sum(math.log1p(math.exp(-x)) for x in (1.125, -1.0, 2.0, -3.0))
    found = head._of_changes(values, make_part(rows, True))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_demonstrated_turn_gets_the_higher_promise(tiny_lm, tmp_path):
    """At each of two places the expert takes apples, the learner mostly pens; nobody is told."""
    expert = [episode(["apples", "apples"])] * 4
    learner = [
        episode(["pens", "pens"]), episode(["pens", "apples"]), episode(["apples", "pens"]),
        episode(["pens", "pens"]),
    ]  # fmt: skip
    settings = settings_for(tiny_lm, tmp_path / "prm", loss="inverse", epochs=60)
    train(expert, settings, batches=BatchSettings(batch_size=8), learner=learner)
    scorer = load_scorer(tmp_path / "prm")
    ways = ("apples", "apples"), ("apples", "pens"), ("pens", "pens")
    # The family gives the sigmoid; what the loss is of is the number itself.
    both, first, none = (
        [math.log(v / (1 - v)) for v in one.values]
        for one in scorer.score([episode(way).trajectory for way in ways])
    )
    assert both[0] > none[0] + 1
    assert both[1] > first[1] + 1
    note = read_note(tmp_path / "prm")
    assert (note["family"], note["loss"], note["gamma"]) == ("step_rank", "inverse", 1.0)
    assert "4 of 4 demonstrated turns" in (tmp_path / "prm" / "README.md").read_text()
