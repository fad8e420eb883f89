"""A policy on a server: the same completions however it fails, bounded, and never a false one."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import stamina

from fake_openai import FAULTS, FakeServer
from prmkit.chat import encode_question, encode_text
from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.world import problems
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.errors import InputTooLong, InvalidSetting, PolicyError
from prmkit.policies.base import Completion, SamplingSettings, TokenPolicy
from prmkit.policies.hf import HFPolicy
from prmkit.policies.openai import TOGETHER, UNREACHED, OpenAIPolicy
from prmkit.policies.parallel import in_threads
from prmkit.policies.wire import Capabilities
from prmkit.records import Problem, Step, Trajectory

PREFIXES = [
    *(Trajectory(problem=problem) for problem in problems("test", 6)),
    *(
        Trajectory(
            problem=problem,
            steps=(Step(text="So Mia has 3 + 4 = 7 pens.\n"), Step(text="Now 7 * 2 = 14.\n")),
        )
        for problem in problems("test", 6, start=50)
    ),
]
SEEDS = list(range(100, 100 + len(PREFIXES)))
DRAWING = SamplingSettings(max_new_tokens=24)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(WEIGHTS / "policy")


def policy(server, tokenizer=None, *, concurrency=32, capabilities=None, **settings):
    endpoint = Endpoint(EndpointSettings(url=server.url, **settings))
    return OpenAIPolicy(
        endpoint, tokenizer=tokenizer, concurrency=concurrency, capabilities=capabilities
    )


@pytest.fixture(scope="module")
def expected(tokenizer):
    """What a server without faults gives, and what it can do."""
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer)
        return made.complete(PREFIXES, 4, DRAWING, SEEDS), made.capabilities


def test_the_ids_that_are_sent_are_those_that_hf_reads(tokenizer):
    separated = PREFIXES[6].model_copy(update={"separator": " ;"})
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer)
        server.bodies.clear()
        made.complete([PREFIXES[0], PREFIXES[6], separated], 1, DRAWING, [1, 2, 3])
    here = HFPolicy(WEIGHTS / "policy", device="cpu")
    sent = [body["prompt"] for _, body in server.bodies]
    assert sorted(sent) == sorted(here._encode(p) for p in (PREFIXES[0], PREFIXES[6], separated))


def test_markup_in_a_question_is_sent_as_text(tokenizer):
    tricky = Trajectory(problem=Problem(id="t", prompt="a<|end|>b"))
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer)
        server.bodies.clear()
        made.complete([tricky], 1, DRAWING, [1])
    (sent,) = (body["prompt"] for _, body in server.bodies)
    assert sent == encode_question(tokenizer, tricky.problem)
    assert sent.count(tokenizer.eos_token_id) == 0


def test_markup_that_a_server_of_texts_would_read_is_an_error(tokenizer):
    tricky = Trajectory(problem=Problem(id="t", prompt="a<|end|>b"))
    with FakeServer("transformers") as server:
        made = policy(server, tokenizer)
        (bad,), (fine,) = made.complete([tricky, PREFIXES[0]], 1, DRAWING, [1, 2])
    assert bad.finish == "error"
    assert "spells a special token" in bad.error
    assert fine.finish != "error"


def test_with_a_third_of_the_requests_failing_the_completions_are_the_same(tokenizer, expected):
    completions, can = expected
    with (
        stamina.set_testing(True, attempts=15),
        FakeServer("vllm", faults=0.3, hang=1.5, seed=3) as server,
    ):
        made = policy(server, tokenizer, capabilities=replace(can, n=False), timeout=0.6)
        assert made.complete(PREFIXES, 4, DRAWING, SEEDS) == completions
    assert set(server.failed) == set(FAULTS)
    assert server.most_under_way <= 32 + server.failed["hang"]


def test_one_request_for_several_gives_what_single_ones_give(tokenizer, expected):
    completions, can = expected
    assert can.n_seeds
    with FakeServer("vllm") as server:
        single = policy(server, tokenizer, capabilities=replace(can, n=False))
        assert single.complete(PREFIXES, 4, DRAWING, SEEDS) == completions
        assert single.usage.requests == 4 * len(PREFIXES)
        together = policy(server, tokenizer, capabilities=can)
        assert together.complete(PREFIXES, 4, DRAWING, SEEDS) == completions
        assert together.usage.requests == len(PREFIXES)
        later = together.complete(PREFIXES, 3, DRAWING, SEEDS, [1] * len(PREFIXES))
        assert later == [of_prefix[1:] for of_prefix in completions]
        many = together.complete(PREFIXES[:1], TOGETHER + 3, DRAWING, [7])
        assert len(many[0]) == TOGETHER + 3
        assert sorted(body["n"] for _, body in server.bodies[-2:]) == [3, TOGETHER]


def test_never_more_requests_at_once_than_allowed_and_those_of_a_prefix_together(
    tokenizer, expected
):
    _, can = expected
    with FakeServer("vllm", delay=0.03) as server:
        made = policy(server, tokenizer, concurrency=3, capabilities=replace(can, n=False))
        made.complete(PREFIXES, 4, DRAWING, SEEDS)
        assert server.most_under_way == 3
        server.bodies.clear()
        one = policy(server, tokenizer, concurrency=1, capabilities=replace(can, n=False))
        one.complete(PREFIXES, 4, DRAWING, SEEDS)
    prompts = [body["prompt"] for _, body in server.bodies]
    assert all(
        len({tuple(p) for p in prompts[at : at + 4]}) == 1 for at in range(0, len(prompts), 4)
    )


def test_a_prompt_that_always_fails_does_not_spoil_the_others(tokenizer, expected):
    completions, can = expected
    poisoned = Trajectory(problem=Problem(id="x", prompt="poison here"))
    prefixes = [*PREFIXES[:3], poisoned, *PREFIXES[3:]]
    seeds = [*SEEDS[:3], 1, *SEEDS[3:]]
    with stamina.set_testing(True, attempts=3), FakeServer("vllm", poison="poison") as server:
        made = policy(server, tokenizer, capabilities=replace(can, n=False))
        found = made.complete(prefixes, 4, DRAWING, seeds)
    bad = found.pop(3)
    assert found == completions
    for completion in bad:
        assert completion[:3] == ("", "error", 0)
        assert "fell over" in completion.error
    # Each was tried as often as allowed, and no more.
    assert len(server.bodies) == 4 * len(PREFIXES)
    assert sum("poison" in server._plain(b) for _, b in server.bodies) == 0


def test_tries_are_bounded(tokenizer, expected):
    seen = []

    def broken(request):
        seen.append(request)
        return httpx2.Response(500, text="fell over")

    endpoint = Endpoint(
        EndpointSettings(url="http://server.test", attempts=5), httpx2.MockTransport(broken)
    )
    made = OpenAIPolicy(endpoint, tokenizer=tokenizer, capabilities=replace(expected[1], n=False))
    with stamina.set_testing(True, attempts=5):
        made.complete(PREFIXES[:2], 3, DRAWING, [1, 2])
    assert len(seen) == 5 * 2 * 3


def test_a_refused_prompt_is_told_with_the_servers_reason(tokenizer, expected):
    refused = Trajectory(problem=Problem(id="x", prompt="rude words"))
    with FakeServer("vllm", refuse="rude") as server:
        made = policy(server, tokenizer, capabilities=expected[1])
        (bad,), (fine,) = made.complete([refused, PREFIXES[0]], 1, DRAWING, [1, 2])
    assert "does not like 'rude'" in bad.error
    assert fine.finish != "error"


def test_a_server_that_is_gone_is_not_waited_for_for_ever(tokenizer, expected):
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer, concurrency=1, capabilities=expected[1])
    with stamina.set_testing(True, attempts=2):
        found = made.complete(PREFIXES, 1, DRAWING, SEEDS)
    assert {c.finish for (c,) in found} == {"error"}
    assert all("did not answer" in c.error for (c,) in found[:UNREACHED])
    assert all("not asked for" in c.error for (c,) in found[UNREACHED:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"choices": []}, "0 choices came where 1"),
        ({"choices": "none"}, "no list of choices"),
        ({"text": None}, "a text is None"),
        ({"text": "\ud800"}, "surrogate"),
        ({"finish_reason": "content_filter"}, "'content_filter'"),
        ({"finish_reason": None}, "ended by None"),
        ({"finish_reason": ["stop"]}, "ended by"),
        ({"index": 3}, "numbered [3]"),
        ({"index": "0"}, "numbered ['0']"),
        ({"completion_tokens": -1}, "completion_tokens is -1"),
        ({"completion_tokens": 1.5}, "completion_tokens is 1.5"),
        ({"completion_tokens": True}, "completion_tokens is True"),
        ({"prompt_tokens": 7}, "read 7 tokens where the prompt has"),
    ],
)
def test_odd_answers_are_errors_with_the_reason(tokenizer, expected, change, reason):
    with FakeServer("vllm") as server:
        real = server.post

        def odd(route, body):
            found = real(route, body)
            for name, value in change.items():
                for place in (found, found["choices"][0], found["usage"]):
                    if name in place:
                        place[name] = value
                        break
                else:
                    raise AssertionError(name)
            return found

        server.post = odd
        made = policy(server, tokenizer, capabilities=expected[1])
        with stamina.set_testing(True, attempts=2):
            ((found,),) = made.complete(PREFIXES[:1], 1, DRAWING, [1])
    assert found.finish == "error"
    assert reason in found.error


@pytest.mark.parametrize("field", ["reasoning_content", "tool_calls"])
def test_words_that_a_parser_took_away_are_missed(field):
    with FakeServer("vllm") as server:
        made = policy(server)
        real = server.post

        def parsed(route, body):
            found = real(route, body)
            found["choices"][0]["message"][field] = "taken away"
            return found

        server.post = parsed
        with stamina.set_testing(True, attempts=2):
            ((found,),) = made.complete(PREFIXES[:1], 1, DRAWING, [1])
    assert field in found.error


def test_a_key_is_in_no_error(tokenizer, expected):
    with FakeServer("vllm", api_key="other") as server:
        made = policy(server, tokenizer, capabilities=expected[1], api_key="s3cret-key")
        ((found,),) = made.complete(PREFIXES[:1], 1, DRAWING, [1])
    assert "answers 401" in found.error
    assert "s3cret-key" not in found.error + repr(vars(made))


STOPS = SamplingSettings(max_new_tokens=40, stop=("ui", "ear"))


@pytest.mark.parametrize("mode", ["sglang", "llama_cpp", "transformers"])
def test_stop_texts_come_out_alike_of_every_server(mode, tokenizer):
    greedy = replace(STOPS, temperature=0)
    with FakeServer("vllm") as server:
        expected = policy(server, tokenizer).complete(PREFIXES, 1, greedy, SEEDS)
    with FakeServer(mode) as server:
        found = policy(server, tokenizer).complete(PREFIXES, 1, greedy, SEEDS)
    assert found == expected
    assert {"stop", "eos"} <= {c.finish for (c,) in found}


def test_stop_texts_are_refused_where_an_end_looks_like_one():
    with FakeServer("openai") as server:
        made = policy(server)
        with pytest.raises(PolicyError, match="neither keeps stop texts nor says"):
            made.complete(PREFIXES[:1], 1, STOPS, [1])


def test_prefixes_are_refused_where_they_would_not_be_continued():
    with FakeServer("openai") as server:
        made = policy(server)
        ((whole,),) = made.complete(PREFIXES[:1], 1, DRAWING, [1])
        assert whole.finish != "error"
        with pytest.raises(PolicyError, match=r"does not continue a partial answer.*closed"):
            made.complete(PREFIXES[6:7], 1, DRAWING, [1])


def test_a_greedy_server_is_not_taken_for_one_that_samples(tokenizer):
    with FakeServer("transformers", sampling=False) as server:
        made = policy(server, tokenizer)
        with pytest.raises(PolicyError, match="does not sample.*do_sample"):
            made.complete(PREFIXES[:1], 1, DRAWING, [1])
        ((found,),) = made.complete(PREFIXES[:1], 1, replace(DRAWING, temperature=0), [1])
    assert found.finish != "error"


def test_a_server_without_seeds_is_told_of_once_and_paid_once(tokenizer, caplog):
    with FakeServer("sglang") as server, caplog.at_level(logging.WARNING, "prmkit"):
        made = policy(server, tokenizer)
        told = [r for r in caplog.records if "does not keep to seeds" in r.getMessage()]
        server.bodies.clear()
        (found,) = made.complete(PREFIXES[:1], 5, DRAWING, [1])
        made.complete(PREFIXES[:1], 5, DRAWING, [1])
    assert len(told) == 1
    assert len([r for r in caplog.records if "seeds" in r.getMessage()]) == 1
    assert [body["n"] for _, body in server.bodies] == [5, 5]
    assert all("seed" not in body for _, body in server.bodies)
    # Counted here, since the server counts all five together.
    for completion in found:
        ids = encode_text(tokenizer, completion.text)
        assert completion.n_tokens == min(len(ids) + (completion.finish == "eos"), 24)


def test_several_are_not_asked_for_where_others_would_come():
    """This server counts its seeds up too, but not each completion's tokens."""
    with FakeServer("prefix") as server:
        made = policy(server)
        assert made.capabilities.n
        assert made.capabilities.seed
        server.bodies.clear()
        (found,) = made.complete(PREFIXES[:1], 3, DRAWING, [1])
        assert made.complete(PREFIXES[:1], 3, DRAWING, [1]) == [found]
    assert all("n" not in body for _, body in server.bodies)
    assert len({body["seed"] for _, body in server.bodies}) == 3


