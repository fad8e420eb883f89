"""Separators inside of untrusted text: escaped or refused, counted, and never a position.

A family reads its steps at a token, such as `` ки`` or a blank line. A problem or a step may hold
that very text. Positions are known by construction, so none can move; but the model would see a
step end that is none. Here the text's own ids are watched while they are made: a token that marks
step ends is replaced by its characters, each tokenised alone, or the trajectory is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from prmkit.chat import Tokenizer, after_line_end, encode_text, single_token
from prmkit.records import Trajectory
from prmkit.scorers.families.base import Discriminative, Rendered
from prmkit.scorers.settings import OnSeparator


class Guarded(NamedTuple):
    """A rendered trajectory.

    Attributes:
        rendered: its ids and positions.
        escaped: how many separators were replaced.
        refused: why it is not to be scored, or None.
    """

    rendered: Rendered
    escaped: int
    refused: str | None


def guard(
    trajectory: Trajectory, family: Discriminative, tokenizer: Tokenizer, on_separator: OnSeparator
) -> Guarded:
    """Render a trajectory, watching its own text for the family's tags."""
    watching = Watching(tokenizer, family.tags)
    rendered = family.render(trajectory, watching)
    return Guarded(rendered, watching.n_escaped, watching.refusal(on_separator))


class Watching:
    """A tokenizer that keeps tags out of untrusted text.

    Untrusted text is what `prmkit.chat.encode_text` tokenises: it asks for special tokens to be
    split.

    Args:
        tokenizer: the model's own.
        tags: texts of the tokens at which steps are read.
    """

    def __init__(self, tokenizer: Tokenizer, tags: Sequence[str]):
        self.watched: Any = tokenizer
        self._tags = {single_token(tokenizer, tag): tag for tag in tags}
        self.found: list[int] = []
        self.n_escaped = 0
        # Special tokens are split without our doing; the text that spells them is counted alone.
        self._split = {
            token: tag
            for token, tag in self._tags.items()
            if token not in encode_text(tokenizer, tag)
        }

    def refusal(self, on_separator: OnSeparator) -> str | None:
        """Why text that was tokenised so far is refused, or None."""
        if not self.found or on_separator == "escape":
            return None
        names = ", ".join(sorted({repr(self._tags[token]) for token in self.found}))
        return (
            f"the text holds {names} ({len(self.found)} times), where the steps of this family "
            "end; on_separator='escape' (--on-separator escape) tokenises it otherwise"
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.watched, name)

    @property
    def chat_template(self) -> Any:
        """The Jinja template of a conversation, or None."""
        return self.watched.chat_template

    def decode(self, token_ids: Any, **settings: Any) -> Any:
        """The text of token ids."""
        return self.watched.decode(token_ids, **settings)

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any:
        """A conversation as one text."""
        return self.watched.apply_chat_template(conversation, **settings)

    def __call__(self, text: str, **settings: Any) -> Any:
        """Token ids of a text, in which no tag is left if it is untrusted."""
        if not settings.get("split_special_tokens"):
            return self.watched(text, **settings)
        own = encode_text(self.watched, text)
        for token, tag in self._split.items():
            spelled_out = text.count(tag)
            self.found += [token] * spelled_out
            self.n_escaped += spelled_out
        if self._tags.keys().isdisjoint(own):
            return {"input_ids": own}
        ids: list[int] = []
        for token in own:
            if token not in self._tags:
                ids.append(token)
                continue
            self.found.append(token)
            spelled = self._spelled(token)
            self.n_escaped += spelled != [token]
            ids += spelled
        return {"input_ids": ids}

    def _spelled(self, token: int) -> list[int]:
        """The characters of a tag, each tokenised alone; a tag of one character stays."""
        text = self._tags[token]
        if len(text) == 1:
            return [token]
        return [id_ for character in text for id_ in after_line_end(self.watched, character)]
