"""The one door to storage: settings, schemas, landing files, tables, staging and publishing."""

import gc

# To import Great Expectations or TensorFlow makes some 400,000 objects, of which next to none is garbage; Python's
# default is to look for some after every 700 of them, which takes a fifth of the import. `expectations` and `model`,
# which need them, import this package first.
gc.set_threshold(50_000, 20, 100)
