"""A real vLLM on this machine gives the scores that this process gives: `make test-server`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import httpx2
import pytest

from prmkit.records import Problem, Step, Trajectory
from prmkit.scorers.catalogue import launch_lines
from prmkit.scorers.convert_model import fold
from prmkit.scorers.families import DISCRIMINATIVE
from prmkit.scorers.loading import load_scorer
from prmkit.scorers.settings import ModelSettings
from prmkit.testing import tiny_checkpoint
from started import free_port, started

VLLM = os.environ.get("PRMKIT_VLLM", "")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not Path(VLLM).is_file(), reason="PRMKIT_VLLM names no vllm command"),
]
SOLUTIONS = [
    Trajectory(
        problem=Problem(id=str(i), prompt="How many apples has Mia? " * (3 * i + 1)),
        steps=tuple(Step(text=f"So {i} + {j} = {i + j} apples.") for j in range(2 + i)),
    )
    for i in range(4)
]


def launched(family, folder):
    """The arguments that `prm models --launch vllm` gives."""
    start = shlex.split(launch_lines("vllm", str(folder), family)["start"])
    assert start[:3] == ["vllm", "serve", str(folder)]
    return start[3:]


COMPLETED = ("math_shepherd", "granite")
"""Families that are read from log-probabilities of completions; the others are pooled."""
FOLDED = ("pqm", "reasoneval", "skywork")
"""vLLM has no class for their heads; folded into token classifiers it serves them."""
FAMILIES = ("qwen_prm", "trl", *COMPLETED, *FOLDED)


@pytest.fixture(scope="module", params=FAMILIES)
def served(request, tmp_path_factory):
    """A family, its folder, and the address of a server with it."""
    family = request.param
    # vLLM's attention on CPUs needs heads of 32 or more.
    folder = tiny_checkpoint(family, tmp_path_factory.mktemp(family), seed=1, hidden=128)
    if family in FOLDED:
        fold(folder, folder / "folded", DISCRIMINATIVE[family])
        family, folder = None, folder / "folded"
    port = free_port()
    command = [
        *(VLLM, "serve", folder, "--served-model-name", "served", "--enforce-eager"),
        *("--max-model-len", "1024", "--dtype", "float32", "--port", port),
        *launched(family, folder),
    ]
    with started(command, port, folder / "vllm.log", VLLM_CPU_KVCACHE_SPACE="1") as url:
        yield family, folder, url


def test_the_server_gives_the_same_scores(served):
    family, folder, url = served
    here = load_scorer(folder, ModelSettings(family=family, device="cpu")).score(SOLUTIONS)
    there = load_scorer(
        folder, ModelSettings(family=family, server=f"vllm={url}", served_as="served")
    ).score(SOLUTIONS)
    for ours, theirs in zip(here, there, strict=True):
        assert theirs.values == pytest.approx(ours.values, abs=1e-3)
        assert theirs.semantics == ours.semantics
    assert len({value for scored in here for value in scored.values}) > 10
    if family in COMPLETED:
        # One request per prefix: all but its last step was there already.
        assert hits(url) > 0


def hits(url):
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("vllm:prefix_cache_hits_total")
    )


def test_a_solution_that_is_too_long_for_the_server_is_unscored(served):
    family, folder, url = served
    long = Trajectory(
        problem=Problem(id="l", prompt="How many apples has Mia? " * 200),
        steps=(Step(text="So 1 + 1 = 2."),),
    )
    scorer = load_scorer(
        folder, ModelSettings(family=family, server=f"vllm={url}", served_as="served")
    )
    refused, fine = scorer.score([long, SOLUTIONS[0]])
    assert "1024" in refused.reason
    assert len(fine.values) == len(SOLUTIONS[0].steps)
