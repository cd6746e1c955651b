"""Metrics, baselines, the gate and the report."""
