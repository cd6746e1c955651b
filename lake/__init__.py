"""The one door to storage: settings, schemas, landing files, tables, staging and publishing."""

import gc

# To import Great Expectations or TensorFlow makes half a million objects, of which none is garbage; Python's default is
# to look for some after every 700 of them, which takes a quarter of the import. Every process of ours comes by here.
gc.set_threshold(50_000, 20, 100)
