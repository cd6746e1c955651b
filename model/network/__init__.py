"""The network and what it learns from. Whoever needs Keras or TensorFlow imports them from here."""

import os

from lake.imports import absent

# Keras imports them, where they are installed, for what nobody uses here: a third of the import of a training.
unused = {"sklearn", "matplotlib", "jax"} - {os.environ.get("KERAS_BACKEND")}
with absent(*unused):
    import keras
    import tensorflow as tf
    from keras import ops

__all__ = ["keras", "ops", "tf"]
