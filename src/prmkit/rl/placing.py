"""Where steps end among the tokens that were drawn."""

from __future__ import annotations

from collections.abc import Sequence

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidRecord


def written(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of tokens that a policy drew, without special tokens."""
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def places(tokenizer: Tokenizer, ids: Sequence[int], steps: Sequence[str]) -> tuple[int, ...]:
    """The place of each step's last token.

    A step ends with the first token after which all of its text is there; so a token that holds
    the end of a step and the beginning of the next belongs to both, and the next may end there
    as well. What follows the last step, such as the end of text, was the last step's decision
    too: it ends with the response.

    Args:
        tokenizer: of the policy.
        ids: [T] that were drawn, without padding.
        steps: [S] their text, cut.

    Raises:
        InvalidRecord: if the steps are not the text of the tokens.
    """
    text, whole = "".join(steps), written(tokenizer, ids)
    if text != whole:
        at = next((i for i, (a, b) in enumerate(zip(text, whole, strict=False)) if a != b), None)
        at = min(len(text), len(whole)) if at is None else at
        raise InvalidRecord(
            f"the steps are not the text of the tokens: from character {at} on they are "
            f"{text[at : at + 20]!r}, and the tokens are {whole[at : at + 20]!r}"
        )
    found: list[int] = []
    length = low = 0
    for step in steps[:-1]:
        length += len(step)
        high = len(ids) - 1
        # Half a character decodes to a mark of its own, so texts are compared, not lengths.
        while low < high:
            middle = (low + high) // 2
            if written(tokenizer, ids[: middle + 1]).startswith(text[:length]):
                high = middle
            else:
                low = middle + 1
        found.append(low)
    return (*found, len(ids) - 1) if steps else ()
