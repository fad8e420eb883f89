"""A real vLLM and a real `transformers serve` say what the model says here: `make test-server`."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from pathlib import Path

import pytest

from prmkit.checkpoints import load_tokenizer
from prmkit.cli.names import judge
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.world import problems
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.errors import PolicyError
from prmkit.labelling import label, monte_carlo
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.openai import OpenAIPolicy
from prmkit.policies.sampling import sample
from prmkit.records import Trajectory
from prmkit.splitting import splitter
from started import free_port, served_policy, started

VLLM = os.environ.get("PRMKIT_VLLM", "")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not Path(VLLM).is_file(), reason="PRMKIT_VLLM names no vllm command"),
]
logger = logging.getLogger(__name__)

FOLDER = WEIGHTS / "policy"
GREEDY = SamplingSettings(temperature=0, max_new_tokens=200)
DRAWING = SamplingSettings(temperature=1.0, max_new_tokens=200)
BLOCK = 32
"""Tokens of a block of vLLM's prefix cache; its default on CPUs is 128, more than a question."""


@pytest.fixture(scope="module")
def here():
    return HFPolicy(FOLDER, device="cpu")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER)


@pytest.fixture(scope="module")
def solutions(here):
    """Solutions of some problems, whole and in steps."""
    drawn = sample(
        here, list(problems("test", 10)), 1, splitter("line"), judge(), settings=DRAWING, seed=5
    )
    return [solution for group in drawn for solution in group]


@pytest.fixture(scope="module")
def vllm(tmp_path_factory):
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    more = ("--block-size", BLOCK, "--enable-prompt-tokens-details")
    with served_policy(FOLDER, log, *more) as server:
        yield Endpoint(EndpointSettings(url=server.url))


@pytest.fixture(scope="module")
def vllm_policy(vllm, tokenizer):
    return OpenAIPolicy(vllm, tokenizer=tokenizer)


def serve(folder, log):
    """`transformers serve`, from the environment of vLLM."""
    port = free_port()
    command = Path(VLLM).with_name("transformers")
    arguments = ["serve", folder, "--port", port, "--host", "127.0.0.1", "--device", "cpu"]
    return started([command, *arguments], port, log)


def prefixes_of(solutions):
    return [s.prefix(n) for s in solutions for n in range(len(s.steps))]


def test_the_probe_sees_vllm_as_it_is(vllm, vllm_policy):
    can = vllm_policy.capabilities
    assert can.server.startswith("vllm 0.")
    assert (can.route, can.continuation, can.context) == ("/v1/completions", "token_ids", 1024)
    for name in ("keeps_stop", "tells_stop", "samples", "seed", "n", "n_seeds", "logprobs"):
        assert getattr(can, name), can.describe()
    assert can.cached_tokens
    # A chat is continued with the flag, and is seen not to be without it.
    assert OpenAIPolicy(vllm).capabilities.continuation == "continue_final_message"


def test_greedy_words_are_those_of_this_process(vllm_policy, here, solutions):
    prefixes = prefixes_of(solutions)[::2][:20]
    assert len(prefixes) == 20
    assert sum(bool(p.steps) for p in prefixes) > 10
    assert vllm_policy.complete(prefixes, 1, GREEDY, [0] * 20) == here.complete(
        prefixes, 1, GREEDY, [0] * 20
    )
    stops = SamplingSettings(temperature=0, max_new_tokens=200, stop=("\n", " ="))
    assert vllm_policy.complete(prefixes, 1, stops, [0] * 20) == here.complete(
        prefixes, 1, stops, [0] * 20
    )


def test_a_seed_gives_the_same_words_whatever_runs_beside(vllm_policy, solutions):
    prefixes = prefixes_of(solutions)[:12]
    seeds = list(range(12))
    together = vllm_policy.complete(prefixes, 8, DRAWING, seeds)
    assert vllm_policy.complete(prefixes[:1], 8, DRAWING, seeds[:1])[0] == together[0]
    later = vllm_policy.complete(prefixes[::-1], 3, DRAWING, seeds[::-1], [5] * 12)
    assert later[::-1] == [of_prefix[5:] for of_prefix in together]
    other = vllm_policy.complete(prefixes, 8, DRAWING, [s + 100 for s in seeds])
    assert other != together


def tallies(policy, solutions, n_rollouts, seed):
    """Successes and trials of the prefixes that were rolled out, and rollouts a second."""
    start = time.monotonic()
    records = label(
        solutions,
        lambda t: monte_carlo(t, n_rollouts=n_rollouts, kind="soft"),
        policy,
        judge(),
        settings=DRAWING,
        seed=seed,
    )
    found = [
        (won, ran)
        for record in records
        for won, ran in zip(record.labels.successes, record.labels.trials, strict=True)
        if ran == n_rollouts
    ]
    n = sum(ran for _, ran in found)
    return found, n / (time.monotonic() - start)


