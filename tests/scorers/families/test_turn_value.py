"""The families for agents: they read a conversation as the policy does."""

import pytest

from prmkit.chat import as_conversation, encode_question, encode_text, single_token
from prmkit.records import Problem, Step, Trajectory
from prmkit.scorers.families import discriminative
from prmkit.tiny_tokenizers import TOKENIZERS

EPISODE = Trajectory(
    problem=Problem(id="q", prompt="Open the lock.\n"),
    steps=(
        Step(text="Action: look", observation="A lock.\n"),
        Step(text="  turn <|im_end|> 3\n", observation="\nClick"),
        Step(text="pull", observation="It opens."),
    ),
    separator="\n",
)
FAMILY = discriminative("turn_value")


@pytest.mark.parametrize("kind", ["chatml", "llama3", "qwen_bos"])
def test_before_an_action_is_what_the_policy_reads_there(kind):
    tokenizer = TOKENIZERS[kind]((), ())
    rendered = FAMILY.render(EPISODE, tokenizer)
    for k, start in enumerate(rendered.starts):
        question, pieces = as_conversation(EPISODE.prefix(k))
        assert pieces == []
        assert rendered.ids[:start] == encode_question(tokenizer, question)


@pytest.mark.parametrize(("kind", "closing"), [("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>")])
def test_an_action_is_read_where_its_turn_ends(kind, closing):
    tokenizer = TOKENIZERS[kind]((), ())
    rendered = FAMILY.render(EPISODE, tokenizer)
    for step, start, at in zip(EPISODE.steps, rendered.starts, rendered.positions, strict=True):
        text = encode_text(tokenizer, step.text)
        closed = [*text, single_token(tokenizer, closing)]
        # After ChatML's mark both a user's message and the end have a line end.
        assert rendered.ids[start : at + 1][: len(closed)] == closed
        assert tokenizer.decode(rendered.ids[start + len(closed) : at + 1]).strip() == ""


@pytest.mark.parametrize("kind", ["chatml", "llama3", "qwen_bos"])
def test_a_state_is_read_where_the_policy_would_go_on(kind):
    tokenizer = TOKENIZERS[kind]((), ())
    rendered = discriminative("turn_state").render(EPISODE, tokenizer)
    assert rendered.ids == FAMILY.render(EPISODE, tokenizer).ids
    for k, at in enumerate(rendered.positions):
        question, _ = as_conversation(EPISODE.prefix(k + 1))
        assert rendered.ids[: at + 1] == encode_question(tokenizer, question)


@pytest.mark.parametrize("name", ["turn_value", "turn_state"])
def test_a_step_that_nothing_was_answered_to_ends_in_a_line(name):
    tokenizer = TOKENIZERS["chatml"]((), ())
    plain = EPISODE.model_copy(
        update={"steps": tuple(Step(text=step.text) for step in EPISODE.steps)}
    )
    rendered = discriminative(name).render(plain, tokenizer)
    assert rendered == discriminative("step_value").render(plain, tokenizer)
