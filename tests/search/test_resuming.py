"""A search goes on from its trace, even where a server was away the last time."""

from __future__ import annotations

import os
import signal
import sys

import pytest

import fake_openai
from fake_openai import Babbler, FakeServer
from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.policies.openai import OpenAIPolicy
from prmkit.policies.sampling import Outcome
from prmkit.records import Problem
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search import SearchSettings, algorithm, search
from prmkit.search.anytime import moments, settings_of
from prmkit.search.drive import DriveSettings, grouping
from prmkit.search.maze import Maze, MazePolicy, judge
from prmkit.search.replay import recorded, scores_so_far, traces_in
from prmkit.search.resuming import Known
from prmkit.search.tree import Cost
from started import Server, free_port

PROBLEMS = [Problem(id=f"p{i}", prompt=f"What is {i} + {i}? " * 6) for i in range(4)]
FOLDER = WEIGHTS / "policy"


def some_words():
    """A word in four of those that the server's babble is made of."""
    tokenizer = load_tokenizer(FOLDER)
    return tuple(tokenizer.decode([token]) for token in Babbler(tokenizer)._words[::4])


SETTINGS = SearchSettings(
    split="line", answers="text", step_stop=some_words(), max_step_tokens=60, max_tokens=90
)


def by_length(problem, steps):
    return (sum(map(len, steps)) % 97) / 97


def new_policy(url, capabilities=None, attempts=6):
    """Its usage is counted from nothing."""
    endpoint = Endpoint(EndpointSettings(url=url, attempts=attempts))
    return OpenAIPolicy(endpoint, tokenizer=load_tokenizer(FOLDER), capabilities=capabilities)


OPTIONS = {
    "beam": {"n": 4, "width": 2, "max_steps": 5},
    "particle-filter": {"n": 4, "max_steps": 5},
    "best-of-n": {"n": 3},
}


def run(policy, name="beam", driving=None, **more):
    return list(
        search(
            PROBLEMS, algorithm(name, **OPTIONS[name]), policy, ScriptedScorer(by_length),
            settings=SETTINGS, driving=driving, judge=lambda p, t: Outcome(t[-9:], None), **more,
        )
    )  # fmt: skip


def trees(found):
    return [[(n.path, n.text, n.finish, n.scores) for n in one.root.walk()] for one in found]


def total(found):
    cost = Cost()
    for one in found:
        cost = cost.plus(one.cost)
    return cost


@pytest.mark.parametrize("name", ["beam", "particle-filter"])
def test_the_ledger_of_a_search_is_what_the_server_counted(name):
    seen = []
    with FakeServer() as server:
        can = new_policy(server.url).capabilities
        for driving in (DriveSettings(), DriveSettings(overlap=True, threads=8)):
            policy = new_policy(server.url, can)
            asked = len(server.bodies)
            found = run(policy, name, driving)
            cost = total(found)
            assert (cost.policy_tokens, cost.prompt_tokens, cost.cached_tokens) == (
                policy.usage.completion_tokens,
                policy.usage.prompt_tokens,
                policy.usage.cached_tokens,
            )
            nodes = [node for one in found for node in one.root.walk()]
            assert cost.completions == len(nodes) - len(PROBLEMS) > 30
            # The children of a node are one request, and the tokens drawn come back in prompts.
            assert len(server.bodies) - asked == sum(bool(node.children) for node in nodes)
            assert cost.cached_tokens > 0.5 * cost.prompt_tokens
            seen.append(trees(found))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("mode", ["vllm", "openai"])
def test_of_a_server_without_token_ids_prompts_are_asked_and_counted_once(mode):
    """Those of a node in one request, though they go as chats; what it bills is in the ledger."""
    with FakeServer(mode) as server:
        policy = OpenAIPolicy(Endpoint(EndpointSettings(url=server.url)))
        can = policy.capabilities
        assert not policy.takes_ids
        asked = len(server.bodies)
        found = run(policy, "best-of-n")
        assert len(server.bodies) - asked == len(PROBLEMS)
    cost, usage = total(found), policy.usage
    assert usage.prompt_tokens > 0
    assert (cost.policy_tokens, cost.prompt_tokens, cost.cached_tokens) == (
        usage.completion_tokens, usage.prompt_tokens, usage.cached_tokens,
    ), can.describe()  # fmt: skip


