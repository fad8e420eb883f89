"""Servers: the exact requests, the answers they may give, and what happens when they fail.

The server here answers as vLLM 0.32 and SGLang 0.5.23 do, with the numbers of the model itself,
which the test computes with transformers; the real vLLM is run by `make test-server`.
"""

from __future__ import annotations

import json

import httpx2
import pytest
import stamina
import torch
from transformers import AutoModel, AutoModelForCausalLM

from prmkit.endpoint import Endpoint, EndpointSettings
from prmkit.errors import CheckpointError
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.backends.sglang import SGLangBackend
from prmkit.scorers.backends.vllm import VLLMBackend
from prmkit.scorers.backends.weights import load_head
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import DISCRIMINATIVE
from prmkit.testing import tiny_checkpoint

SOLUTION = Trajectory(
    problem=Problem(id="q", prompt="How many apples?"),
    steps=(Step(text="So 3 + 4 = 7."), Step(text="The answer is 7.")),
)
URL = "http://server.test"


@pytest.fixture(autouse=True)
def no_waiting():
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        family: tiny_checkpoint(family, tmp_path_factory.mktemp(family))
        for family in ("qwen_prm", "math_shepherd", "granite", "trl", "universal_prm")
    }


def endpoint(handler, **settings):
    return Endpoint(EndpointSettings(url=URL, **settings), httpx2.MockTransport(handler))


def scorer(folders, family, handler, backend=VLLMBackend, **settings):
    found = DISCRIMINATIVE[family]
    made = backend(endpoint(handler, **settings), "served", folders[family], found.head)
    return DiscriminativeScorer(folders[family], family=found, backend=made)


def here(folders, family):
    (found,) = DiscriminativeScorer(
        folders[family], family=DISCRIMINATIVE[family], device="cpu"
    ).score([SOLUTION])
    return found.values


def pooling(folders, family, *, per_token):
    """A server that pools as vLLM does: raw logits per step tag, or per token."""
    folder, head = folders[family], DISCRIMINATIVE[family].head
    body = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    layer = load_head(folder, head, tokenizer, body.config.hidden_size)

    def handler(request):
        sent = json.loads(request.content)
        assert request.url.path == "/pooling"
        assert sent["task"] == "token_classify"
        assert sent["use_activation"] is False
        assert sent["model"] == "served"
        ids = sent["input"]
        assert all(isinstance(token, int) for token in ids)
        with torch.no_grad():
            numbers = layer(body(input_ids=torch.tensor([ids])).last_hidden_state[0])
        tag = tokenizer.convert_tokens_to_ids("<extra_0>")
        rows = [
            n for n, token in zip(numbers.tolist(), ids, strict=True) if per_token or token == tag
        ]
        data = [{"index": 0, "object": "pooling", "data": rows}]
        return httpx2.Response(200, json={"object": "list", "data": data})

    return handler


@pytest.mark.parametrize(
    ("family", "per_token"), [("qwen_prm", False), ("qwen_prm", True), ("trl", True)]
)
def test_pooled_numbers_give_the_same_scores(folders, family, per_token):
    served = scorer(folders, family, pooling(folders, family, per_token=per_token))
    (found,) = served.score([SOLUTION])
    assert found.values == pytest.approx(here(folders, family), abs=1e-5)


