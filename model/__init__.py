"""The behaviour-sequence model: pretrain, fine-tune, evaluate, score. It reads tables through `lake` and never jobs."""
