"""BabyAI's levels as text: rooms, doors, keys, balls and boxes, and a mission in plain words.

The levels of Chevalier-Boisvert et al. 2019 (arXiv:1810.08272) as the package ``minigrid`` has
them. One sees what is ahead, 7 fields wide and deep and no farther than the walls. The reward is
minigrid's: 1 - 0.9 n / limit for a mission that is fulfilled in n steps, else 0.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from prmkit.environments.gym import GymnasiumEnvironment, Spoken
from prmkit.errors import EnvironmentFailed, MissingDependency

# Minigrid imports pygame, which greets whoever imports it.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
try:
    import gymnasium
    import minigrid  # noqa: F401  It registers its levels.
    from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, STATE_TO_IDX
    from minigrid.envs.babyai.core import roomgrid_level
    from minigrid.utils.baby_ai_bot import BabyAIBot
except ImportError:
    raise MissingDependency("minigrid", "agents", "BabyAI") from None

logger = logging.getLogger(__name__)

ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle", "done")
"""In the order of minigrid's numbers."""

FIRST = "BabyAI-GoToLocal-v0"
LEVELS = tuple(
    sorted(
        (n for n in gymnasium.registry if n.startswith("BabyAI-")), key=lambda n: (n != FIRST, n)
    )
)
"""Every level that is registered; the first is the default."""

_STATES = {number: name for name, number in STATE_TO_IDX.items()}
_SHORT = {"red": "r", "green": "g", "blue": "b", "purple": "p", "yellow": "y", "grey": "e"}
_SIGNS = {"unseen": "??", "empty": "..", "floor": "..", "wall": "##", "lava": "~~", "goal": "GG"}
_LETTERS = {"door": "d", "key": "k", "ball": "b", "box": "x"}

RULES = f"""You are in a world of square fields. You see what is ahead, and not through walls.
One action at a time: {", ".join(ACTIONS)}.
'pick up', 'drop' and 'toggle' are for the field right ahead; 'toggle' opens and closes doors and \
boxes, and a locked door if you carry a key of its colour. You carry one thing at most."""

MAP_RULES = """On the map you are ^^ and look up. ## is a wall, .. is free, ?? is not seen; others \
are a colour (r red, g green, b blue, p purple, y yellow, e grey) and a thing (d door, k key, \
b ball, x box)."""


def _quiet(*words: object) -> None:
    logger.debug("%s", " ".join(map(str, words)))


# While it makes up a mission, it prints the ones that it threw away.
vars(roomgrid_level)["print"] = _quiet


class BabyAI(GymnasiumEnvironment):
    """BabyAI, with snapshots, and plans by the bot that comes with the levels.

    Args:
        map_too: whether observations show what is seen as a map, after the list of things. Without
            it they are half as long, and the environment is called ``babyai-words``.

    The bot knows no way in the few levels that its own documentation names, in ``…Debug`` levels,
    and from some states to which it would not have come by itself.
    """

    def __init__(self, map_too: bool = True) -> None:
        spoken = Spoken(
            partial(_describe, map_too=map_too),
            partial(_observe, map_too=map_too),
            _act,
            lambda total, terminated, _: total > 0,
            ACTIONS,
        )
        name = "babyai" if map_too else "babyai-words"
        super().__init__(name, LEVELS, _make, spoken, copies="pickled")

    def plan(self) -> tuple[str, ...]:
        """See `prmkit.environments.base.Planner.plan`."""
        at = self._here()
        if at.last.done and at.last.success:
            return ()
        env: Any = copy.deepcopy(at.env)
        plan: list[str] = []
        action, done, reward = None, at.last.done, 0.0
        try:
            bot = BabyAIBot(env)
            while not done:
                action = bot.replan(action)
                plan.append(ACTIONS[int(action)])
                _, reward, terminated, truncated, _ = env.step(action)
                done = terminated or truncated
        except Exception as error:
            # It was written for levels at their beginning, and stops anywhere in others.
            raise EnvironmentFailed(f"BabyAI's bot knows no way from here: {error!r}") from error
        if not reward > 0:
            raise EnvironmentFailed("BabyAI's bot knows no way from here: it does not get there")
        return tuple(plan)


def _make(level: str) -> gymnasium.Env[Any, Any]:
    # The checker of gymnasium would look at every step.
    return gymnasium.make(level, disable_env_checker=True).unwrapped


def _act(text: str) -> int | None:
    said = " ".join(text.lower().split()).rstrip(".")
    said = {"move forward": "go forward", "pickup": "pick up"}.get(said, said)
    return ACTIONS.index(said) if said in ACTIONS else None


def _describe(seen: Mapping[str, Any], info: Mapping[str, Any], map_too: bool) -> str:
    rules = f"{RULES}\n{MAP_RULES}" if map_too else RULES
    return f"{rules}\n\nYour mission: {seen['mission']}."


def _observe(seen: Mapping[str, Any], info: Mapping[str, Any], map_too: bool) -> str:
    """What is seen, as a list of things, and as a map where that is wanted."""
    image = seen["image"]
    width, height = image.shape[:2]
    me = (width // 2, height - 1)
    cells = {
        (x, y): (IDX_TO_OBJECT[int(kind)], IDX_TO_COLOR[int(colour)], _STATES.get(int(state), ""))
        for x in range(width)
        for y in range(height)
        for kind, colour, state in (image[x, y],)
    }
    kind, colour, _ = cells[me]
    carried = "nothing" if kind in ("empty", "unseen") else f"a {colour} {kind}"
    things = sorted(
        (me[1] - y, x - me[0], _thing(*cell))
        for (x, y), cell in cells.items()
        if cell[0] in _LETTERS and (x, y) != me
    )
    rows = [
        " ".join("^^" if (x, y) == me else _sign(*cells[x, y]) for x in range(width))
        for y in range(height)
    ]
    listed = [f"- {name}: {_where(ahead, right)}" for ahead, right, name in things]
    free = 0
    while free < height - 1 and _is_free(cells[me[0], me[1] - free - 1]):
        free += 1
    before = cells[me[0], me[1] - free - 1] if free < height - 1 else None
    ahead = f"{free} free" + ("" if before is None else f", then {_thing(*before)}")
    return "\n".join(
        [
            "You see:" if listed else "You see no thing.",
            *listed,
            f"Fields ahead: {ahead}.",
            f"You carry {carried}.",
            *(["Map:", *rows] if map_too else []),
        ]
    )


def _is_free(cell: tuple[str, str, str]) -> bool:
    return cell[0] in ("empty", "floor") or (cell[0] == "door" and cell[2] == "open")


def _thing(kind: str, colour: str, state: str) -> str:
    if kind == "door":
        return f"{'an' if state == 'open' else 'a'} {state} {colour} door"
    if kind in _LETTERS:
        return f"a {colour} {kind}"
    return {"unseen": "a field that you do not see"}.get(kind, f"a {kind}")


def _sign(kind: str, colour: str, state: str) -> str:
    return _SHORT[colour] + _LETTERS[kind] if kind in _LETTERS else _SIGNS.get(kind, "..")


def _where(ahead: int, right: int) -> str:
    places = [f"{ahead} ahead"] if ahead else []
    if right:
        places.append(f"{abs(right)} to the {'right' if right > 0 else 'left'}")
    return ", ".join(places)
