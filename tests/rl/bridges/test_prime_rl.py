"""prime-rl's protocol, recorded from its source: what it hands to an algorithm, and what it takes.

prime-rl is on no package index. The stand-ins below have the names, fields and checks of its
``orchestrator/algo/base.py`` and ``routing.py`` and of verifiers 0.4.0 that the bridge touches.
"""

from __future__ import annotations

import asyncio
import sys
import types
from dataclasses import dataclass, field

import pytest

from prmkit.errors import InvalidRecord, MissingTrainer
from prmkit.rl.bridges.prime_rl import algorithm, trace_advantages
from prmkit.rl.bridges.scoring import StepRewards
from prmkit.scorers.scripted import ScriptedScorer


class Message:
    """A pydantic model of verifiers, as far as it is read."""

    def __init__(self, role, content):
        self.dump = {"role": role, "content": content}

    def model_dump(self):
        return self.dump


@dataclass(eq=False)
class Node:
    message: Message
    token_ids: list
    mask: list
    advantages: list | None = None


@dataclass
class Branch:
    nodes: list
    trainable: bool = True


@dataclass
class Agent:
    name: str
    trainable: bool = True


@dataclass
class Trace:
    id: str
    nodes: list
    reward: float = 0.0
    agent: Agent = field(default_factory=lambda: Agent("main"))
    has_error: bool = False
    forks: bool = False

    @property
    def branches(self):
        whole = Branch(self.nodes)
        return [whole, Branch(self.nodes[:-1])] if self.forks else [whole]


@dataclass
class Episode:
    traces: list


def asked(text, role="user"):
    ids = [ord(c) for c in f"<{text}>"]
    return Node(Message(role, text), ids, [False] * len(ids))


def drawn(text):
    """A message of the policy's: what its template writes, the text, the end of text."""
    ids = [ord("^"), *map(ord, text), 0]
    return Node(Message("assistant", text.strip()), ids, [False] + [True] * (len(ids) - 1))


class Letters:
    """A tokenizer of one letter a token; 0 is special."""

    def decode(self, ids, **settings):
        return "".join(chr(i) for i in ids if i)


class Watched(ScriptedScorer):
    def score(self, trajectories):
        self.asked = list(trajectories)
        return super().score(trajectories)


def by_length(problem, steps):
    return None if "long" in steps[-1] else float(len(steps[-1].strip("\n")))


@pytest.fixture
def rewards():
    return StepRewards(scorer=Watched(by_length, semantics="value"), how="min", split="line")


def to_go(values, ends, group, mask):
    """Scores of the steps that are not over."""
    import torch

    places = torch.arange(mask.shape[1])
    return (values[:, None, :] * (ends[:, None, :] >= places[None, :, None])).sum(-1) * mask


def test_each_drawn_token_gets_what_its_step_is_worth(rewards):
    traces = [
        Trace("a", [asked("Be brief.", "system"), asked("q"), drawn("ab\nc")]),
        Trace("b", [asked("q"), drawn("abc\n"), asked("2", "tool"), drawn("d")]),
        Trace("c", [asked("q"), drawn("long")]),
    ]
    found = trace_advantages(traces, rewards, Letters(), advantages=to_go)
    assert found == [[3, 3, 3, 1, 1], [4, 4, 4, 4, 4, 1, 1], [0] * 5]
    first, second, _ = rewards.scorer.asked
    assert [m.role for m in first.problem.messages] == ["system", "user"]
    assert [(s.text, s.observation) for s in second.steps] == [("abc\n", "2"), ("d", None)]


def test_steps_are_compared_with_those_of_the_same_agent(rewards):
    """GRPO with process supervision, by hand: 1 and 2 and 3 of one agent, 9 alone of another."""
    other = Agent("critic")
    traces = [
        Trace("a", [asked("q"), drawn("a\nbb")], reward=1.0),
        Trace("b", [asked("q"), drawn("123456789")], reward=5.0, agent=other),
        Trace("c", [asked("q"), drawn("ccc")], reward=0.0),
    ]
    found = trace_advantages(traces, rewards, Letters())
    assert found[0] == pytest.approx([-1, -1, 0, 0, 0], abs=1e-3)
    assert found[1] == [0] * 10
    assert found[2] == pytest.approx([1] * 4, abs=1e-3)
    joined = trace_advantages(traces, rewards, Letters(), outcome=2.0)
    for line, plain, level in zip(joined, found, (1.0, 0.0, -1.0), strict=True):
        assert line == pytest.approx([value + level for value in plain])


def test_a_trace_that_forks_is_refused(rewards):
    trace = Trace("f", [asked("q"), drawn("a")], forks=True)
    with pytest.raises(InvalidRecord, match="trace 'f' has 2 lines of messages"):
        trace_advantages([trace], rewards, Letters())
    assert trace_advantages([], rewards, Letters()) == []


def assign_advantages(trace, values):
    """The checks of prime-rl's function of that name."""
    nodes = [node for node in trace.nodes if any(node.mask)]
    total = sum(sum(node.mask) for node in nodes)
    if len(values) != total:
        raise ValueError(f"got {len(values)}, expected {total}")
    begin = 0
    for node in nodes:
        n = sum(node.mask)
        node.advantages = [float(value) for value in values[begin : begin + n]]
        begin += n


def iter_trainable_traces(episodes):
    for episode in episodes:
        for trace in episode.traces:
            if not trace.has_error and trace.agent.trainable:
                yield episode, trace


class Algorithm:
    def __init__(self, config, clients):
        self.action_loss_type = config.action_loss_type
        self.clients = clients


@pytest.fixture
def prime_rl(monkeypatch):
    base = types.ModuleType("prime_rl.orchestrator.algo.base")
    base.Algorithm, base.iter_trainable_traces = Algorithm, iter_trainable_traces
    routing = types.ModuleType("prime_rl.orchestrator.algo.routing")
    routing.assign_advantages = assign_advantages
    for name in ("prime_rl", "prime_rl.orchestrator", "prime_rl.orchestrator.algo"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    monkeypatch.setitem(sys.modules, routing.__name__, routing)


@pytest.mark.usefixtures("prime_rl")
def test_an_algorithm_assigns_to_the_trainable_traces_of_a_group(rewards):
    made = algorithm(rewards, Letters(), advantages=to_go)
    assert issubclass(made, Algorithm)
    one = made(types.SimpleNamespace(action_loss_type="rl"), clients=None)
    assert one.action_loss_type == "rl"
    good = Trace("a", [asked("q"), drawn("ab\n"), asked("2", "tool"), drawn("c")])
    failed = Trace("b", [asked("q"), drawn("x")], has_error=True)
    frozen = Trace("c", [asked("q"), drawn("x")], agent=Agent("judge", trainable=False))
    other = Trace("d", [asked("q"), drawn("xyz")])
    asyncio.run(one.score_group([Episode([good, frozen]), Episode([failed]), Episode([other])]))
    assert [node.advantages for node in good.nodes] == [None, [3] * 4, None, [1] * 2]
    assert [node.advantages for node in other.nodes] == [None, [3] * 4]
    assert all(node.advantages is None for trace in (failed, frozen) for node in trace.nodes)


def test_without_prime_rl_the_install_command_is_named(rewards):
    with pytest.raises(MissingTrainer, match="pip install 'prime-rl @ git"):
        algorithm(rewards, Letters())
