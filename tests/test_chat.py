"""Questions to ids and to text; and ids that do not depend on who else encodes."""

from __future__ import annotations

import threading
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.chat import (
    _RECENT,
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
    end, wrong = tokenizer.eos_token_id, []

    def encode(thread):
        for i in range(300):
            # A new text each time: what was tokenised before would be remembered.
            words = f"{thread}, {i}: " + "a<|end|>b " * 5
            counts = [f(tokenizer, words).count(end) for f in (encode_text, encode_markup)]
            if counts != [0, 5]:
                wrong.append(words)

    threads = [threading.Thread(target=encode, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class Counting:
    """A tokenizer that counts what it is asked."""

    def __init__(self, tokenizer):
        self._own = tokenizer
        self.asked = 0

    def __call__(self, text, **settings):
        self.asked += 1
        return self._own(text, **settings)

    def __len__(self):
        return len(self._own)


@given(st.lists(st.text("ab <|end>", max_size=12), max_size=30), st.integers(0, 400))
def test_what_is_remembered_is_what_is_read(texts, most):
    own = load_tokenizer(WEIGHTS / "policy")
    counting = Counting(own)
    with mock.patch("prmkit.chat._Recent.most", most):
        for text in texts:
            split = own(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            whole = own(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
            assert encode_text(counting, text) == split
            assert encode_markup(counting, text) == whole
            kept = _RECENT[counting]._ids.values()
            assert sum(len(ids) + 100 for ids in kept) <= most


def test_a_text_is_read_once_and_again_where_tokens_were_added():
    own = load_tokenizer(WEIGHTS / "policy")
    counting = Counting(own)
    first = encode_text(counting, "Mia has 3 zebras.")
    first.append(0)
    again = encode_text(counting, "Mia has 3 zebras.")
    assert (counting.asked, again) == (1, first[:-1])
    encode_markup(counting, "Mia has 3 zebras.")
    assert counting.asked == 2
    own.add_tokens(["zebra"])
    assert own.convert_tokens_to_ids("zebra") in encode_text(counting, "Mia has 3 zebras.")


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
