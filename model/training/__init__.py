"""The training of a network on one or many workers."""
