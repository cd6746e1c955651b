"""The Meander page in Airflow: problems, the rows that readers see, safe repairs, and the state of each table."""
