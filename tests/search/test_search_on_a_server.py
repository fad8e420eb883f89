"""Searches whose policy is a real vLLM, which may be killed: `make test-server`."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from prmkit import DiscriminativeScorer
from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import judge
from prmkit.embedded.world import problems
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.formats.files import read_records
from prmkit.policies.openai import OpenAIPolicy
from prmkit.search import SearchSettings, algorithm, search
from prmkit.search.drive import DriveSettings
from prmkit.search.trace import read_events
from prmkit.search.tree import Cost
from started import served_policy

VLLM = os.environ.get("PRMKIT_VLLM", "")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not Path(VLLM).is_file(), reason="PRMKIT_VLLM names no vllm command"),
]
logger = logging.getLogger(__name__)

FOLDER = WEIGHTS / "policy"
BLOCK = 32
"""Tokens of a block of vLLM's prefix cache; its default on CPUs is 128, more than a question."""
SETTINGS = SearchSettings(split="line", max_step_tokens=200)
OVERLAP = DriveSettings(overlap=True, threads=8)
TRIES = 200
"""Enough for the minute that a server takes to start; the deadline ends them."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    more = ("--block-size", BLOCK, "--enable-prompt-tokens-details")
    with served_policy(FOLDER, log, *more) as made:
        yield made


@pytest.fixture(scope="module")
def prm_model():
    return DiscriminativeScorer(WEIGHTS / "prm", device="cpu")


@pytest.fixture(scope="module")
def capabilities(server):
    found = new_policy(server).capabilities
    assert found.seed, found.describe()
    assert found.n_seeds, found.describe()
    return found


def new_policy(server, capabilities=None):
    """One whose usage is counted from nothing."""
    endpoint = Endpoint(EndpointSettings(url=server.url, attempts=TRIES))
    return OpenAIPolicy(
        endpoint, "policy", tokenizer=load_tokenizer(FOLDER), capabilities=capabilities
    )


def total(found):
    cost = Cost()
    for one in found:
        cost = cost.plus(one.cost)
    return cost


def texts(root):
    return {node.path: (node.text, node.finish) for node in root.walk()}


def agree(name, left, right):
    """The same trees but for the last bits of sums in other batches, which may tip a choice.

    What follows a text that tipped is other text; what is behind the same text is compared.
    """
    same = other = 0
    for one, two in zip(left, right, strict=True):
        ours, theirs = texts(one), texts(two)
        for path in ours.keys() & theirs.keys():
            ends = range(len(path))
            if all(ours[path[:n]] == theirs[path[:n]] for n in ends):
                same += ours[path] == theirs[path]
                other += ours[path] != theirs[path]
    trees = sum(texts(one) == texts(two) for one, two in zip(left, right, strict=True))
    logger.info(
        "%s: %d of %d trees alike; of %d texts behind the same text %d differ",
        *(name, trees, len(left), same + other, other),
    )
    assert same > 100
    assert other <= 0.01 * same
    assert trees >= 0.75 * len(left)


def metric(policy, name):
    lines = policy._endpoint.get_text("/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}_total"))


def run(server, capabilities, scorer, name, options, driving, items):
    """A search, and the share of prompt tokens that the server found in its cache."""
    policy = new_policy(server, capabilities)
    before = [metric(policy, f"prefix_cache_{what}") for what in ("hits", "queries")]
    begin = time.monotonic()
    found = list(
        search(
            items, algorithm(name, **options), policy, scorer,
            settings=SETTINGS, driving=driving, judge=judge,
        )
    )  # fmt: skip
    seconds = time.monotonic() - begin
    after = [metric(policy, f"prefix_cache_{what}") for what in ("hits", "queries")]
    hits, queries = (b - a for a, b in zip(before, after, strict=True))
    cost, usage = total(found), policy.usage
    logger.info(
        "%s, %s: %.1f s for %d problems; %d requests for %d pieces of %d tokens; %d of %d prompt "
        "tokens cached (%.3f), by the server's own counters %d of %d (%.3f)",
        *(name, "overlapping" if driving.overlap else "in rounds", seconds, len(found)),
        *(usage.requests, cost.completions, cost.policy_tokens),
        *(cost.cached_tokens, cost.prompt_tokens, cost.cached_tokens / cost.prompt_tokens),
        *(hits, queries, hits / queries),
    )
    return found, usage, hits / queries


@pytest.mark.parametrize(
    ("name", "options", "start"),
    [("beam", {"n": 8, "width": 4}, 100), ("particle-filter", {"n": 8}, 200)],
)
def test_the_ledger_is_the_servers_count(server, capabilities, prm_model, name, options, start):
    # Problems that nobody asked before: the first run fills the cache for the second.
    items = list(problems("test", 12, start))
    rounds, overlapping = (
        run(server, capabilities, prm_model, name, options, driving, items)
        for driving in (DriveSettings(), OVERLAP)
    )
    for found, usage, rate in (rounds, overlapping):
        cost = total(found)
        assert (cost.policy_tokens, cost.prompt_tokens, cost.cached_tokens) == (
            usage.completion_tokens, usage.prompt_tokens, usage.cached_tokens,
        )  # fmt: skip
        nodes = [node for one in found for node in one.root.walk()]
        assert all(node.error is None for node in nodes)
        assert all(node.ids is not None for node in nodes if node.parent is not None)
        # One request for the children of a node.
        assert usage.requests == sum(bool(node.children) for node in nodes)
        # At best all whole blocks of each prompt but its last token.
        prompts = [node.cost.prompt_tokens for node in nodes if node.cost.prompt_tokens]
        most = sum((n - 1) // BLOCK * BLOCK for n in prompts) / sum(prompts)
        assert cost.cached_tokens / cost.prompt_tokens <= most
        assert cost.cached_tokens / cost.prompt_tokens > 0.9 * most
        assert rate > 0.7
        assert sum(one.node is not None for one in found) > 6
    agree(name, [one.root for one in rounds[0]], [one.root for one in overlapping[0]])


def test_a_search_outlives_its_server(server, capabilities, prm_model, tmp_path):
    """Killed in mid-run and begun again: the search waits for it, and misses nothing."""
    items = list(problems("test", 12, 300))
    options = {"n": 8, "width": 4}
    whole, *_ = run(server, capabilities, prm_model, "beam", options, DriveSettings(), items)
    drawn = threading.Event()
    count = itertools.count(1)

    def note(problem, event):
        del problem
        if event["event"] == "child" and next(count) == 100:
            drawn.set()

    killer = server.outage(drawn)
    policy = new_policy(server, capabilities)
    begin = time.monotonic()
    found = list(
        search(
            items, algorithm("beam", **options), policy, prm_model,
            settings=SETTINGS, driving=OVERLAP, judge=judge, traces=tmp_path, on_event=note,
        )
    )  # fmt: skip
    killer.join()
    logger.info("with a killed server: %.1f s", time.monotonic() - begin)
    cost, usage = total(found), policy.usage
    assert next(count) > 200
    assert (cost.policy_tokens, cost.prompt_tokens, cost.cached_tokens) == (
        usage.completion_tokens, usage.prompt_tokens, usage.cached_tokens,
    )  # fmt: skip
    traced = children(tmp_path)
    assert set(traced.values()) == {1}
    assert set(traced) == {(o.problem.id, n.path) for o in found for n in o.root.walk() if n.path}
    assert all(node.error is None for one in found for node in one.root.walk())
    agree("beam, server killed", [one.root for one in whole], [one.root for one in found])


def children(folder):
    """How often each child is in the traces."""
    found = Counter()
    for path in folder.glob("*.jsonl"):
        events = list(read_events(path))
        assert [e["event"] for e in events].count("end") == 1
        found.update(
            (events[0]["problem"]["id"], tuple(e["path"])) for e in events if e["event"] == "child"
        )
    return found


def test_a_client_that_is_killed_with_its_server_goes_on(server, tmp_path):
    given = [
        *(sys.executable, "-m", "prmkit.cli", "search", "--limit", "12", "--n", "8"),
        *("--algorithm", "particle-filter", "--server", server.url, "--tokenizer", FOLDER),
        *("--overlap", "--concurrency", "8", "--attempts", TRIES),
    ]
    given = list(map(str, given))
    server.wait()
    subprocess.run([*given, "-o", str(tmp_path / "whole")], check=True, timeout=300)
    out = tmp_path / "killed"
    running = subprocess.Popen([*given, "-o", str(out)])
    traces = out / "traces"
    deadline = time.monotonic() + 120
    while sum(f.stat().st_size for f in traces.glob("*")) < 30_000:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.end(signal.SIGKILL)
    running.send_signal(signal.SIGKILL)
    running.wait()
    left = {f: f.read_bytes() for f in traces.glob("*")}
    assert sum(lines.count(b'"event": "child"') for lines in left.values()) > 50
    # Given again while the server is still away.
    server.begin()
    begin = time.monotonic()
    subprocess.run([*given, "-o", str(out)], check=True, timeout=400)
    logger.info("given again beside a server that starts: %.1f s", time.monotonic() - begin)
    traced, at_once = children(traces), children(tmp_path / "whole" / "traces")
    assert set(traced.values()) == {1}
    for path in traces.glob("*.jsonl"):
        events = list(read_events(path))
        assert not any(e.get("error") for e in events)
        # All whole lines were gone on from.
        lines = left.get(path, b"")
        assert path.read_bytes().startswith(lines[: lines.rfind(b"\n") + 1])
    whole, killed = (
        list(read_records(tmp_path / n / "records.jsonl")) for n in ("whole", "killed")
    )
    same = sum(
        [r.trajectory for r in whole if r.trajectory.problem.id == problem]
        == [r.trajectory for r in killed if r.trajectory.problem.id == problem]
        for problem in {r.trajectory.problem.id for r in whole}
    )
    logger.info(
        "client killed: candidates of %d of 12 problems are alike; %d and %d pieces",
        *(same, len(traced), len(at_once)),
    )
    assert same >= 9
    before = {path: path.read_bytes() for path in traces.glob("*")}
    subprocess.run([*given, "-o", str(out)], check=True, timeout=300)
    assert before == {path: path.read_bytes() for path in traces.glob("*")}
