"""Makes ranking.safetensors: mAP, MRR, precision@K, FNMR at FMR and the skewness of hubness, by pytorch-metric-learning,
scikit-learn, scipy and numpy in f64.

    python3 tests/goldens/ranking.py [FOLDER] [SEED]      # FOLDER is tests/goldens and SEED is 0 if not given

It needs numpy, scipy, scikit-learn, torch, faiss, pytorch-metric-learning and safetensors. The rows are rounded to f32
first. mAP is scikit-learn's `average_precision_score` of each query, and must equal pytorch-metric-learning's
`mean_average_precision` up to the f32 in which that library computes. Queries without a relevant row are left out.
"""

import sys
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from safetensors.numpy import save_file
from sklearn.metrics import average_precision_score

# queries, rows of the gallery (0: the queries among each other), columns, classes
CASES = [(120, 0, 8, 6), (60, 150, 16, 5), (90, 40, 4, 30)]
KS = (1, 5, 20)
RATES = (0.1, 0.01, 0.001)


def unit(random, rows, columns, labels, centers):
    x = centers[labels] + 1.2 * random.normal(size=(rows, columns))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def case(random, n, m, columns, classes):
    centers = random.normal(size=(classes, columns))
    labels, gallery_labels = random.integers(classes, size=n), random.integers(classes, size=m)
    x, g = unit(random, n, columns, labels, centers), unit(random, m, columns, gallery_labels, centers)
    tensors = {"rows": x, "labels": labels.astype(np.int64)}
    if m:
        tensors |= {"gallery": g, "gallery_labels": gallery_labels.astype(np.int64)}
    else:
        g, gallery_labels = x, labels
    a, b = x.astype(np.float64), g.astype(np.float64)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    s = a @ b.T
    same = labels[:, None] == gallery_labels[None]
    counts = np.ones_like(same) if m else ~np.eye(n, dtype=bool)
    ap, rr, precision = [], [], {k: [] for k in KS}
    for row in range(n):
        mine = counts[row]
        if not same[row][mine].any():
            continue
        ap.append(average_precision_score(same[row][mine], s[row][mine]))
        hits = same[row][mine][np.argsort(-s[row][mine], kind="stable")]
        rr.append(1 / (1 + hits.argmax()))
        for k in KS:
            precision[k].append(hits[:k].sum() / k)
    theirs = AccuracyCalculator(
        include=("mean_average_precision", "mean_reciprocal_rank", "precision_at_1"),
        k=len(g) - (0 if m else 1), device=torch.device("cpu"),
    ).get_accuracy(
        torch.from_numpy(x), torch.from_numpy(labels), torch.from_numpy(g), torch.from_numpy(gallery_labels),
        ref_includes_query=not m,
    )
    assert abs(theirs["mean_average_precision"] - np.mean(ap)) < 1e-6, (theirs, np.mean(ap))
    assert abs(theirs["mean_reciprocal_rank"] - np.mean(rr)) < 1e-6, (theirs, np.mean(rr))
    assert abs(theirs["precision_at_1"] - np.mean(precision[1])) < 1e-6, theirs
    pairs = counts if m else np.triu(counts, 1)
    genuine, impostors = s[pairs & same], np.sort(s[pairs & ~same])[::-1]
    fnmr = []
    for rate in RATES:
        allowed = int(np.floor(rate * len(impostors) * (1 + 1e-12)))
        fnmr.append((genuine <= impostors[allowed]).mean() if allowed else np.nan)
    order = np.argsort(np.where(counts, -s, np.inf), axis=1, kind="stable")[:, :10]
    skewness = scipy.stats.skew(np.bincount(order.ravel(), minlength=len(g)))
    values = [np.mean(ap), np.mean(rr), *(np.mean(precision[k]) for k in KS), *fnmr, skewness]
    return tensors | {"values": np.array(values)}


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    random = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    tensors = {}
    for number, numbers in enumerate(CASES):
        tensors |= {f"{number}.{name}": tensor for name, tensor in case(random, *numbers).items()}
    save_file(tensors, folder / "ranking.safetensors")


if __name__ == "__main__":
    main()
