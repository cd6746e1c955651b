"""What the DAGs are made of: tables, waits, runs, publishing, links, alerts."""
