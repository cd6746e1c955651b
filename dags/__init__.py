"""The DAGs: schedules and task order. Beside them what they share, the page, the command and the local Airflow."""

# Where dags/page/app.py is found below Airflow's address.
PREFIX = "/meander"
