"""Random views of images: the transforms of torchvision on Pillow images, to the byte."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._checks import as_array, number, numbers, whole, word, wrong_type
from ._native import Transforms

_MEAN = (0.4914, 0.4822, 0.4465)
_STD = (0.2023, 0.1994, 0.2010)
_PARAMETERS = ("current", "torchvision-0.2")


def as_pixels(image: Any, name: str = "image") -> np.ndarray:
    """Returns an image as a contiguous uint8 array (height, width, 3); errors call it `name`.

    Takes such an array, a Pillow image (which is converted to RGB), or a uint8 tensor on the CPU with the
    channels last.
    """
    if hasattr(image, "convert") and getattr(image, "mode", "RGB") != "RGB":
        image = image.convert("RGB")
    expected = "uint8 of shape (height, width, 3), or an image of Pillow"
    pixels = as_array(image, name, expected)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"{name}: found an image of type {pixels.dtype} and shape {pixels.shape}, expected {expected}"
        )
    return np.ascontiguousarray(pixels)


class Views:
    """Several random views of each image. The order of the transforms is that of torchvision's usual recipe:
    resized crop, color jitter, grayscale, blur, solarize, flip, then `(value / 255 - mean) / std`.

    Args:
        size: Width and height of a view, in pixels.
        views: Views of each image.
        scale: Least and greatest share of the image's area in a crop.
        ratio: Least and greatest ratio of width to height of a crop.
        jitter: Strengths of brightness, contrast, saturation and hue; `None` leaves the jitter out.
        jitter_probability: The probability that the jitter is applied.
        grayscale: The probability that a view is made gray.
        blur: `(kernel, least sigma, greatest sigma)` in pixels and one probability for each view, as
            `((23, 0.1, 2.0), [1.0, 0.1])`; `None` leaves it out. The last probability is that of all further
            views.
        solarize: `(threshold, [probability of each view])`, with a threshold from 0 to 255; `None` leaves it out.
        flip: The probability that a view is mirrored.
        mean, std: Of each channel, for values from 0 to 1. The defaults are those of CIFAR-10 in the released
            code of InvaSpread.
        parameters: Whose random parameters are drawn: "current" for today's torchvision, "torchvision-0.2" for
            the release that the paper used.

    Raises:
        TypeError, ValueError: If a value is of another type or out of its range; the message names the setting.
    """

    #: The settings of the small views of multi-crop.
    _small: dict[str, Any] | None = None

    def __init__(
        self,
        size: int = 32,
        views: int = 2,
        *,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        jitter: tuple[float, float, float, float] | None = (0.4, 0.4, 0.4, 0.4),
        jitter_probability: float = 1.0,
        grayscale: float = 0.2,
        blur: tuple[tuple[int, float, float], Sequence[float]] | None = None,
        solarize: tuple[int, Sequence[float]] | None = None,
        flip: float = 0.5,
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
        parameters: str = "current",
    ) -> None:
        if word(parameters, "parameters") not in _PARAMETERS:
            raise ValueError(f'parameters: found {parameters!r}, expected "current" or "torchvision-0.2"')
        strengths = [0.0] * 4 if jitter is None else numbers(jitter, "jitter", 4)
        brightness, contrast, saturation, hue = strengths
        settings: dict[str, Any] = {
            "size": whole(size, "size", 1, 2**32),
            "parameters": parameters,
            "resized_crop": {"scale": numbers(scale, "scale", 2), "ratio": numbers(ratio, "ratio", 2)},
            "color_jitter": {
                "brightness": brightness,
                "contrast": contrast,
                "saturation": saturation,
                "hue": hue,
                "probability": number(jitter_probability, "jitter_probability"),
            },
            "grayscale": {"probability": number(grayscale, "grayscale")},
            "flip": {"probability": number(flip, "flip")},
            "normalize": {"mean": numbers(mean, "mean"), "std": numbers(std, "std")},
        }
        if blur is not None:
            expected = "((kernel, least sigma, greatest sigma), [probability, ...])"
            (kernel, *sigma), probability = _pair(blur, "blur", expected, 3)
            settings["blur"] = {
                "kernel": whole(kernel, "blur", most=2**32),
                "sigma": numbers(sigma, "blur", 2),
                "probability": numbers(probability, "blur"),
            }
        if solarize is not None:
            (threshold,), probability = _pair(solarize, "solarize", "(threshold, [probability, ...])", 1)
            settings["solarize"] = {
                "threshold": whole(threshold, "solarize", most=256),
                "probability": numbers(probability, "solarize"),
            }
        views = whole(views, "views", 1, 2**16)
        self._settings = settings
        #: The transforms and the number of views of each group of views with one size.
        self.groups: list[tuple[Transforms, int]] = [(_transforms(settings), views)]

    def __getstate__(self) -> list[tuple[dict[str, Any], int]]:
        """Returns the settings, from which another process makes the same views."""
        return self._recipe()

    def __setstate__(self, recipe: list[tuple[dict[str, Any], int]]) -> None:
        self._settings = recipe[0][0]
        self._small = recipe[1][0] if len(recipe) > 1 else None
        self.groups = [(_transforms(settings), views) for settings, views in recipe]

    def _recipe(self) -> list[tuple[dict[str, Any], int]]:
        settings = [self._settings] if self._small is None else [self._settings, self._small]
        return [(one, views) for one, (_, views) in zip(settings, self.groups)]

    def __call__(
        self, image: Any, *, index: int | None = None, seed: int = 0, epoch: int = 0
    ) -> tuple[np.ndarray, ...]:
        """Returns the views of one image, float32 arrays (3, size, size).

        With `index`, these are the views that a `Loader` with this seed makes of image `index` in `epoch`.
        Without it, Python's `random` chooses the draws, which PyTorch seeds differently in each worker.
        """
        pixels = as_pixels(image)
        index = random.getrandbits(32) if index is None else whole(index, "index", most=2**32)
        seed, epoch = whole(seed, "seed"), whole(epoch, "epoch", most=2**32)
        each = ((transforms, of_group) for transforms, views in self.groups for of_group in range(views))
        return tuple(
            transforms.view(pixels, view, of_group, index, seed, epoch).transpose(2, 0, 1)
            for view, (transforms, of_group) in enumerate(each)
        )


class OneView(Views):
    """One random view of each image; see `Views`."""

    def __init__(self, size: int = 32, **settings: Any) -> None:
        super().__init__(size, 1, **settings)


class TwoViews(Views):
    """Two random views of each image, as InvaSpread, SimCLR and their like need; see `Views`."""

    def __init__(self, size: int = 32, **settings: Any) -> None:
        super().__init__(size, 2, **settings)


class MultiCrop(Views):
    """Two large views and several small ones of each image, as SwAV and DINO need; see `Views`.

    Args:
        size: Width and height of the two large views, in pixels.
        small_size: Width and height of the small views.
        small_views: Small views of each image.
        scale: Least and greatest share of the image's area in a large view.
        small_scale: The same for a small view.
        settings: The other settings of `Views`, for all views.
    """

    def __init__(
        self,
        size: int = 32,
        *,
        small_size: int = 16,
        small_views: int = 4,
        scale: tuple[float, float] = (0.4, 1.0),
        small_scale: tuple[float, float] = (0.05, 0.4),
        **settings: Any,
    ) -> None:
        super().__init__(size, 2, scale=scale, **settings)
        small_views = whole(small_views, "small_views", 1, 2**16)
        self._small = self._settings | {
            "size": whole(small_size, "small_size", 1, 2**32),
            "resized_crop": self._settings["resized_crop"] | {"scale": numbers(small_scale, "small_scale", 2)},
        }
        self.groups.append((_transforms(self._small), small_views))


def _pair(value: Any, name: str, expected: str, count: int) -> tuple[Sequence[Any], Any]:
    """Returns the `count` values and the probabilities of a transform."""
    try:
        first, probability = value
        first = list(first) if count > 1 else [first]
    except (TypeError, ValueError):
        raise wrong_type(name, value, f"{expected} or None") from None
    if len(first) != count:
        raise ValueError(f"{name}: found {len(first)} values before the probabilities, expected {expected} or None")
    return first, probability


def _transforms(settings: dict[str, Any]) -> Transforms:
    return Transforms(json.dumps(settings), True)
