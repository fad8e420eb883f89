"""Every policy keeps the laws; and a policy that breaks one is caught."""

from __future__ import annotations

import random

import pytest

from fake_openai import FakeServer
from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.policies.base import Completion, SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.openai import OpenAIPolicy
from prmkit.policies.scripted import MARK, ScriptedPolicy
from prmkit.testing import (
    POLICY_LAWS,
    LawBroken,
    batches_of_ids_do_not_matter,
    check_policy,
    costs_add_up,
    ids_equal_texts,
    ids_go_on_as_texts_do,
    ids_spell_the_text,
    what_was_read_before_changes_nothing,
)


def babble(prefix, rng: random.Random) -> str:
    return "".join(rng.choice("ab =\n") for _ in range(rng.randint(0, 60)))


SERVED = ("vllm", "vllm chat", "llama_cpp", "real")
"""Servers that keep to seeds; of the others no completion can be drawn again."""


IN_PROCESS = {
    "hf": {},
    "hf, kept no longer than a batch": {"max_kept": 60},
    "hf, nothing kept": {"max_kept": 0},
    "hf, few rows": {"max_rows": 3},
}


@pytest.fixture(scope="module", params=[*IN_PROCESS, "embedded", "scripted", *SERVED])
def policy(request):
    if request.param in IN_PROCESS:
        settings = IN_PROCESS[request.param]
        yield HFPolicy(request.getfixturevalue("tiny_lm"), device="cpu", **settings)
    elif request.param == "embedded":
        yield HFPolicy(WEIGHTS / "policy", device="cpu")
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


class Elsewhere(ScriptedPolicy):
    """Goes on from tokens with another seed than from texts."""

    def continue_ids(self, prefixes, counts, settings, seeds, first=None):
        return super().continue_ids(prefixes, counts, settings, [s + 1 for s in seeds], first)


class Changed(ScriptedPolicy):
    """Changes what it has drawn from tokens."""

    def continue_ids(self, prefixes, counts, settings, seeds, first=None):
        self.calls = getattr(self, "calls", 0) + 1
        drawn = super().continue_ids(prefixes, counts, settings, seeds, first)
        return [
            [self.changed(one, number, prefixes, prefix) for number, one in enumerate(of_prefix)]
            for prefix, of_prefix in zip(prefixes, drawn, strict=True)
        ]


class WithItsEnd(Changed):
    """Counts the end token among the ids of the text."""

    def changed(self, one, number, prefixes, prefix):
        return one._replace(ids=(*one.ids, 0)) if one.completion.finish == "eos" else one


class OneOff(Changed):
    def changed(self, one, number, prefixes, prefix):
        return one._replace(ids=tuple(token + 1 for token in one.ids))


class Crowded(Changed):
    """Draws other words where there are others in the batch."""

    def changed(self, one, number, prefixes, prefix):
        text = one.completion.text
        if len(prefixes) > 5:
            text = text[::-1]
        return one._replace(completion=one.completion._replace(text=text))


class Tired(Changed):
    """Draws other words where it has read a prefix before."""

    def changed(self, one, number, prefixes, prefix):
        read = self.__dict__.setdefault("read", {})
        if read.setdefault(tuple(prefix), self.calls) == self.calls:
            return one
        return one._replace(completion=one.completion._replace(text=one.completion.text + "a"))


class Billed(Changed):
    """Counts the prompt with every completion, and what was cached beside it."""

    def changed(self, one, number, prefixes, prefix):
        return one._replace(n_prompt=len(prefix), n_cached=len(prefix) + 1)


class Free(Changed):
    def changed(self, one, number, prefixes, prefix):
        return one._replace(n_prompt=0)


class Amnesic(ScriptedPolicy):
    """From tokens, forgets the answer where it is no whole line."""

    def continue_ids(self, prefixes, counts, settings, seeds, first=None):
        cut = []
        for ids in prefixes:
            end = len(ids)
            while ids[end - 1] not in (MARK, ord("\n")):
                end -= 1
            cut.append(ids[:end])
        return super().continue_ids(cut, counts, settings, seeds, first)


def heedful(prefix, rng: random.Random) -> str:
    """Babble that depends on the prefix."""
    return babble(prefix, random.Random(f"{rng.random()}/{prefix.text}"))


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Elsewhere, ids_equal_texts),
        (WithItsEnd, ids_spell_the_text),
        (OneOff, ids_spell_the_text),
        (Amnesic, ids_go_on_as_texts_do),
        (Crowded, batches_of_ids_do_not_matter),
        (Tired, what_was_read_before_changes_nothing),
        (Billed, costs_add_up),
        (Free, costs_add_up),
    ],
)
def test_what_goes_wrong_with_ids_is_caught(broken, law):
    law(ScriptedPolicy(heedful))
    with pytest.raises(LawBroken):
        law(broken(heedful))
