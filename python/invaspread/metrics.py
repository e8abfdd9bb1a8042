"""Metrics of embeddings: the numbers of `invaspread measure`, to the bit.

Embeddings are arrays or tensors (rows, dimensions) of any type of number; labels are whole numbers or words, one for
each row. Rows are scaled to length 1 unless `normalize=False`, so that neighbors are ranked by angle. All accuracies
are in percent. A NaN or an infinity is an error.

An argument of another type raises TypeError, another value ValueError; both name the argument. Ctrl-C raises
KeyboardInterrupt within a tenth of a second. The work itself cannot be stopped in its middle: it goes on in the
background until its end, or until Python ends, and its result is dropped.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from . import _native
from ._checks import as_array, flag, kind, number, numbers, whole, word, wrong_type
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
    normalize: bool | None = None,
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
            fnmr, hubness, shape; `["map", "cmc"]` and `"map,cmc"` are the same.
        as_: The library whose protocol sets k, temperature, scaling and metrics: paper, lightly, solo-learn, dino or
            pytorch-metric-learning.
        normalize: Whether rows are scaled to length 1, as they are if it is not given. Not beside `as_`, whose protocol
            says it.
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
        TypeError, ValueError: With the argument or the setting, what was found and what was expected.
        KeyboardInterrupt: After Ctrl-C; the work goes on in the background, and its result is dropped.

    >>> import numpy as np
    >>> rows = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> measure(rows, ["a", "a", "b", "b"], metrics=["retrieval"], intervals=False)["metrics"]["recall_at_1"]
    100.0
    """
    enter()
    if as_ is not None and normalize is not None:
        raise ValueError(f'normalize={normalize} and as_="{as_}", which sets it too: leave one of them out')
    found = _native.measure(
        _labeled(embeddings, labels),
        _gallery(gallery, gallery_labels),
        same_source=_optional(same_source, "same_source", _SOURCES),
        gallery_same_source=_optional(gallery_same_source, "gallery_same_source", _SOURCES),
        same_source_leaves_out=_word_or_none(same_source_leaves_out, "same_source_leaves_out"),
        against=_optional(against, "against", _ROWS),
        against_gallery=_optional(against_gallery, "against_gallery", _ROWS),
        library=_word_or_none(as_, "as_"),
        metrics=_metrics(metrics),
        fmr=_rates(fmr),
        scaled=normalize is None or flag(normalize, "normalize"),
        intervals=_intervals(intervals),
        per_class=flag(per_class, "per_class"),
        settings=[f"{key.replace('__', '.')}={_written(value)}" for key, value in settings.items()],
    )
    result = json.loads(found, object_hook=_ends)
    drawn = result["intervals"] or {"metrics": {}}
    result["intervals"] = drawn.pop("metrics")
    # The protocol has no intervals if no metric has one, as with very few classes.
    if drawn and result["protocol"]["intervals"]:
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
        _labeled(embeddings, labels),
        _needed_gallery(gallery, gallery_labels),
        k=whole(k, "k"),
        temperature=number(temperature, "temperature"),
        scaled=flag(normalize, "normalize"),
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
        normalize=flag(normalize, "normalize"),
        intervals=False,
        eval__retrieval__recall_at=_ranks(recall_at),
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
    rows = _array(embeddings, "embeddings", _ROWS)
    stand_ins = np.zeros(rows.shape[:1], np.uint8) if labels is None else labels
    assignments, inertia, agreement = _native.cluster(
        _labeled(rows, stand_ins),
        clusters=whole(clusters, "clusters"),
        starts=whole(starts, "starts"),
        seed=whole(seed, "seed"),
        scaled=flag(normalize, "normalize"),
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
        _needed_gallery(gallery, gallery_labels),
        classifier=word(classifier, "classifier", '"svm" or "logistic"'),
        c=number(c, "c"),
        scaled=flag(normalize, "normalize"),
    )
    return Classified(accuracy, _names(labels, gallery_labels)[found])


#: What embeddings and labels are, for errors.
_ROWS = "numbers of shape (rows, dimensions)"
_LABELS = "a whole number or a word for each row"
_SOURCES = "the source of each row, a whole number or a word"


