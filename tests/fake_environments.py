"""Servers that speak as AgentGym's and OpenEnv's do, around a crafting game."""

from __future__ import annotations

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prmkit.environments.base import Task
from prmkit.environments.crafting import crafting


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    # A client may go away at any time.
    handle_error = lambda self, request, address: None  # noqa: E731


class FakeServer:
    """An HTTP server in a thread; `answer(method, route, query, body)` gives status and JSON."""

    def __init__(self, port=0):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body in one packet: apart, the second would wait for an acknowledgement.
            wbufsize = -1

            def _do(self):
                length = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(length) or b"{}")
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                with outer.lock:
                    outer.requests.append((url.path, body or query))
                    found = outer.answer(self.command, url.path, query, body)
                if found is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, answer = found
                sent = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = _do

            def log_message(self, *args):
                pass

        self.lock, self.requests = threading.Lock(), []
        self._server = _Quiet(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method, route, query, body):
        raise NotImplementedError


class AgentGymServer(FakeServer):
    """AgentGym's protocol; `dialect` as in `prmkit.environments.agentgym.DIALECTS`.

    `fault` may be ``error`` (200 with an error in the body at the second step), ``gone`` (the
    connection is cut there), ``status`` (a 500) or a dict that replaces the answer's fields.
    """

    def __init__(self, dialect="textcraft", fault=None, port=0):
        super().__init__(port)
        self.dialect, self.fault = dialect, fault
        self.games, self.steps = {}, {}

    def _id(self, given):
        key = int(given["env_idx" if self.dialect == "webshop" else "id"])
        if key not in self.games:
            raise ValueError(f"The id {key} is not valid.")
        return key

    def answer(self, method, route, query, body):
        try:
            return self._answer(route, query, body)
        except Exception as error:
            return 200, {"error": str(error)}

    def _answer(self, route, query, body):
        shop = self.dialect == "webshop"
        if route == "/create":
            number = len(self.games)
            self.games[number] = crafting()
            return 200, number if shop else {"id": number}
        number = self._id(query or body)
        game = self.games[number]
        if route == "/reset":
            index = body[
                {"webshop": "session_id", "alfworld": "game"}.get(self.dialect, "data_idx")
            ]
            start = game.reset(Task(index, "depth-1"))
            self.steps[number] = 0
            if shop:
                self.seen = start.problem.prompt
                return 200, [None, None]
            told = {"id": number, "observation": start.problem.prompt, "reward": 0, "done": False}
            if self.dialect == "sciworld":
                told |= {"task_description": "Craft it.", "score": 0}
            return 200, told
        if route == "/observation":
            return 200, self.seen
        if route == "/available_actions":
            return 200, [*game.actions(), "", "inventory"]
        if route == "/step":
            self.steps[number] += 1
            if self.steps[number] == 2 and self.fault == "error":
                raise KeyError("the recipe book")
            if self.steps[number] == 2 and self.fault == "gone":
                return None
            if self.steps[number] == 2 and self.fault == "status":
                return 500, {}
            reply = game.step(body["action"])
            score = {"sciworld": 100.0, "babyai": 0.7}.get(self.dialect, 1.0) * bool(reply.success)
            told = {"reward": score, "score": score, "done": reply.done}
            told["state" if shop else "observation"] = reply.observation
            return 200, told | (self.fault if isinstance(self.fault, dict) else {})
        if route == "/close" and self.dialect != "alfworld":
            del self.games[number]
            return 200, {"closed": True}
        return 404, {"detail": "Not Found"}


def openenv_answer(game, kind, data):
    """What an OpenEnv server makes of a reset or a step."""
    if kind == "reset":
        start = game.reset(Task(data["seed"], data.get("depth", "depth-1")))
        return {"observation": {"text": start.problem.prompt}, "reward": None, "done": False}
    reply = game.step(data["message"])
    return {"observation": {"text": reply.observation}, "reward": reply.reward, "done": reply.done}


class OpenEnvServer(FakeServer):
    """OpenEnv over HTTP; one that keeps no state makes a new environment for every request."""

    def __init__(self, keeps=True, fault=None):
        super().__init__()
        self.keeps, self.fault, self.n = keeps, fault, 0
        self.game, self.state = crafting(), {"episode_id": None, "step_count": 0}

    def answer(self, method, route, query, body):
        game = self.game if self.keeps else crafting()
        if route == "/reset":
            if self.keeps:
                self.state = {"episode_id": body["episode_id"], "step_count": 0}
            return 200, openenv_answer(game, "reset", body)
        if route == "/step":
            self.n += 1
            if self.fault is not None and self.n == 2:
                return self.fault
            if not self.keeps:
                game.reset(Task(0, "depth-1"))
            else:
                self.state["step_count"] += 1
            return 200, openenv_answer(game, "step", body["action"])
        if route == "/state":
            return 200, self.state
        return 404, {}


class OpenEnvSocket:
    """OpenEnv over a WebSocket: each connection has an environment of its own."""

    def __init__(self, fault=None):
        from websockets.sync.server import serve

        self.fault, self.sessions, self.closed = fault, 0, 0
        self._server = serve(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._thread.join()

    def _serve(self, socket):
        assert socket.request.path == "/ws"
        self.sessions += 1
        game, n = crafting(), 0
        for message in socket:
            asked = json.loads(message)
            if asked["type"] == "close":
                self.closed += 1
                return
            n += asked["type"] == "step"
            if n == 2 and self.fault == "gone":
                socket.socket.close()
                return
            if n == 2 and self.fault is not None:
                socket.send(json.dumps(self.fault))
                continue
            data = openenv_answer(game, asked["type"], asked["data"])
            socket.send(json.dumps({"type": "observation", "data": data}))