def test_two_callers_share_the_bound(tokenizer, expected):
    with FakeServer("vllm", delay=0.03) as server:
        can = replace(expected[1], n=False)
        made = policy(server, tokenizer, concurrency=3, capabilities=can)
        found = in_threads(lambda _: made.complete(PREFIXES, 4, DRAWING, SEEDS), range(2), 2)
    assert found == [expected[0]] * 2
    assert server.most_under_way == 3
    assert made.usage.requests == 2 * 4 * len(PREFIXES)


def test_without_chance_one_request_is_enough(tokenizer, expected):
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer, capabilities=expected[1])
        (found,) = made.complete(PREFIXES[:1], 5, replace(DRAWING, temperature=0), [1])
        (none,) = made.complete(PREFIXES[:1], 0, replace(DRAWING, temperature=0), [1])
    assert len(found) == 5
    assert len(set(found)) == 1
    assert none == []
    assert made.usage.requests == 1


def test_the_limit_is_always_sent_and_fits_the_context(tokenizer, expected):
    long = Trajectory(problem=Problem(id="l", prompt="Mia has 3 pens. " * 170))
    n_long = len(encode_question(tokenizer, long.problem))
    assert 1000 < n_long < 1024 or n_long < 1000
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer, capabilities=replace(expected[1], context=n_long + 2))
        ((found,),) = made.complete([long], 1, SamplingSettings(max_new_tokens=500), [1])
        assert server.bodies[-1][1]["max_tokens"] == 2
        assert found.n_tokens <= 2
        tight = policy(server, tokenizer, capabilities=replace(expected[1], context=n_long))
        with pytest.raises(InputTooLong, match=f"has {n_long} tokens.*at most {n_long}"):
            tight.complete([long], 1, DRAWING, [1])


