"""A server that answers as OpenAI-compatible servers do, with a small world of its own words.

A real HTTP server on this machine, in a thread or as a process (`python tests/fake_openai.py`).
Its model is either `Babbler`, a chain of words that hangs together, or a real one in a folder.
It imitates one of `MODES`, and may fail at random: `FAULTS`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prmkit.chat import encode_markup
from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.policies.base import SamplingSettings

MODES = ("vllm", "sglang", "llama_cpp", "openai", "prefix", "transformers")
FAULTS = ("busy", "broken", "hang", "half", "garbled", "choices", "nan", "reset")
MAX_LENGTH = 1024


class Refused(Exception):
    def __init__(self, status, message):
        self.status, self.message = status, message
        super().__init__(message)


class Babbler:
    """Words that follow from the last few tokens; greedy or by chance, with an end now and then."""

    def __init__(self, tokenizer, ends=30):
        self._end = tokenizer.eos_token_id
        self._words = sorted(
            token
            for text, token in tokenizer.get_vocab().items()
            if len(text) > 2 and token > 3 and text.strip("Ġ").isalnum()
        )
        self._words += encode_markup(tokenizer, "\n") + encode_markup(tokenizer, " =")
        self._ends = ends

    def speak(self, ids, n_tokens, temperature, top_p, seed):
        """Token ids, one at a time; the last may be the end."""
        rng = random.Random(seed)
        ids = list(ids)
        for _ in range(n_tokens):
            told = hashlib.sha256(str(ids[-3:]).encode()).digest()
            # At times the end is likeliest.
            likeliest = self._end if told[31] * self._ends < 256 * 1.5 else None
            words = [self._words[x * 7 % len(self._words)] for x in told[:6]]
            words = [*words[:5], self._end] if likeliest is None else [likeliest, *words[1:]]
            heights = [2.0 if i == 0 else told[10 + i] / 256 for i in range(6)]
            if words[5] == self._end:
                heights[5] = -1.5
            if temperature == 0:
                token = words[0]
            else:
                weights = [math.exp(h / temperature) for h in heights]
                token = rng.choices(words, weights)[0]
            ids.append(token)
            yield token
            if token == self._end:
                return


class RealModel:
    """A causal language model in a folder, one request at a time."""

    def __init__(self, folder):
        from prmkit.policies.hf import HFPolicy

        self._policy = HFPolicy(folder, device="cpu")
        self._turn = threading.Lock()

    def draw(self, ids, settings, seed):
        with self._turn:
            return self._policy.continue_ids([ids], [1], settings, [seed])[0][0]


class FakeServer:
    """Serves until it is closed.

    Args:
        mode: which server it imitates.
        folder: of a tokenizer, and of a model where `real`.
        real: draw with the folder's model, not with words of its own.
        faults: share of requests to models that fail.
        kinds: how they fail, in turn.
        seed: of the faults.
        poison: a request whose prompt holds this text always fails.
        refuse: one whose prompt holds this text is refused.
        hang: seconds that a hanging request takes.
        delay: seconds that every request takes.
        api_key: refuse requests without it, and repeat theirs.
        trims: the chat template trims what the assistant said.
        sampling: temperature has an effect.
        strict: refuse unknown fields; by default as the imitated server does.
    """

    def __init__(
        self,
        mode="vllm",
        folder=WEIGHTS / "policy",
        *,
        real=False,
        faults=0.0,
        kinds=FAULTS,
        seed=0,
        poison=None,
        refuse=None,
        hang=3.0,
        delay=0.0,
        api_key=None,
        trims=False,
        sampling=True,
        port=0,
        name="served",
        ends=30,
    ):
        assert mode in MODES, mode
        self.mode, self.name, self.hang, self.delay = mode, name, hang, delay
        self.poison, self.refuse, self.api_key, self.trims = poison, refuse, api_key, trims
        self.sampling = sampling
        self.tokenizer = load_tokenizer(folder)
        self.real = RealModel(folder) if real else None
        self.words = Babbler(self.tokenizer, ends)
        self.faults, self.kinds, self._rng = faults, kinds, random.Random(seed)
        self._lock = threading.Lock()
        self.under_way = self.most_under_way = 0
        self.queries = self.hits = 0
        self._cached = set()
        self.bodies = []
        self.failed = Counter()
        self._spoiled_until = 0.0
        owner = self

        class Handler(_Handler):
            server_of = owner

        self._http = _HTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._closing = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def serve_forever(self):
        self._http.serve_forever()

    # What happens to a request

    def fault(self, body):
        """How this request fails, or None."""
        if self.poison is not None and self.poison in self._plain(body):
            return "poison"
        with self._lock:
            if self._rng.random() >= self.faults:
                return None
            kind = self.kinds[sum(self.failed.values()) % len(self.kinds)]
            self.failed[kind] += 1
            return kind

    def _plain(self, body):
        prompt = body.get("prompt")
        if isinstance(prompt, list):
            return self.tokenizer.decode(prompt)
        return prompt or json.dumps(body.get("messages", ""), ensure_ascii=False)

    def enter(self):
        with self._lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)

    def leave(self):
        with self._lock:
            self.under_way -= 1

    def get(self, route):
        if route == "/health":
            return {}
        if route == "/v1/models":
            about = {"id": self.name, "object": "model", "owned_by": "somebody"}
            if self.mode in ("vllm", "sglang"):
                about |= {"owned_by": self.mode, "max_model_len": MAX_LENGTH}
            if self.mode == "llama_cpp":
                about |= {"owned_by": "llamacpp", "meta": {"n_ctx_train": 4096}}
            return {"object": "list", "data": [about]}
        if route == "/version" and self.mode == "vllm":
            return {"version": "0.0-fake"}
        if route == "/props" and self.mode == "llama_cpp":
            return {"default_generation_settings": {"n_ctx": MAX_LENGTH}}
        if route == "/metrics" and self.mode == "vllm":
            return (
                f"vllm:prefix_cache_queries_total {self.queries}\n"
                f"vllm:prefix_cache_hits_total {self.hits}\n"
            )
        raise Refused(404, "Not Found")

    def post(self, route, body):
        with self._lock:
            self.bodies.append((route, body))
        if self.refuse is not None and self.refuse in self._plain(body):
            raise Refused(400, f"this server does not like {self.refuse!r}")
        if body.get("model", self.name) != self.name:
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        if route == "/v1/chat/completions":
            self._check_fields(body, CHAT_FIELDS[self.mode])
            return self._chat(body)
        if route == "/v1/completions" and self.mode not in ("openai", "prefix"):
            self._check_fields(body, RAW_FIELDS[self.mode])
            return self._completions(body)
        if route == "/completion" and self.mode == "llama_cpp":
            return self._native(body)
        raise Refused(404, "Not Found")

    def _check_fields(self, body, known):
        if known is not None and (unknown := sorted(set(body) - known)):
            raise Refused(422, f"unexpected fields: {unknown}")

    def _raw_ids(self, body):
        prompt = body["prompt"]
        if isinstance(prompt, list):
            if self.mode == "transformers":
                raise Refused(400, "prompt must be a string.")
            return prompt
        return encode_markup(self.tokenizer, prompt)

    def _chat_ids(self, body):
        messages = [dict(m) for m in body["messages"]]
        last = messages[-1]
        going_on = last["role"] == "assistant"
        if self.mode == "vllm":
            if body.get("continue_final_message") and body.get("add_generation_prompt", True):
                raise Refused(400, "Cannot set both continue_final_message and ...")
            going_on = bool(body.get("continue_final_message"))
        elif self.mode == "sglang":
            going_on = going_on and bool(body.get("continue_final_message"))
            if not going_on and last["role"] == "assistant":
                last["role"] = "user"
        elif self.mode == "prefix":
            if going_on and not last.get("prefix"):
                raise Refused(400, "Expected last role User or Tool, got assistant")
        elif self.mode in ("openai", "transformers"):
            going_on = False
        if self.trims and last["role"] == "assistant":
            last["content"] = last["content"].rstrip("\n")
        shown = messages[:-1] if going_on else messages
        text = self.tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
        return encode_markup(self.tokenizer, text + (last["content"] if going_on else ""))

    def _draw(self, ids, body, seed, limit):
        """Text, why it ended, the stop text, and token ids."""
        temperature = body.get("temperature", 1.0) if self.sampling else 0.0
        stop = body.get("stop") or []
        if self.mode == "sglang" or seed is None:
            seed = random.randrange(2**31)
        if len(ids) + (1 if self.mode != "vllm" else limit) > MAX_LENGTH:
            raise Refused(400, f"maximum context length is {MAX_LENGTH} tokens, got {len(ids)}")
        limit = min(limit, MAX_LENGTH - len(ids))
        if self.real is not None:
            settings = SamplingSettings(
                temperature=temperature,
                top_p=body.get("top_p", 1.0),
                max_new_tokens=limit,
                stop=tuple(stop),
            )
            drawn, spelled, *_ = self.real.draw(ids, settings, seed)
            matched = next((s for s in stop if drawn.text.endswith(s)), None)
            matched = matched if drawn.finish == "stop" else None
            end = [self.tokenizer.eos_token_id] * (drawn.finish == "eos")
            tokens = [0] * drawn.n_tokens if spelled is None else [*spelled, *end]
            return drawn.text, drawn.finish, matched, tokens
        tokens, finish = [], "length"
        for token in self.words.speak(ids, limit, temperature, body.get("top_p", 1.0), seed):
            tokens.append(token)
            if token == self.tokenizer.eos_token_id:
                return self.tokenizer.decode(tokens[:-1]), "eos", None, tokens
            text = self.tokenizer.decode(tokens)
            ends = [(text.find(s) + len(s), s) for s in stop if s in text]
            if ends:
                end, matched = min(ends)
                # transformers shows the whole token; the others cut at the stop text.
                shown = text if self.mode == "transformers" else text[:end]
                return shown, "stop", matched, tokens
        return self.tokenizer.decode(tokens), finish, None, tokens

    def _drawn(self, ids, body):
        """What is drawn for a body, `n` of them, and the seeds that a server would use."""
        n = body.get("n", 1)
        limit = body.get("max_tokens", body.get("max_completion_tokens", 16))
        if self.mode == "vllm" and n > 1 and body.get("temperature") == 0:
            raise Refused(400, "n must be 1 when using greedy sampling")
        if self.mode in ("llama_cpp", "transformers"):
            n = 1
        seed = body.get("seed")
        if self.mode == "transformers" and seed is not None:
            # One generator for everybody: what runs beside takes numbers from it.
            until = time.monotonic() + 0.2
            while time.monotonic() < until and self.under_way < 2:
                time.sleep(0.005)
            if self.under_way > 1 or self._spoiled_until > time.monotonic():
                self._spoiled_until = time.monotonic() + 0.05
                seed = random.randrange(2**31)
        count = len(ids) // 16 * 16
        blocks = {tuple(ids[:at]) for at in range(16, count + 1, 16)}
        with self._lock:
            cached = 16 * len(blocks & self._cached)
            self.queries, self.hits = self.queries + len(ids), self.hits + cached
            self._cached |= blocks
        drawn = [self._draw(ids, body, None if seed is None else seed + i, limit) for i in range(n)]
        usage = {
            "prompt_tokens": len(ids),
            "completion_tokens": sum(len(tokens) for *_, tokens in drawn),
            "total_tokens": len(ids) + sum(len(tokens) for *_, tokens in drawn),
        }
        if self.mode == "vllm":
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return drawn, usage

    def _choice(self, index, drawn, body):
        text, finish, matched, tokens = drawn
        keeps = {
            "vllm": bool(body.get("include_stop_str_in_output")),
            "sglang": bool(body.get("no_stop_trim")),
            "transformers": True,
        }.get(self.mode, False)
        if finish == "stop" and not keeps:
            text = text[: text.index(matched)]
        choice = {"index": index, "finish_reason": "length" if finish == "length" else "stop"}
        if self.mode == "vllm":
            choice["stop_reason"] = matched
            if body.get("return_token_ids"):
                choice["token_ids"] = tokens
        if self.mode == "sglang":
            end = self.tokenizer.eos_token_id
            choice["matched_stop"] = matched or (end if finish == "eos" else None)
        if body.get("logprobs") and self.mode in ("vllm", "sglang", "llama_cpp"):
            choice["logprobs"] = {"tokens": ["x"], "token_logprobs": [-0.5]}
        return choice, text

    def _completions(self, body):
        drawn, usage = self._drawn(self._raw_ids(body), body)
        choices = []
        for index, one in enumerate(drawn):
            choice, text = self._choice(index, one, body)
            choices.append({**choice, "text": text})
        return {"object": "text_completion", "choices": choices, "usage": usage}

    def _chat(self, body):
        drawn, usage = self._drawn(self._chat_ids(body), body)
        choices = []
        for index, one in enumerate(drawn):
            choice, text = self._choice(index, one, body)
            choices.append({**choice, "message": {"role": "assistant", "content": text}})
        return {"object": "chat.completion", "choices": choices, "usage": usage}

    def _native(self, body):
        ids = self._raw_ids(body)
        text, finish, matched, tokens = self._draw(
            ids, body, body.get("seed"), body.get("n_predict", 16)
        )
        return {
            "content": text[: text.index(matched)] if finish == "stop" else text,
            "stop": True,
            "stop_type": {"eos": "eos", "stop": "word", "length": "limit"}[finish],
            "stopping_word": matched or "",
            "tokens": tokens if body.get("return_tokens") else [],
            "tokens_predicted": len(tokens),
            "tokens_evaluated": len(ids),
            "timings": {"prompt_n": len(ids), "cache_n": 0},
        } | ({"completion_probabilities": [{"id": 1}]} if body.get("n_probs") else {})


_SAMPLING = {"temperature", "top_p", "stop", "n", "max_tokens", "model", "seed"}
CHAT_FIELDS = {
    "vllm": None,
    "sglang": None,
    "llama_cpp": None,
    "openai": (_SAMPLING - {"seed", "max_tokens"})
    | {"messages", "max_completion_tokens", "logprobs", "top_logprobs"},
    "prefix": _SAMPLING | {"messages"},
    "transformers": _SAMPLING | {"messages", "logprobs"},
}
RAW_FIELDS = {
    "vllm": None,
    "sglang": None,
    "llama_cpp": None,
    "transformers": _SAMPLING | {"prompt", "logprobs", "suffix"},
}
"""Fields that a server takes; None takes all, with an effect or without."""


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Clients that go away are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_of: FakeServer

    def log_message(self, *_):
        pass

    def _send(self, status, content, headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _allowed(self):
        given = self.headers.get("Authorization", "")
        if self.server_of.api_key in (None, given.removeprefix("Bearer ")):
            return True
        self._send(401, {"error": f"Incorrect API key provided: {given}"})
        return False

    def do_GET(self):
        if not self._allowed():
            return
        try:
            found = self.server_of.get(self.path)
        except Refused as error:
            self._send(error.status, {"error": error.message})
            return
        self._send(200, found.encode() if isinstance(found, str) else found)

    def do_POST(self):
        server = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        server.enter()
        try:
            self._answer(server, body)
        finally:
            server.leave()

    def _answer(self, server, body):
        kind = server.fault(body)
        if kind == "busy":
            self._send(429, {"error": "too many requests"}, [("Retry-After", "0.05")])
        elif kind in ("broken", "poison"):
            self._send(500, {"error": "fell over"})
        elif kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif kind == "hang":
            server._closing.wait(server.hang)
            self.close_connection = True
        else:
            time.sleep(server.delay)
            try:
                found = server.post(self.path, body)
            except Refused as error:
                self._send(error.status, {"error": {"message": error.message}})
                return
            self._spoiled(kind, found)

    def _spoiled(self, kind, found):
        data = json.dumps(found).encode()
        if kind == "half":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif kind == "garbled":
            self._send(200, data[: len(data) // 2])
        elif kind == "choices":
            self._send(200, {**found, "choices": [], "content": None})
        elif kind == "nan":
            self._send(
                200,
                data.replace(b'"usage": {', b'"usage": {"x": NaN, ').replace(
                    b'"stop": true', b'"stop": NaN'
                ),
            )
        else:
            self._send(200, data)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, default="vllm")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=WEIGHTS / "policy")
    parser.add_argument("--name", default="served")
    parser.add_argument("--real", action="store_true", help="draw with the folder's model")
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--hang", type=float, default=3.0)
    args = parser.parse_args()
    server = FakeServer(
        args.mode,
        args.folder,
        real=args.real,
        faults=args.faults,
        seed=args.seed,
        delay=args.delay,
        hang=args.hang,
        port=args.port,
        name=args.name,
    )
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
