"""Every label has its column in `examples`, its score in `predictions`, and is called the same wherever it is named."""

import pytest

from lake.labels import LABELS, NAMES, PROBABILITIES
from lake.schemas import EXAMPLES, PREDICTIONS


def test_the_columns_are_these():
    # The one place in the tests that spells all names: others take them from `lake.labels`, as the code does.
    assert NAMES == ("migrated", "purchased", "churned")
    assert PROBABILITIES == ("migration_probability", "purchase_probability", "churn_probability")


@pytest.mark.parametrize("label", LABELS, ids=NAMES)
def test_a_label_has_its_columns(label):
    assert EXAMPLES[label.name].dataType.simpleString() == "boolean"
    score = PREDICTIONS[label.probability]
    assert (score.dataType.simpleString(), score.metadata["comment"]) == ("double", label.comment)