@pytest.mark.slow
def test_a_search_waits_for_a_server_that_is_begun_again(tmp_path):
    port = free_port()
    command = [sys.executable, fake_openai.__file__, "--port", port, "--delay", "0.01"]
    server = Server(command, port, tmp_path / "server.log", PYTHONPATH=os.pathsep.join(sys.path))
    server.begin()
    events = []

    def note(problem, event):
        if event["event"] == "child":
            events.append((problem.id, tuple(event["path"])))
        if event["event"] == "child" and len(events) == 12:
            server.end(signal.SIGKILL)
            server.begin()

    try:
        server.wait()
        can = new_policy(server.url).capabilities
        whole = run(new_policy(server.url, can))
        policy = new_policy(server.url, can, attempts=50)
        found = run(policy, driving=DriveSettings(overlap=True, threads=4), on_event=note)
    finally:
        server.end()
    assert trees(found) == trees(whole)
    assert 30 < len(events) == len(set(events)) == sum(len(tree) - 1 for tree in trees(found))
    assert total(found).policy_tokens == policy.usage.completion_tokens


@pytest.mark.parametrize("name", ["beam", "particle-filter"])
def test_what_a_server_failed_is_asked_for_again(tmp_path, name):
    with FakeServer() as server:
        can = new_policy(server.url).capabilities
        whole = run(new_policy(server.url, can), name)
    with FakeServer(faults=0.3, kinds=("broken",)) as server:
        lost = run(new_policy(server.url, can, attempts=1), name, traces=tmp_path)
    assert any(node.error for one in lost for node in one.root.walk())
    assert trees(lost) != trees(whole)
    with FakeServer() as server:
        policy = new_policy(server.url, can)
        found = run(policy, name, traces=tmp_path)
        assert trees(found) == trees(whole)
        drawn = total(lost).policy_tokens + policy.usage.completion_tokens
        # What the search did after the failures is paid for, too.
        assert total(found).policy_tokens == drawn >= total(whole).policy_tokens
        again = new_policy(server.url, can)
        assert trees(run(again, name, traces=tmp_path)) == trees(whole)
        assert again.usage.requests == 0
    read = {one.problem.id: one for one in map(recorded, traces_in(tmp_path))}
    for one in found:
        told = read[one.problem.id]
        assert told.end["answer"] == one.answer
        assert [n.path for n in told.candidates.nodes] == [n.path for n in one.candidates]
        assert told.cost == one.cost


def test_a_solution_that_was_drawn_at_the_second_try_is_one_candidate(tmp_path):
    """Of a best-of-n in which some could not be drawn at first."""

    def go(maze):
        return list(
            search(
                [Problem(id="p", prompt="?", answer="0")],
                algorithm("best-of-n", n=6),
                MazePolicy(maze),
                ScriptedScorer(maze.score),
                settings=SearchSettings(split="line", answers="text", max_tokens=90),
                judge=judge,
                traces=tmp_path,
            )
        )

    failing = Maze(fails=0.5, long=0.0)
    (lost,) = go(failing)
    assert 0 < len(lost.candidates) < 6
    (found,) = go(failing._replace(fails=0.0))
    assert len(found.candidates) == 6
    (path,) = traces_in(tmp_path)
    read = recorded(path)
    steps = list(scores_so_far(read))
    assert [len(there) for *_, there in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1][0] == found.cost.tokens
    last = moments(read, settings_of(read), judge, grouping("text"))[-1]
    assert last.correct == bool(found.correct)


def child(path, whole=False, finish="open"):
    return {"event": "child", "path": path, "whole": whole, "finish": finish}


def test_known_events_are_those_of_the_same_text():
    cut = {"event": "note", "kind": "cut", "path": [2], "of": [0], "steps": 1}
    keep = {"event": "note", "kind": "keep", "paths": [[0]]}
    known = Known(
        [
            child([0]), child([1], finish="error"), child([0, 0]), child([3], whole=True),
            {"event": "score", "path": [0, 0], "values": [0.5]},
            {"event": "likelihood", "path": [0, 0], "after": [], "log": -1.0},
            {"event": "score", "path": [3], "values": [0.1]},
            cut, keep,
        ]
    )  # fmt: skip
    assert known.child((1,), False) is None
    # A step is not the whole rest, though it has the same number.
    assert known.child((3,), False) is None
    assert known.child((3,), True)["path"] == [3]
    assert known.note({"event": "note", "kind": "keep", "paths": ((0,),)})
    assert not known.note(keep)
    known.displace((0,))
    assert known.child((0,), False) is known.child((0, 0), False) is None
    assert known.score((0, 0)) is None
    assert known.likelihood(((0, 0), ())) is None
    # It was cut out of what is no longer there.
    assert not known.note(cut)
    assert known.score((3,))["values"] == [0.1]
    assert not known
