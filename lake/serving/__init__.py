"""Predictions for applications, in PostgreSQL: generations and a pointer."""
