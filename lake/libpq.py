"""Loads the client of PostgreSQL by which MLflow keeps its registry, if there is one: import it before TensorFlow.

TensorFlow brings BoringSSL, psycopg2 OpenSSL, with functions of the same names. If TensorFlow was loaded first, the
first connection with TLS ends the process, since it calls those of the other library. Loaded first, psycopg2 keeps its
own.
"""

from contextlib import suppress
from importlib import import_module

with suppress(ImportError):  # a registry may be elsewhere
    import_module("psycopg2")