def completions(folder, top):
    """A server that completes as vLLM does: the `top` likeliest tokens, or a prompt's own."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def handler(request):
        sent = json.loads(request.content)
        assert request.url.path == "/v1/completions"
        assert sent["max_tokens"] == 1
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([sent["prompt"]])).logits[0].log_softmax(-1)
        choice = {"text": "", "index": 0}
        if "prompt_logprobs" in sent:
            last = sent["prompt"][-1]
            value = {str(last): {"logprob": logits[-2, last].item(), "rank": 9}}
            choice["prompt_logprobs"] = [None, *[{}] * (len(sent["prompt"]) - 2), value]
        else:
            assert sent["return_tokens_as_token_ids"] is True
            best = logits[-1].topk(top)
            choice["logprobs"] = {
                "top_logprobs": [
                    {
                        f"token_id:{i}": v
                        for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                    }
                ]
            }
        return httpx2.Response(200, json={"choices": [choice]})

    return handler


@pytest.mark.parametrize("family", ["math_shepherd", "granite"])
@pytest.mark.parametrize("top", [1, 300])
def test_token_log_probabilities_give_the_same_scores(folders, family, top):
    """Also where a label is not among the likeliest tokens that the server names."""
    served = scorer(folders, family, completions(folders[family], top))
    (found,) = served.score([SOLUTION])
    assert found.values == pytest.approx(here(folders, family), rel=1e-4, abs=1e-6)


def test_sglang_shares_give_the_same_scores(folders):
    model = AutoModelForCausalLM.from_pretrained(folders["math_shepherd"], dtype=torch.float32)

    def handler(request):
        sent = json.loads(request.content)
        assert request.url.path == "/v1/score"
        assert sent["apply_softmax"] is True
        scores = []
        for item in sent["items"]:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([sent["query"] + item])).logits[0, -1]
            scores.append(logits[sent["label_token_ids"]].softmax(-1).tolist())
        return httpx2.Response(200, json={"scores": scores, "object": "scoring"})

    served = scorer(folders, "math_shepherd", handler, SGLangBackend)
    (found,) = served.score([SOLUTION])
    assert found.values == pytest.approx(here(folders, "math_shepherd"), abs=1e-5)
    with pytest.raises(CheckpointError, match="SGLang scores tokens"):
        scorer(folders, "qwen_prm", handler, SGLangBackend)


def test_a_busy_server_is_asked_again(folders):
    answers = iter([httpx2.Response(503), httpx2.Response(429), None])
    real = pooling(folders, "qwen_prm", per_token=False)

    def handler(request):
        return next(answers) or real(request)

    (found,) = scorer(folders, "qwen_prm", handler).score([SOLUTION])
    assert isinstance(found, StepScores)


def test_one_bad_solution_does_not_spoil_its_neighbours(folders):
    real = pooling(folders, "qwen_prm", per_token=False)
    long = SOLUTION.model_copy(update={"steps": SOLUTION.steps * 12})

    def handler(request):
        if len(json.loads(request.content)["input"]) > 200:
            return httpx2.Response(400, json={"error": {"message": "too long for this server"}})
        return real(request)

    found = scorer(folders, "qwen_prm", handler).score([SOLUTION, long, SOLUTION])
    assert [isinstance(f, StepScores) for f in found] == [True, False, True]
    assert "answers 400" in found[1].reason
    assert "too long for this server" in found[1].reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx2.Response(200, json={"data": [{"data": [[0.0, 1.0]] * 5}]}), "5 rows for 2 steps"),
        (httpx2.Response(200, json={"data": []}), "no pooling"),
        (httpx2.Response(200, json=[1]), "list, not an object"),
        (httpx2.Response(401, text="who are you"), "answers 401: who are you"),
        (httpx2.Response(500, text="fell over"), "did not answer after"),
        (httpx2.Response(200, text="<html>"), "no JSON"),
        (httpx2.Response(200, text='{"data": [{"data": [[NaN, 1], [0, 1]]}]}'), "not finite"),
    ],
)
def test_odd_answers_are_unscored_with_the_reason(folders, answer, reason):
    (found,) = scorer(folders, "qwen_prm", lambda request: answer).score([SOLUTION])
    assert isinstance(found, Unscored)
    assert reason in found.reason


def test_families_that_read_behind_an_end_are_not_for_servers(folders):
    (found,) = scorer(folders, "universal_prm", lambda request: None).score([SOLUTION])
    assert "use the hf backend" in found.reason


def test_prefixes_are_not_kept_by_servers(folders):
    from prmkit.errors import ScoringError

    with pytest.raises(ScoringError, match="scored by a server"):
        scorer(folders, "qwen_prm", lambda request: None).start(SOLUTION.problem)


def test_a_password_in_the_address_stays_out_of_messages(folders):
    family = DISCRIMINATIVE["qwen_prm"]
    settings = EndpointSettings(url="http://user:s3cret@server.test", attempts=1)
    refusing = httpx2.MockTransport(lambda request: httpx2.Response(400, text="no"))
    made = VLLMBackend(Endpoint(settings, refusing), "served", folders["qwen_prm"], family.head)
    (found,) = DiscriminativeScorer(folders["qwen_prm"], family=family, backend=made).score(
        [SOLUTION]
    )
    assert "server.test" in found.reason
    assert "s3cret" not in found.reason


@pytest.mark.parametrize("row", [[0.5], [0.5, 0.5, 0.5]])
def test_another_number_of_numbers_is_unscored(folders, row):
    data = [{"index": 0, "object": "pooling", "data": [row] * len(SOLUTION.steps)}]
    (found,) = scorer(
        folders, "qwen_prm", lambda request: httpx2.Response(200, json={"data": data})
    ).score([SOLUTION])
    assert f"gives {len(row)} numbers where this family reads 2" in found.reason


@pytest.mark.parametrize("top", [None, {"token_id:5": None}])
def test_log_probabilities_of_another_shape_are_unscored(folders, top):
    answer = {"choices": [{"logprobs": {"top_logprobs": [top]}}]}
    (found,) = scorer(
        folders, "math_shepherd", lambda request: httpx2.Response(200, json=answer)
    ).score([SOLUTION])
    assert isinstance(found, Unscored)


def test_an_answer_that_cannot_be_unpacked_is_unscored(folders):
    def broken(request):
        stream = httpx2.ByteStream(b"no gzip")
        return httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=stream)

    (found,) = scorer(folders, "qwen_prm", broken, attempts=1).score([SOLUTION])
    assert isinstance(found, Unscored)
