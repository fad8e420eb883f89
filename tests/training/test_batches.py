"""How a step is cut into passes."""

from __future__ import annotations

import itertools
import random

import pytest

from prmkit.training.batches import BatchSettings, plan_steps
from prmkit.training.parts import make_part
from prmkit.training.targets import Example


def alternatives(n: int, seed: int = 0) -> list[Example]:
    """Of two problems: a path of fifty tokens, left anywhere by five tokens of one's own."""
    rng = random.Random(seed)
    found = []
    for i in range(n):
        problem = i % 2
        ids = [problem + 1] * rng.randrange(1, 50) + [10 + rng.randrange(90) for _ in range(5)]
        found.append(
            Example(
                ids, [len(ids) - 1], [float(i % 3 == 0)], [1.0], [len(ids) - 5], i, f"{problem}"
            )
        )
    return found


@pytest.mark.parametrize("together", [False, True])
def test_passes_are_full_by_what_they_compute(together):
    examples = alternatives(32)
    settings = BatchSettings(batch_size=32, group=32, pass_tokens=1000)
    (step,) = plan_steps(examples, 1, settings, together=together)
    (passes,) = step.shares
    # All of 32 * 30 tokens are some 32 * 5 and two paths.
    assert len(passes) == 1
    few = BatchSettings(batch_size=32, group=32, pass_tokens=70)
    (step,) = plan_steps(examples, 1, few)
    (passes,) = step.shares
    computed = [make_part([examples[i] for i in one], share=True).forest.n_tokens for one in passes]
    assert sorted(i for one in passes for i in one) == list(range(32))
    assert max(computed) <= 70
    # No pass could have taken the next one in.
    for one, after in itertools.pairwise(passes):
        more = [examples[i] for i in (*one, after[0])]
        assert make_part(more, share=True).forest.n_tokens > 70


def test_nothing_shared_counts_whole():
    examples = alternatives(32)
    apart = BatchSettings(batch_size=32, group=32, pass_tokens=200, share=False)
    (step,) = plan_steps(examples, 1, apart)
    (passes,) = step.shares
    for one in passes:
        assert sum(len(examples[i].ids) for i in one) <= 200


def test_processes_get_as_much_to_compute():
    examples = alternatives(64)
    settings = BatchSettings(batch_size=64, group=64, pass_tokens=100_000)
    (step,) = plan_steps(examples, 1, settings, world=2)
    first, second = (
        sum(make_part([examples[i] for i in one], share=True).forest.n_tokens for one in share)
        for share in step.shares
    )
    assert step.examples == list(range(64))
    assert first == pytest.approx(second, rel=0.25)
