"""A loader that makes batches of random views ahead, in the threads of the library."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._checks import as_array, flag, whole, wrong_type
from ._native import Epoch, Images
from ._process import enter
from .views import Views, as_pixels


class Batch(NamedTuple):
    """A batch: unpack it as `views, labels, index`."""

    #: One float32 array or tensor (batch, channels, size, size) for each view of an image.
    views: tuple[Any, ...]
    #: The labels of the images; `None` if the loader has none.
    labels: Any | None
    #: The numbers of the images.
    index: Any


class Loader:
    """Gives batches of random views of images, one epoch for each `for` loop.

    The views are made ahead, in threads of the library that run beside Python. They are those of torchvision
    on Pillow images, to the byte, where the same random parameters are drawn. The order and the views of an
    epoch depend on the seed and the number of the epoch alone, never on threads, on the batch size or on a
    restart. Epochs are numbered from 1.

    Files are read and decoded in the threads of the library when they are needed, and the views are cut from the
    images as they are, of any size. Of the images themselves, only those that the threads work on are in memory.

    Args:
        images: A uint8 array or tensor (images, height, width, 3), or a sequence of uint8 arrays (height, width, 3) or
            Pillow images of any sizes. Contiguous arrays are used as they are, without a copy: do not write to
            them while the loader is used.

            Or a path: a folder with a folder for each class, in the order and with the class numbers of
            torchvision's `ImageFolder`; a folder of images without classes; a text file with a path in each line;
            tar shards of WebDataset (a file, a folder, or `"shard-{000000..000004}.tar"`); or Parquet files of the
            Hugging Face hub. Of tar shards, the places of the images are listed when the loader is made, and each
            image is read from its place. Parquet files are read once when the loader is made: their images are
            copied, encoded as they are, into a temporary file of about the same size, and read from there. The
            variable TMPDIR chooses its folder.
        views: What is made of each image: `TwoViews`, `MultiCrop`, `OneView` or `Views`.
        batch_size: Images of a batch.
        labels: One label for each image, numbers or (with output="numpy") words; they come back with the batches. If
            `images` is a path, the default is the classes of the images: the numbers of `classes` where they are words,
            else the numbers in the files.
        seed: The seed of the order and of the views.
        shuffle: Whether each epoch has a new random order.
        drop_last: Whether a last batch that is not full is left out, as training needs.
        ahead: Finished batches that may wait.
        threads: Threads that make views; by default one for each core, but at most eight.
        output: "numpy" for arrays, or "torch" for tensors that share their memory.
        channels_last: Whether the channels of a pixel lie beside each other in memory, the layout in which
            PyTorch convolves fastest and which needs no copy. The shape is (batch, channels, size, size) in
            both cases.
        skip_broken: Whether files that cannot be decoded are left out. Every image is then decoded once when the
            loader is made; `skipped` counts those left out, and the others are numbered from 0 without gaps. Classes keep
            their numbers, also if one loses all its images, which a sentence in `notes` says.

    Raises:
        TypeError, ValueError: If an argument does not fit, or a shard is damaged; the message says what was found and what
            was expected.
        FileNotFoundError: If there is no such path.

    Iterating raises `RuntimeError` if an image has no pixels or its file cannot be decoded; the message names the file.
    """

    def __init__(
        self,
        images: Any,
        views: Views,
        batch_size: int = 128,
        *,
        labels: Sequence[Any] | np.ndarray | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        ahead: int = 2,
        threads: int | None = None,
        output: str = "numpy",
        channels_last: bool = True,
        skip_broken: bool = False,
    ) -> None:
        if not isinstance(views, Views):
            raise ValueError(f"views: found {views!r}, expected TwoViews(...), MultiCrop(...) or another Views")
        batch_size = whole(batch_size, "batch_size", 1)
        seed, ahead = whole(seed, "seed"), whole(ahead, "ahead", 1, 1024)
        threads = None if threads is None else whole(threads, "threads", 1, 1024)
        shuffle, drop_last = flag(shuffle, "shuffle"), flag(drop_last, "drop_last")
        channels_last, skip_broken = flag(channels_last, "channels_last"), flag(skip_broken, "skip_broken")
        if output not in ("numpy", "torch"):
            raise ValueError(f'output: found {output!r}, expected "numpy" or "torch"')
        labels = None if labels is None else _labels(labels, output)
        #: The names of the classes, if they are words; `labels` of a batch are places in this list.
        self.classes: list[str] | None = None
        #: The name of each image, if `images` is a path: the path below a folder, or the key in a shard.
        self.names: list[str] | None = None
        #: Sentences about the files: which were passed over, and where the classes come from.
        self.notes: list[str] = []
        #: The number of images that `skip_broken` has left out.
        self.skipped = 0
        #: The errors of those images, which name the files.
        self.broken: list[str] = []
        if isinstance(images, (str, bytes, os.PathLike)):
            enter()
            _one_split(os.fsdecode(images))
            found = Images.of_path(os.fsdecode(images), skip_broken, labels is None)
            self._images, (self.names, (own, self.classes), self.notes, self.broken) = found
            self.skipped = len(self.broken)
            if labels is not None and self.broken:
                raise ValueError(
                    f"labels: found labels beside {self.skipped} images that cannot be decoded, so nobody knows which image"
                    f" a label belongs to; repair or remove these files, the first of which: {self.broken[0]}"
                )
            if own is not None:
                labels = np.asarray(own)
        elif skip_broken:
            raise ValueError("skip_broken: found True for images in memory, expected a path beside it")
        else:
            self._images = _borrowed(images)
        if labels is not None and len(labels) != len(self._images):
            raise ValueError(f"labels: found {len(labels)}, expected {len(self._images)}, one for each image")
        if drop_last and len(self._images) < batch_size:
            raise ValueError(
                f"batch_size: found {batch_size} for {len(self._images)} images, which fill no batch; expected at most"
                " the number of images, or drop_last=False"
            )
        self._labels = labels
        self._make = _torch if output == "torch" else _numpy
        self._channels_last = channels_last
        self._settings = {
            "batch_size": batch_size,
            "shuffle": shuffle,
            "drop_last": drop_last,
            "seed": seed,
            "ahead": ahead,
            "threads": threads,
        }
        #: What is made of each image.
        self.views = views
        #: The number of the last epoch that was begun; 0 before the first.
        self.epoch = 0

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        batches = len(self._images) / self._settings["batch_size"]
        return math.floor(batches) if self._settings["drop_last"] else math.ceil(batches)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next epoch the one with this number, at least 1: to go on after a restart."""
        self.epoch = whole(epoch, "epoch", 1, 2**32) - 1

    def __iter__(self) -> Iterator[Batch]:
        """Begins the next epoch."""
        enter()
        self.epoch = whole(self.epoch + 1, "epoch", 1, 2**32)
        epoch = Epoch(self._images, self.views.groups, epoch=self.epoch, **self._settings)
        return self._batches(epoch)

    def _batches(self, epoch: Epoch) -> Iterator[Batch]:
        for groups, index in epoch:
            yield self._batch(groups, index)
            # The caller may have forked.
            enter()

    def _batch(self, groups: list[np.ndarray], index: np.ndarray) -> Batch:
        index = index.astype(np.int64)
        views = []
        for group in groups:
            # (views * batch, size, size, channels), the first view of all images before the second.
            for view in group.reshape(-1, len(index), *group.shape[1:]):
                view = view.transpose(0, 3, 1, 2)
                views.append(self._make(view if self._channels_last else np.ascontiguousarray(view)))
        labels = None if self._labels is None else self._make(self._labels[index])
        return Batch(tuple(views), labels, self._make(index))


