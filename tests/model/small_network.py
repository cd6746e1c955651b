"""A network for tests of which all but the size is as in production: most of their time is TensorFlow's to trace it."""

SMALL = {"events": 4, "profile": 3, "next_items": 2, "width": 8, "layers": 1, "heads": 1, "hidden": (8,)}
