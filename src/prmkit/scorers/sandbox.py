"""Programs that a model wrote: run in a process that can do little, for a little while.

The process has no network (a network namespace of its own), an empty folder that is deleted, no
environment, and limits on time, memory, output and files; all that it starts ends with it (a
process namespace of its own); it runs as whoever runs prmkit, but cannot become anybody else. Where
the system does not allow such a process, nothing is run.

This keeps a careless program from doing harm. It is not a vault: the process can read what its user
can read. For hostile programs, run prmkit itself in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile

from prmkit.errors import WorkerError

SECONDS = 5
MEMORY = 512 * 2**20
OUTPUT = 10_000
"""Characters of the output that are kept."""

# Runs in the new process before the program: cuts the network, sets the limits. The first process
# of the new namespace is its child; when that ends, so does everything in it.
_PROLOGUE = f"""
import ctypes, os, resource, signal, sys
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWPID = (
    0x10000000, 0x40000000, 0x08000000, 0x20000000
)
refused = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWPID) != 0:
    os.write(1, (refused + os.strerror(ctypes.get_errno())).encode())
    os._exit(0)
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        os.write(1, f"\\nstopped by signal {{os.WTERMSIG(status)}}".encode())
    os._exit(0)
libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
for what, limit in (
    (resource.RLIMIT_CPU, {SECONDS}), (resource.RLIMIT_AS, {MEMORY}),
    (resource.RLIMIT_FSIZE, 2**20), (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(what, (limit, limit))
program = sys.stdin.read()
sys.stdin.close()
sys.argv = ["<program>"]
exec(compile(program, "<program>", "exec"), {{"__name__": "__main__"}})
"""


def run_code(code: str) -> str:
    """What a Python program prints, or how it failed; never longer than `OUTPUT` characters.

    Raises:
        WorkerError: if this system does not allow a process without a network.
    """
    if not code.strip():
        return ""
    # Said by the process itself before the program runs, and unknown to whoever wrote it.
    refused = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROLOGUE, refused],
            cwd=folder,
            env={},
            stdin=subprocess.PIPE,
            # A file, whose size is limited: a pipe would fill our memory.
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                process.communicate(code.encode(errors="replace"), timeout=SECONDS + 1)
            except subprocess.TimeoutExpired:
                return f"stopped after {SECONDS} seconds"
            finally:
                # What the program started dies with it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        text = output.read(4 * OUTPUT + 4).decode(errors="replace")
    if text.startswith(refused):
        raise WorkerError(
            "this system does not allow a process without a network "
            f"({text.removeprefix(refused)[:200]}), so no program of a model is run here"
        )
    return text if len(text) <= OUTPUT else text[:OUTPUT] + "…"
