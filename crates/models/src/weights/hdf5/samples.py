#!/usr/bin/env python3
"""Writes fuzz/corpus/weights_hdf5/*.h5, which the tests read too. Needs h5py, numpy and hickle 5; h5py 3.16 wrote
the files that are there.

  samples.py FOLDER
"""
import pathlib
import sys

import h5py
import hickle
import numpy

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
layer = {
    "conv1.7x7_s2.weight": numpy.arange(1, 9, dtype="<f4").reshape(2, 1, 2, 2),
    "conv1.7x7_s2.bias": numpy.array([9, 10], "<f4"),
}


def hickle_2(name, arrays, **settings):
    """Writes a dict in the layout of hickle 2 under Python 2, which is that of googlenet.h5."""
    with h5py.File(folder / name, "w") as file:
        file.attrs["CLASS"] = numpy.bytes_("hickle")
        file.attrs["VERSION"] = numpy.bytes_("2.0.4")
        root = file.create_group("data_0")
        root.attrs["type"] = [numpy.bytes_("dict")]
        for key, array in arrays.items():
            item = root.create_group(key)
            item.attrs["type"] = [numpy.bytes_("dict_item")]
            item.create_dataset("data_0", data=array, **settings).attrs["type"] = [numpy.bytes_("ndarray")]


hickle_2("hickle2.h5", layer)
hickle_2("packed.h5", layer, compression="gzip", shuffle=True)
hickle.dump(layer, folder / "hickle5.h5", mode="w")
with h5py.File(folder / "plain.h5", "w", libver="latest") as file:
    file["layer/weight"] = numpy.array([[1, 2], [3, 4]], "<f8")
    file["half"] = numpy.array([1, 2, 3], "<f2")
    file["count"] = numpy.int64(7)
    file["mask"] = numpy.array([0, 255], "u1")
    file["big"] = numpy.array([1.5], ">f4")
    file["name"] = numpy.bytes_("text")
with h5py.File(folder / "circle.h5", "w") as file:
    inner = file.create_group("inner")
    inner["weight"] = numpy.float32([1])
    inner["outer"] = file["/"]
with h5py.File(folder / "zeros.h5", "w") as file:
    file.create_dataset("zeros", (16384, 16384), "<f4", chunks=(1024, 1024), compression="gzip")
