"""Requests to a server: what is tried again, for how long, and what no message may hold."""

from __future__ import annotations

import json
import pickle
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
import stamina

from fake_openai import FakeServer
from prmkit.endpoint import Endpoint, EndpointSettings, FaultyAnswer
from prmkit.errors import BackendError, InvalidSetting, RequestRefused

URL = "http://server.test"


def endpoint(handler, **settings):
    return Endpoint(EndpointSettings(url=URL, **settings), httpx2.MockTransport(handler))


def answers(*given):
    """Answers one after the other; the last one for ever. And the requests that came."""
    seen = []

    def handler(request):
        seen.append(request)
        found = given[min(len(seen), len(given)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    return handler, seen


@pytest.fixture
def no_waiting():
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


FINE = httpx2.Response(200, json={"fine": 1})


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    "fault",
    [
        httpx2.Response(429),
        httpx2.Response(503, text="loading"),
        httpx2.Response(200, text='{"fine": '),
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, text='{"fine": NaN}'),
        httpx2.Response(200, text='{"fine": -Infinity}'),
        httpx2.Response(200, text="[" * 100_000),
        httpx2.Response(200, json=[1]),
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("half a body"),
    ],
)
def test_what_may_pass_is_tried_again(fault):
    handler, seen = answers(fault, FINE)
    assert endpoint(handler).post("/x", {}) == {"fine": 1}
    assert len(seen) == 2
    handler, seen = answers(fault)
    with pytest.raises(BackendError, match="http://server.test/x did not answer after") as caught:
        endpoint(handler).post("/x", {})
    assert len(seen) == 3
    told = isinstance(fault, httpx2.Response) and fault.status_code != 200
    assert getattr(caught.value, "status", None) == (fault.status_code if told else None)


@pytest.mark.usefixtures("no_waiting")
def test_an_answer_that_its_reader_refuses_is_asked_for_again():
    handler, seen = answers(
        httpx2.Response(200, json={"n": 1}), httpx2.Response(200, json={"n": 2})
    )

    def read(answer):
        if answer["n"] != 2:
            raise FaultyAnswer("not two")
        return "two"

    assert endpoint(handler).post("/x", {}, read) == "two"
    assert len(seen) == 2
    handler, _ = answers(httpx2.Response(200, json={"n": 1}))
    with pytest.raises(BackendError, match="not two"):
        endpoint(handler).post("/x", {}, read)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_a_refusal_is_told_at_once_with_its_status(status):
    handler, seen = answers(httpx2.Response(status, text="no"))
    with pytest.raises(
        RequestRefused, match=f"http://server.test/x answers {status}: no"
    ) as caught:
        endpoint(handler).post("/x", {})
    assert caught.value.status == status
    assert len(seen) == 1
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.status) == (str(caught.value), status)


def test_get_gives_objects_and_texts():
    handler, seen = answers(FINE, httpx2.Response(200, text="a 1\nb 2"))
    server = endpoint(handler)
    assert server.get("/v1/models") == {"fine": 1}
    assert server.get_text("/metrics") == "a 1\nb 2"
    assert [request.method for request in seen] == ["GET", "GET"]


def later(seconds):
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("after", [lambda: "0.3", lambda: later(2)], ids=["seconds", "date"])
def test_the_server_says_when_to_come_again(after):
    handler, seen = answers(httpx2.Response(429, headers={"Retry-After": after()}), FINE)
    start = time.monotonic()
    endpoint(handler).post("/x", {})
    assert time.monotonic() - start >= 0.3
    assert len(seen) == 2


@pytest.mark.parametrize("after", ["3600", later(3600)], ids=["seconds", "date"])
def test_who_wants_to_be_asked_after_the_deadline_is_not_waited_for(after):
    handler, seen = answers(httpx2.Response(429, headers={"Retry-After": after}, text="later"))
    start = time.monotonic()
    with pytest.raises(BackendError, match="later"):
        endpoint(handler, deadline=5.0).post("/x", {})
    assert time.monotonic() - start < 2
    assert len(seen) == 1


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("after", ["soon", "", "inf", "nan"])
def test_a_time_that_cannot_be_read_is_none(after):
    handler, seen = answers(httpx2.Response(429, headers={"Retry-After": after}), FINE)
    assert endpoint(handler).post("/x", {}) == {"fine": 1}
    assert len(seen) == 2


def test_no_try_may_last_beyond_the_deadline():
    handler, seen = answers(FINE)
    endpoint(handler, timeout=120.0, deadline=5.0).post("/x", {})
    endpoint(handler, timeout=2.0, deadline=5.0).post("/x", {})
    first, second = (request.extensions["timeout"]["read"] for request in seen)
    assert 0 < first <= 5.0
    assert second == 2.0


def test_tries_are_bounded_by_number():
    handler, seen = answers(httpx2.Response(429, headers={"Retry-After": "0"}))
    with pytest.raises(BackendError, match="at most 4 tries"):
        endpoint(handler, attempts=4).post("/x", {})
    assert len(seen) == 4


def test_once_cancelled_nothing_more_is_sent():
    handler, seen = answers(FINE)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(BackendError, match="cancelled"):
        endpoint(handler).post("/x", {}, dict, cancelled)
    assert seen == []


def test_a_key_is_sent_and_never_told():
    def repeats(request):
        return httpx2.Response(400, text=f"wrong: {request.headers['authorization']}")

    settings = EndpointSettings(url=URL, api_key="s3cret")
    with pytest.raises(BackendError) as caught:
        Endpoint(settings, httpx2.MockTransport(repeats)).post("/x", {})
    assert "wrong: Bearer [hidden]" in str(caught.value)
    assert "s3cret" not in str(caught.value) + repr(settings)


def test_a_key_that_is_cut_in_the_message_is_not_told_either():
    def repeats(request):
        return httpx2.Response(400, text="x" * 297 + request.headers["authorization"][7:])

    settings = EndpointSettings(url=URL, api_key="s3cret")
    with pytest.raises(BackendError) as caught:
        Endpoint(settings, httpx2.MockTransport(repeats)).post("/x", {})
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://h:80x80"}, "is no URL"),
        ({"url": URL, "api_key": "clé"}, "API key"),
        ({"url": URL, "api_key": "a\nb"}, "API key"),
        ({"url": URL, "timeout": 0}, "timeout"),
        ({"url": URL, "deadline": -1}, "deadline"),
        ({"url": URL, "attempts": 0}, "attempts"),
        ({"url": URL, "connections": 0}, "connections"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(InvalidSetting, match=message):
        Endpoint(EndpointSettings(**settings))


@pytest.mark.parametrize("kind", ["half", "garbled", "reset", "broken", "nan"])
def test_faults_of_a_real_connection_are_tried_again(kind):
    with FakeServer(faults=0.5, kinds=[kind]) as server:
        body = {"model": "served", "prompt": "a", "max_tokens": 2}
        there = Endpoint(EndpointSettings(url=server.url, attempts=12))
        with stamina.set_testing(True, attempts=12):
            texts = {
                there.post("/v1/completions", {**body, "temperature": 0})["choices"][0]["text"]
                for _ in range(12)
            }
    assert len(texts) == 1
    assert server.failed[kind] > 2


def test_many_threads_share_it():
    with FakeServer(delay=0.02) as server:
        there = Endpoint(EndpointSettings(url=server.url, connections=3))
        texts = []

        def ask(i):
            body = {"model": "served", "prompt": f"{i}", "max_tokens": 4, "temperature": 0}
            texts.append(json.dumps(there.post("/v1/completions", body)["choices"]))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(texts) == 12
    assert server.most_under_way <= 3
