"""A small world of tools: a calculator, tables and files, called as OpenAI's models call tools.

An action is a call as JSON (`prmkit.environments.actions.read_call`). Each task has a goal that a
program can check: the right answer, or a file that holds it. Everything is made up by the seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from prmkit.environments.actions import Call, action_of, check_arguments, read_call
from prmkit.environments.base import Reply, Start, Task, problem_of
from prmkit.environments.calculator import NoResult, calculate, shown
from prmkit.environments.world import WorldEnvironment
from prmkit.records import Trajectory

LONGEST_FILE = 10_000
"""Characters of a file at most."""
MOST_FILES = 50


def _tool(name: str, about: str, /, **arguments: str) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": what} for key, what in arguments.items()}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": about,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(arguments),
            },
        },
    }


TOOLS: tuple[dict[str, Any], ...] = (
    _tool(
        "calculator",
        "Compute an expression of numbers, + - * / // % ** and brackets.",
        expression="such as 3 * (4 + 5)",
    ),
    _tool("lookup", "The entry of a table.", table="its name", key="which entry"),
    _tool("list_files", "The names of all files."),
    _tool("read_file", "What a file holds.", name="of the file"),
    _tool(
        "write_file", "Write a file; one that is there is replaced.", name="of the file",
        content="what it shall hold",
    ),
    _tool("answer", "Give the final answer and end the task.", answer="nothing but the answer"),
)  # fmt: skip
"""The tools, as OpenAI's API takes them."""


class Goal(NamedTuple):
    """What is to be reached.

    Attributes:
        expected: the right answer, or what the file must hold.
        file: the name of the file; None where the answer itself counts.
        calls: a way there.
    """

    expected: str
    file: str | None
    calls: tuple[Call, ...]


class State(NamedTuple):
    """Tables, files and the goal. Tables and files are never changed, but replaced."""

    tables: Mapping[str, Mapping[str, str]]
    files: Mapping[str, str]
    goal: Goal


class Made(NamedTuple):
    """A task that was made up."""

    wish: str
    state: State


_GOODS = "rope lamp tent kettle compass blanket ladder bucket shovel lantern whistle saddle"
_PEOPLE = "Ada Bruno Chen Dina Emre Femi Greta Hiro Ines Jonas Kira Luca"


def _call(name: str, /, **arguments: str) -> Call:
    return Call(name, arguments)


def _prices(rng: random.Random) -> dict[str, str]:
    goods = rng.sample(_GOODS.split(), 6)
    return {item: f"{rng.randint(2, 99)}.{rng.choice(('00', '25', '50', '75'))}" for item in goods}


def _order(rng: random.Random, prices: Mapping[str, str], n: int) -> list[tuple[int, str]]:
    return [(rng.randint(2, 20), item) for item in rng.sample(sorted(prices), n)]


def _sum(order: list[tuple[int, str]], prices: Mapping[str, str]) -> str:
    return " + ".join(f"{n} * {prices[item]}" for n, item in order)


def _price(rng: random.Random) -> Made:
    """A price times a number."""
    prices = _prices(rng)
    ((n, item),) = _order(rng, prices, 1)
    total = shown(calculate(f"{n} * {prices[item]}"))
    calls = (
        _call("lookup", table="prices", key=item),
        _call("calculator", expression=f"{n} * {prices[item]}"),
        _call("answer", answer=total),
    )
    wish = f"What do {n} pieces of {item} cost? The table 'prices' has the price of one."
    return Made(wish, State({"prices": prices}, {}, Goal(total, None, calls)))


def _order_total(rng: random.Random, file: str | None) -> Made:
    """The sum of an order that stands in a file; answered, or written into a file."""
    prices = _prices(rng)
    order = _order(rng, prices, rng.randint(2, 4))
    sheet = f"order-{rng.randint(100, 999)}.txt"
    files = {
        sheet: "\n".join(f"{n} {item}" for n, item in order),
        "readme.txt": "Orders are kept one to a file: how many, and of what.",
    }
    expression = _sum(order, prices)
    total = shown(calculate(expression))
    calls = [
        _call("read_file", name=sheet),
        *(_call("lookup", table="prices", key=item) for _, item in order),
        _call("calculator", expression=expression),
    ]
    wish = f"The file {sheet!r} holds an order, and the table 'prices' has the prices. "
    if file is None:
        wish += "What does the order cost altogether?"
        calls.append(_call("answer", answer=total))
    else:
        wish += (
            f"Write what the order costs altogether, and nothing else, into the file {file!r}; "
            "then answer 'done'."
        )
        calls += [
            _call("write_file", name=file, content=total),
            _call("answer", answer="done"),
        ]
    return Made(wish, State({"prices": prices}, files, Goal(total, file, tuple(calls))))


def _chain(rng: random.Random) -> Made:
    """An entry that names the entry to look up next, two to four times."""
    links = rng.randint(2, 4)
    tables: dict[str, dict[str, str]] = {}
    people = rng.sample(_PEOPLE.split(), 12)
    names = [f"depot-{rng.randint(10, 99)}", *people[: links - 1]]
    calls: list[Call] = []
    words: list[str] = []
    for link in range(links):
        last = link == links - 1
        table = "phones" if last else ("keepers", "deputies", "friends")[link]
        entry = f"{rng.randint(1000, 9999)}" if last else names[link + 1]
        others = {name: f"{rng.randint(1000, 9999)}" if last else rng.choice(people)
                  for name in people if name != names[link]}  # fmt: skip
        entries = [*others.items(), (names[link], entry)]
        rng.shuffle(entries)
        tables[table] = dict(entries)
        calls.append(_call("lookup", table=table, key=names[link]))
        words.append(table)
    relations = {"keepers": "keeper", "deputies": "deputy", "friends": "friend"}
    who = f"the {relations['keepers']} of {names[0]}"
    for table in words[1:-1]:
        who = f"the {relations[table]} of {who}"
    number = tables["phones"][names[-1]]
    calls.append(_call("answer", answer=number))
    wish = f"What is the phone number of {who}? There are the tables {', '.join(words)}."
    return Made(wish, State(tables, {}, Goal(number, None, tuple(calls))))


