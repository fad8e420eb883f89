"""OpenRLHF's remote rewards: as a Python file, served, and asked for.

Read of OpenRLHF 0.11.2, ``openrlhf/utils/agent.py`` and ``cli/serve_rm.py``. What
``--reward.remote_url`` names is asked for each completion by itself: a ``.py`` file by its function
``reward_func(queries, prompts, labels)``, a URL by POST of ``{"query": [..], "prompts": [..],
"labels": [..]}``, which answers ``{"rewards": [..], "scores": [..], "extra_logs": {..}}``. A query
is prompt and completion in one text, special tokens written out. Rewards are one number a
completion: OpenRLHF has no way in for scores of steps, and knows no "not scored".
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.errors import BackendError, InvalidSetting, ScoringError
from prmkit.records import Unscored
from prmkit.rl.bridges.scoring import Scored, StepRewards
from prmkit.settings import above, at_least

if TYPE_CHECKING:
    from prmkit.endpoint import Endpoint

logger = logging.getLogger(__name__)

ROUTE = "/get_reward"


@dataclass(frozen=True, kw_only=True)
class QueryRewards:
    """How OpenRLHF's queries are scored.

    Attributes:
        rewards: how completions are scored; its ``before`` and ``after`` find the question in a
            prompt that a chat template wrote.
        ends: special tokens, as text, that may end a query and are no part of the completion,
            such as ``"<|im_end|>"``.
        unscored: the reward of a completion that cannot be scored; without it, that is an error.
            OpenRLHF goes on after such an error only where it has a reward model besides.
    """

    rewards: StepRewards
    ends: tuple[str, ...] = ()
    unscored: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.ends, str) or "" in self.ends:
            raise InvalidSetting(f"ends is {self.ends!r}; it is a tuple of texts, none empty")

    def answer(self, queries: Sequence[str], prompts: Sequence[str]) -> dict[str, Any]:
        """What the protocol answers, as lists of numbers.

        Args:
            queries: [N] each a prompt and its completion.
            prompts: [N].

        Raises:
            ScoringError: if a completion cannot be scored and nothing stands in for its reward.
        """
        found = self._scored(queries, prompts)
        rewards = [one.reward_or(self.unscored) for one in found]
        return {
            "rewards": rewards,
            "scores": rewards,
            "extra_logs": {
                "prm_steps": [float(len(one.steps)) for one in found],
                "prm_unscored": [float(one.reward is None) for one in found],
            },
        }

    def _scored(self, queries: Sequence[str], prompts: Sequence[str]) -> list[Scored]:
        if len(queries) != len(prompts):
            raise ScoringError(f"{len(queries)} queries for {len(prompts)} prompts")
        # A prompt that OpenRLHF cut at its left is not the beginning of its query.
        whole = [q.startswith(p) for q, p in zip(queries, prompts, strict=True)]
        pairs = [(p, q) for q, p, fits in zip(queries, prompts, whole, strict=True) if fits]
        asked = [p for p, _ in pairs]
        found = iter(self.rewards.score(asked, [self._completion(*pair) for pair in pairs]))
        cut = Unscored(reason="the query does not begin with its prompt")
        return [next(found) if fits else Scored((), cut, None) for fits in whole]

    def _completion(self, prompt: str, query: str) -> str:
        text = query[len(prompt) :]
        while end := next((e for e in self.ends if text.rstrip().endswith(e)), None):
            text = text.rstrip().removesuffix(end)
        return text


class _Asked:
    """Queries of one request, and what became of them.

    Args:
        queries: [N].
        prompts: [N].
    """

    def __init__(self, queries: Sequence[str], prompts: Sequence[str]):
        self.queries, self.prompts = queries, prompts
        self.answer: dict[str, Any] | None = None
        self.error: Exception | None = None


class _Together:
    """Requests from many threads, scored together: OpenRLHF sends each completion by itself.

    One thread scores at a time. Who comes meanwhile waits, and the first of them then scores all
    that have gathered, in one batch.

    Args:
        queries: how they are scored.
    """

    def __init__(self, queries: QueryRewards):
        self._queries = queries
        self._turn, self._list = threading.Lock(), threading.Lock()
        self._waiting: list[_Asked] = []

    def answer(self, queries: Sequence[str], prompts: Sequence[str]) -> dict[str, Any]:
        """See `QueryRewards.answer`."""
        own = _Asked(queries, prompts)
        with self._list:
            self._waiting.append(own)
        with self._turn:
            if own.answer is None and own.error is None:
                with self._list:
                    gathered, self._waiting = self._waiting, []
                self._score(gathered)
        if own.answer is None:
            raise own.error or AssertionError("a request is answered or refused")
        return own.answer

    def _score(self, gathered: Sequence[_Asked]) -> None:
        """Score requests together, or each by itself where one of them cannot be."""
        try:
            told = self._queries.answer(
                [q for one in gathered for q in one.queries],
                [p for one in gathered for p in one.prompts],
            )
        except Exception as error:
            # Each thread raises its own.
            if len(gathered) == 1 or isinstance(error, BackendError):
                for one in gathered:
                    one.error = error
            else:
                for one in gathered:
                    self._score([one])
            return
        begin = 0
        for one in gathered:
            part = slice(begin, begin := begin + len(one.queries))
            one.answer = {
                "rewards": told["rewards"][part],
                "scores": told["scores"][part],
                "extra_logs": {name: v[part] for name, v in told["extra_logs"].items()},
            }


RewardFunction = Callable[[Sequence[str], Sequence[str], Sequence[Any]], dict[str, Any]]


def reward_func(queries: QueryRewards) -> RewardFunction:
    """The function that a ``.py`` file for ``--reward.remote_url`` defines, tensors out.

    OpenRLHF calls it from many threads; what gathers meanwhile is scored in one batch.
    """
    together = _Together(queries)

    def answer(asked: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> Any:
        import torch

        del labels
        told = together.answer(asked, prompts)
        logs = {name: torch.tensor(values) for name, values in told["extra_logs"].items()}
        rewards = torch.tensor(told["rewards"])
        return {"rewards": rewards, "scores": rewards, "extra_logs": logs}

    return answer


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What a server of rewards takes.

    Attributes:
        body: bytes of a request.
        queries: of a request.
        waiting: requests that may wait for the scorer; further ones are told to come back.
        seconds: that a client may take to send its request.
    """

    body: int = 16 * 2**20
    queries: int = 4096
    waiting: int = 512
    seconds: float = 60.0

    def __post_init__(self) -> None:
        at_least(1, body=self.body, queries=self.queries, waiting=self.waiting)
        above(0, seconds=self.seconds)


