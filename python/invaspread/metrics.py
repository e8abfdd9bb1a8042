"""Metrics of embeddings: the numbers of `invaspread measure`, to the bit.

Embeddings are arrays or tensors (rows, dimensions) of any type of number; labels are whole numbers or words, one for
each row. Rows are scaled to length 1 unless `normalize=False`, so that neighbors are ranked by angle. All accuracies
are in percent. A NaN or an infinity is an error.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from . import _native
from ._process import enter


class Votes(NamedTuple):
    """What weighted kNN found."""

    #: The percentage of rows whose class has the highest score.
    top1: float
    #: The percentage of rows whose class has one of the five highest scores.
    top5: float
    #: The label that was found for each row.
    predictions: np.ndarray


class Classified(NamedTuple):
    """What a linear classifier found."""

    #: The percentage of rows whose class was found.
    accuracy: float
    #: The label that was found for each row.
    predictions: np.ndarray


class Clusters(NamedTuple):
    """What k-means found."""

    #: The number of the cluster of each row.
    assignments: np.ndarray
    #: The sum of squared distances of the rows to their centroids.
    inertia: float
    #: NMI with the arithmetic mean of the entropies, as scikit-learn computes it today; `None` without labels.
    nmi: float | None
    #: NMI with the geometric mean, as scikit-learn before 0.22 and most papers up to 2019 computed it.
    nmi_geometric: float | None
    #: Adjusted mutual information.
    ami: float | None


def measure(
    embeddings: Any,
    labels: Any,
    gallery: Any = None,
    gallery_labels: Any = None,
    *,
    metrics: str | list[str] | None = None,
    as_: str | None = None,
    normalize: bool = True,
    intervals: bool | str | None = True,
    fmr: float | list[float] | None = None,
    same_source: Any = None,
    gallery_same_source: Any = None,
    same_source_leaves_out: str | None = None,
    against: Any = None,
    against_gallery: Any = None,
    per_class: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Measures embeddings as `invaspread measure` does: kNN, R@K, MAP@R and R-precision in a gallery, or without one R@K,
    MAP@R, R-precision, NMI and AMI among themselves.

    Args:
        embeddings, labels: The rows that are looked up.
        gallery, gallery_labels: The rows that are searched and that vote; without them each row is searched among the
            others.
        metrics: What to compute, if not the usual: any of default, all, knn, retrieval, nmi, precision, mrr, map, cmc,
            fnmr, hubness, shape.
        as_: The library whose protocol sets k, temperature, scaling and metrics: paper, lightly, solo-learn, dino or
            pytorch-metric-learning.
        normalize: Whether rows are scaled to length 1.
        intervals: Whether each metric that is a mean over rows gets a 95 % interval by the bootstrap. "queries" asks:
            would other images of these classes give the same? "classes" asks: would other classes? `True` means
            queries with a gallery, else classes.
        fmr: The false match rates of the metric fnmr; 0.1, 0.01, 0.001 and 0.0001 if not given.
        same_source: The source of each row, such as its camera or video, as numbers or words: a query does not find rows
            of its own class and source, and they do not vote.
        gallery_same_source: The source of each row of the gallery; with a gallery, `same_source` needs it.
        same_source_leaves_out: Which rows of its source a query leaves out: "class" (those of its class, if not given)
            or "all".
        against: Other embeddings of the same rows, in the same order, of any dimension: gives the difference of each
            metric with its interval, row by row.
        against_gallery: The other embeddings of the gallery's rows; with a gallery, `against` needs them.
        per_class: Whether each class is measured too.
        settings: Settings of the program with `__` in place of dots: `eval__k=20`, `eval__temperature=0.07`,
            `eval__retrieval__recall_at=[1, 10]`, `seed=1`.

    Returns:
        A dict with what `invaspread measure --json` prints; an interval is a tuple of its low and its high end.

        - `metrics`: name to percent. `intervals`: name to (low, high), of the metrics that have one.
        - `protocol`: what a reader must know to compare the numbers: gallery, scaling, k, temperature, the K of R@K, ties,
          what counts as missed, how the intervals were drawn.
        - `notes`: what is unusual about these rows, in sentences.
        - `verification`, `hubness`, `shape`: what their metrics found beside percentages; `None` if not asked for.
        - `per_class`: a dict for each class (`class`, `rows`, `metrics`, `confused_with`); `None` if not asked for.
        - `against`: `metrics` of the other embeddings, and `differences` (name to `value` and `interval`, ours less
          theirs); `None` without them.
        - `rows`, `dim`, `classes`, `class_names`, `gallery_rows`, `without_match` (the rows that have nothing to find),
          `same_source`, `settings`, `arrays` and so on.

    Raises:
        ValueError: With the argument or the setting, what was found and what was expected.

    >>> import numpy as np
    >>> rows = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> measure(rows, ["a", "a", "b", "b"], metrics=["retrieval"], intervals=False)["metrics"]["recall_at_1"]
    100.0
    """
    enter()
    if isinstance(metrics, str):
        metrics = [metrics]
    if intervals is True:
        intervals = None
    elif not intervals:
        intervals = "none"
    found = _native.measure(
        _labeled(embeddings, labels),
        _gallery(gallery, gallery_labels),
        same_source=_optional(same_source, "same_source"),
        gallery_same_source=_optional(gallery_same_source, "gallery_same_source"),
        same_source_leaves_out=same_source_leaves_out,
        against=_optional(against, "against"),
        against_gallery=_optional(against_gallery, "against_gallery"),
        library=as_,
        metrics=metrics,
        fmr=None if fmr is None else [float(rate) for rate in np.atleast_1d(fmr)],
        scaled=normalize,
        intervals=intervals,
        per_class=per_class,
        settings=[f"{key.replace('__', '.')}={_written(value)}" for key, value in settings.items()],
    )
    result = json.loads(found, object_hook=_ends)
    drawn = result["intervals"] or {"metrics": {}}
    result["intervals"] = drawn.pop("metrics")
    if drawn:
        result["protocol"]["intervals"] |= drawn
    return result


