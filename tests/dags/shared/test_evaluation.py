"""What is shown of an evaluation: one name is one number, wherever people meet it."""

from dags.shared.evaluation import COLUMNS, Evaluation
from lake import storage
from lake.places import metrics_file
from model.judging.report.render import HEADLINES


def test_recall_of_items_is_that_of_all_items_that_come_as_in_the_report(lake):
    evaluation = Evaluation.of("model_weekly--r")
    # In metrics.json, and under no other name: of all items that came, and of the first one alone.
    values = {("next_items", "all"): 0.3, ("next_items", "migrated"): 0.2}
    values |= {("first_item", "all"): 0.6, ("first_item", "migrated"): 0.5}
    metrics = [
        {"method": "model", "task": task, "metric": "recall@20", "slice": part, "value": value}
        for (task, part), value in values.items()
    ]
    storage.write_json(metrics_file("model_weekly--r"), {"metrics": metrics})
    ((method, numbers),) = evaluation.rows()
    assert method == "model"
    headings = [heading for heading, *_ in COLUMNS]
    at = headings.index("next items recall@20")
    assert headings[at + 1] == "migrated users"
    assert numbers[at : at + 2] == [0.3, 0.2]
    assert ("Next items: Recall@20", *COLUMNS[at][1:]) in HEADLINES


def test_a_label_that_is_not_judged_has_no_column(lake):
    metrics = [
        {"method": "model", "task": task, "metric": "roc_auc", "slice": "all", "value": value}
        for task, value in (("migrated", 0.7), ("churned", 0.8))
    ]
    storage.write_json(metrics_file("model_weekly--r"), {"metrics": metrics, "not_judged": ["purchased"]})
    evaluation = Evaluation.of("model_weekly--r")
    headings = [heading for heading, *_ in evaluation.columns]
    ((_, numbers),) = evaluation.rows()
    told = dict(zip(headings, numbers, strict=True))
    assert [name for name in headings if "AUC" in name] == ["AUC migrated", "AUC churned"]
    assert (told["AUC migrated"], told["AUC churned"]) == (0.7, 0.8)
    assert "calibration error purchased" not in headings
