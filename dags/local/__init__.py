"""Airflow and Spark on this machine: `make up`, `make demo`."""
