"""The behaviour-sequence model: pretrain, fine-tune, evaluate, score. Nothing is here yet.

It will read published tables through `lake` and never import `jobs`: the two meet in tables.
"""
