"""The network and what it learns from. Whoever needs Keras or TensorFlow imports them from here."""

import os

from lake.imports import absent

# Keras imports them, where they are installed, for what nobody uses here: a third of the import of a training. Its
# backends `jax` and `numpy` need jax.
unused = ["sklearn", "matplotlib", *(["jax"] if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow" else [])]
with absent(*unused):
    import keras
    import tensorflow as tf
    from keras import ops

__all__ = ["keras", "ops", "tf"]