def _array(values: Any, name: str, expected: str) -> np.ndarray:
    """Returns an array of `values`, which may be a tensor on any device; of words only where not rows are expected."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":
            values = values.float()
    array = as_array(values, name, expected)
    if expected is not _ROWS and array.dtype.kind in "fO" and not hasattr(values, "dtype"):
        array = _unrounded(array, values, name)
    if array.dtype == object and array.size > 0 and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in ("fiub" if expected is _ROWS else "fiubUS"):
        found = f"an array of {array.dtype}" if hasattr(values, "dtype") else kind(values)
        raise TypeError(f"{name}: found {found}, expected {expected}")
    return np.ascontiguousarray(array)


def _unrounded(array: np.ndarray, values: Any, name: str) -> np.ndarray:
    """Returns an array of `values`, of which numpy makes `array`: rounded floats if there are whole numbers from 2**63 on."""
    each = np.array(values, dtype=object)
    if each.size == 0 or not all(isinstance(value, (int, np.integer)) for value in each.flat):
        return array
    least, most = min(each.flat), max(each.flat)
    if least < 0 or most >= 2**64:
        raise ValueError(f"{name}: found whole numbers from {least} to {most}, expected all in int64 or all in uint64")
    return each.astype(np.uint64)


def _table(values: Any, name: str, expected: str) -> tuple[str, tuple[int, ...], bytes]:
    array = _array(values, name, expected)
    return array.dtype.str, array.shape, array.tobytes()


def _optional(values: Any, name: str, expected: str) -> tuple[str, tuple[int, ...], bytes] | None:
    return None if values is None else _table(values, name, expected)


def _labeled(embeddings: Any, labels: Any) -> tuple[Any, Any]:
    return _table(embeddings, "embeddings", _ROWS), _table(labels, "labels", _LABELS)


def _gallery(gallery: Any, labels: Any) -> tuple[Any, Any] | None:
    if (gallery is None) != (labels is None):
        raise ValueError("found a gallery without gallery_labels, or the reverse; expected both or neither")
    return None if gallery is None else _needed_gallery(gallery, labels)


def _needed_gallery(gallery: Any, labels: Any) -> tuple[Any, Any]:
    return _table(gallery, "gallery", _ROWS), _table(labels, "gallery_labels", _LABELS)


def _metrics(metrics: Any) -> list[str] | None:
    """Returns the names of metrics, which may stand in one word with commas, as on the command line."""
    if metrics is None:
        return None
    if isinstance(metrics, str):
        return [name.strip() for name in metrics.split(",")]
    if not isinstance(metrics, (list, tuple)) or not all(isinstance(name, str) for name in metrics):
        raise wrong_type("metrics", metrics, 'names, such as metrics=["map", "cmc"]')
    if not metrics:
        raise ValueError('metrics: found an empty list, expected names, such as metrics=["map", "cmc"], or None')
    return list(metrics)


def _intervals(intervals: Any) -> str | None:
    """Returns what is drawn again: `None` stands for the program's choice."""
    if intervals is None or isinstance(intervals, (bool, np.bool_)):
        return None if intervals else "none"
    return word(intervals, "intervals", 'True, False, "queries" or "classes"')


def _rates(fmr: Any) -> list[float] | None:
    if fmr is None:
        return None
    several = isinstance(fmr, (list, tuple)) or getattr(fmr, "ndim", 0) > 0
    rates = numbers(fmr, "fmr") if several else [number(fmr, "fmr")]
    if not rates:
        raise ValueError("fmr: found no rates, expected at least one, such as fmr=[0.001], or None")
    return rates


def _ranks(recall_at: Any) -> list[int]:
    try:
        ranks = list(recall_at)
    except TypeError:
        raise wrong_type("recall_at", recall_at, "whole numbers in a tuple, such as (1, 2, 4, 8)") from None
    return [whole(rank, "recall_at") for rank in ranks]


def _word_or_none(value: Any, name: str) -> str | None:
    return None if value is None else word(value, name, "a word or None")


def _names(labels: Any, gallery_labels: Any) -> np.ndarray:
    """Returns the label of each class, in the order of the numbering."""
    both = [np.unique(_array(labels, "labels", _LABELS)), np.unique(_array(gallery_labels, "gallery_labels", _LABELS))]
    kinds = {array.dtype.kind for array in both}
    if kinds == {"S", "U"}:
        # The program has read the bytes as UTF-8.
        both = [np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array for array in both]
    # Floats would round whole numbers beside them, and numpy makes floats of int64 beside uint64.
    if np.result_type(*both).kind == "f" and kinds != {"f"}:
        numbers = sorted({int(value) for array in both for value in array.tolist()})
        for dtype in (np.int64, np.uint64):
            if np.iinfo(dtype).min <= numbers[0] and numbers[-1] <= np.iinfo(dtype).max:
                return np.array(numbers, dtype)
        return np.array(numbers, object)
    return np.unique(np.concatenate(both))


def _ends(found: dict[str, Any]) -> dict[str, Any] | tuple[float, float]:
    """Returns an interval as a tuple, and any other object as it is."""
    return (found["low"], found["high"]) if found.keys() == {"low", "high"} else found


def _written(value: Any) -> str:
    """Returns a value as the program reads it after the `=` of a setting."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple, range)):
        each = (json.dumps(one, ensure_ascii=False) if isinstance(one, str) else _written(one) for one in value)
        return f"[{', '.join(each)}]"
    return str(value)