def knn(
    embeddings: Any,
    labels: Any,
    gallery: Any,
    gallery_labels: Any,
    *,
    k: int = 200,
    temperature: float = 0.1,
    normalize: bool = True,
) -> Votes:
    """Classifies rows by the votes of their k nearest rows of a gallery, each with the weight exp(similarity /
    temperature), as instance discrimination is measured (Wu et al., CVPR 2018, section 3.4)."""
    enter()
    accuracies, found = _native.knn(
        _labeled(embeddings, labels), _gallery(gallery, gallery_labels), k=k, temperature=temperature, scaled=normalize
    )
    return Votes(*accuracies, _names(labels, gallery_labels)[found])


def retrieval(
    embeddings: Any,
    labels: Any,
    gallery: Any = None,
    gallery_labels: Any = None,
    *,
    recall_at: tuple[int, ...] = (1, 2, 4, 8),
    normalize: bool = True,
) -> dict[str, float]:
    """Returns R@K, MAP@R and R-precision, by name. `measure` gives their intervals too."""
    found = measure(
        embeddings,
        labels,
        gallery,
        gallery_labels,
        metrics=["retrieval"],
        normalize=normalize,
        intervals=False,
        eval__retrieval__recall_at=list(recall_at),
    )
    return found["metrics"]


def cluster(
    embeddings: Any,
    clusters: int,
    labels: Any = None,
    *,
    starts: int = 10,
    seed: int = 0,
    normalize: bool = True,
) -> Clusters:
    """Clusters rows by k-means (greedy k-means++, at most 300 iterations, the best of `starts`), and compares the
    clusters with the labels if there are any."""
    enter()
    rows = _array(embeddings, "embeddings")
    stand_ins = np.zeros(len(rows), np.uint8) if labels is None else labels
    assignments, inertia, agreement = _native.cluster(
        _labeled(rows, stand_ins),
        clusters=clusters,
        starts=starts,
        seed=seed,
        scaled=normalize,
        has_labels=labels is not None,
    )
    return Clusters(assignments, inertia, *(agreement or (None, None, None)))


def linear(
    embeddings: Any,
    labels: Any,
    gallery: Any,
    gallery_labels: Any,
    *,
    classifier: str = "svm",
    c: float = 1.0,
    normalize: bool = True,
) -> Classified:
    """Trains a linear classifier on the gallery and applies it to the rows: "svm" (L2-regularized, squared hinge loss,
    one class against the rest, as liblinear's default) or "logistic" (multinomial), with the weight C of the loss."""
    enter()
    (accuracy,), found = _native.linear(
        _labeled(embeddings, labels),
        _gallery(gallery, gallery_labels),
        classifier=classifier,
        c=c,
        scaled=normalize,
    )
    return Classified(accuracy, _names(labels, gallery_labels)[found])


def _array(values: Any, name: str) -> np.ndarray:
    """Returns an array of `values`, which may be a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":
            values = values.float()
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "fiubUS":
        raise ValueError(f"{name}: found an array of {array.dtype}, expected numbers or words")
    return np.ascontiguousarray(array)


def _table(values: Any, name: str) -> tuple[str, tuple[int, ...], bytes]:
    array = _array(values, name)
    return array.dtype.str, array.shape, array.tobytes()


def _optional(values: Any, name: str) -> tuple[str, tuple[int, ...], bytes] | None:
    return None if values is None else _table(values, name)


def _labeled(embeddings: Any, labels: Any) -> tuple[Any, Any]:
    return _table(embeddings, "embeddings"), _table(labels, "labels")


def _gallery(gallery: Any, labels: Any) -> tuple[Any, Any] | None:
    if (gallery is None) != (labels is None):
        raise ValueError("found a gallery without gallery_labels, or the reverse; expected both or neither")
    return None if gallery is None else (_table(gallery, "gallery"), _table(labels, "gallery_labels"))


def _names(labels: Any, gallery_labels: Any) -> np.ndarray:
    """Returns the label of each class, in the order of the numbering."""
    return np.unique(np.concatenate([_array(labels, "labels").ravel(), _array(gallery_labels, "gallery_labels").ravel()]))


def _ends(found: dict[str, Any]) -> dict[str, Any] | tuple[float, float]:
    """Returns an interval as a tuple, and any other object as it is."""
    return (found["low"], found["high"]) if found.keys() == {"low", "high"} else found


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
