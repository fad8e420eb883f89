"""Runs that are killed again and again end with the bytes of one in peace, and repeat nothing."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from prmkit.files import atomic_text
from prmkit.formats.files import read_records
from prmkit.labelling import label, monte_carlo
from prmkit.labelling.store import kept_in
from prmkit.ledger import Ledger, run_folder
from prmkit.policies.base import SamplingSettings
from prmkit.policies.sampling import Outcome
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Step, Trajectory

# Children of a server without threads: a fork of this process could inherit a lock for good.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["prmkit.labelling", "prmkit.policies.openai"])
SETTINGS = SamplingSettings(max_new_tokens=40)


def trajectories(n, n_steps):
    return [
        Trajectory(
            # Two solutions of each problem, so that they share rollouts.
            problem=Problem(id=f"p{i // 2}", prompt=f"{i // 2}?", answer="1"),
            steps=tuple(Step(text=f"{i % 2 if k else 'same'} {k}\n") for k in range(n_steps)),
        )
        for i in range(n)
    ]


def coin(prefix, rng: random.Random) -> str:
    return rng.choice("xy") * rng.randrange(1, 9)


def by_length(problem, text):
    return Outcome(str(len(text) % 3), len(text) % 3 == 1)


class Noted:
    """A policy whose calls are noted on disk before they are answered: no kill can hide one."""

    def __init__(self, policy, calls: Path):
        self._policy, self._calls, self.name = policy, calls, policy.name

    def complete(self, prefixes, n, settings, seeds, first=None):
        begin = first or [0] * len(prefixes)
        asked = [
            f"{prefix.key}/{number}"
            for prefix, at in zip(prefixes, begin, strict=True)
            for number in range(at, at + n)
        ]
        handle = os.open(self._calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (" ".join(asked) + "\n").encode())
        os.close(handle)
        return self._policy.complete(prefixes, n, settings, seeds, first)


class Work(NamedTuple):
    """A labelling run, from its folder to its last byte.

    Attributes:
        n: solutions.
        url: of a server, or None for a script.
        capabilities: of the server.
    """

    n: int
    url: str | None = None
    capabilities: object = None

    def policy(self):
        if self.url is None:
            return ScriptedPolicy(coin)
        from prmkit.endpoint import Endpoint, EndpointSettings
        from prmkit.policies.openai import OpenAIPolicy

        # Without a tokenizer, which would take a child seconds to load: prefixes go as chats.
        how = EndpointSettings(url=self.url, timeout=0.5, deadline=60, attempts=40, connections=8)
        return OpenAIPolicy(
            Endpoint(how),
            "served",
            concurrency=8,
            capabilities=self.capabilities,
        )

    def __call__(self, folder: Path) -> None:
        with (
            run_folder(folder, {"k": 8}),
            Ledger(folder / "ledger.sqlite", {"k": 8}) as ledger,
            atomic_text(folder / "records.jsonl") as file,
        ):
            records = label(
                trajectories(self.n, 4),
                lambda t: monte_carlo(t, stop_at_success=True),
                Noted(self.policy(), folder.parent / "calls"),
                by_length,
                settings=SETTINGS,
                in_flight=3,
                ledger=ledger,
            )
            for record in records:
                file.write(record.model_dump_json() + "\n")


def killed_after(work: Work, folder: Path, seconds: float) -> bool:
    """Run in a child that is killed after a while; whether it was."""
    child = CONTEXT.Process(target=work, args=(folder,))
    child.start()
    child.join(seconds)
    child.kill()
    child.join()
    code = child.exitcode
    child.close()
    assert code in (0, -9)
    return code == -9


def killing(tmp_path: Path, peaceful: Work, work: Work, kills: int, seed: int) -> None:
    """Kill runs at random moments until there were so many; then compare with a run in peace."""
    began = time.perf_counter()
    (tmp_path / "peace").mkdir()
    assert not killed_after(peaceful, tmp_path / "peace" / "run", 120)
    whole = time.perf_counter() - began
    rng = random.Random(seed)
    killed, of_run = 0, [0]
    while killed < kills:
        folder = tmp_path / str(len(of_run)) / "run"
        folder.parent.mkdir(exist_ok=True)
        # Most lives are short, so that one run is killed many times.
        if killed_after(work, folder, rng.choice([0.1, 0.3, 0.3, 1]) * rng.random() * whole):
            killed += 1
            of_run[-1] += 1
        else:
            of_run.append(0)
    assert not killed_after(work, tmp_path / str(len(of_run)) / "run", 120)
    expected = (tmp_path / "peace" / "run" / "records.jsonl").read_bytes()
    assert len(list(read_records(tmp_path / "peace" / "run" / "records.jsonl"))) == peaceful.n
    needed = (tmp_path / "peace" / "calls").read_text().split()
    assert len(set(needed)) == len(needed)
    for number, times in enumerate(of_run, 1):
        folder = tmp_path / str(number) / "run"
        assert (folder / "records.jsonl").read_bytes() == expected
        assert [f.name for f in folder.iterdir() if f.name.startswith(".")] == []
        with Ledger(folder / "ledger.sqlite", {"k": 8}) as ledger:
            assert kept_in(ledger)[::2] == (len(needed), 0)
        calls = [line.split() for line in (folder.parent / "calls").read_text().splitlines()]
        asked = Counter(rollout for call in calls for rollout in call)
        assert set(asked) == set(needed)
        # What a kill can cost is the call that was in flight.
        assert sum(n - 1 for n in asked.values()) <= times * max(map(len, calls))
        assert len(calls) > 3


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again(tmp_path):
    killing(tmp_path, Work(40), Work(40), 8, 1)


@pytest.mark.slow
def test_two_hundred_kills(tmp_path):
    killing(tmp_path, Work(120), Work(120), 200, 2)


class Served:
    """Servers of their own, in processes: one in peace, and one where 30 % of requests fail."""

    def __init__(self):
        self._running = []

    def __call__(self, *arguments) -> str:
        script = Path(__file__).parents[1] / "fake_openai.py"
        server = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._running.append(server)
        assert server.stdout is not None
        return server.stdout.readline().strip()

    def close(self):
        for server in self._running:
            server.kill()
            server.wait()
            server.stdout.close()


@pytest.fixture
def served():
    servers = Served()
    yield servers
    servers.close()


def works(served, n):
    """The same work by a server in peace and by a faulty one."""
    from prmkit.endpoint import Endpoint, EndpointSettings
    from prmkit.policies.openai import OpenAIPolicy

    peaceful = served("--hang", "1")
    endpoint = Endpoint(EndpointSettings(url=peaceful))
    policy = OpenAIPolicy(endpoint, "served")
    endpoint.close()
    assert policy.capabilities.seed
    assert policy.capabilities.continuation == "continue_final_message"
    faulty = served("--faults", "0.3", "--seed", "3", "--hang", "1")
    return Work(n, peaceful, policy.capabilities), Work(n, faulty, policy.capabilities)


@pytest.mark.slow
def test_two_hundred_kills_with_a_faulty_server(tmp_path, served):
    peaceful, faulty = works(served, 30)
    killing(tmp_path, peaceful, faulty, 200, 4)
