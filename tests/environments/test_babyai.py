"""BabyAI in words."""

from __future__ import annotations

import re

import pytest

from prmkit.environments.base import Task, demonstrate
from prmkit.environments.catalogue import environment
from prmkit.environments.laws import ENVIRONMENT_LAWS, Trial
from prmkit.environments.playing import EpisodeSettings
from prmkit.environments.rollout import from_turns
from prmkit.errors import EnvironmentFailed
from prmkit.policies.base import SamplingSettings
from prmkit.policies.scripted import ScriptedPolicy

pytest.importorskip("minigrid", reason="needs prmkit[agents]")

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

from prmkit.environments.babyai import LEVELS, BabyAI, _observe

TASKS = (Task(0), Task(1, "BabyAI-PutNextLocal-v0"), Task(2, "BabyAI-UnlockLocal-v0"))
WITHOUT_A_WAY = re.compile("PutNextS.N.Carrying|KeyInBox|OpenDoorsOrder.*Debug")


@pytest.mark.parametrize("law", ENVIRONMENT_LAWS, ids=lambda law: law.__name__)
def test_it_keeps_the_laws(law):
    law(Trial(BabyAI, TASKS, steps=6))


@pytest.mark.parametrize("law", ENVIRONMENT_LAWS, ids=lambda law: law.__name__)
def test_the_laws_hold_in_words_too(law):
    law(Trial(environment("babyai-words"), TASKS[:1], steps=4))


def view(carried=None, **things):
    image = np.zeros((7, 7, 3), dtype=np.uint8)
    image[2:5, 2:7, 0] = OBJECT_TO_IDX["empty"]
    image[2:5, 2, 0] = OBJECT_TO_IDX["wall"]
    image[2, :, 0] = OBJECT_TO_IDX["wall"]
    for place, (kind, colour, state) in things.items():
        x, y = int(place[1]), int(place[2])
        image[x, y] = OBJECT_TO_IDX[kind], COLOR_TO_IDX[colour], STATE_TO_IDX[state]
    if carried:
        image[3, 6] = OBJECT_TO_IDX[carried[0]], COLOR_TO_IDX[carried[1]], 0
    return {"image": image}


def test_without_the_map_all_else_is_the_same():
    with_map, without = BabyAI(), environment("babyai-words")()
    first, other = with_map.reset(TASKS[0]), without.reset(TASKS[0])
    assert other.problem.meta["environment"] == without.name == "babyai-words"
    assert "map" not in other.problem.prompt
    assert first.observation.split("\nMap:\n")[0] == other.observation
    for action in with_map.plan():
        seen, told = with_map.step(action), without.step(action)
        before, _, after = seen.observation.partition("\nMap:\n")
        # What is said at the end comes after the map.
        last = after[after.rfind("\nThe episode is over.") :] if seen.done else ""
        assert before + last == told.observation
        assert seen[1:] == told[1:]
    assert told.success


def test_what_is_seen_by_hand():
    seen = view(
        ("key", "yellow"),
        _32=("door", "red", "locked"),
        _34=("door", "blue", "open"),
        _44=("ball", "grey", "open"),
        _46=("box", "green", "open"),
    )
    assert _observe(seen, {}, True) == (
        "You see:\n"
        "- a green box: 1 to the right\n"
        "- an open blue door: 2 ahead\n"
        "- a grey ball: 2 ahead, 1 to the right\n"
        "- a locked red door: 4 ahead\n"
        "Fields ahead: 3 free, then a locked red door.\n"
        "You carry a yellow key.\n"
        "Map:\n"
        "?? ?? ## ?? ?? ?? ??\n"
        "?? ?? ## ?? ?? ?? ??\n"
        "?? ?? ## rd ## ?? ??\n"
        "?? ?? ## .. .. ?? ??\n"
        "?? ?? ## bd eb ?? ??\n"
        "?? ?? ## .. .. ?? ??\n"
        "?? ?? ## ^^ gx ?? ??"
    )
    assert _observe(view(), {}, True).startswith(
        "You see no thing.\nFields ahead: 3 free, then a wall.\nYou carry nothing.\n"
    )


def test_the_reward_is_minigrids():
    shown = demonstrate(BabyAI(), TASKS[0])
    game = BabyAI()
    game.reset(TASKS[0])
    rewards = [game.step(step.text).reward for step in shown.steps]
    # A level of one room of 8 by 8 fields has a limit of 64 steps.
    assert rewards == [0.0] * (len(rewards) - 1) + [pytest.approx(1 - 0.9 * len(rewards) / 64)]
    assert shown.steps[-1].observation.endswith("The episode is over. The task is solved.")


def test_time_runs_out():
    game = BabyAI()
    game.reset(TASKS[0])
    replies = [game.step("turn left") for _ in range(64)]
    assert [reply.done for reply in replies] == [False] * 63 + [True]
    assert replies[-1].success is False
    with pytest.raises(EnvironmentFailed, match="no way"):
        game.plan()


def test_words_for_an_action():
    game = BabyAI()
    game.reset(TASKS[0])
    for same in ("turn left", "Turn  LEFT.", "pickup", "move forward"):
        assert "is no action" not in game.step(same).observation
    assert "is no action" in game.step("turn").observation


def test_nothing_is_printed(capsys):
    game = BabyAI()
    for seed in range(3):
        for level in ("BabyAI-UnblockPickup-v0", "BabyAI-PickupAbove-v0", "BabyAI-KeyCorridor-v0"):
            game.reset(Task(seed, level))
    assert capsys.readouterr() == ("", "")


def test_continuations_from_the_middle_by_snapshots():
    shown = demonstrate(BabyAI(), TASKS[2])

    def script(prefix, rng):
        return shown.steps[len(prefix.steps)].text if rng.random() < 0.8 else "done"

    prefixes = [shown.prefix(k) for k in range(len(shown.steps) + 1)]
    continued = from_turns(
        ScriptedPolicy(script), BabyAI, prefixes, 6,
        sampling=SamplingSettings(),
        settings=EpisodeSettings(max_steps=len(shown.steps)),
    )  # fmt: skip
    assert sum(one.replayed for one in continued) == len(shown.steps)
    rates = [one.successes / one.trials for one in continued]
    assert rates[-1] == 1.0
    assert rates[0] < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_shown_or_is_known_to_be_without_a_way(level):
    game = BabyAI()
    solved = 0
    for seed in range(3):
        try:
            solved += bool(demonstrate(game, Task(seed, level)).correct)
        except EnvironmentFailed:
            assert WITHOUT_A_WAY.search(level), level
    assert solved == 3 or WITHOUT_A_WAY.search(level)
