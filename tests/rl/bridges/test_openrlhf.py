"""OpenRLHF's protocol: what a query is, what is served, and what a client makes of answers."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest
import stamina

from bridge_children import told_by
from prmkit.embedded.build import WEIGHTS
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.errors import BackendError, InvalidSetting, RequestRefused, ScoringError
from prmkit.rl.bridges.openrlhf import (
    QueryRewards,
    RemoteReward,
    ServerLimits,
    reward_func,
    serve,
)
from prmkit.rl.bridges.scoring import StepRewards
from prmkit.scorers.scripted import ScriptedScorer

PROMPT = "<|user|>What?<|end|><|bot|>"


def by_length(problem, steps):
    assert problem.prompt == "What?"
    if steps[-1] == "explode":
        raise RuntimeError("secret of the server")
    if steps[-1] == "away":
        raise BackendError("http://inner:1 did not answer")
    return None if "long" in steps[-1] else len(steps[-1]) / 100


def queries(**settings):
    rewards = StepRewards(
        scorer=ScriptedScorer(by_length),
        how="min",
        split="line",
        before="<|user|>",
        after="<|end|><|bot|>",
    )
    return QueryRewards(rewards=rewards, ends=("<|end|>", "<|pad|>"), **settings)


def test_a_query_is_a_prompt_a_completion_and_what_ends_it():
    told = queries().answer(
        [PROMPT + "ab\ncdef<|end|>", PROMPT + "abc <|end|>\n<|pad|><|pad|>", PROMPT + "a"],
        [PROMPT] * 3,
    )
    assert told["rewards"] == told["scores"] == [0.03, 0.04, 0.01]
    assert told["extra_logs"] == {"prm_steps": [2, 1, 1], "prm_unscored": [0, 0, 0]}


def test_what_is_unscored_has_the_reward_that_was_named_or_is_an_error():
    asked = [PROMPT + "long", "t?<|end|><|bot|>cut", PROMPT + "<|end|>", PROMPT + "ab"]
    told = queries(unscored=-2.0).answer(asked, [PROMPT] * 4)
    assert told["rewards"] == [-2, -2, -2, 0.02]
    assert told["extra_logs"]["prm_unscored"] == [1, 1, 1, 0]
    for one, reason in zip(
        asked, ("gives no score", "begin with its prompt", "no step"), strict=False
    ):
        with pytest.raises(ScoringError, match=reason):
            queries().answer([one], [PROMPT])
    with pytest.raises(ScoringError, match="2 queries for 1 prompts"):
        queries().answer(["a", "b"], ["a"])


def test_ends_are_a_tuple():
    for wrong in ("<|end|>", ("",)):
        with pytest.raises(InvalidSetting, match="it is a tuple of texts"):
            QueryRewards(rewards=queries().rewards, ends=wrong)


def test_a_python_file_answers_tensors():
    told = reward_func(queries())([PROMPT + "ab", PROMPT + "abc"], [PROMPT] * 2, [None, "4"])
    assert told["rewards"].tolist() == [pytest.approx(0.02), pytest.approx(0.03)]
    assert told["scores"].tolist() == told["rewards"].tolist()
    assert told["extra_logs"]["prm_steps"].tolist() == [1, 1]


@pytest.fixture
def server():
    with serve(queries(), port=0, limits=ServerLimits(body=2000, queries=3, seconds=5)) as found:
        yield found


def ask(server, body, *, method="POST", path="/get_reward", headers=None):
    """A status, an object, and whether the connection stays open."""
    address = server.url.removeprefix("http://").partition("/")[0]
    connection = http.client.HTTPConnection(address, timeout=10)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, content if method == "POST" else None, headers or {})
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "application/json"
    told = json.loads(answer.read())
    connection.close()
    return answer.status, told, not answer.will_close


FINE = {"query": [PROMPT + "ab"], "prompts": [PROMPT], "labels": ["4"]}


def test_rewards_are_served(server):
    told = {"prm_steps": [1.0], "prm_unscored": [0.0]}
    expected = {"rewards": [0.02], "scores": [0.02], "extra_logs": told}
    assert ask(server, FINE) == (200, expected, True)
    assert ask(server, {k: v for k, v in FINE.items() if k != "labels"}) == (200, expected, True)
    assert ask(server, b"", method="GET", path="/health") == (200, {"model": "scripted"}, True)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b"[" * 1990, 400, "no JSON"),
        (b"[]", 422, "the body is a list"),
        (b"null", 422, "the body is a NoneType"),
        ({"query": "ab", "prompts": ["a"]}, 422, "'query' is not a list of texts"),
        ({"query": ["ab"], "prompts": [1]}, 422, "'prompts' is not a list of texts"),
        ({"query": ["ab"]}, 422, "'prompts' is not a list of texts"),
        ({**FINE, "labels": []}, 422, "'labels' is not a list of 1"),
        ({"query": ["ab"], "prompts": []}, 422, "1 queries for 0 prompts"),
        ({"query": [], "prompts": []}, 422, "0 queries; 1 to 3 are allowed"),
        ({"query": ["a"] * 4, "prompts": ["a"] * 4}, 422, "4 queries; 1 to 3"),
        ({"query": [PROMPT + "long"], "prompts": [PROMPT]}, 422, "gives no score"),
        ({"query": [PROMPT + "\ud800"], "prompts": [PROMPT]}, 422, "surrogate"),
        ({"query": ["ab"], "prompts": ["a"]}, 422, "does not hold its question"),
    ],
)
def test_what_is_malformed_is_refused_with_the_reason(server, body, status, told):
    got, answer, stays = ask(server, body)
    assert (got, set(answer), stays) == (status, {"error"}, True)
    assert told in answer["error"]
    assert ask(server, FINE)[0] == 200


def test_too_much_is_refused_before_it_is_read(server):
    status, answer, stays = ask(server, b"[" * 2001)
    assert (status, stays) == (413, False)
    assert answer["error"] == "2001 bytes; 2000 are allowed"
    for length in ("x", "-1", "1e3", "²"):
        status, _, stays = ask(
            server, b"", headers={"Content-Length": length.encode().decode("latin-1")}
        )
        assert (status, stays) == (411, False), length
    assert ask(server, FINE, path="/other")[0] == 404
    assert ask(server, b"", method="GET", path="/get_reward")[0] == 404
    assert ask(server, FINE)[0] == 200


def test_a_client_that_stops_talking_holds_nobody_up():
    with serve(queries(), port=0, limits=ServerLimits(seconds=0.3)) as server:
        address = server.url.removeprefix("http://").partition("/")[0]
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as silent:
            silent.sendall(b"POST /get_reward HTTP/1.1\r\nContent-Length: 50\r\n\r\n{")
            assert ask(server, FINE)[0] == 200
            # The server hangs up.
            assert silent.recv(100) == b""
        with socket.create_connection((host, int(port)), timeout=10) as short:
            short.sendall(b"POST /get_reward HTTP/1.1\r\nContent-Length: 50\r\n\r\n{")
            short.shutdown(socket.SHUT_WR)
            told = b"".join(iter(lambda: short.recv(1000), b""))
            assert told.startswith(b"HTTP/1.1 400 ")
            assert told.endswith(b'{"error": "1 bytes came of 50"}')


def test_no_client_sees_a_traceback(server, caplog):
    with caplog.at_level(logging.WARNING):
        status, answer, _ = ask(server, {"query": [PROMPT + "explode"], "prompts": [PROMPT]})
    assert (status, answer) == (500, {"error": "scoring failed; the server's log says why"})
    assert "secret of the server" in caplog.text
    status, answer, _ = ask(server, {"query": [PROMPT + "away"], "prompts": [PROMPT]})
    assert (status, answer) == (503, {"error": "the scorer's own server does not answer"})
    assert ask(server, FINE)[0] == 200


def test_one_request_is_scored_at_a_time_and_too_many_are_told_to_come_back():
    running, most, free = [], [], threading.Event()

    class Slow(ScriptedScorer):
        def score(self, trajectories):
            running.append(1)
            most.append(len(running))
            free.wait(20)
            running.pop()
            return super().score(trajectories)

    slow = QueryRewards(rewards=StepRewards(scorer=Slow(lambda *_: 0.5), how="min"))
    body = {"query": ["ab"], "prompts": ["a"]}
    with serve(slow, port=0, limits=ServerLimits(waiting=2)) as server:
        told = []
        threads = [
            threading.Thread(target=lambda: told.append(ask(server, body)[0])) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 20
        # Two have a place, whether or not they have come to the scorer; the others are told.
        while told.count(503) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        free.set()
        for thread in threads:
            thread.join()
        # Their places are free again.
        assert [ask(server, body)[0] for _ in range(3)] == [200] * 3
    assert sorted(told) == [200, 200, 503, 503, 503]
    assert max(most) == 1


def test_requests_that_gather_are_scored_in_one_batch_and_fail_alone():
    begun, free, sizes = threading.Event(), threading.Event(), []

    class Slow(ScriptedScorer):
        def score(self, trajectories):
            sizes.append(len(trajectories))
            begun.set()
            free.wait(20)
            return super().score(trajectories)

    def value(problem, steps):
        if steps[-1] == "explode":
            raise RuntimeError("broken")
        return None if steps[-1] == "long" else len(steps[-1]) / 100

    slow = QueryRewards(rewards=StepRewards(scorer=Slow(value), how="min"))
    with serve(slow, port=0) as server:
        told = {}

        def go(text):
            told[text] = ask(server, {"query": ["a" + text, "ab"], "prompts": ["a", "a"]})[:2]

        texts = ["first", "x", "xx", "long", "explode", "xxx"]
        threads = [threading.Thread(target=go, args=(text,)) for text in texts]
        threads[0].start()
        assert begun.wait(20)
        for thread in threads[1:]:
            thread.start()
        handler = server._http.RequestHandlerClass
        end = time.monotonic() + 20
        while len(handler.together._waiting) < 5 and time.monotonic() < end:
            time.sleep(0.01)
        free.set()
        for thread in threads:
            thread.join()
    # The first; the five together, of which one breaks; each of them by itself.
    assert sizes == [2, 10, 2, 2, 2, 2, 2]
    rewards = {text: (status, answer.get("rewards")) for text, (status, answer) in told.items()}
    assert rewards == {
        "first": (200, [0.05, 0.01]),
        "x": (200, [0.01, 0.01]),
        "xx": (200, [0.02, 0.01]),
        "xxx": (200, [0.03, 0.01]),
        "long": (422, None),
        "explode": (500, None),
    }
    assert "gives no score" in told["long"][1]["error"]


def test_a_client_that_hangs_up_is_no_trace_on_the_terminal(capfd):
    free, scored = threading.Event(), threading.Event()

    class Slow(ScriptedScorer):
        def score(self, trajectories):
            free.wait(20)
            scored.set()
            return super().score(trajectories)

    slow = QueryRewards(rewards=StepRewards(scorer=Slow(lambda *_: 0.5), how="min"))
    with serve(slow, port=0) as server:
        host, _, port = server.url.removeprefix("http://").partition("/")[0].partition(":")
        body = json.dumps({"query": ["ab"], "prompts": ["a"]}).encode()
        with socket.create_connection((host, int(port)), timeout=10) as hasty:
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            head = f"POST /get_reward HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
            hasty.sendall(head.encode() + body)
        free.set()
        assert scored.wait(20)
        assert ask(server, {"query": ["ab"], "prompts": ["a"]})[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_server_that_is_closed_leaves_its_port(server):
    again = serve(queries(), port=0)
    port = int(again.url.rpartition(":")[2].partition("/")[0])
    again.close()
    with serve(queries(), port=port) as third:
        assert ask(third, FINE)[0] == 200


def test_limits_are_checked():
    with pytest.raises(InvalidSetting, match="queries is 0"):
        ServerLimits(queries=0)
    with pytest.raises(InvalidSetting, match="seconds is 0"):
        ServerLimits(seconds=0)


def remote(handler, **settings):
    settings = EndpointSettings(url="http://rewards.test", attempts=3, **settings)
    return RemoteReward(Endpoint(settings, httpx2.MockTransport(handler)))


def test_the_client_asks_the_server(server):
    url = server.url.removesuffix("/get_reward")
    asked = RemoteReward(Endpoint(EndpointSettings(url=url)))
    told = asked([PROMPT + "ab", PROMPT + "abc"], [PROMPT] * 2, ["x", "y"])
    assert told.rewards == told.scores == [0.02, 0.03]
    assert told.extra_logs["prm_steps"] == [1, 1]
    with pytest.raises(RequestRefused, match="422.*gives no score"):
        asked([PROMPT + "long"], [PROMPT])
    with pytest.raises(ScoringError, match="1 queries, 2 prompts and 0 labels"):
        asked(["a"], ["a", "b"])


def test_the_client_sends_what_openrlhf_sends():
    seen = []

    def handler(request):
        seen.append((request.url.path, json.loads(request.content)))
        return httpx2.Response(200, json={"rewards": [1]})

    told = remote(handler)(["ab"], ["a"])
    assert seen == [("/get_reward", {"query": ["ab"], "prompts": ["a"], "labels": [None]})]
    assert (told.rewards, told.scores, told.extra_logs) == ([1.0], [1.0], {})


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({}, "'rewards' is None; 1 numbers"),
        ({"rewards": 0.5}, "'rewards' is 0.5; 1 numbers"),
        ({"rewards": [0.5, 0.5]}, "'rewards' is 2 numbers; 1 numbers"),
        ({"rewards": [None]}, "holds what is no number"),
        ({"rewards": [True]}, "holds what is no number"),
        ({"rewards": [0.5], "scores": []}, "'scores' is 0 numbers"),
    ],
)
def test_answers_that_are_not_as_they_should_be_are_asked_for_again(answer, told):
    tries = []

    def handler(request):
        tries.append(request)
        good = {"rewards": [0.25], "scores": [0.5]}
        return httpx2.Response(200, json=answer if len(tries) == 1 else good)

    with stamina.set_testing(True, attempts=2, cap=True):
        assert remote(handler)(["ab"], ["a"])[:2] == ([0.25], [0.5])
        assert len(tries) == 2
        with pytest.raises(BackendError, match=told):
            remote(lambda request: httpx2.Response(200, json=answer))(["ab"], ["a"])


FILE = """
from prmkit import DiscriminativeScorer
from prmkit.embedded.build import WEIGHTS
from prmkit.rl.bridges.openrlhf import QueryRewards, reward_func
from prmkit.rl.bridges.scoring import StepRewards

