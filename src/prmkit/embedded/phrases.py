"""The words of the embedded world: sentences of the stories and of their solutions.

Each event has sentences that the ``train`` and ``test`` splits use, and others that only the
out-of-domain split uses. ``{p}`` acts, ``{q}`` is another person, ``{n}`` and ``{k}`` are
numbers, ``{items}`` is what is counted.
"""

from __future__ import annotations

from typing import NamedTuple

NAMES = (
    "Mia", "Ben", "Lena", "Omar", "Ruth", "Ivan", "Nora", "Hugo", "Tara", "Paul",
    "Jada", "Finn", "Yuki", "Luis", "Anna", "Musa", "Cora", "Emil", "Zara", "Theo",
)  # fmt: skip
ITEMS = (
    "apples", "pens", "marbles", "stamps", "shells", "coins", "cards", "books", "beads",
    "plums", "stickers", "stones", "eggs", "tickets", "buttons", "keys",
)  # fmt: skip
OTHER_ITEMS = ("ribbons", "pencils", "toys", "spoons", "hats", "candles", "kites", "nails")


class Wording(NamedTuple):
    """How an event is told: `known` in every split but out-of-domain, `unseen` only there."""

    known: tuple[str, ...]
    unseen: tuple[str, ...]


START = Wording(
    known=(
        "{p} has {n} {items}.",
        "{p} starts the day with {n} {items}.",
        "In the morning {p} counts {n} {items}.",
    ),
    unseen=("There are {n} {items} on the shelf of {p}.",),
)
GAIN = Wording(
    known=(
        "{p} finds {n} more {items}.",
        "{p} buys {n} {items} at the shop.",
        "{q} gives {p} {n} {items}.",
        "Then {p} wins {n} {items}.",
        "{p} gets {n} {items} from {q}.",
    ),
    unseen=("The post brings {p} {n} {items}.", "{q} drops off {n} {items} for {p}."),
)
# The verb sounds like a loss (or a gain) of somebody else's; it is the other way for {p}.
TEMPTING_GAIN = Wording(
    known=(
        "{q} gives away {n} {items}, all of them to {p}.",
        "{q} loses a bet and pays {p} {n} {items}.",
        "{q} sells {p} {n} {items}.",
    ),
    unseen=("{q} has {n} {items} left over and leaves them to {p}.",),
)
LOSS = Wording(
    known=(
        "{p} loses {n} {items}.",
        "{p} sells {n} {items}.",
        "{p} gives {q} {n} {items}.",
        "Then {p} throws away {n} {items}.",
        "{p} hands {n} {items} to {q}.",
    ),
    unseen=("A thief takes {n} {items} from {p}.", "{p} uses up {n} {items}."),
)
TEMPTING_LOSS = Wording(
    known=(
        "{q} buys {n} {items} from {p}.",
        "{q} wins a bet and collects {n} {items} from {p}.",
        "{p} adds {n} {items} to the pile of {q}.",
    ),
    unseen=("{q} gets more {items}, {n} of them out of the bag of {p}.",),
)
GAIN_GROUPS = Wording(
    known=(
        "{p} buys {k} bags with {n} {items} in each.",
        "Each of {k} friends brings {p} {n} {items}.",
    ),
    unseen=("{p} finds {k} tins, and every tin holds {n} {items}.",),
)
LOSS_GROUPS = Wording(
    known=(
        "{p} gives {n} {items} to each of {k} friends.",
        "{p} fills {k} bags with {n} {items} each and sells the bags.",
    ),
    unseen=("On each of {k} days {p} uses up {n} {items}.",),
)
SCALE = Wording(
    known=(
        "By the evening {p} has {k} times as many {items}.",
        "The {items} of {p} become {k} times as many.",
    ),
    unseen=("Luck multiplies the {items} of {p} by {k}.",),
)
SHARE = Wording(
    known=(
        "{p} splits the {items} into {k} equal piles and keeps one pile.",
        "{p} shares all {items} equally in a group of {k} and keeps one share.",
    ),
    unseen=("{p} keeps just one of {k} equal heaps of {items}.",),
)
MORE_THAN = Wording(
    known=("{q} has {n} more {items} than {p}.", "{q} owns {n} {items} more than {p} does."),
    unseen=("Compared with {p}, {q} has {n} extra {items}.",),
)
FEWER_THAN = Wording(
    known=("{q} has {n} fewer {items} than {p}.", "{q} owns {n} {items} fewer than {p} does."),
    unseen=("Compared with {p}, {q} is short of {n} {items}.",),
)
# The known person comes first, so the word 'more' asks for a subtraction.
TEMPTING_FEWER = Wording(
    known=("{p} has {n} more {items} than {q}.", "That is {n} {items} more than {q} has."),
    unseen=("{p} is ahead of {q} by {n} {items}.",),
)
TEMPTING_MORE = Wording(
    known=("{p} has {n} fewer {items} than {q}.", "That is {n} {items} fewer than {q} has."),
    unseen=("{p} is behind {q} by {n} {items}.",),
)
TIMES_AS_MANY = Wording(
    known=("{q} has {k} times as many {items} as {p}.",),
    unseen=("For each of the {items} of {p}, {q} has {k}.",),
)
TEMPTING_SHARE = Wording(
    known=("{p} has {k} times as many {items} as {q}.", "That is {k} times what {q} has."),
    unseen=("One would need {k} people like {q} to match {p}.",),
)
DISTRACTOR = Wording(
    known=(
        "{p} is {n} years old.",
        "{p} also has {n} {other}.",
        "{q} lives at number {n}.",
        "{q} brings {n} {other}.",
        "It is {n} degrees outside.",
    ),
    unseen=("The bus of {q} is number {n}.", "There are {n} {other} on the table."),
)
QUESTION = Wording(
    known=(
        "How many {items} does {p} have now?",
        "How many {items} does {p} have in the end?",
    ),
    unseen=("What is the number of {items} that {p} ends up with?",),
)
QUESTION_TOGETHER = Wording(
    known=(
        "How many {items} do {p} and {q} have together?",
        "How many {items} do {p} and {q} have in total?",
    ),
    unseen=("What do the {items} of {p} and {q} add up to?",),
)

# How a solution states the relation `{a} {op} {b} = {c}` about the person {p}.
STATE_TOTAL = (
    "Now {p} has {a} {op} {b} = {c} {items}.",
    "{p} has {a} {op} {b} = {c} {items} then.",
    "So {p} has {a} {op} {b} = {c} {items}.",
)
STATE_GROUPS = (
    "The groups hold {a} {op} {b} = {c} {items}.",
    "That makes {a} {op} {b} = {c} {items} in groups.",
)
STATE_TOGETHER = (
    "Together they have {a} {op} {b} = {c} {items}.",
    "In total that is {a} {op} {b} = {c} {items}.",
)
STATE_ANSWER = "The answer is {c}."
