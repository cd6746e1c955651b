"""The DAGs: schedules and task order; next to them their shared parts, the page, the command, the local Airflow."""

# The path of dags/page/app.py below Airflow's address.
PREFIX = "/meander"
