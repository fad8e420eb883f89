"""What an environment answered is the user's turn, for every policy."""

from __future__ import annotations

import pytest

from fake_openai import FakeServer
from prmkit.chat import encode_markup
from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.errors import PolicyError
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.openai import OpenAIPolicy
from prmkit.records import Problem, Step, Trajectory

DRAWING = SamplingSettings(max_new_tokens=24)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(WEIGHTS / "policy")


def policy(server, tokenizer=None):
    return OpenAIPolicy(Endpoint(EndpointSettings(url=server.url)), tokenizer=tokenizer)


ACTED = Trajectory(
    problem=Problem(id="door", prompt="Get out."),
    steps=(
        Step(text="look<|end|>", observation="A door.<|end|>"),
        Step(text="open it", observation="It opens."),
    ),
)


def test_what_an_environment_answered_is_the_users_turn(tokenizer):
    """The ids are those of the chat template; markup that an observation spells is text."""
    here = HFPolicy(WEIGHTS / "policy", device="cpu")
    conversation = [
        {"role": "user", "content": "Get out."},
        {"role": "assistant", "content": "look"},
        {"role": "user", "content": "A door."},
        {"role": "assistant", "content": "open it"},
        {"role": "user", "content": "It opens."},
    ]
    plain = ACTED.model_copy(
        update={
            "steps": tuple(
                Step(text=s.text.replace("<|end|>", ""), observation=o)
                for s, o in zip(ACTED.steps, ("A door.", "It opens."), strict=True)
            )
        }
    )
    shown = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(here._encode(plain)) == tokenizer.decode(
        encode_markup(tokenizer, shown)
    )
    end = encode_markup(tokenizer, "<|end|>")[0]
    assert here._encode(ACTED).count(end) == here._encode(plain).count(end)
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer)
        server.bodies.clear()
        made.complete([ACTED], 1, DRAWING, [1])
    assert [body["prompt"] for _, body in server.bodies] == [here._encode(ACTED)]


def test_a_server_that_continues_nothing_can_answer_an_environment():
    with FakeServer("openai") as server:
        made = policy(server)
        server.bodies.clear()
        made.complete([ACTED], 1, DRAWING, [1])
        going = ACTED.model_copy(update={"steps": (*ACTED.steps, Step(text="I go"))})
        with pytest.raises(PolicyError, match="does not continue a partial answer"):
            made.complete([going], 1, DRAWING, [1])
    ((_, body),) = server.bodies
    assert [m["role"] for m in body["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert body["messages"][-1]["content"] == "It opens."
