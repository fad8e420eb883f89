"""Small policies for `agents.py`: cloned from the planners of environments, from scratch.

A tokenizer whose pieces are what observations are made of, a language model of a million weights,
and as many demonstrations as it is to learn from. What it learns is what the planner did next.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prmkit.chat import encode_text
from prmkit.checkpoints import save_model
from prmkit.embedded.fitting import Weights, fit
from prmkit.embedded.lessons import Batch
from prmkit.embedded.vocabulary import END, PROBLEM, SOLUTION, tokenizer_of
from prmkit.environments.base import Planner, Task
from prmkit.errors import EnvironmentFailed
from prmkit.records import Step, Trajectory

_PIECES = (
    r"\n- an?(?= )| (?:red|green|blue|purple|yellow|grey) (?:ball|box|key|door)"
    r"| \d+ ahead,?| \d+ to the (?:left|right)|\nFields ahead:| \d+ free,?"
    r"|\nYou carry |\nYou see:|\nMap:|[\n ](?:\^\^|##|\.\.|\?\?|[rgbpye][dkbx])"
    r"(?=[ \n]|$)|(?:go|turn|pick) (?:forward|left|right|up)|(?<=\d|one) \p{L}+ \p{L}+"
    r"| ?\p{L}+| ?\p{N}{1,2}|\n| ?[^\s\p{L}\p{N}]+|\s+"
)
"""Of BabyAI's lines few pieces, a thing the same in lists and missions; a thing that is crafted is
one; else words. Any text can be read."""

POOL = 256
"""Episodes that are sorted by length together."""


class Shown(NamedTuple):
    """A demonstration.

    Attributes:
        episode: of the planner, and of chance.
        planned: of each turn, whether the planner did it; chance's are not learnt.
    """

    episode: Trajectory
    planned: tuple[bool, ...]


def demonstrations(
    planner: Planner, name: str, first: int, n: int, mistakes: float = 0.0, max_steps: int = 20
) -> list[Shown]:
    """Episodes of the environment's planner; tasks to which it knows no way are left out.

    Args:
        planner: the environment.
        name: the kind of task.
        first: the first seed.
        n: how many.
        mistakes: turns that are left to chance, after which the planner plans anew: so it is shown
            what to do behind a mistake, too.
        max_steps: turns of an episode at most.
    """
    found: list[Shown] = []
    seed = first
    while len(found) < n:
        with suppress(EnvironmentFailed):
            found.append(_shown(planner, Task(seed, name), mistakes, max_steps))
        seed += 1
    return found


def _shown(planner: Planner, task: Task, mistakes: float, max_steps: int) -> Shown:
    rng = random.Random(f"{task.name} {task.seed}")
    problem = planner.reset(task).problem
    plan: list[str] = []
    steps: list[Step] = []
    planned: list[bool] = []
    for _ in range(max_steps):
        plan = plan or [*planner.plan()]
        right = plan.pop(0)
        by_plan = rng.random() >= mistakes
        action = right if by_plan else _mistake(right, planner.actions() or (), rng)
        if not by_plan:
            plan = []
        reply = planner.step(action)
        steps.append(Step(text=action, observation=reply.observation))
        planned.append(by_plan)
        if reply.done:
            break
    return Shown(Trajectory(problem=problem, steps=tuple(steps)), tuple(planned))


def _mistake(right: str, legal: Sequence[str], rng: random.Random) -> str:
    """An action of chance, or the right one with a number of chance in it."""
    numbers = [m.span() for m in re.finditer(r"\d+", right)]
    if numbers and rng.random() < 0.5:
        begin, end = rng.choice(numbers)
        return right[:begin] + rng.choice("1234") + right[end:]
    return rng.choice([*legal] or [right])


def texts_of(shown: Sequence[Shown]) -> Iterator[str]:
    """All that is said in episodes."""
    for one, _ in shown:
        yield one.problem.text
        for step in one.steps:
            yield step.text
            yield step.observation or ""


CONTEXT = 4096
"""Tokens that a policy reads at most."""


def row(tokenizer: Any, shown: Shown, observations: bool) -> tuple[list[int], list[bool]]:
    """An episode's token ids as the policy reads them, and which of them are learnt.

    With observations what is answered is learnt too: where that repeats what was done, it teaches
    to copy, and sooner than actions alone do.
    """
    episode = shown.episode
    problem, solution, end = tokenizer.convert_tokens_to_ids([PROBLEM, SOLUTION, END])
    ids = [problem, *encode_text(tokenizer, episode.problem.text), solution]
    said = [False] * len(ids)
    for step, planned in zip(episode.steps, shown.planned, strict=True):
        action = [*encode_text(tokenizer, step.text), end]
        seen = [problem, *encode_text(tokenizer, step.observation or ""), solution]
        ids += action + seen
        said += [planned] * len(action) + [observations] * len(seen)
    # Nothing is said after the last observation.
    n = len(ids) - len(seen)
    return ids[:n], said[:n]


def batches(
    rows: Sequence[tuple[list[int], list[bool]]], seed: int, tokens: int
) -> Iterator[Batch]:
    """The rows over and over in a new order each time, like lengths together."""
    rng = random.Random(seed)
    while True:
        order = [*range(len(rows))]
        rng.shuffle(order)
        for at in range(0, len(order), POOL):
            some = sorted(order[at : at + POOL], key=lambda i: len(rows[i][0]))
            made: list[list[int]] = [[]]
            for i in some:
                if (len(made[-1]) + 1) * len(rows[i][0]) > tokens and made[-1]:
                    made.append([])
                made[-1].append(i)
            rng.shuffle(made)
            for one in made:
                yield _padded([rows[i] for i in one])


def _padded(rows: Sequence[tuple[list[int], list[bool]]]) -> Batch:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    said = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (some, those) in enumerate(rows):
        ids[i, : len(some)] = torch.tensor(some)
        said[i, : len(some)] = torch.tensor(those)
    nothing = torch.full_like(ids, -1)
    return Batch(ids, said, nothing, nothing)


def cloned(
    folder: Path,
    shown: Sequence[Shown],
    *,
    steps: int,
    rate: float = 0.02,
    tokens: int = 8192,
    observations: bool = False,
    hidden: int = 128,
    layers: int = 4,
    seed: int = 0,
) -> dict[str, float]:
    """Train a policy on demonstrations and write its folder.

    Returns:
        Seconds, tokens read, and the mean loss of the last batches.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_of(texts_of(shown), _PIECES, 2048, CONTEXT)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            num_hidden_layers=layers,
            intermediate_size=hidden * 11 // 4,
            num_attention_heads=hidden // 32,
            num_key_value_heads=hidden // 32,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    rows = [row(tokenizer, one, observations) for one in shown]
    done = fit(
        model,
        batches(rows, seed, tokens),
        n_steps=steps,
        learning_rate=rate,
        weights=Weights(meaning=0.0),
    )
    save_model(folder, model, tokenizer, {"made_by": "benchmarks/agents.py"})
    return {"seconds": done.seconds, "tokens": done.n_tokens, "loss": done.losses[-1][1]}