def compare(left, right):
    """How far two lists of shares are apart, in standard deviations: pooled, and prefix by prefix.

    Pooled: the z of two proportions. Prefix by prefix: the sum of the squared z of each, which has
    a chi-square distribution with as many degrees of freedom as prefixes with both outcomes; its
    distance from their number in units of its own deviation, the root of twice their number.
    """
    assert [ran for _, ran in left] == [ran for _, ran in right]

    def z(a, b, n):
        p = (a + b) / (2 * n)
        return None if p in (0, 1) else (a - b) / math.sqrt(2 * n * p * (1 - p))

    n = sum(ran for _, ran in left)
    pooled = z(sum(won for won, _ in left), sum(won for won, _ in right), n)
    each = [z(a, b, ran) for (a, ran), (b, _) in zip(left, right, strict=True)]
    squares = [x * x for x in each if x is not None]
    return pooled, (sum(squares) - len(squares)) / math.sqrt(2 * len(squares)), len(squares)


def agree(name, policy, here, solutions, n_rollouts):
    ours, our_speed = tallies(here, solutions, n_rollouts, 1)
    theirs, their_speed = tallies(policy, solutions, n_rollouts, 2)
    pooled, by_prefix, used = compare(ours, theirs)
    logger.info(
        "%s: %d prefixes x %d rollouts, shares %.3f here, %.3f there; pooled z %.2f, chi-square of "
        "%d prefixes %.2f deviations off; %.0f rollouts/s here, %.0f there",
        *(name, len(ours), n_rollouts, share(ours), share(theirs), pooled, used, by_prefix),
        *(our_speed, their_speed),
    )
    assert used > 10
    assert abs(pooled) < 4
    assert by_prefix < 4


def share(found):
    return sum(won for won, _ in found) / sum(ran for _, ran in found)


def test_labels_made_by_vllm_are_those_made_here(vllm_policy, here, solutions):
    assert len(prefixes_of(solutions)) - len(solutions) >= 30
    agree("vLLM", vllm_policy, here, solutions, 32)


def metric(vllm, name):
    lines = vllm.get_text("/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}_total"))


@pytest.mark.parametrize("together", [True, False], ids=["n", "single"])
def test_the_servers_prefix_cache_is_used(vllm, vllm_policy, tokenizer, together):
    """Read from the server's own counters: 8 completions of 12 prefixes that nobody sent before."""
    can = vllm_policy.capabilities
    if not together:
        can = type(can)(**{**vars(can), "n": False})
    made = OpenAIPolicy(vllm, tokenizer=tokenizer, capabilities=can)
    start = 400 if together else 500
    prefixes = [
        Trajectory(problem=p.model_copy(update={"prompt": f"{p.text} {q.text}"}))
        for p, q in zip(problems("test", 12, start), problems("test", 12, start + 50), strict=True)
    ]
    queries, hits = metric(vllm, "prefix_cache_queries"), metric(vllm, "prefix_cache_hits")
    begin = time.monotonic()
    made.complete(prefixes, 8, DRAWING, list(range(12)))
    seconds = time.monotonic() - begin
    queries = metric(vllm, "prefix_cache_queries") - queries
    hits = metric(vllm, "prefix_cache_hits") - hits
    logger.info(
        "%s: %.0f of %.0f prompt tokens were in the cache (%.3f); %.1f rollouts/s; usage %s",
        *("n" if together else "single", hits, queries, hits / queries, 96 / seconds, made.usage),
    )
    assert queries > 8 * 12 * 60
    # Seven of eight at best, less what does not fill a block.
    assert hits / queries > 0.6


@pytest.fixture(scope="module")
def sampling_folder(tmp_path_factory):
    """The model with do_sample in its generation config, where `transformers serve` reads it."""
    folder = tmp_path_factory.mktemp("serve") / "policy"
    shutil.copytree(FOLDER, folder)
    config = folder / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_sample": True}))
    return folder


def test_transformers_serve_makes_the_same_labels(sampling_folder, tokenizer, here, solutions):
    """It takes text, keeps stop texts, and shares one generator among all requests: no seeds."""
    with serve(sampling_folder, sampling_folder.with_name("serve.log")) as url:
        made = OpenAIPolicy(
            Endpoint(EndpointSettings(url=url)), str(sampling_folder), tokenizer=tokenizer
        )
        can = made.capabilities
        assert (can.route, can.continuation) == ("/v1/completions", "text"), can.describe()
        assert can.samples
        assert can.keeps_stop
        assert not (can.seed)
        assert not (can.n)
        prefixes = prefixes_of(solutions)[:10]
        stops = SamplingSettings(temperature=0, max_new_tokens=200, stop=("\n", " ="))
        for settings in (GREEDY, stops):
            assert made.complete(prefixes, 1, settings, [0] * 10) == here.complete(
                prefixes, 1, settings, [0] * 10
            )
        agree("transformers serve", made, here, solutions[:6], 16)


def test_transformers_serve_without_do_sample_is_refused(tokenizer, tmp_path):
    with serve(FOLDER, tmp_path / "serve.log") as url:
        made = OpenAIPolicy(Endpoint(EndpointSettings(url=url)), str(FOLDER), tokenizer=tokenizer)
        start = [Trajectory(problem=problem) for problem in problems("test", 1)]
        with pytest.raises(PolicyError, match="does not sample.*do_sample"):
            made.complete(start, 1, DRAWING, [1])
