"""What each kind of server can do is found out, and what it pretends to do is not believed."""

from __future__ import annotations

import json

import pytest
import stamina

from fake_openai import MODES, FakeServer, Refused
from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.vocabulary import build_tokenizer
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.errors import BackendError, PolicyError, RequestRefused, UnknownName
from prmkit.policies.probe import probe


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(WEIGHTS / "policy")


def ask(server, tokenizer=None, model=None, **settings):
    return probe(Endpoint(EndpointSettings(url=server.url, **settings)), model, tokenizer)


RAW, CHAT = "/v1/completions", "/v1/chat/completions"
FLAGS = ("keeps_stop", "tells_stop", "samples", "seed", "n", "n_seeds", "logprobs", "cached_tokens")
KEYS = ("route", "continuation", "context", "limit", *FLAGS)


def seen(route, continuation, context, limit, *flags):
    true = {flag: flag in flags for flag in FLAGS}
    found = {"route": route, "continuation": continuation, "context": context, "limit": limit}
    return {**found, **true}


SGLANG = ("keeps_stop", "tells_stop", "samples", "n", "logprobs")
OPENAI = seen(CHAT, "none", None, "max_completion_tokens", "samples", "n")
PREFIX = seen(CHAT, "prefix", None, "max_tokens", "samples", "seed", "n")
NATIVE = ("tells_stop", "samples", "seed", "logprobs", "cached_tokens")
WITH_TOKENIZER = {
    "vllm": seen(RAW, "token_ids", 1024, "max_tokens", *FLAGS),
    "sglang": seen(RAW, "token_ids", 1024, "max_tokens", *SGLANG),
    "llama_cpp": seen("/completion", "token_ids", 1024, "n_predict", *NATIVE),
    "openai": OPENAI,
    "prefix": PREFIX,
    "transformers": seen(RAW, "text", None, "max_tokens", "keeps_stop", "samples"),
}
WITHOUT = {
    "vllm": seen(CHAT, "continue_final_message", 1024, "max_tokens", *FLAGS),
    "sglang": seen(CHAT, "continue_final_message", 1024, "max_tokens", *SGLANG),
    "llama_cpp": seen(CHAT, "prefill", 1024, "max_tokens", "samples", "seed", "logprobs"),
    "openai": OPENAI,
    "prefix": PREFIX,
    "transformers": seen(CHAT, "none", None, "max_tokens", "keeps_stop", "samples"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("here", [True, False], ids=["tokenizer", "no_tokenizer"])
def test_each_server_is_seen_for_what_it_is(mode, here, tokenizer):
    with FakeServer(mode) as server:
        found = ask(server, tokenizer if here else None)
    expected = (WITH_TOKENIZER if here else WITHOUT)[mode]
    assert {key: getattr(found, key) for key in KEYS} == expected
    assert found.usage
    # Each is told to a person, with how it was found out.
    lines = found.describe().splitlines()
    for key in ("continuation", "keeps_stop", "samples"):
        assert any(line.startswith(f"{key}: ") and "(" in line for line in lines), key
    json.dumps(found.describe())


@pytest.mark.parametrize("mode", ["vllm", "llama_cpp", "openai"])
def test_a_server_that_fails_now_and_then_is_seen_for_the_same(mode, tokenizer):
    with FakeServer(mode) as server:
        expected = ask(server, tokenizer)
    with (
        stamina.set_testing(True, attempts=12),
        FakeServer(
            mode, faults=0.3, kinds=("busy", "broken", "half", "reset", "garbled")
        ) as server,
    ):
        found = ask(server, tokenizer)
    assert {k: getattr(found, k) for k in KEYS} == {k: getattr(expected, k) for k in KEYS}
    assert sum(server.failed.values()) >= 3


def test_a_template_that_trims_line_ends_is_found_out(tokenizer):
    with FakeServer("vllm", trims=True) as server:
        found = ask(server)
    assert found.continuation == "none"
    assert "trims line ends" in found.how["continuation"]
    # Token ids do not pass through the template.
    with FakeServer("vllm", trims=True) as server:
        assert ask(server, tokenizer).continuation == "token_ids"


def test_a_flag_that_has_no_effect_is_not_believed():
    """SGLang without the flag, by a server that takes the flag and does nothing."""
    with FakeServer("sglang") as server:
        server._chat_ids = lambda body, real=server._chat_ids: real(
            {**body, "continue_final_message": False}
        )
        found = ask(server)
    assert found.continuation == "none"
    assert "closed, or taken for another turn" in found.how["continuation"]


def test_a_tokenizer_of_another_model_is_refused():
    other = build_tokenizer(400)
    for mode in ("vllm", "transformers"):
        with FakeServer(mode) as server, pytest.raises(PolicyError, match="of another model"):
            ask(server, other)


def test_a_server_that_adds_to_ids_is_not_sent_ids(tokenizer):
    with FakeServer("vllm") as server:
        server._raw_ids = lambda body, real=server._raw_ids: [0, *real(body)]
        assert ask(server, tokenizer).route == CHAT


def test_a_model_that_writes_no_text_is_continued_by_ids(tiny_lm):
    """Random bytes; nothing that it says becomes the same tokens again."""
    with FakeServer("vllm", tiny_lm, real=True) as server:
        found = ask(server, load_tokenizer(tiny_lm))
    assert found.continuation == "token_ids"


def test_a_server_that_is_always_greedy_is_found_out(tokenizer):
    with FakeServer("transformers", sampling=False) as server:
        found = ask(server, tokenizer)
    assert not found.samples
    assert "do_sample" in found.how["samples"]


def test_a_seed_that_holds_only_alone_is_no_seed(tokenizer):
    with FakeServer("transformers") as server:
        found = ask(server, tokenizer)
        alone = probe(Endpoint(EndpointSettings(url=server.url)), None, tokenizer, concurrency=1)
    assert not found.seed
    assert alone.seed


def test_numbers_of_completions_that_draw_otherwise_are_not_used(tokenizer):
    with FakeServer("vllm") as server:
        drawn = server._drawn
        server._drawn = lambda ids, body: drawn(
            ids, {**body, "seed": body["seed"] + 99} if body.get("n", 1) > 1 else body
        )
        found = ask(server, tokenizer)
    assert found.n
    assert not found.n_seeds


def test_fields_that_turn_off_other_samplers_are_sent_where_they_are_taken(tokenizer):
    with FakeServer("vllm") as server:
        assert ask(server, tokenizer).fields["top_k"] == -1
    with FakeServer("prefix") as server:
        found = ask(server, tokenizer)
    assert found.fields == {}
    assert "refused: min_p" in found.how["fields"]


def test_a_wrong_name_is_told_with_the_right_ones(tokenizer):
    with FakeServer("vllm") as server, pytest.raises(UnknownName, match="Did you mean 'served'"):
        ask(server, tokenizer, "servd")


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_does_not_list_its_models_needs_a_name(status):
    def get(route):
        raise Refused(status, "no list")

    with stamina.set_testing(True, attempts=2), FakeServer("vllm") as server:
        server.get = get
        assert ask(server, model="served").continuation == "continue_final_message"
        with pytest.raises(PolicyError, match="lists 0 models; say which"):
            ask(server)


def test_several_models_need_a_choice():
    with FakeServer("vllm") as server:
        server.get = lambda route: {"data": [{"id": "a"}, {"id": "b"}]}
        with pytest.raises(PolicyError, match=r"lists 2 models: a, b; say which"):
            ask(server)


def test_a_server_that_draws_nothing_is_refused_with_every_reason(tokenizer):
    with (
        FakeServer("vllm", refuse="") as server,
        pytest.raises(PolicyError, match="draws no completion") as caught,
    ):
        ask(server, tokenizer)
    for word in ("token ids", "text", "chat", "does not like"):
        assert word in str(caught.value)


def test_a_wrong_key_is_told_and_not_shown():
    with FakeServer("vllm", api_key="right") as server:
        with pytest.raises(RequestRefused, match="401") as caught:
            ask(server, api_key="s3cret-key")
        assert ask(server, api_key="right").continuation == "continue_final_message"
    assert "s3cret-key" not in str(caught.value)


def test_a_server_that_is_not_there_is_told():
    with FakeServer("vllm") as server:
        pass
    with stamina.set_testing(True), pytest.raises(BackendError, match="did not answer"):
        ask(server)
