"""Wiring only: schedules, assets, task order and their documentation; what is computed lives in `jobs`."""

# Where dags/page/app.py is found below Airflow's address.
PREFIX = "/meander"
