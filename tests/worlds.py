"""Problems of the embedded world, made by hand."""

from prmkit.records import Problem


def hand_made() -> Problem:
    """Mia has 12 apples, gets 5, and Ben (a distractor: 9 years old) has twice as many."""
    return Problem(
        id="hand",
        prompt="Mia has 12 apples. Mia gets 5 apples from Ruth. Ben is 9 years old. "
        "Ben has 2 times as many apples as Mia. How many apples does Ben have now?",
        answer="34",
        meta={
            "world": {
                "relations": [
                    [["given", 12], "+", ["given", 5], 17, "Mia", "total", False],
                    [["relation", 0], "*", ["given", 2], 34, "Ben", "total", False],
                ],
                "distractors": [9],
                "items": "apples",
            }
        },
    )
