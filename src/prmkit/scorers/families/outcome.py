"""Outcome reward models: one number at the end of a solution, given for every prefix.

A sequence classifier reads a chat of the question and the solution, and gives a number at the last
token of the closed conversation. Each prefix of the steps is read as if it were the whole solution,
so that outcome and process reward models compare in one call: the last step's score is the outcome
score of the solution (aggregate by ``last``). Steps are apart by blank lines.

``agent_prm`` is the same for agents: what an environment answers is the user's next turn.

Header: sequence classifiers with one output on a chat, as the reward models of many makers;
AgentPRM: Choudhury 2025, arXiv:2502.10325, rl-llm-agent/Llama-3.2-3B-Instruct-*. Its prompts differ
by environment and are not all published: its rendering here is unverified.
"""

from __future__ import annotations

from dataclasses import replace

from prmkit.chat import Tokenizer, encode_text, turns
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import as_it_is, sigmoid_of_one
from prmkit.scorers.families.wording import bare

HEAD = Linear(1, ("score", "v_head.summary", "v_head", "reward_head", "classifier"))


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The question, and the beginning of the assistant's turn."""
    markup = turns(tokenizer)
    return markup.start + encode_text(tokenizer, problem.text) + markup.to_assistant


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    r"""A step and a blank line, which is not there where the solution ends.

    The two may share a token (".\n\n"), as in the joint ids of a whole solution; where a prefix
    ends, its last tokens are those of the step alone.
    """
    del index
    ids = encode_text(tokenizer, bare(step.text) + "\n\n")
    alone = encode_text(tokenizer, bare(step.text))
    alike = 0
    while alike < min(len(ids), len(alone)) and ids[alike] == alone[alike]:
        alike += 1
    return Piece(ids, alike - 1, 0, tuple(alone[alike:]))


def turn(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """An action, and what the environment answered as the user's next turn."""
    del index
    markup = turns(tokenizer)
    ids = encode_text(tokenizer, bare(step.text))
    at = len(ids) - 1
    ids += markup.to_user + encode_text(tokenizer, (step.observation or "").strip())
    return Piece(ids + markup.to_assistant, at)


def end(tokenizer: Tokenizer) -> list[int]:
    """What closes the conversation."""
    return turns(tokenizer).end


FAMILY = Discriminative(
    name="outcome",
    begin=begin,
    step=step,
    read=as_it_is,
    head=HEAD,
    semantics="value",
    end=end,
)
PROBABILITY = replace(
    FAMILY,
    name="outcome_probability",
    about="Outcome reward models trained on right and wrong: the sigmoid of their number.",
    read=sigmoid_of_one,
    semantics="correctness",
)
AGENT_PRM = replace(
    FAMILY,
    name="agent_prm",
    about="AgentPRM: the value of each action of an agent, from a sequence classifier.",
    step=turn,
    read=sigmoid_of_one,
)