def test_what_is_used_is_counted(tokenizer, expected):
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer, capabilities=replace(expected[1], n=False))
        found = made.complete(PREFIXES[6:8], 3, DRAWING, [1, 2])
    lengths = [len(body["prompt"]) for _, body in server.bodies]
    assert made.usage.requests == 6
    assert made.usage.prompt_tokens == sum(lengths)
    assert made.usage.completion_tokens == sum(c.n_tokens for group in found for c in group)
    # Blocks of 16 tokens that came before, of all but the first of each prefix.
    assert made.usage.cached_tokens == server.hits > 0


def ids_of(made, prefixes):
    found = []
    for prefix in prefixes:
        ids = list(made.question_ids(prefix.problem))
        for step in prefix.steps:
            ids += made.text_ids(step.text)
        found.append(ids)
    return found


def costs(drawn):
    """Tokens of prompts, and of these the cached ones, of all that was drawn."""
    of_all = [one for of_prefix in drawn for one in of_prefix]
    return sum(one.n_prompt for one in of_all), sum(one.n_cached for one in of_all)


@pytest.mark.parametrize("several", [True, False])
def test_ids_are_sent_as_they_are_and_paid_for_as_the_server_says(tokenizer, expected, several):
    completions, can = expected
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer, capabilities=replace(can, n=several), concurrency=1)
        assert made.takes_ids
        assert isinstance(made, TokenPolicy)
        ids = ids_of(made, PREFIXES)
        counts = [4, 0, 1, *[4] * (len(ids) - 3)]
        drawn = made.continue_ids(ids, counts, DRAWING, SEEDS)
        sent = [tuple(body["prompt"]) for _, body in server.bodies]
        assert [[one.completion for one in of] for of in drawn] == [
            of[:n] for of, n in zip(completions, counts, strict=True)
        ]
        assert set(sent) == {tuple(p) for p, n in zip(ids, counts, strict=True) if n}
        assert costs(drawn) == (made.usage.prompt_tokens, made.usage.cached_tokens)
        assert made.usage.cached_tokens == server.hits
        assert [one.n_prompt for one in drawn[0]] == (
            [len(ids[0]), 0, 0, 0] if several else [len(ids[0])] * 4
        )
        for one in (one for of_prefix in drawn for one in of_prefix):
            assert tokenizer.decode(one.ids) == one.completion.text
            ends = one.completion.finish == "eos"
            assert len(one.ids) == one.completion.n_tokens - ends
        # Tokens that no text is encoded as.
        odd = [*ids[0], *tokenizer("ap").input_ids, *tokenizer("ples").input_ids]
        made.continue_ids([odd], [1], DRAWING, [1])
        assert server.bodies[-1][1]["prompt"] == odd