KINDS: dict[str, Callable[[random.Random], Made]] = {
    "price": _price,
    "order": lambda rng: _order_total(rng, None),
    "invoice": lambda rng: _order_total(rng, "invoice.txt"),
    "chain": _chain,
}


class ToolWorld:
    """See the module; a task's name is one of `KINDS`."""

    name = "tools"
    tasks = tuple(KINDS)

    def begin(self, task: Task) -> tuple[State, Start]:
        """See `prmkit.environments.world.World.begin`."""
        made = KINDS[task.name](random.Random(f"tools/{task.name}/{task.seed}"))
        tools = "\n".join(json.dumps(tool["function"]) for tool in TOOLS)
        description = (
            f"{made.wish}\n\nYou have tools. Call one at a time by a JSON object with its name and "
            'arguments, such as {"name": "read_file", "arguments": {"name": "readme.txt"}}. End '
            f"with the tool 'answer'.\n\nThe tools:\n{tools}"
        )
        observation = f"Files: {_listed(made.state.files)}. Tables: {', '.join(made.state.tables)}."
        problem = problem_of(self.name, task, description, observation, tools=list(TOOLS))
        return made.state, Start(problem, observation)

    def act(self, state: State, action: str) -> tuple[State, Reply]:
        """See `prmkit.environments.world.World.act`."""
        call = read_call(action)
        wrong = call if isinstance(call, str) else check_arguments(call, TOOLS)
        if isinstance(call, str) or wrong is not None:
            return state, _error(str(wrong))
        return _DO[call.name](state, **call.arguments)

    def actions(self, state: State) -> None:
        """There is no end of calls."""
        return

    def plan(self, state: State) -> tuple[str, ...]:
        """The calls from the beginning on: they lead there from everywhere."""
        return tuple(call.text for call in state.goal.calls)


def _listed(files: Mapping[str, str]) -> str:
    return ", ".join(sorted(files)) or "none"


def _error(why: str) -> Reply:
    return Reply(f"error: {why}", reward=0.0)


def _calculator(state: State, expression: str) -> tuple[State, Reply]:
    try:
        return state, Reply(shown(calculate(expression)), reward=0.0)
    except NoResult as error:
        return state, _error(str(error))


def _lookup(state: State, table: str, key: str) -> tuple[State, Reply]:
    if table not in state.tables:
        return state, _error(f"no table {table!r:.60}; there are: {', '.join(state.tables)}")
    if key not in state.tables[table]:
        known = ", ".join(state.tables[table])
        return state, _error(f"no entry {key!r:.60} in {table}; there are: {known}")
    return state, Reply(state.tables[table][key], reward=0.0)


def _list_files(state: State) -> tuple[State, Reply]:
    return state, Reply(_listed(state.files), reward=0.0)


def _read_file(state: State, name: str) -> tuple[State, Reply]:
    if name not in state.files:
        return state, _error(f"no file {name!r:.60}; there are: {_listed(state.files)}")
    return state, Reply(state.files[name] or "(the file is empty)", reward=0.0)


def _write_file(state: State, name: str, content: str) -> tuple[State, Reply]:
    if not name.isprintable() or not 1 <= len(name) <= 60:
        return state, _error("a file's name has 1 to 60 printable characters")
    if len(content) > LONGEST_FILE:
        return state, _error(f"a file has at most {LONGEST_FILE} characters")
    files = {**state.files, name: content}
    if len(files) > MOST_FILES:
        return state, _error(f"there are {MOST_FILES} files already; no more can be made")
    return state._replace(files=files), Reply(f"{name!r} is written.", reward=0.0)


def _answer(state: State, answer: str) -> tuple[State, Reply]:
    goal = state.goal
    given = answer if goal.file is None else state.files.get(goal.file, "")
    right = _means(given, goal.expected)
    said = "The answer was taken; the task is over."
    return state, Reply(said, True, right, float(right))


def _means(given: str, expected: str) -> bool:
    """Whether two texts are the same number, or the same words."""
    left, right = given.strip(), expected.strip()
    numbers = [_number(left), _number(right)]
    if None not in numbers:
        return numbers[0] == numbers[1]
    return left.casefold() == right.casefold()


def _number(text: str) -> Fraction | None:
    try:
        return calculate(text) if text.replace(".", "", 1).lstrip("-").isascii() else None
    except NoResult:
        return None


_DO: dict[str, Callable[..., tuple[State, Reply]]] = {
    "calculator": _calculator,
    "lookup": _lookup,
    "list_files": _list_files,
    "read_file": _read_file,
    "write_file": _write_file,
    "answer": _answer,
}


def tools() -> WorldEnvironment[State]:
    """The world of tools."""
    return WorldEnvironment(ToolWorld())


def answered(trajectory: Trajectory) -> str | None:
    """What an episode answered, in a form in which equal answers are equal.

    None where it gave none, or where the task asks for a file and the answer does not count.
    """
    if trajectory.finish != "eos" or trajectory.problem.meta.get("task") == "invoice":
        return None
    call = read_call(action_of(trajectory.steps[-1].text))
    if isinstance(call, str) or call.name != "answer":
        return None
    given = str(call.arguments["answer"]).strip()
    number = _number(given)
    return given.casefold() if number is None else shown(number)
