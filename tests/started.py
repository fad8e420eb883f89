"""Real servers, started for a test and ended after it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time

import httpx2

START_SECONDS = 300


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """A server that can be killed and begun again, at the same address; `log` gets what it says."""

    def __init__(self, command, port, log, **environment):
        self._command, self._log = list(map(str, command)), log
        self._environment = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
        self.url = f"http://127.0.0.1:{port}"
        self._process = None

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


@contextlib.contextmanager
def started(command, port, log, **environment):
    """The address of a server, once it is healthy; `log` gets what it says."""
    server = Server(command, port, log, **environment)
    server.begin()
    try:
        server.wait()
        yield server.url
    finally:
        server.end()
