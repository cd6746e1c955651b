"""The tables as the DAGs know them: which job stages which, what it reads, and their assets in Airflow."""

from airflow.sdk import Asset

# A group of tasks and the job that stages its tables.
JOBS = {
    "events": "jobs.ingest",
    "sessions": "jobs.sessionize",
    "interests": "jobs.interests",
    "examples": "jobs.examples",
    "predictions": "model.score",
}
# The tables of each group in the order in which they are published: whoever sees the events of a landing day can also
# see what was rejected from it.
TABLES = {
    "events": ("quarantine", "events"),
    "sessions": ("sessions",),
    "interests": ("interests",),
    "examples": ("examples",),
    "predictions": ("predictions",),
}
# What a job reads, for the graph of assets.
READS = {
    "events": (),
    "sessions": ("events",),
    "interests": ("events",),
    "examples": ("interests", "events"),
    "predictions": ("interests",),
}

# `x-` is Airflow's mark of a scheme of one's own. For another, each task would load all providers that know one.
ASSETS = {table: Asset(name=table, uri=f"x-meander://lake/{table}") for tables in TABLES.values() for table in tables}
CHAMPION = Asset(name="champion", uri="x-meander://model/champion")
