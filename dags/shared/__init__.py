"""What the DAGs are made of: waits, runs, publishing, alerts."""
