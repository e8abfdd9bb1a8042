#!/usr/bin/env python3
"""Writes fuzz/corpus/numpy/seed*; needs numpy (2.4 wrote what is there).

  samples.py FOLDER
"""
import pathlib
import sys

import numpy

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
embeddings = numpy.arange(6, dtype="<f4").reshape(3, 2)
labels = numpy.array([1, 2, 1])
numpy.save(folder / "seed_floats.npy", embeddings)
numpy.save(folder / "seed_labels.npy", labels)
numpy.save(folder / "seed_columns.npy", numpy.asfortranarray(embeddings.astype(">f8")))
numpy.save(folder / "seed_objects.npy", numpy.array([1, "a", None], dtype=object))
numpy.save(folder / "seed_fields.npy", numpy.zeros(2, dtype=[("a", "<f4"), ("b", "<i2")]))
numpy.savez(folder / "seed.npz", embeddings=embeddings, labels=labels)
numpy.savez_compressed(folder / "seed_packed.npz", embeddings=embeddings.astype("<f2"), labels=labels.astype("u1"))
