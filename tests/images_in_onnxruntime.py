"""Embeds images with an exported ONNX model, prepared by Pillow as the model's own metadata says, and compares the rows with a file of
`invaspread embed`.

    python tests/images_in_onnxruntime.py MODEL.onnx EMBEDDINGS.npz FOLDER

The names in the .npz are the paths below FOLDER. Needs onnxruntime, numpy and Pillow. It is also an example of how to use a model.
"""

import json
import pathlib
import sys

import numpy
import onnxruntime
from PIL import Image

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}


def prepare(path, facts):
    """Returns the input of the model (C, S, S) for an image file."""
    size, first, squash = facts["image_size"], facts["resize_first"], facts["squash"]
    image = Image.open(path).convert("RGB")
    if first:
        image = image.resize((first["size"], first["size"]), FILTERS[first["filter"]])
    if facts["channel_order"] == "gray":
        image = image.convert("L")
    if squash:
        image = image.resize((squash, squash), FILTERS["lanczos"])
    width, height = image.size
    if facts["fit"] == "shorter_side":
        width, height = (size, size * height // width) if width <= height else (size * width // height, size)
        image = image.resize((width, height), FILTERS["bilinear"])
    else:
        wide, high = max(size - width, 0), max(size - height, 0)
        padded = Image.new(image.mode, (width + wide, height + high))
        padded.paste(image, (wide // 2, high // 2))
        image, (width, height) = padded, padded.size
    # round() rounds halves to even.
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    values = numpy.asarray(image, "f4").reshape(size, size, -1)
    if facts["channel_order"] == "BGR":
        values = values[:, :, ::-1]
    mean, std = numpy.array(facts["mean"], "f4"), numpy.array(facts["std"], "f4")
    values = (values / numpy.float32(255) * numpy.float32(facts["scale"]) - mean) / std
    return values.transpose(2, 0, 1)


def main():
    model, embeddings, folder = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    texts = session.get_modelmeta().custom_metadata_map
    json_names = ["image_size", "resize_first", "squash", "fit", "channel_order", "scale", "mean", "std"]
    facts = {name: json.loads(texts[name]) for name in json_names}
    expected = numpy.load(embeddings)
    images = numpy.stack([prepare(pathlib.Path(folder) / name, facts) for name in expected["names"]])
    (found,) = session.run(None, {"images": images})
    difference = numpy.abs(found - expected["embeddings"]).max()
    print(f"{len(images)} images, largest difference {difference:.1e}")
    sys.exit(0 if found.shape == expected["embeddings"].shape and difference <= 1e-4 else "error: the rows are others")


main()
