"""Token ids and positions of worked examples, on the published tokenizers.

`golden/` holds slices of the real tokenizers of Mistral v1, Qwen2.5 and Llama 3: all entries and
merges that can matter for these texts, with their published ids. Each expectation below was written
out piece by piece from the family's published text and the published vocabulary.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from prmkit.chat import single_token
from prmkit.records import Problem, Step, Trajectory
from prmkit.scorers import checkpoints
from prmkit.scorers.families import DISCRIMINATIVE

GOLDEN = Path(__file__).parent / "golden"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
)
SOLUTION = Trajectory(
    problem=Problem(id="q", prompt="How much more?"),
    steps=(Step(text="3 * 40 = $120."), Step(text="So the difference is $20$.")),
)


def published(name):
    return PreTrainedTokenizerFast(
        tokenizer_file=str(GOLDEN / f"{name}.json"),
        bos_token={"mistral": "<s>", "llama3": "<|begin_of_text|>", "qwen": None}[name],
        chat_template={"qwen": CHATML, "llama3": LLAMA3}.get(name),
    )


# fmt: off
EXAMPLES = {
    "math_shepherd": ("mistral", [
        1, 1602, 1188, 680, 28804,  # <s> ▁How ▁much ▁more ?
        7268, 28705, 28740, 28747,  # ▁Step ▁ 1 :
        28705, 28770, 398, 28705, 28781, 28734, 327, 429, 28740, 28750, 28734, 28723,
        12902, 13,  # ▁ки and a line end
        9977, 28705, 28750, 28747,  # Step ▁ 2 :
        1537, 272, 5133, 349, 429, 28750, 28734, 1715,  # ▁So ▁the ▁difference ▁is ▁$ 2 0 $.
        12902, 13,
    ], [21, 35]),
    "qwen_prm": ("qwen", [
        151644, 8948, 198,  # <|im_start|>system
        5501, 2874, 3019, 553, 3019, 11, 323, 2182, 697, 1590, 4226, 2878, 1124, 79075, 46391,
        151645, 198, 151644, 872, 198, 4340, 1753, 803, 30,  # user: How much more?
        151645, 198, 151644, 77091, 198,  # assistant
        18, 353, 220, 19, 15, 284, 400, 16, 17, 15, 13,  # 3 * 40 = $120.
        151651,  # <extra_0>
        4416, 279, 6672, 374, 400, 17, 15, 12947,  # So the difference is $20$.
        151651,
    ], [43, 52]),
    "rlhflow": ("llama3", [
        128000, 128006, 882, 128007, 271,  # a user's header
        4438, 1790, 810, 30,  # How much more?
        220, 18, 353, 220, 1272, 284, 400, 4364, 13,  # a space, then 3 * 40 = $120.
        128009, 128006, 78191, 128007,  # the assistant's header
        271, 10,  # read at the blank line, which is just before "+"
        128009, 128006, 882, 128007, 271,
        4516, 279, 6811, 374, 400, 508, 13244,  # So the difference is $20$.
        128009, 128006, 78191, 128007, 271, 10,
    ], [22, 40]),
}
# fmt: on


@pytest.mark.parametrize("family", EXAMPLES)
def test_ids_and_positions_of_worked_examples(family):
    name, ids, positions = EXAMPLES[family]
    rendered = DISCRIMINATIVE[family].render(SOLUTION, published(name))
    assert rendered.ids == ids
    assert rendered.positions == positions


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("mistral", checkpoints.MISTRAL),
        ("qwen", {"+": 10, "-": 12, " +": 488, " -": 481, "\n": 198, "<extra_0>": 151651}),
        ("llama3", {"+": 10, "-": 12, " +": 489, " -": 482, " ки": 116624}),
    ],
)
def test_golden_ids_of_the_table(name, tokens):
    tokenizer = published(name)
    for text, expected in tokens.items():
        assert single_token(tokenizer, text) == expected, text


def test_a_line_end_never_melts_into_a_step():
    """Joint tokenisation makes one token of a full stop and the line end behind it."""
    tokenizer = published("qwen")
    rendered = DISCRIMINATIVE["trl_line"].render(SOLUTION, tokenizer)
    assert [rendered.ids[position] for position in rendered.positions] == [198, 198]
    assert 13 in rendered.ids
    assert 624 not in rendered.ids
