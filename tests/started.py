"""Real servers, started for a test and ended after it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time

import httpx2

START_SECONDS = 300


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """A server that can be killed and begun again, at the same address; `log` gets what it says.

    As a context it is begun, waited for, and ended.
    """

    def __init__(self, command, port, log, **environment):
        self._command, self._log = list(map(str, command)), log
        self._environment = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
        self.url = f"http://127.0.0.1:{port}"
        self._process = None

    def __enter__(self):
        self.begin()
        try:
            self.wait()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *why):
        self.end()

    def begin(self):
        """Start it, and do not wait for it."""
        with self._log.open("a") as out:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, how=signal.SIGTERM):
        """End it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, how)
        self._process.wait(timeout=60)

    def wait(self):
        """Until it is healthy."""
        for _ in range(START_SECONDS):
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/health").status_code == 200:
                    return
            time.sleep(1)
        raise AssertionError(self._log.read_text()[-3000:])

    def outage(self, when):
        """Kill it when an event is set, and begin it again: the thread that does."""

        def kill():
            assert when.wait(120)
            self.end(signal.SIGKILL)
            time.sleep(3)
            self.begin()

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        return killer


def served_policy(folder, log, *arguments, **environment):
    """A vLLM that serves a policy on this CPU under the name of policy."""
    port = free_port()
    command = [
        *(os.environ["PRMKIT_VLLM"], "serve", folder, "--served-model-name", "policy"),
        *("--enforce-eager", "--max-model-len", 1024, "--dtype", "float32", "--port", port),
        # On CPUs vLLM 0.32 dies of a prompt that is read in parts when its request has a seed.
        *("--max-num-batched-tokens", 65536, *arguments),
    ]
    return Server(command, port, log, VLLM_CPU_KVCACHE_SPACE="1", **environment)


@contextlib.contextmanager
def started(command, port, log, **environment):
    """The address of a server, once it is healthy; `log` gets what it says."""
    with Server(command, port, log, **environment) as server:
        yield server.url
