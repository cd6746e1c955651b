"""Wiring only: schedules, assets, task order and their documentation; what is computed lives in `jobs`."""
