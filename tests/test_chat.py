"""Questions to ids and to text; and ids that do not depend on who else encodes."""

from __future__ import annotations

import threading

import pytest

from prmkit.chat import (
    as_conversation,
    encode_markup,
    encode_question,
    encode_text,
    question_text,
)
from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.records import Message, Problem, Step, Trajectory

CHAT = (Message(role="system", content="Add. "), Message(role="user", content=" 1 + 1?\n"))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(WEIGHTS / "policy")


@pytest.mark.parametrize(
    "problem",
    [Problem(id="p", prompt="Mia has 3 pens.\n"), Problem(id="c", messages=CHAT)],
    ids=["prompt", "messages"],
)
@pytest.mark.parametrize("template", [True, False], ids=["template", "plain"])
def test_the_text_of_a_question_becomes_its_ids(tokenizer, problem, template):
    own = tokenizer.chat_template
    # Trims what it is given; the text shows the messages as they are.
    trimming = own.replace("message['content']", "message['content'] | trim")
    tokenizer.chat_template = trimming if template else None
    try:
        text = question_text(tokenizer, problem)
        assert encode_markup(tokenizer, text) == encode_question(tokenizer, problem)
        assert all(m.content in text for m in problem.messages or ())
    finally:
        tokenizer.chat_template = own


def test_threads_that_read_markup_differently_do_not_disturb_one_another(tokenizer):
    """A fast tokenizer keeps its way to read special tokens from call to call."""
    words = "a<|end|>b " * 5
    expected = encode_text(tokenizer, words), encode_markup(tokenizer, words)
    assert tokenizer.eos_token_id not in expected[0]
    assert expected[1].count(tokenizer.eos_token_id) == 5
    wrong = []

    def encode():
        for _ in range(300):
            if (encode_text(tokenizer, words), encode_markup(tokenizer, words)) != expected:
                wrong.append(1)

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


STEPS = (
    Step(text="I look."),
    Step(text="look", observation="A door."),
    Step(text="open", observation="It opens."),
    Step(text="I go"),
    Step(text=" on."),
)


def test_what_was_answered_becomes_turns_of_a_conversation():
    problem = Problem(id="p", prompt="Get out.", images=("door.png",))
    prefix = Trajectory(problem=problem, steps=STEPS, separator="; ")
    question, pieces = as_conversation(prefix)
    assert [(m.role, m.content) for m in question.messages or ()] == [
        ("user", "Get out."),
        ("assistant", "I look.; look"),
        ("user", "A door."),
        ("assistant", "open"),
        ("user", "It opens."),
    ]
    assert pieces == ["I go", ";  on."]
    assert (question.id, question.prompt, question.images) == ("p", None, ("door.png",))
    assert as_conversation(prefix.prefix(3))[1] == []


def test_a_conversation_goes_on_after_the_messages_of_the_question():
    prefix = Trajectory(problem=Problem(id="c", messages=CHAT), steps=STEPS[1:2])
    question, _ = as_conversation(prefix)
    assert question.messages is not None
    assert question.messages[:2] == CHAT
    assert [m.role for m in question.messages] == ["system", "user", "assistant", "user"]


def test_without_observations_nothing_is_changed():
    problem = Problem(id="p", prompt="1 + 1?")
    prefix = Trajectory(problem=problem, steps=(Step(text="a"), Step(text="b")), separator="\n")
    assert as_conversation(prefix) == (problem, ["a", "\nb"])
