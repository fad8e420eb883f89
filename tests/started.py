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


@contextlib.contextmanager
def started(command, port, log, **environment):
    """The address of a server, once it is healthy; `log` gets what it says."""
    with log.open("w") as out:
        process = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, log)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def _wait(url, process, log):
    for _ in range(START_SECONDS):
        assert process.poll() is None, log.read_text()[-3000:]
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{url}/health").status_code == 200:
                return
        time.sleep(1)
    raise AssertionError(log.read_text()[-3000:])
