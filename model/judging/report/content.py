"""What a report is about: an evaluation, the gate's decision on it, and the rows and scores behind both."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from model.judging.comparison import Comparison, Scores
from model.judging.gate import Decision


@dataclass
class Report:
    """What a page is made of.

    Attributes:
        title: of the page.
        evaluation: metrics and differences of all methods.
        decision: of the gate, or None where nothing was to be decided.
        test: the rows that were measured, N of them.
        categories: the candidates, in the order of the score columns.
        methods: the scores of all methods; the first one is the model that the page is about. Its `next_category` has
            to be probabilities: the flows are expected numbers of users.
        history: training curves with the columns `run`, `metric`, `step`, `value`; None or empty without any.
        facts: what the reader may need to know of where this comes from, e.g. table versions and dates.
        costs: what each phase of each training took and gave, with the columns of the table to show; or None.
        min_group: users that a flow needs to be drawn by itself; 1 for all.
    """

    title: str
    evaluation: Comparison
    decision: Decision | None
    test: pd.DataFrame
    categories: Sequence[str]
    methods: Sequence[Scores]
    history: pd.DataFrame | None = None
    facts: dict[str, str] = field(default_factory=dict)
    costs: pd.DataFrame | None = None
    min_group: int = 1
