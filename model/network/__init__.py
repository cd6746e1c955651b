"""The network and what it learns from. Whoever needs Keras or TensorFlow imports them from here."""

from lake.imports import absent

# Keras imports them, where they are installed, for what nobody uses here: a quarter of its import.
with absent("sklearn", "matplotlib", "jax"):
    import keras
    import tensorflow as tf
    from keras import ops

__all__ = ["keras", "ops", "tf"]
