"""One suite a table, each in the module of its name, and audit.py, the one place that runs them."""
