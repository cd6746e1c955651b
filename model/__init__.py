"""The behaviour-sequence model: pretrain, fine-tune, evaluate, score. It reads tables through `lake` and never jobs."""

import lake  # noqa: F401  it sees to it that what is imported next is imported in less time
