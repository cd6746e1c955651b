"""The behaviour-sequence model: pretrain, fine-tune, evaluate, score. It reads tables through `lake` and never jobs."""

# Before TensorFlow; and `lake` sees to it that what is imported next is imported in less time.
import lake.libpq  # noqa: F401