class RewardServer:
    """A server of rewards that runs in a thread; `serve` starts it.

    Attributes:
        url: of the route, for ``--reward.remote_url``.
    """

    def __init__(self, http: ThreadingHTTPServer):
        self._http = http
        host, port = http.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        self.url = f"http://{shown}:{port}{ROUTE}"
        self._thread = threading.Thread(target=http.serve_forever, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Serve until `close`, or Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Take no more requests, and leave the port."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> RewardServer:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def serve(
    queries: QueryRewards,
    host: str = "127.0.0.1",
    port: int = 5000,
    limits: ServerLimits | None = None,
) -> RewardServer:
    """Serve rewards at ``POST /get_reward``; ``GET /health`` tells that it is there.

    Requests that gather while the scorer is busy are scored in one batch. The server asks for no
    key: whoever reaches the port may ask.

    Args:
        queries: how they are scored.
        host: where it listens; ``"0.0.0.0"`` for other machines.
        port: 0 for a free one.
        limits: by default `ServerLimits`.

    Raises:
        OSError: if the port is taken.
    """

    class Handler(_Handler):
        pass

    Handler.queries, Handler.limits = queries, limits or ServerLimits()
    Handler.timeout = Handler.limits.seconds
    Handler.together = _Together(queries)
    Handler.places = threading.BoundedSemaphore(Handler.limits.waiting)
    return RewardServer(_Server((host, port), Handler))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A trainer sends a whole batch's requests at once.
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Such as a client that hangs up before it has its answer.
        logger.info("a request of %s broke off", client_address, exc_info=True)


