"""A crafting game: get what grows, and craft the goal from it, recipe after recipe.

In the manner of TextCraft (Prasad et al. 2023, arXiv:2311.05772, section 4.3): the actions are
``get N item``, ``craft N item using N item, N item`` and ``inventory``; a recipe is used as it is
written; the reward is 1 for the goal. Unlike there, worlds are generated: items are made up, each
has at most one recipe, and a goal's depth is chosen; so there is no end of tasks and each has a
shortest solution that is known. The recipes of a world are a graph without circles; some lead
nowhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import NamedTuple

from prmkit.environments.base import Reply, Start, Task, problem_of
from prmkit.environments.world import WorldEnvironment

DEPTHS = tuple(range(1, 9))
MOST = 9999
"""Of an item at once."""

_MATERIALS = """
oak birch cedar willow iron copper silver golden stone clay bone amber coral glass silk wool
leather crystal obsidian ember
"""
_GROWN = "log ore shard fibre dust pebble stem root"
_CRAFTED = """
plank rod plate gear frame blade lamp lens hinge coil valve spring wheel panel cord tile hammer
engine bell clock mirror crate
"""

_NAME = r"[^0-9,\s][^0-9,]*?"
_GET = re.compile(rf"get ([0-9]{{1,9}}) ({_NAME})")
_CRAFT = re.compile(rf"craft ([0-9]{{1,9}}) ({_NAME}) using (.+)")
_PART = re.compile(rf"([0-9]{{1,9}}) ({_NAME})")


class Recipe(NamedTuple):
    """How an item is made.

    Attributes:
        item: what comes of it.
        yields: how many at a time.
        parts: what is used up, and how many of each.
    """

    item: str
    yields: int
    parts: tuple[tuple[str, int], ...]

    @property
    def command(self) -> str:
        """The action that uses it."""
        parts = ", ".join(f"{n} {item}" for item, n in self.parts)
        return f"craft {self.yields} {self.item} using {parts}"


class Crafts(NamedTuple):
    """The items of a world.

    Attributes:
        goal: what is to be crafted.
        grown: what can be got.
        recipes: in an order in which each comes after those of its parts.
    """

    goal: str
    grown: tuple[str, ...]
    recipes: tuple[Recipe, ...]


class State(NamedTuple):
    """A world and what one carries; an item that one has none of is not listed."""

    crafts: Crafts
    held: tuple[tuple[str, int], ...] = ()


def generate(depth: int, rng: random.Random) -> Crafts:
    """A world whose goal needs a chain of `depth` recipes, with some that it does not need."""
    names = _names(rng, _GROWN, 3 + depth // 2)
    levels = [names]
    recipes: list[Recipe] = []
    for level in range(1, depth + 1):
        items = _names(rng, _CRAFTED, 1 if level == depth else rng.randint(1, 2), taken=recipes)
        for item in items:
            # One part is of the level below, so that the chain is as long as its level.
            parts = {rng.choice(levels[-1])}
            lower = [name for names in levels for name in names]
            n_parts = min(rng.randint(1, 3), len(lower))
            while len(parts) < n_parts:
                parts.add(rng.choice(lower))
            recipes.append(_recipe(item, sorted(parts), rng))
        levels.append(items)
    goal = levels[-1][0]
    for item in _names(rng, _CRAFTED, 1 + depth // 2, taken=recipes):
        below = [name for names in levels[:-1] for name in names]
        recipes.append(_recipe(item, sorted(rng.sample(below, min(2, len(below)))), rng))
    return Crafts(goal, tuple(names), tuple(recipes))


def _names(rng: random.Random, kinds: str, n: int, taken: list[Recipe] | None = None) -> list[str]:
    used = {recipe.item for recipe in taken or ()}
    names: list[str] = []
    while len(names) < n:
        name = f"{rng.choice(_MATERIALS.split())} {rng.choice(kinds.split())}"
        if name not in used:
            used.add(name)
            names.append(name)
    return names


def _recipe(item: str, parts: list[str], rng: random.Random) -> Recipe:
    yields = rng.choice((1, 1, 1, 2, 4))
    return Recipe(item, yields, tuple((part, rng.choice((1, 1, 2, 3))) for part in parts))


def shortest(crafts: Crafts, held: Mapping[str, int]) -> list[str]:
    """The fewest actions from what is held to the goal.

    Each item has one recipe, so what is needed of each follows from the goal downwards, and each
    recipe is used as seldom as can be: what is held is used first. What grows is got once.
    """
    need = {crafts.goal: 1}
    crafted: list[str] = []
    left = dict(held)
    # A goal that is held is a game that has been won.
    for recipe in reversed(crafts.recipes):
        missing = need.get(recipe.item, 0) - left.get(recipe.item, 0)
        times = max(0, -(-missing // recipe.yields))
        for item, n in recipe.parts:
            need[item] = need.get(item, 0) + times * n
        crafted += [recipe.command] * times
    got: list[str] = []
    for item in crafts.grown:
        missing = need.get(item, 0) - left.get(item, 0)
        while missing > 0:
            got.append(f"get {min(missing, MOST)} {item}")
            missing -= MOST
    return got + crafted[::-1]


class CraftingWorld:
    """See the module; a task's name is ``depth-N``: how many recipes follow one another."""

    name = "crafting"
    tasks = ("depth-2", *(f"depth-{depth}" for depth in DEPTHS if depth != 2))

    def begin(self, task: Task) -> tuple[State, Start]:
        """See `prmkit.environments.world.World.begin`."""
        depth = int(task.name.removeprefix("depth-"))
        rng = random.Random(f"crafting/{depth}/{task.seed}")
        crafts = generate(depth, rng)
        recipes = [recipe.command for recipe in crafts.recipes]
        rng.shuffle(recipes)
        description = (
            f"Craft one {crafts.goal}. You can do one thing at a time:\n"
            "get N ITEM: take something that grows and is not crafted\n"
            "craft N ITEM using N ITEM, N ITEM: use a recipe, exactly as it is written\n"
            "inventory: see what you carry\n\n"
            "The recipes:\n" + "\n".join(recipes)
        )
        state = State(crafts)
        observation = _inventory({})
        return state, Start(problem_of(self.name, task, description, observation), observation)

    def act(self, state: State, action: str) -> tuple[State, Reply]:
        """See `prmkit.environments.world.World.act`."""
        words = " ".join(action.lower().split()).rstrip(".")
        held = dict(state.held)
        if words == "inventory":
            return state, Reply(_inventory(held), reward=0.0)
        if match := _GET.fullmatch(words):
            return _get(state, held, int(match[1]), match[2])
        if match := _CRAFT.fullmatch(words):
            return _craft(state, held, int(match[1]), match[2], match[3])
        return state, _refused(
            f"{action!r:.80} is no action. Use: get N ITEM; craft N ITEM using N ITEM, N ITEM; "
            "inventory."
        )

    def actions(self, state: State) -> tuple[str, ...]:
        """One of each thing that grows, each recipe whose parts are held, and the inventory."""
        held = dict(state.held)
        return (
            *(f"get 1 {item}" for item in state.crafts.grown),
            *(
                recipe.command
                for recipe in state.crafts.recipes
                if all(held.get(item, 0) >= n for item, n in recipe.parts)
            ),
            "inventory",
        )

    def plan(self, state: State) -> tuple[str, ...]:
        """The fewest actions to the goal."""
        return tuple(shortest(state.crafts, dict(state.held)))


