"""Worlds and policies by which agents are taught in tests."""

from __future__ import annotations

from prmkit.chat import messages_of
from prmkit.environments.base import Reply, Start, Task, problem_of
from prmkit.environments.world import WorldEnvironment
from prmkit.errors import EnvironmentFailed
from prmkit.policies.base import Completion, Drawn
from prmkit.records import StepScores

TASKS = [Task(seed, "two") for seed in range(6)]
END, USER, ASSISTANT = 0, 1, 2


class Doors:
    """So many doors, each to be taken by a word with an early first letter; a late one fails."""

    name, tasks = "doors", ("two",)

    def __init__(self, n=2, fatal=True):
        self.n, self.fatal = n, fatal

    def begin(self, task):
        seen = f"Door {task.seed}."
        return 0, Start(problem_of(self.name, task, "Go through.", seen), seen)

    def act(self, state, action):
        if early(action):
            state += 1
        elif self.fatal:
            return state, Reply("A wall.", True, False, 0.0)
        won = state == self.n
        return state, Reply(f"Behind {state}.", won, True if won else None, 0.0)

    def actions(self, state):
        return ("a", "z")

    def plan(self, state):
        return ("a",) * (self.n - state)


def early(action):
    return action[:1].lower() < "n"


def doors(**more):
    return lambda: WorldEnvironment(Doors(**more))


class Broken(WorldEnvironment):
    """Falls over at the second step of tasks with some seeds."""

    def __init__(self, *seeds):
        super().__init__(Doors(fatal=False, n=99))
        self.seeds, self.taken = seeds, 0

    def reset(self, task):
        self.seed, self.taken = task.seed, 0
        return super().reset(task)

    def step(self, action):
        self.taken += 1
        if self.seed in self.seeds and self.taken == 2:
            raise ZeroDivisionError("the hinge broke")
        return super().step(action)


def broken(*seeds):
    return lambda: Broken(*seeds)


class Away(WorldEnvironment):
    """Does not even begin."""

    def reset(self, task):
        raise EnvironmentFailed("nobody is there")


def codes(text):
    return [ord(c) for c in text]


class Letters:
    """Draws what a script says, letter by letter, and keeps what it was asked.

    `drops` shows of its past messages only what comes after the last ``:``, as templates do that
    leave out thoughts.
    """

    name, takes_ids, end, tokenizer = "letters", True, END, None

    def __init__(self, script, drops=False):
        self.script, self.drops, self.asked = script, drops, []

    def question_ids(self, problem):
        ids = []
        for message in messages_of(problem):
            if message.role == "assistant":
                text = message.content.rpartition(":")[2] if self.drops else message.content
                ids += [ASSISTANT, *codes(text), END]
            else:
                ids += [USER, *codes(message.content)]
        return [*ids, ASSISTANT]

    def text_ids(self, text):
        return codes(text)

    def continue_ids(self, prefixes, counts, settings, seeds, first=None):
        assert counts == [1] * len(prefixes)
        found = []
        for prefix, seed in zip(prefixes, seeds, strict=True):
            one = self.script(prefix, seed)
            self.asked.append((tuple(prefix), one))
            found.append([one])
        return found


def says(text, finish="eos", ids=None, end=None):
    """A turn that was drawn."""
    ids = codes(text) if ids is None else ids
    drawn = None if ids == "unknown" else tuple(ids)
    return Drawn(Completion(text, finish, len(text) + 1), drawn, end=end)


class Early:
    """Scores turns by the letter they begin with."""

    name, semantics = "early", "value"

    def __init__(self):
        self.seen = []

    def score(self, trajectories):
        self.seen += trajectories
        return [
            StepScores(
                values=tuple(0.9 if early(s.text) else 0.2 + len(s.text) / 99 for s in t.steps),
                semantics="value",
                model=self.name,
            )
            for t in trajectories
        ]
