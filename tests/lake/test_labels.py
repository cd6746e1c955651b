"""Every label has its column in `examples`, its score in `predictions`, and a model that answers it."""

from dataclasses import fields

import pytest

from lake.labels import LABELS, NAMES, PROBABILITIES
from lake.schemas import EXAMPLES, PREDICTIONS
from tests.model.standin_artifact import Prediction


def test_the_columns_are_these():
    assert NAMES == ("migrated", "purchased", "churned")
    assert PROBABILITIES == ("migration_probability", "purchase_probability", "churn_probability")


@pytest.mark.parametrize("label", LABELS, ids=NAMES)
def test_a_label_has_its_columns(label):
    assert EXAMPLES[label.name].dataType.simpleString() == "boolean"
    score = PREDICTIONS[label.probability]
    assert (score.dataType.simpleString(), score.metadata["comment"]) == ("double", label.comment)


def test_the_stand_in_for_a_model_answers_every_label():
    assert set(NAMES) <= {field.name for field in fields(Prediction)}