scorer = DiscriminativeScorer(WEIGHTS / "prm", device="cpu")
rewards = StepRewards(
    scorer=scorer, how="min", split="line", before="<|problem|>", after="<|solution|>"
)
reward_func = reward_func(QueryRewards(rewards=rewards, ends=("<|end|>",)))
"""


@pytest.mark.bridges
def test_openrlhfs_own_client_gets_the_rewards_on_both_ways(tmp_path):
    from prmkit import DiscriminativeScorer

    file = tmp_path / "rewards.py"
    file.write_text(FILE)
    prm = DiscriminativeScorer(WEIGHTS / "prm", device="cpu")
    rewards = StepRewards(
        scorer=prm, how="min", split="line", before="<|problem|>", after="<|solution|>"
    )
    with serve(QueryRewards(rewards=rewards, ends=("<|end|>",)), port=0) as server:
        child = Path(__file__).with_name("openrlhf_child.py")
        served, from_file = told_by(child, "verl", server.url, file)
    question = "Luis has 7 cards and gets 9 cards. How many cards does Luis have?"
    texts = ["So Luis has 7 + 9 = 16 cards.\nThe answer is 16.\n", "The answer is 15.\n"]
    plain = StepRewards(scorer=prm, how="min", split="line")
    expected = [one.reward for one in plain.score([question] * 2, texts)]
    assert expected[0] != pytest.approx(expected[1], abs=0.01)
    for found in (served, from_file):
        for (reward, score, steps), wanted, n_steps in zip(found, expected, (2, 1), strict=True):
            assert reward == [pytest.approx(wanted, abs=1e-4)]
            assert score == reward
            assert steps == [n_steps]
