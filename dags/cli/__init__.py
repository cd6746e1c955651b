"""The `meander` command."""
