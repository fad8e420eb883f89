"""Small tokenizers that behave as the published ones do: their merges, specials and templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

COMMON = (
    " the", " is", " are", " a", " of", " and", " so", " how", " many", " has", " have", "The",
    "Step", " Step", " step", " answer", "So", " +", " -", " =", " *", "+", "-", "=", "Yes", "No",
    " Yes", " No", "yes", "no", "Y", " Y", "N", "correct", " correct", "user", "assistant",
    "system", "\n\n", " \n\n", ".\n", ".\n\n", "\n\n\n\n", " \n\n\n\n", "\n\n\n\n\n",
    " \n\n\n\n\n",
    " yes", " no", " apples", "Question", "Answer",
)  # fmt: skip
"""Words that are one token in Qwen's and Llama's vocabularies, or merge there as they do here."""

# How Qwen and Llama 3 cut text before they merge: a stop takes the line ends after it along.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHATML = (
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GRANITE = (
    "{% for message in messages %}"
    "<|start_of_role|>{{ message['role'] }}<|end_of_role|>{{ message['content'] }}<|end_of_text|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)


def _byte_level(words: Sequence[str], specials: Sequence[str]) -> Any:
    """A byte-level BPE in which each of `words` is one token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = {symbol: i for i, symbol in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in words:
        (spelled, _), *_ = spell.pre_tokenize_str(word)
        _learn(spelled, vocabulary, merges)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"), spell]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


def _learn(word: str, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Add what merges a word to one token, after all that is there already."""
    while len(tokens := _merged(word, merges)) > 1:
        merges.append((tokens[0], tokens[1]))
        vocabulary.setdefault(tokens[0] + tokens[1], len(vocabulary))


def _merged(word: str, merges: Sequence[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding: the earliest merge that applies, until none does."""
    tokens = list(word)
    rank = {pair: i for i, pair in enumerate(merges)}
    while True:
        pairs = [(rank[pair], i) for i, pair in enumerate(pairwise(tokens)) if pair in rank]
        if not pairs:
            return tokens
        _, at = min(pairs)
        tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]


def _wrapped(tokenizer: Any, **settings: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **settings
    )


def chatml(words: Sequence[str] = (), added: Sequence[str] = ()) -> Any:
    """Qwen2.5's: no beginning of text, ChatML, ``<extra_0>`` among the special tokens."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>", "<|vision_start|>"]
    tokenizer = _byte_level([*COMMON, *words], specials)
    tokenizer.add_tokens(list(added))
    return _wrapped(
        tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )


def qwen_bos(words: Sequence[str] = (), added: Sequence[str] = ()) -> Any:
    """The same with a beginning-of-text token that is not added by itself."""
    tokenizer = chatml(words, added)
    tokenizer.bos_token = "<|endoftext|>"
    return tokenizer


def llama3(words: Sequence[str] = (), added: Sequence[str] = ()) -> Any:
    """Llama 3's: a beginning of text before everything, headers, `` ки`` as one token."""
    return llama3_plain((" ки", *words), added)


def llama3_plain(words: Sequence[str] = (), added: Sequence[str] = ()) -> Any:
    """The same without that token."""
    from tokenizers import processors

    specials = [
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eot_id|>", "<|reserved_special_token_0|>",
    ]  # fmt: skip
    tokenizer = _byte_level([*COMMON, *words], specials)
    tokenizer.add_tokens(list(added))
    start = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", start)]
    )
    return _wrapped(
        tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|end_of_text|>",
        chat_template=LLAMA3,
    )


def granite(words: Sequence[str] = (), added: Sequence[str] = ()) -> Any:
    """Granite 3's: roles between markers of their own."""
    specials = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"]
    tokenizer = _byte_level([*COMMON, *words], specials)
    tokenizer.add_tokens(list(added))
    return _wrapped(
        tokenizer, eos_token="<|end_of_text|>", pad_token="<|end_of_text|>", chat_template=GRANITE
    )


def sentencepiece(words: Sequence[str] = (), added: Sequence[str] = ()) -> Any:
    """Llama 2's and Mistral's: a space before every text, ``<s>``, bytes for what is unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    letters = "▁ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()[]{}<>/\\"
    for symbol in letters + "+-*=#$%&@_^|~`ки":
        vocabulary.setdefault(symbol, len(vocabulary))
    pieces = [word.replace(" ", "▁") for word in (*COMMON, " ки", " и", *words) if "\n" not in word]
    for piece in pieces:
        for symbol in piece:
            vocabulary.setdefault(symbol, len(vocabulary))
        _learn(piece, vocabulary, merges)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens(list(added))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return _wrapped(
        tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


TOKENIZERS: dict[str, Callable[[Sequence[str], Sequence[str]], Any]] = {
    "chatml": chatml,
    "qwen_bos": qwen_bos,
    "llama3": llama3,
    "llama3_plain": llama3_plain,
    "granite": granite,
    "sentencepiece": sentencepiece,
}
"""Every kind, by name."""