class _Refused(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        reason: told to the client.
    """

    def __init__(self, status: int, reason: str):
        self.status, self.reason = status, reason
        super().__init__(status, reason)


class _Handler(BaseHTTPRequestHandler):
    queries: QueryRewards
    limits: ServerLimits
    together: _Together
    places: threading.BoundedSemaphore
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/health":
            self._told(404, {"error": f"there is GET /health and POST {ROUTE}"})
            return
        self._told(200, {"model": self.queries.rewards.scorer.name})

    def do_POST(self) -> None:
        try:
            self._told(200, self._answer(self._body()))
        except _Refused as refused:
            self._told(refused.status, {"error": refused.reason})
        except TimeoutError:
            self.close_connection = True

    def _body(self) -> bytes:
        """The request's body; one that is left unread ends the connection."""
        self.close_connection = True
        if self.path != ROUTE:
            raise _Refused(404, f"there is GET /health and POST {ROUTE}")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise _Refused(411, "the request does not say its Content-Length")
        if int(length) > self.limits.body:
            raise _Refused(413, f"{length} bytes; {self.limits.body} are allowed")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _Refused(400, f"{len(body)} bytes came of {length}")
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        return body

    def _answer(self, body: bytes) -> dict[str, Any]:
        queries, prompts = self._read(body)
        if not self.places.acquire(blocking=False):
            raise _Refused(503, f"{self.limits.waiting} requests are waiting; come back later")
        try:
            return self.together.answer(queries, prompts)
        except ScoringError as error:
            raise _Refused(422, str(error)) from None
        except BackendError as error:
            logger.warning("the scorer's server failed: %s", error)
            raise _Refused(503, "the scorer's own server does not answer") from None
        except Exception:
            # The client gets no traceback; who serves does.
            logger.exception("scoring failed")
            raise _Refused(500, "scoring failed; the server's log says why") from None
        finally:
            self.places.release()

    def _read(self, body: bytes) -> tuple[list[str], list[str]]:
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Refused(400, f"the body is no JSON: {error}") from None
        if not isinstance(asked, dict):
            raise _Refused(422, f"the body is a {type(asked).__name__}; an object is expected")
        lists = []
        for name in ("query", "prompts"):
            found = asked.get(name)
            if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
                raise _Refused(422, f"{name!r} is not a list of texts")
            lists.append(found)
        queries, prompts = lists
        labels = asked.get("labels")
        if labels is not None and (not isinstance(labels, list) or len(labels) != len(queries)):
            raise _Refused(422, f"'labels' is not a list of {len(queries)}, one for each query")
        if len(queries) != len(prompts):
            raise _Refused(422, f"{len(queries)} queries for {len(prompts)} prompts")
        if not 1 <= len(queries) <= self.limits.queries:
            raise _Refused(422, f"{len(queries)} queries; 1 to {self.limits.queries} are allowed")
        return queries, prompts

    def _told(self, status: int, answer: Mapping[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 503:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *parts: object) -> None:
        logger.debug("%s: %s", self.address_string(), format % parts)

    def version_string(self) -> str:
        return "prmkit"


class RemoteAnswer(NamedTuple):
    """What a server of rewards answered.

    Attributes:
        rewards: [N].
        scores: [N] what OpenRLHF filters samples by; the rewards where it names none.
        extra_logs: further numbers, by name.
    """

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, Any]


@dataclass(frozen=True)
class RemoteReward:
    """A server that speaks OpenRLHF's protocol, asked from here.

    Attributes:
        endpoint: where it is, and how often it is tried.
        route: of the rewards.
    """

    endpoint: Endpoint
    route: str = field(default=ROUTE, kw_only=True)

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any] | None = None
    ) -> RemoteAnswer:
        """Ask for the rewards of queries.

        Args:
            queries: [N] each a prompt and its completion.
            prompts: [N].
            labels: [N], by default None for each.

        Raises:
            RequestRefused: if the server will not answer this.
            BackendError: if it does not answer, or not with a finite number for each query.
        """
        if not len(queries) == len(prompts) == len(queries if labels is None else labels):
            raise ScoringError(
                f"{len(queries)} queries, {len(prompts)} prompts and "
                f"{0 if labels is None else len(labels)} labels"
            )
        body = {
            "query": list(queries),
            "prompts": list(prompts),
            "labels": [None] * len(queries) if labels is None else list(labels),
        }
        return self.endpoint.post(self.route, body, lambda told: _read(told, len(queries)))


def _read(told: Mapping[str, Any], n: int) -> RemoteAnswer:
    from prmkit.endpoint import FaultyAnswer

    columns: dict[str, list[float]] = {}
    for name in ("rewards", "scores"):
        found = told.get(name)
        if found is None and name == "scores":
            found = columns["rewards"]
        if not isinstance(found, list) or len(found) != n:
            said = f"{len(found)} numbers" if isinstance(found, list) else repr(found)[:80]
            raise FaultyAnswer(f"{name!r} is {said}; {n} numbers were expected")
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in found):
            raise FaultyAnswer(f"{name!r} holds what is no number")
        columns[name] = [float(v) for v in found]
    logs = told.get("extra_logs")
    return RemoteAnswer(columns["rewards"], columns["scores"], logs if logs is not None else {})