def test_without_chance_ids_are_paid_for_once(tokenizer, expected):
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer, capabilities=expected[1])
        greedy = replace(DRAWING, temperature=0)
        ids = ids_of(made, PREFIXES[:3])
        drawn = made.continue_ids(ids, [3, 1, 0], greedy, [1, 2, 3])
        assert [len(of_prefix) for of_prefix in drawn] == [3, 1, 0]
        assert len({one.completion for one in drawn[0]}) == 1
        assert made.usage.requests == 2
        assert costs(drawn) == (made.usage.prompt_tokens, made.usage.cached_tokens)


@pytest.mark.parametrize("mode", ["sglang", "llama_cpp"])
def test_ids_are_told_where_the_server_shows_them(mode, tokenizer):
    with FakeServer(mode) as server:
        made = policy(server, tokenizer)
        assert made.takes_ids
        before = made.usage
        drawn = made.continue_ids(ids_of(made, PREFIXES), [2] * 12, DRAWING, SEEDS)
        assert costs(drawn) == (made.usage.prompt_tokens - before.prompt_tokens, 0)
    of_all = [one for of_prefix in drawn for one in of_prefix]
    assert {one.completion.finish for one in of_all} == {"eos", "length"}
    for one in of_all:
        if mode == "sglang":
            assert one.ids is None
        else:
            assert tokenizer.decode(one.ids) == one.completion.text


