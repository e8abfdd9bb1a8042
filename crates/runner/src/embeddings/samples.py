#!/usr/bin/env python3
"""Writes fuzz/corpus/numpy/seed*; needs numpy (version 2.4 wrote the committed files).

  samples.py FOLDER
"""
import pathlib
import sys
import zipfile

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

# As files of other programs may be: names of classes as labels, and further arrays.
people = {
    "embeddings": embeddings.astype("<f8") * 1e-50,
    "labels": numpy.array(["bird", "cat", "bird"]),
    "paths": numpy.array(["a/1.jpg", "b/2.jpg", "a/3.jpg"]),
    "codes": numpy.array([b"xy", b"z", b""]),
    "meta": numpy.array({"epochs": 3}, dtype=object),
    "count": numpy.array(3),
    "fields": numpy.zeros(2, dtype=[("a", "<f4"), ("b", "<i2")]),
}
numpy.savez(folder / "seed_people.npz", **people)
numpy.savez(folder / "seed_positional.npz", embeddings, labels)


def repacked(name, compression):
    """Writes the arrays of seed.npz, packed in another way."""
    with zipfile.ZipFile(folder / "seed.npz") as source, zipfile.ZipFile(folder / name, "w", compression) as target:
        for member in source.namelist():
            target.writestr(zipfile.ZipInfo(member), source.read(member), compression)


repacked("seed_bzip2.npz", zipfile.ZIP_BZIP2)
# Every size is in the 64-bit fields, as zipfile writes them for files above 4 GB.
zipfile.ZIP64_LIMIT = 1
repacked("seed_zip64.npz", zipfile.ZIP_DEFLATED)
