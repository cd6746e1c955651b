"""Rows of examples as arrays of fixed shape."""
