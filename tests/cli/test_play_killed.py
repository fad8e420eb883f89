"""``prm play`` outlives its environment's process, and its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import stamina

import agents
from prmkit.cli import play
from prmkit.formats.files import read_records

SERVER = """
import sys, threading
from fake_environments import AgentGymServer
with AgentGymServer(port=int(sys.argv[1])) as server:
    print(server.url, flush=True)
    threading.Event().wait()
"""


class Server:
    """An environment's server, in a process of its own."""

    def __init__(self, port="0"):
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, port], stdout=subprocess.PIPE, text=True, env=env
        )
        self.url = self._process.stdout.readline().strip()

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


class Murderer(agents.Elsewhere):
    """Kills a server after some calls."""

    def __init__(self, server=None, after=0):
        super().__init__()
        self._server, self._after = server, after

    def complete(self, prefixes, n, settings, seeds, first=None):
        if self._server is not None and len(self.calls) == self._after:
            self._server.close()
        return super().complete(prefixes, n, settings, seeds, first)


def test_a_killed_environment_costs_the_episodes_that_were_under_way(prm, monkeypatch, tmp_path):
    def played(url, agent, name):
        monkeypatch.setattr(play, "open_policy", lambda settings: (agent, {"policy": "agent"}))
        given = ("--seeds", 6, "--samples", 2, "--max-steps", 8, "--in-flight", 4)
        with stamina.set_testing(True, attempts=2, cap=True):
            found = prm("play", f"agentgym:textcraft={url}", *given, "-o", tmp_path / name)
        return found, list(read_records(tmp_path / name / "records.jsonl"))

    with closing(Server()) as server:
        whole_agent = Murderer()
        (code, _, err), whole = played(server.url, whole_agent, "whole")
        assert code == 0, err
        (code, _, err), killed = played(server.url, Murderer(server, 9), "killed")
    assert code == 3
    assert "episodes could not be played" in " ".join(err.split())
    lost = [record for record in killed if record.trajectory.finish == "error"]
    assert 0 < len(lost) < len(killed) == 12
    assert all(r.trajectory.correct is None and "error" in r.meta for r in lost)
    # Those that had ended are there; those under way keep their turns.
    assert any(record.trajectory.steps for record in lost)
    for one, other in zip(killed, whole, strict=True):
        if one not in lost:
            assert one.trajectory == other.trajectory
    with closing(Server(server.url.rsplit(":", 1)[1])) as server:
        again = Murderer()
        (code, _, err), mended = played(server.url, again, "killed")
    assert code == 0, err
    assert sum(again.calls) < sum(whole_agent.calls)
    assert [r.trajectory for r in mended] == [r.trajectory for r in whole]


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    given = [sys.executable, "-m", "prmkit.cli", "play", "crafting", "--policy", "embedded/policy"]
    given += ["--seeds", "40", "--samples", "2", "--max-steps", "3", "--max-new-tokens", "6"]
    given += ["--in-flight", "2", "--model", "embedded/prm"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert subprocess.run([*given, "-o", str(whole)], env=env, check=False).returncode == 0
    ledger, kills = killed / "ledger.sqlite", 0
    for _ in range(2):
        before = _noted(ledger)
        running = subprocess.Popen([*given, "-o", str(killed)], env=env, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and running.poll() is None:
            if _noted(ledger) > before + 30_000:
                break
            time.sleep(0.002)
        kills += running.poll() is None
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert _noted(ledger) > before
    assert kills == 2
    assert subprocess.run([*given, "-o", str(killed)], env=env, check=False).returncode == 0
    first, second = (list(read_records(out / "records.jsonl")) for out in (whole, killed))
    assert [r.trajectory for r in first] == [r.trajectory for r in second]


def _noted(ledger):
    """Bytes of what was noted, its journal included."""
    return sum(file.stat().st_size for file in ledger.parent.glob(f"{ledger.name}*"))