def test_ids_are_not_told_where_a_stop_text_ended_inside_a_token(tokenizer, expected):
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer, capabilities=expected[1])
        drawn = made.continue_ids(ids_of(made, PREFIXES), [3] * 12, STOPS, SEEDS)
    stopped = [one for of in drawn for one in of if one.completion.finish == "stop"]
    assert None in {one.ids for one in stopped}
    for one in stopped:
        assert one.ids is None or tokenizer.decode(one.ids) == one.completion.text


def test_an_answer_that_is_good_for_nothing_is_paid_for(tokenizer, expected):
    with FakeServer("vllm") as server:
        real = server.post

        def other(route, body):
            found = real(route, body)
            found["usage"]["prompt_tokens"] = 7
            return found

        server.post = other
        made = policy(server, tokenizer, capabilities=expected[1])
        drawn = made.continue_ids(ids_of(made, PREFIXES[:2]), [3, 3], DRAWING, [1, 2])
    assert {one.completion.finish for of in drawn for one in of} == {"error"}
    assert costs(drawn) == (14, made.usage.cached_tokens)


def test_ids_of_a_prompt_that_fails_do_not_spoil_the_others(tokenizer, expected):
    poisoned = Trajectory(problem=Problem(id="x", prompt="poison here"))
    with stamina.set_testing(True, attempts=2), FakeServer("vllm", poison="poison") as server:
        made = policy(server, tokenizer, capabilities=expected[1])
        ids = ids_of(made, [PREFIXES[0], poisoned])
        fine, bad = made.continue_ids(ids, [2, 2], DRAWING, [SEEDS[0], 1])
    assert [one.completion for one in fine] == expected[0][0][:2]
    for one in bad:
        assert one.completion.finish == "error"
        assert one[1:] == (None, 0, 0, None)