def _inventory(held: Mapping[str, int]) -> str:
    if not held:
        return "You carry nothing."
    return "You carry: " + ", ".join(f"{n} {item}" for item, n in sorted(held.items())) + "."


def _refused(why: str) -> Reply:
    return Reply(why, reward=0.0)


def _with(state: State, held: Mapping[str, int]) -> State:
    return state._replace(held=tuple(sorted((item, n) for item, n in held.items() if n)))


def _get(state: State, held: dict[str, int], n: int, item: str) -> tuple[State, Reply]:
    if any(recipe.item == item for recipe in state.crafts.recipes):
        return state, _refused(f"{item} does not grow; it is crafted.")
    if item not in state.crafts.grown:
        return state, _refused(f"There is no {item!r:.60} here.")
    if not 1 <= n <= MOST or held.get(item, 0) + n > MOST * MOST:
        return state, _refused(f"You can get 1 to {MOST} at once.")
    held[item] = held.get(item, 0) + n
    return _with(state, held), Reply(f"Got {n} {item}.", reward=0.0)


def _craft(
    state: State, held: dict[str, int], n: int, item: str, parts: str
) -> tuple[State, Reply]:
    matches = [_PART.fullmatch(part.strip()) for part in parts.split(",")]
    given = sorted((match[2], int(match[1])) for match in matches if match)
    recipe = next((r for r in state.crafts.recipes if r.item == item), None)
    if (
        recipe is None
        or recipe.yields != n
        or len(given) < len(matches)
        or given != sorted(recipe.parts)
    ):
        return state, _refused(f"There is no recipe for {n} {item!r:.60} using {parts!r:.120}.")
    for part, wanted in recipe.parts:
        if held.get(part, 0) < wanted:
            return state, _refused(
                f"You need {wanted} {part} and carry {held.get(part, 0) or 'none'}."
            )
        held[part] -= wanted
    held[item] = held.get(item, 0) + n
    said = f"Crafted {n} {item}."
    if item == state.crafts.goal:
        return _with(state, held), Reply(f"{said} That is the goal.", True, True, 1.0)
    return _with(state, held), Reply(said, reward=0.0)


def crafting() -> WorldEnvironment[State]:
    """The crafting game."""
    return WorldEnvironment(CraftingWorld())
