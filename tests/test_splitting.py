import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prmkit.errors import UnknownName
from prmkit.splitting import SPLITTERS, by_marker, splitter
from prmkit.testing import UGLY_TEXTS

PIECES = st.sampled_from(
    ["\n", "\n\n", "\r\n", "\r", "\u2028", " ", "\t", "```", "~~~", "$", "$$", "\\[", "\\]", "\\(",
     "\\)", "\\begin{align}", "\\end{align}", "`", "Step 1:", "2. ", "3) ", "<think>", "</think>",
     "a", "word word", "5", ". ", "。", "e.g. ", "ки", "१. ", "é", "\x00", "\ud7ff", "🙂"]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text())
ALL = [*SPLITTERS, "marker:ки", "marker:\\n\\n"]


@pytest.mark.parametrize("name", ALL)
@given(text=TEXTS)
@example("")
@example(" \n\n ")
@example("\n\na")
def test_steps_join_back_and_none_is_blank(name, text):
    steps = splitter(name)(text)
    assert "".join(steps) == text
    if text.strip():
        assert all(step.strip() for step in steps)
    else:
        assert steps == ([text] if text else [])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", UGLY_TEXTS)
def test_ugly_texts_join_back(name, text):
    assert "".join(splitter(name)(text)) == text


BLOCKS = [
    "```python\na = 1\n\n2. b\nStep 1: ки\n```",
    "~~~\n\n\n~~~",
    "$$\na. B\n\n+ 1\n$$",
    "\\[\nx\n\n= 2\n\\]",
    "\\begin{align}\na &= 1 \\\\\n\n\\begin{align}\nb\n\n\\end{align}\nStep 1: x\n\\end{align}",
]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("block", BLOCKS)
@given(before=TEXTS.filter(lambda t: not any(c in t for c in "`~$\\")), after=TEXTS)
def test_code_and_displays_are_never_cut(name, block, before, after):
    text = f"{before}\n\n{block}\n\n{after}"
    steps = splitter(name)(text)
    assert any(block in step for step in steps)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("blank_line", "a\n\nb\n \nc", ["a\n\n", "b\n \n", "c"]),
        ("blank_line", "a\r\n\r\nb\r\nc", ["a\r\n\r\n", "b\r\nc"]),
        ("blank_line", "```\nx\n\ny", ["```\nx\n\ny"]),
        ("line", "a\nb\n\nc\n", ["a\n", "b\n\n", "c\n"]),
        ("line", "so $x\n= 1$\nb", ["so $x\n= 1$\n", "b"]),
        ("line", "costs $5 each\nand 3$\nb", ["costs $5 each\n", "and 3$\n", "b"]),
        ("number", "Step 1: a\n1. x\n2. y\nStep 2: b", ["Step 1: a\n1. x\n2. y\n", "Step 2: b"]),
        ("number", "Let us see.\n1. a\n\n2. b", ["Let us see.\n", "1. a\n\n", "2. b"]),
        ("number", "**Step 1.** a\n\n### Step 2\nb", ["**Step 1.** a\n\n", "### Step 2\nb"]),
        ("number", "In 2023. Yes.\n7. b", ["In 2023. Yes.\n7. b"]),
        ("number", "第1步 a\n第2步 b", ["第1步 a\n", "第2步 b"]),
        (
            "sentence",
            "He has 3.5 kg, e.g. flour. Dr. Li has more! Right?",
            ["He has 3.5 kg, e.g. flour. ", "Dr. Li has more! ", "Right?"],
        ),
        ("sentence", "It costs $5. He has $6. Ok.", ["It costs $5. ", "He has $6. ", "Ok."]),
        ("sentence", "So $a. b$ holds. Yes.", ["So $a. b$ holds. ", "Yes."]),
        ("sentence", "他有三个。她有五个！好。", ["他有三个。", "她有五个！", "好。"]),
        ("sentence", "एक है। दो है।", ["एक है। ", "दो है।"]),
        ("sentence", "1. One. 2 more.", ["1. One. ", "2 more."]),
        (
            "thought",
            "<think>a\n\nwait, b</think>\n\nThe answer.\n\nIs 3.",
            ["<think>a\n\n", "wait, b</think>\n\n", "The answer.\n\n", "Is 3."],
        ),
        ("thought", "<think>a</think>b", ["<think>a</think>", "b"]),
        ("marker:ки", "Step 1 ки\nStep 2 ки", ["Step 1 ки\n", "Step 2 ки"]),
    ],
)
def test_examples(name, text, expected):
    assert splitter(name)(text) == expected


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "unit", ["$a ", "\\begin{a}", "\\(", "$$ \n", "```\n", "1. ", "`", "Dr. ", "\n ", "\\[", "$x$ "]
)
def test_long_texts_take_little_time(name, unit):
    text = unit * (100_000 // len(unit))
    # A quadratic way would take minutes here.
    assert "".join(splitter(name)(text)) == text


def test_names():
    with pytest.raises(UnknownName, match="Did you mean 'sentence'"):
        splitter("sentences")
    with pytest.raises(UnknownName, match="marker:TEXT"):
        splitter("marker:")
    with pytest.raises(ValueError, match="marker is empty"):
        by_marker("a", "")