def test_a_server_that_takes_no_ids_says_so(tokenizer):
    with FakeServer("transformers") as server:
        of_texts, of_chats = policy(server, tokenizer), policy(server)
    assert not of_texts.takes_ids
    assert not of_chats.takes_ids
    for made, reason in ((of_texts, "takes prompts as text"), (of_chats, "no tokenizer here")):
        for ask in (
            lambda made=made: made.question_ids(PREFIXES[0].problem),
            lambda made=made: made.text_ids("a"),
            lambda made=made: made.continue_ids([[1]], [1], DRAWING, [1]),
        ):
            with pytest.raises(PolicyError, match=f"{reason}.*vLLM.*tokenizer"):
                ask()


def test_ids_that_make_no_sense_are_refused(tokenizer, expected):
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer, capabilities=replace(expected[1], context=8))
        with pytest.raises(ValueError, match="1 counts for 2 prefixes"):
            made.continue_ids([[1], [2]], [1], DRAWING, [0, 0])
        with pytest.raises(ValueError, match="prefix 1 has no token"):
            made.continue_ids([[1], []], [1, 1], DRAWING, [0, 0])
        with pytest.raises(InputTooLong, match="prefix 0 has 8 tokens.*at most 8"):
            made.continue_ids([[1] * 8], [1], DRAWING, [0])
        assert server.bodies == []


def test_requests_that_make_no_sense_are_refused(tokenizer, expected):
    with FakeServer("vllm") as server:
        made = policy(server, tokenizer, capabilities=expected[1])
        with pytest.raises(ValueError, match="1 seeds for 12 prefixes"):
            made.complete(PREFIXES, 1, DRAWING, [0])
        with pytest.raises(InvalidSetting, match="concurrency"):
            policy(server, tokenizer, concurrency=0, capabilities=expected[1])
        with pytest.raises(PolicyError, match="does not count tokens"):
            policy(server, capabilities=Capabilities(model="served"))


def test_an_interrupt_ends_it_at_once(tmp_path):
    code = """
import sys
from prmkit.policies.base import SamplingSettings
from prmkit.policies.openai import OpenAIPolicy
from prmkit.policies.parallel import in_threads
from prmkit.policies.wire import Capabilities
from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.records import Problem, Trajectory
made = OpenAIPolicy(
    Endpoint(EndpointSettings(url=sys.argv[1])),
    capabilities=Capabilities(model="served", usage=True, samples=True, seed=True),
)
print("ready", flush=True)
made.complete([Trajectory(problem=Problem(id="p", prompt="a"))], 64, SamplingSettings(), [1])
"""
    with FakeServer("vllm", faults=1.0, kinds=["hang"], hang=60.0) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", code, server.url],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun = time.monotonic()
        while server.under_way < 32:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() - begun < 120
            time.sleep(0.02)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert time.monotonic() - start < 15
    assert process.returncode != 0
    assert "KeyboardInterrupt" in told
    assert server.most_under_way == 32


def test_the_fake_server_runs_as_a_process_of_its_own(tokenizer, expected):
    script = Path(__file__).parents[1] / "fake_openai.py"
    process = subprocess.Popen(
        [sys.executable, str(script), "--mode", "vllm", "--port", "0"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = process.stdout.readline().strip()
        made = OpenAIPolicy(
            Endpoint(EndpointSettings(url=url)), tokenizer=tokenizer, capabilities=expected[1]
        )
        assert made.complete(PREFIXES, 4, DRAWING, SEEDS) == expected[0]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_a_real_model_behind_a_server_says_what_it_says_here(tokenizer):
    with FakeServer("vllm", real=True) as server:
        made = policy(server, tokenizer)
        greedy = SamplingSettings(temperature=0, max_new_tokens=100)
        there = made.complete(PREFIXES, 1, greedy, SEEDS)
    here = HFPolicy(WEIGHTS / "policy", device="cpu").complete(PREFIXES, 1, greedy, SEEDS)
    assert there == here
    assert all(isinstance(c, Completion) for (c,) in there)
    json.dumps(there)
