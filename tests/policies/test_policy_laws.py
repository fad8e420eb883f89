"""Every policy keeps the laws; and a policy that breaks one is caught."""

from __future__ import annotations

import random

import pytest

from fake_openai import FakeServer
from prmkit.checkpoints import load_tokenizer
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.policies.base import Completion, SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.openai import OpenAIPolicy
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.testing import POLICY_LAWS, LawBroken, check_policy


def babble(prefix, rng: random.Random) -> str:
    return "".join(rng.choice("ab =\n") for _ in range(rng.randint(0, 60)))


SERVED = ("vllm", "vllm chat", "llama_cpp", "real")
"""Servers that keep to seeds; of the others no completion can be drawn again."""


@pytest.fixture(scope="module", params=["hf", "scripted", *SERVED])
def policy(request):
    if request.param == "hf":
        yield HFPolicy(request.getfixturevalue("tiny_lm"), device="cpu")
    elif request.param == "scripted":
        yield ScriptedPolicy(babble)
    else:
        folder = request.getfixturevalue("tiny_lm")
        mode, _, chat = request.param.partition(" ")
        real = mode == "real"
        with FakeServer("vllm" if real else mode, folder, real=real) as server:
            yield OpenAIPolicy(
                Endpoint(EndpointSettings(url=server.url)),
                tokenizer=None if chat else load_tokenizer(folder),
            )


@pytest.mark.parametrize("law", POLICY_LAWS, ids=lambda law: law.__name__)
def test_law(policy, law):
    law(policy)


class Forgetful(ScriptedPolicy):
    """Draws from a stream that goes on from call to call."""

    def complete(self, prefixes, n, settings, seeds, first=None):
        self.rng = getattr(self, "rng", random.Random(0))
        return super().complete(
            prefixes, n, settings, [self.rng.randrange(2**32) for _ in prefixes]
        )


class Overlong(ScriptedPolicy):
    def complete(self, prefixes, n, settings, seeds, first=None):
        return [[Completion("x" * 99, "length", 99)] * n for _ in prefixes]


class Deaf(ScriptedPolicy):
    """Does not hear stop texts."""

    def complete(self, prefixes, n, settings, seeds, first=None):
        settings = SamplingSettings(max_new_tokens=settings.max_new_tokens)
        return super().complete(prefixes, n, settings, seeds, first)


@pytest.mark.parametrize("broken", [Forgetful, Overlong, Deaf])
def test_a_broken_policy_is_caught(broken):
    with pytest.raises(LawBroken):
        check_policy(broken(babble))
