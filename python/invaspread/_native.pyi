from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

class Images:
    @staticmethod
    def of_one_size(array: NDArray[np.uint8]) -> Images: ...
    @staticmethod
    def of_any_size(arrays: list[NDArray[np.uint8]]) -> Images: ...
    @staticmethod
    def of_path(
        path: str, skip_broken: bool, needs_labels: bool
    ) -> tuple[Images, tuple[list[str], tuple[list[int] | None, list[str] | None], list[str], list[str]]]: ...
    def __len__(self) -> int: ...

class Transforms:
    def __init__(self, settings: str, train: bool) -> None: ...
    @property
    def size(self) -> int: ...
    def view(
        self, image: NDArray[np.uint8], view: int, of_group: int, index: int, seed: int, epoch: int
    ) -> NDArray[np.float32]: ...

class Epoch:
    def __init__(
        self,
        images: Images,
        groups: list[tuple[Transforms, int]],
        *,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        epoch: int,
        ahead: int,
        threads: int | None,
    ) -> None: ...
    def __iter__(self) -> Iterator[tuple[list[NDArray[np.float32]], NDArray[np.uint32]]]: ...
    def __next__(self) -> tuple[list[NDArray[np.float32]], NDArray[np.uint32]]: ...

def load_weights(path: str, within: str | None) -> tuple[dict[str, NDArray[Any]], list[str]]: ...

Table = tuple[str, tuple[int, ...], bytes]
Labeled = tuple[Table, Table]

def measure(
    test: Labeled,
    gallery: Labeled | None,
    *,
    same_source: Table | None,
    gallery_same_source: Table | None,
    same_source_leaves_out: str | None,
    against: Table | None,
    against_gallery: Table | None,
    library: str | None,
    metrics: list[str] | None,
    fmr: list[float] | None,
    scaled: bool,
    intervals: str | None,
    per_class: bool,
    settings: list[str],
) -> str: ...
def knn(
    test: Labeled, gallery: Labeled | None, *, k: int, temperature: float, scaled: bool
) -> tuple[list[float], NDArray[np.uint32]]: ...
def linear(
    test: Labeled, gallery: Labeled | None, *, classifier: str, c: float, scaled: bool
) -> tuple[list[float], NDArray[np.uint32]]: ...
def cluster(
    test: Labeled, *, clusters: int, starts: int, seed: int, scaled: bool, has_labels: bool
) -> tuple[NDArray[np.uint32], float, tuple[float, float, float] | None]: ...
