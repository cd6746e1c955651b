"""The yes-or-no questions that a model answers of a user: one entry here for each, and no list of them anywhere else.

Nothing heavy is imported: the page and the serving store read this.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """One question, with its answer in `examples` and its score in `predictions`.

    Attributes:
        name: the column of `examples` that holds the answer; also names the head of the network.
        score: what the score is called where there is no room for a sentence.
        title: the same as a heading.
        did, did_not: users by their answer, in words.
        does: what the user is expected to do, in words that a probability follows.
        comment: what the score says, as the comment of its column.
    """

    name: str
    score: str
    title: str
    did: str
    did_not: str
    does: str
    comment: str

    @property
    def probability(self) -> str:
        """The column of `predictions` that holds the score."""
        return f"{self.score}_probability"


LABELS = (
    Label(
        name="migrated",
        score="migration",
        title="Migration",
        did="did migrate",
        did_not="did not",
        does="moves on to another main category",
        comment="that the interest moves on within the horizon",
    ),
    Label(
        name="purchased",
        score="purchase",
        title="Purchase",
        did="did purchase",
        did_not="did not",
        does="buys",
        comment="that the user buys within the horizon",
    ),
    Label(
        name="churned",
        score="churn",
        title="Churn",
        did="did churn",
        did_not="did not",
        does="does nothing at all",
        comment="that the user does nothing at all within the horizon",
    ),
)
# The columns of `examples`, and those of `predictions`.
NAMES = tuple(label.name for label in LABELS)
PROBABILITIES = tuple(label.probability for label in LABELS)
