"""The crafting game: its rules, its worlds, and that its plans are the shortest."""

from __future__ import annotations

import random

import pytest

from prmkit.environments.base import Task, demonstrate
from prmkit.environments.crafting import (
    CraftingWorld,
    Crafts,
    Recipe,
    State,
    crafting,
    generate,
    shortest,
)

CRAFTS = Crafts(
    "lamp",
    ("log", "sand"),
    (
        Recipe("plank", 4, (("log", 1),)),
        Recipe("glass", 1, (("sand", 2),)),
        Recipe("lamp", 1, (("glass", 1), ("plank", 6))),
    ),
)


def played(*actions, crafts=CRAFTS):
    state, world, said = State(crafts), CraftingWorld(), []
    for action in actions:
        state, reply = world.act(state, action)
        said.append(reply)
    return dict(state.held), said


def test_the_rules_by_hand():
    held, said = played(
        "inventory",
        "get 2 log",
        "Get 2 SAND.",
        "craft 4 plank using 1 log",
        "craft 4 plank using 1 log",
        "craft  1 glass using 2 sand",
        "inventory",
        "craft 1 lamp using 6 plank, 1 glass",
    )
    assert [reply.observation for reply in said] == [
        "You carry nothing.",
        "Got 2 log.",
        "Got 2 sand.",
        "Crafted 4 plank.",
        "Crafted 4 plank.",
        "Crafted 1 glass.",
        "You carry: 1 glass, 8 plank.",
        "Crafted 1 lamp. That is the goal.",
    ]
    assert held == {"plank": 2, "lamp": 1}
    assert [(r.done, r.success, r.reward) for r in said[-2:]] == [
        (False, None, 0.0),
        (True, True, 1.0),
    ]


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        (["get 1 plank"], "crafted"),
        (["get 1 gold"], "no 'gold'"),
        (["get 0 log"], "1 to 9999"),
        (["get 10000 log"], "1 to 9999"),
        (["craft 4 plank using 1 log"], "need 1 log and carry none"),
        (["get 9 log", "craft 1 plank using 1 log"], "no recipe for 1 'plank'"),
        (["get 9 log", "craft 4 plank using 2 log"], "no recipe"),
        (["get 9 log", "craft 4 plank using 1 log, 1 log"], "no recipe"),
        (["get 9 log", "craft 4 plank using 1 log, and sand"], "no recipe"),
        (["get log"], "is no action"),
        (["get ١ log"], "is no action"),
        ([""], "is no action"),
    ],
)
def test_what_is_refused_changes_nothing(actions, why):
    before, _ = played(*actions[:-1])
    held, said = played(*actions)
    assert why in said[-1].observation
    assert held == before
    assert said[-1][1:] == (False, None, 0.0)


def test_a_craft_that_lacks_one_part_takes_none_of_the_others():
    held, said = played(
        "get 2 sand", "craft 1 glass using 2 sand", "craft 1 lamp using 1 glass, 6 plank"
    )
    assert "need 6 plank" in said[-1].observation
    assert held == {"glass": 1}


def longest_chain(crafts, item):
    recipe = {r.item: r for r in crafts.recipes}.get(item)
    return 0 if recipe is None else 1 + max(longest_chain(crafts, p) for p, _ in recipe.parts)


@pytest.mark.parametrize("depth", range(1, 9))
def test_the_depth_is_the_one_asked_for(depth):
    for seed in range(20):
        crafts = generate(depth, random.Random(seed))
        assert longest_chain(crafts, crafts.goal) == depth
        items = [*crafts.grown, *(recipe.item for recipe in crafts.recipes)]
        assert len(set(items)) == len(items)
        known = set(crafts.grown)
        for recipe in crafts.recipes:
            assert {part for part, _ in recipe.parts} <= known
            known.add(recipe.item)


@pytest.mark.parametrize("depth", range(1, 9))
def test_plans_solve_deep_worlds(depth):
    for seed in range(5):
        assert demonstrate(crafting(), Task(seed, f"depth-{depth}")).correct


def fewest(crafts, held, limit):
    """By trying everything, with amounts up to a limit, breadth first."""
    world = CraftingWorld()
    start = State(crafts, tuple(sorted(held.items())))
    seen, layer, n = {start}, [start], 0
    while layer:
        n += 1
        following = []
        for state in layer:
            actions = [a for a in world.actions(state) if a.startswith("craft")]
            actions += [
                f"get {k} {item}"
                for item in crafts.grown
                for k in range(1, limit + 1)
                if dict(state.held).get(item, 0) == held.get(item, 0)
            ]
            for action in actions:
                after, reply = world.act(state, action)
                if reply.done:
                    return n
                if after not in seen:
                    seen.add(after)
                    following.append(after)
        layer = following
    raise AssertionError("no way")


def test_plans_are_the_shortest():
    tried = 0
    for seed in range(60):
        rng = random.Random(seed)
        crafts = generate(rng.choice((1, 2)), rng)
        held = {item: rng.randint(1, 2) for item in crafts.grown if rng.random() < 0.3}
        held |= {r.item: 1 for r in crafts.recipes if r.item != crafts.goal and rng.random() < 0.2}
        plan = shortest(crafts, held)
        amounts = [int(a.split()[1]) for a in plan if a.startswith("get")]
        if max(amounts, default=0) > 6 or len(plan) > 6:
            continue
        tried += 1
        assert len(plan) == fewest(crafts, held, 6), (seed, plan)
    assert tried > 15


def test_much_is_got_in_parts():
    crafts = Crafts("hill", ("dust",), (Recipe("hill", 1, (("dust", 25_000),)),))
    assert shortest(crafts, {}) == [
        "get 9999 dust", "get 9999 dust", "get 5002 dust", "craft 1 hill using 25000 dust",
    ]  # fmt: skip
