"""prime-rl: an algorithm that gives each token the advantage of its step.

Read of prime-rl's ``orchestrator/algo/base.py`` and ``routing.py`` of August 2026, and of verifiers
0.4.0, ``v1/graph.py`` and ``v1/trace.py``. A group of episodes comes to ``score_group`` once all of
them have ended. Each holds traces, a trace is a graph of messages with their tokens, and
``assign_advantages(trace, list)`` takes one number for each token that the policy drew, in order.
prime-rl is on no package index, and looks algorithms up in a table of its own,
``prime_rl.orchestrator.algo.ALGORITHM_CLASSES``, by the name in its configuration: what `algorithm`
makes has to be put there in place of one that takes the same settings, such as ``grpo``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidRecord, ScoringError
from prmkit.rl.bridges.placing import Row, TokenAdvantages, token_advantages
from prmkit.rl.bridges.scoring import StepRewards, of_trainer
from prmkit.rl.placing import places, written

PACKAGE = "prime-rl @ git+https://github.com/PrimeIntellect-ai/prime-rl"


def trace_advantages(
    traces: Sequence[Any],
    rewards: StepRewards,
    tokenizer: Tokenizer,
    *,
    advantages: TokenAdvantages | None = None,
    outcome: float = 0.0,
) -> list[list[float]]:
    """What each drawn token of some traces is worth beside the traces of the same agent.

    Args:
        traces: [B] of the episodes of one group, each a single line of messages.
        rewards: how they are scored. The messages before the first drawn one are the problem;
            what comes between drawn ones is what the environment answered.
        tokenizer: of the policy.
        advantages: see `prmkit.rl.bridges.placing.token_advantages`.
        outcome: weight of the trace's own reward, less the mean of its peers', on each token.

    Returns:
        [B] lists, as long as the trace has drawn tokens.

    Raises:
        InvalidRecord: if a trace forks.
    """
    if not traces:
        return []
    talks = [_talk(trace, tokenizer) for trace in traces]
    scored = rewards.score([asked for asked, _, _ in talks], [said for _, said, _ in talks])
    rows = []
    for one, (_, _, drawn) in zip(scored, talks, strict=True):
        n_tokens = sum(map(len, drawn))
        if not one.values:
            rows.append(Row((), (), n_tokens))
            continue
        ends: list[int] = []
        begin = 0
        for ids in drawn:
            steps = rewards.cut(written(tokenizer, ids))
            ends += [begin + end for end in places(tokenizer, ids, steps)]
            begin += len(ids)
        if len(ends) != len(one.values):
            raise ScoringError(f"{len(one.values)} scores for {len(ends)} steps")
        rows.append(Row(one.values, tuple(ends), n_tokens))
    agents = [trace.agent.name for trace in traces]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(agents))}
    found = token_advantages(rows, [numbers[name] for name in agents], advantages)
    extra = [outcome * level for level in _levels(traces, agents)] if outcome else [0.0] * len(rows)
    return [
        [value + level for value in line[: row.n_tokens]]
        for line, row, level in zip(found.tolist(), rows, extra, strict=True)
    ]


def _levels(traces: Sequence[Any], agents: Sequence[str]) -> list[float]:
    """Each trace's reward less the mean of those of its agent's traces."""
    of_agent: dict[str, list[float]] = {}
    for trace, name in zip(traces, agents, strict=True):
        of_agent.setdefault(name, []).append(float(trace.reward))
    means = {name: sum(found) / len(found) for name, found in of_agent.items()}
    return [float(t.reward) - means[name] for t, name in zip(traces, agents, strict=True)]


def _talk(
    trace: Any, tokenizer: Tokenizer
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]], list[list[int]]]:
    """A trace's problem, what followed it, and the drawn tokens of each drawn message."""
    lines = [branch for branch in trace.branches if branch.trainable]
    if len(lines) != 1:
        raise InvalidRecord(
            f"trace {trace.id!r} has {len(lines)} lines of messages; step scores are for traces "
            "that do not fork"
        )
    asked: list[Mapping[str, Any]] = []
    said: list[Mapping[str, Any]] = []
    drawn: list[list[int]] = []
    for node in lines[0].nodes:
        ids = [token for token, own in zip(node.token_ids, node.mask, strict=True) if own]
        if ids:
            drawn.append(ids)
            said.append({"role": "assistant", "content": written(tokenizer, ids)})
            continue
        message = node.message if isinstance(node.message, Mapping) else node.message.model_dump()
        if drawn:
            said.append({**message, "role": "tool"})
        else:
            asked.append(message)
    return asked, said, drawn


def algorithm(
    rewards: StepRewards,
    tokenizer: Tokenizer,
    *,
    advantages: TokenAdvantages | None = None,
    outcome: float = 0.0,
) -> Any:
    """The class of an algorithm for prime-rl's table; see `trace_advantages`.

    Raises:
        MissingTrainer: if there is no prime-rl.
    """
    base = of_trainer("prime_rl.orchestrator.algo.base", PACKAGE)
    routing = of_trainer("prime_rl.orchestrator.algo.routing", PACKAGE)
    lock = threading.Lock()

    def score(traces: Sequence[Any]) -> list[list[float]]:
        with lock:
            return trace_advantages(
                traces, rewards, tokenizer, advantages=advantages, outcome=outcome
            )

    async def score_group(self: Any, episodes: list[Any]) -> None:
        del self
        traces = [trace for _, trace in base.iter_trainable_traces(episodes)]
        # The orchestrator goes on serving its other rollouts meanwhile.
        for trace, values in zip(traces, await asyncio.to_thread(score, traces), strict=True):
            routing.assign_advantages(trace, values)

    return type("StepScoreAlgorithm", (base.Algorithm,), {"score_group": score_group})
