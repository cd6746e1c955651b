"""The assets that tasks update and Airflow shows: each table, and the champion."""

from airflow.sdk import Asset

from lake.tables import TABLES

# `x-` is Airflow's mark of a user-defined scheme. For another, each task would load all providers that define one.
ASSETS = {table: Asset(name=table, uri=f"x-meander://lake/{table}") for table in TABLES}
CHAMPION = Asset(name="champion", uri="x-meander://model/champion")
