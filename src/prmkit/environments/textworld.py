"""TextWorld's games: small houses in which something is to be done, made on this machine.

Côté et al. 2018, arXiv:1806.11532. A game is compiled when its task is first begun (a second or
a few, by the compiler that the package brings) and kept in a folder. What is seen and which
commands are allowed come from the game; a command that TextWorld would take as one to the program
that plays it, such as ``quit`` or ``undo``, is refused.
"""

from __future__ import annotations

import re
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.environments.base import (
    Reply,
    Start,
    Task,
    after_the_end,
    guarded,
    problem_of,
    task_name,
)
from prmkit.errors import EnvironmentFailed, MissingDependency
from prmkit.ledger import seed_for

try:
    import textworld
except ImportError:
    raise MissingDependency("textworld", "textworld", "TextWorld's games") from None


class Size(NamedTuple):
    """How large a game is: rooms, things, and commands from the beginning to the goal."""

    rooms: int
    objects: int
    quest: int


KINDS = {
    "small": Size(2, 4, 3),
    "medium": Size(5, 10, 5),
    "large": Size(10, 20, 8),
}
"""The kinds of task."""

TRIALS = 20
"""Games that are made up for one task at most."""

LONGEST = 200
"""Characters of a command at most."""

_COMMAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9 '\-]*")
_TO_THE_PROGRAM = """
quit q restart restore save undo script transcript yes y no verify version superbrief brief verbose
notify pronouns tw actions oops again g trace rules scenes showme showheap nouns
"""
_STATUS = re.compile(r"\n*>[ \t]*(?:-= .*)?\Z")
_END = re.compile(r"\n+ *\*\*\* .*", re.S)

_MAKING = threading.Lock()
"""TextWorld's generator and loader have state that all their users share."""


class _Episode(NamedTuple):
    """An episode under way; the game is changed by commands."""

    game: Any
    state: Any
    last: Reply


class TextWorld:
    """TextWorld's games, with snapshots and plans.

    Args:
        folder: where games are kept; made where absent.
    """

    name = "textworld"
    tasks = tuple(KINDS)
    can_snapshot = True

    def __init__(self, folder: Path | str):
        self._folder = Path(folder)
        self._at: _Episode | None = None

    def reset(self, task: Task) -> Start:
        """See `prmkit.environments.base.Environment.reset`."""
        task = task._replace(name=task_name(task.name, self.tasks))
        self.close()
        return guarded("a game could not begin", lambda: self._begin(task))

    def _begin(self, task: Task) -> Start:
        with _MAKING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            game = _started(game_of(self._folder, task))
        game.seed(task.seed % 2**15)
        state = game.reset()
        observation = _said(state.description)
        self._at = _Episode(game, state, Reply(observation))
        description = (
            f"{_said(state.objective)}\n\nGive one command at a time, such as 'look', 'inventory', "
            "'go west', 'open door', 'take key from box' or 'put cup on table'."
        )
        return Start(problem_of(self.name, task, description, observation), observation)

    def step(self, action: str) -> Reply:
        """See `prmkit.environments.base.Environment.step`."""
        at = self._here()
        if at.last.done:
            return after_the_end(at.last)
        command = " ".join(action.lower().split()).rstrip(".")
        if (
            len(command) > LONGEST
            or not _COMMAND.fullmatch(command)
            or command.split()[0] in _TO_THE_PROGRAM.split()
        ):
            return Reply(f"{action!r:.80} is no command of the game.", reward=0.0)
        state, _, done = guarded("the game failed", lambda: at.game.step(command))
        success = bool(state.won) if done else None
        said = _said(state.feedback) or "Nothing is said."
        reply = Reply(said, bool(done), success, float(bool(success)))
        self._at = _Episode(at.game, state, reply)
        return reply

    def actions(self) -> tuple[str, ...]:
        """See `prmkit.environments.base.Environment.actions`."""
        at = self._here()
        return () if at.last.done else tuple(at.state.admissible_commands)

    def plan(self) -> tuple[str, ...]:
        """See `prmkit.environments.base.Planner.plan`."""
        at = self._here()
        if at.last.done and at.last.success:
            return ()
        plan = tuple(at.state.policy_commands or ())
        if at.last.done or not plan:
            raise EnvironmentFailed("TextWorld knows no way from here")
        return plan

    def snapshot(self) -> object:
        """See `prmkit.environments.base.Environment.snapshot`."""
        return self._copy(self._here())

    def restore(self, state: object) -> None:
        """See `prmkit.environments.base.Environment.restore`."""
        if not isinstance(state, _Episode):
            raise EnvironmentFailed(f"{type(state).__name__} is no snapshot of {self.name!r}")
        self.close()
        self._at = self._copy(state)

    def _copy(self, at: _Episode) -> _Episode:
        with _MAKING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return guarded("a game could not be copied", lambda: at._replace(game=at.game.copy()))

    def close(self) -> None:
        """See `prmkit.environments.base.Environment.close`."""
        at, self._at = self._at, None
        if at is not None:
            at.game.close()

    def _here(self) -> _Episode:
        if self._at is None:
            raise EnvironmentFailed(f"no episode of {self.name!r} has begun; call reset first")
        return self._at


def _started(path: Path) -> Any:
    asked = textworld.EnvInfos(
        admissible_commands=True, policy_commands=True, won=True, lost=True,
        objective=True, description=True,
    )  # fmt: skip
    return textworld.start(str(path), asked)


def game_of(folder: Path, task: Task) -> Path:
    """The compiled game of a task; made where it is not there, whole or not at all.

    Some games that TextWorld makes up have things whose names their own commands cannot tell
    apart. A game that its plan does not solve is thrown away, and another one is made.

    Raises:
        EnvironmentFailed: if none of many can be solved.
    """
    path = folder / f"{task.name}-{task.seed}.z8"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as making:
        for trial in range(TRIALS):
            made = _made(Path(making) / str(trial), task, trial)
            if _is_solved_by_its_plan(made):
                # The game reads what stands beside it, so that must be there first.
                for kind in (".json", ".z8"):
                    made.with_suffix(kind).replace(path.with_suffix(kind))
                return path
    raise EnvironmentFailed(f"none of {TRIALS} games of the kind {task.name!r} can be solved")


def _made(folder: Path, task: Task, trial: int) -> Path:
    size = KINDS[task.name]
    options = textworld.GameOptions()
    options.seeds = seed_for(task.seed, "textworld", task.name, str(trial)) % 2**31
    options.nb_rooms, options.nb_objects = size.rooms, size.objects
    options.quest_length = size.quest
    options.path = str(folder / "game.z8")
    made, _ = textworld.make(options)
    return Path(made)


def _is_solved_by_its_plan(path: Path) -> bool:
    game = _started(path)
    try:
        state = game.reset()
        for command in state.policy_commands or ():
            state, _, _ = game.step(command)
        return bool(state.won)
    finally:
        game.close()


def _said(text: str) -> str:
    """What a game says, without its status line and the menu after the end."""
    text = _END.sub("", _STATUS.sub("", text.replace("\r", "")))
    return re.sub(r"\n{3,}", "\n\n", text).strip()
