"""Spark jobs: pure functions from DataFrame to DataFrame, and thin entry points that read, call and stage."""
