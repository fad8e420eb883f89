"""Programs that a model wrote: run in a process that can do little, for a little while.

The process has no network (a network namespace of its own), an empty folder that is deleted, no
environment, and limits on time, memory, files and processes; it runs as whoever runs prmkit, but
cannot become anybody else. Where the system does not allow such a process, nothing is run.

This keeps a careless program from doing harm. It is not a vault: the process can read what its user
can read. For hostile programs, run prmkit itself in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile

from prmkit.errors import WorkerError

SECONDS = 5
MEMORY = 512 * 2**20
OUTPUT = 10_000
"""Characters of the output that are kept."""

# Runs in the new process before the program: cuts the network, sets the limits.
_PROLOGUE = f"""
import ctypes, os, resource, sys
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) != 0:
    os.write(2, b"unshare: " + os.strerror(ctypes.get_errno()).encode())
    os._exit(113)
PR_SET_NO_NEW_PRIVS = 38
libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
for what, limit in (
    (resource.RLIMIT_CPU, {SECONDS}), (resource.RLIMIT_AS, {MEMORY}),
    (resource.RLIMIT_FSIZE, 2**20), (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(what, (limit, limit))
program = sys.stdin.read()
sys.stdin.close()
exec(compile(program, "<program>", "exec"), {{"__name__": "__main__"}})
"""


def run_code(code: str) -> str:
    """What a Python program prints, or how it failed; never longer than `OUTPUT` characters.

    Raises:
        WorkerError: if this system does not allow a process without a network.
    """
    if not code.strip():
        return ""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROLOGUE],
            cwd=folder,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            printed, _ = process.communicate(code.encode(), timeout=SECONDS + 1)
        except subprocess.TimeoutExpired:
            return f"stopped after {SECONDS} seconds"
        finally:
            # Children of the program, if it started any, die with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 113:
        raise WorkerError(
            "this system does not allow a process without a network "
            f"({printed.decode(errors='replace')[:200]}), so no program of a model is run here"
        )
    text = printed.decode(errors="replace")
    if process.returncode < 0:
        text += f"\nstopped by {signal.Signals(-process.returncode).name}"
    return text if len(text) <= OUTPUT else text[:OUTPUT] + "…"
