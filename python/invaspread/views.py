"""Random views of images: the transforms of torchvision on Pillow images, to the byte."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._native import Transforms

_MEAN = (0.4914, 0.4822, 0.4465)
_STD = (0.2023, 0.1994, 0.2010)


def as_pixels(image: Any) -> np.ndarray:
    """Returns an image as a contiguous uint8 array (height, width, 3).

    Takes such an array, a Pillow image (which is converted to RGB), or a uint8 tensor on the CPU with the
    channels last.
    """
    if hasattr(image, "convert") and getattr(image, "mode", "RGB") != "RGB":
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"found an image of type {pixels.dtype} and shape {pixels.shape}; expected uint8 of shape (height, width, 3)"
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
        solarize: `(threshold, [probability of each view])`; `None` leaves it out.
        flip: The probability that a view is mirrored.
        mean, std: Of each channel, for values from 0 to 1. The defaults are those of CIFAR-10 in the released
            code of InvaSpread.
        parameters: Whose random parameters are drawn: "current" for today's torchvision, "torchvision-0.2" for
            the release that the paper used.

    Raises:
        ValueError: If a value is out of its range; the message names the setting.
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
        brightness, contrast, saturation, hue = jitter or (0.0, 0.0, 0.0, 0.0)
        settings: dict[str, Any] = {
            "size": size,
            "parameters": parameters,
            "resized_crop": {"scale": list(scale), "ratio": list(ratio)},
            "color_jitter": {
                "brightness": brightness,
                "contrast": contrast,
                "saturation": saturation,
                "hue": hue,
                "probability": jitter_probability,
            },
            "grayscale": {"probability": grayscale},
            "flip": {"probability": flip},
            "normalize": {"mean": list(mean), "std": list(std)},
        }
        if blur is not None:
            (kernel, least, greatest), probability = blur
            settings["blur"] = {"kernel": kernel, "sigma": [least, greatest], "probability": list(probability)}
        if solarize is not None:
            threshold, probability = solarize
            settings["solarize"] = {"threshold": threshold, "probability": list(probability)}
        if views < 1:
            raise ValueError(f"views: found {views}, expected at least 1")
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
        if index is None:
            index = random.getrandbits(32)
        numbers = ((transforms, number) for transforms, views in self.groups for number in range(views))
        return tuple(
            transforms.view(pixels, view, number, index, seed, epoch).transpose(2, 0, 1)
            for view, (transforms, number) in enumerate(numbers)
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
        if small_views < 1:
            raise ValueError(f"small_views: found {small_views}, expected at least 1")
        self._small = self._settings | {
            "size": small_size,
            "resized_crop": self._settings["resized_crop"] | {"scale": list(small_scale)},
        }
        self.groups.append((_transforms(self._small), small_views))


def _transforms(settings: dict[str, Any]) -> Transforms:
    size = settings["size"]
    if size < 1:
        raise ValueError(f"size: found {size}, expected at least 1 pixel")
    try:
        text = json.dumps(settings, allow_nan=False)
    except ValueError:
        raise ValueError("found a NaN or an infinity among the settings of the views, expected finite numbers") from None
    return Transforms(text, True)