def _labels(labels: Any, output: str) -> np.ndarray:
    expected = "one for each image in a list or an array"
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu()
    array = as_array(labels, "labels", expected)
    if array.ndim == 0:
        raise wrong_type("labels", labels, expected)
    if array.ndim > 1:
        raise ValueError(f"labels: found shape {array.shape}, expected one dimension: one label for each image")
    if output == "torch" and array.dtype.kind not in "fiub":
        raise ValueError(
            f'labels: found an array of {array.dtype}, of which there are no tensors; expected numbers, or output="numpy"'
        )
    return array


def _one_split(path: str) -> None:
    """Refuses a folder that holds shards for training and others for testing: nobody wants to train on both."""
    for folder in (path, os.path.join(path, "data")):
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        shards = [name for name in names if name.endswith((".tar", ".parquet"))]
        train = next((name for name in shards if name.startswith("train")), None)
        other = next((name for name in shards if name.startswith(("test", "val"))), None)
        if train and other:
            raise ValueError(
                f"images: found shards of several splits in {folder}, such as {train} and {other}; expected those of one:"
                " name a folder with these alone, or their range in braces, such as train-{000000..000004}.tar"
            )


def _borrowed(images: Any) -> Images:
    if hasattr(images, "detach"):
        images = images.detach().cpu().numpy()
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = as_array(images, "images", "an array (images, height, width, 3)")
        if images.dtype != np.uint8:
            raise ValueError(f"images: found an array of {images.dtype}, expected uint8, 0 to 255")
        return Images.of_one_size(np.ascontiguousarray(images))
    if hasattr(images, "shape"):
        raise ValueError(
            f"images: found shape {tuple(images.shape)}, expected an array (images, height, width, 3), a sequence of"
            " images or a path"
        )
    expected = "an array (images, height, width, 3), a sequence of images or a path"
    if isinstance(images, dict):
        raise wrong_type("images", images, expected)
    try:
        several = list(images)
    except TypeError:
        raise wrong_type("images", images, expected) from None
    return Images.of_any_size([as_pixels(image, f"image {number}") for number, image in enumerate(several)])


def _numpy(array: np.ndarray) -> np.ndarray:
    return array


def _torch(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array)
