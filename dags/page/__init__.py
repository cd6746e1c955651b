"""The Meander page in Airflow: what is wrong now, what readers see, what is safe to do, and the state behind it."""
