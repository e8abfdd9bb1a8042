"""Makes protocols.safetensors: kNN and retrieval by the protocols that `invaspread measure --as` sets, of one set of rows.

    python3 tests/goldens/protocols.py [FOLDER] [SEED]      # FOLDER is tests/goldens and SEED is 0 if not given

It needs numpy, torch, lightly, pytorch-metric-learning, faiss and safetensors. `lightly` is its own `knn_predict` (k = 200,
temperature 0.1, the defaults) of rows scaled as its `KNNClassifier` scales them. `pytorch-metric-learning` is its own
`AccuracyCalculator` with a gallery. `dino`, `solo-learn` and `paper` are written anew from the published code, which is no
package: facebookresearch/dino, eval_knn.py (rows of length 1, temperature 0.07, k = 20 of 10, 20, 100, 200);
vturrisi/solo-learn, solo/utils/knn.py and main_knn.py (k = 20, T = 0.07, distance_fx = "cosine", which multiplies the
rows as they are; the `WeightedKNNClassifier` of solo-learn 1.0.2 from PyPI, without the argument `compute_on_step` that torchmetrics no
longer has, gives the committed values to the digit); mangye16/Unsupervised_Embedding_Learning, utils.py (k = 200, temperature 0.1).

All three vote alike. torch sorts equal scores as it likes, so the accuracy of five classes is NaN if a query has votes
for fewer than five.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from lightly.utils.benchmarking.knn import knn_predict
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from safetensors.numpy import save_file

CLASSES, TRAIN, TEST, COLUMNS = 12, 500, 150, 16


def percent(predictions, labels):
    hits = predictions == labels[:, None]
    return [100 * hits[:, :1].any(1).double().mean().item(), 100 * hits[:, :5].any(1).double().mean().item()]


def vote(test, labels, train, train_labels, k, temperature):
    """Accuracies of one and of five classes by votes exp(s / T) of the k nearest rows by inner product, in f64."""
    similarities, indices = (test.double() @ train.double().t()).topk(k, dim=1)
    scores = torch.zeros(len(test), CLASSES, dtype=torch.float64)
    # Relative to the nearest row: a common factor of each query.
    weights = ((similarities - similarities[:, :1]) / temperature).exp()
    scores.scatter_add_(1, train_labels[indices], weights)
    found = percent(scores.argsort(dim=1, descending=True), labels)
    return found if ((scores > 0).sum(1) >= 5).all() else [found[0], np.nan]


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    random = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    centers = random.normal(size=(CLASSES, COLUMNS))
    tensors = {}
    for name, count in [("train", TRAIN), ("test", TEST)]:
        labels = random.integers(CLASSES, size=count)
        rows = 0.4 * centers[labels] + random.normal(size=(count, COLUMNS))
        # Lengths differ, so that it shows whether a protocol scales the rows.
        rows *= 0.1 * random.uniform(0.5, 2.0, size=(count, 1))
        tensors |= {name: rows.astype(np.float32), f"{name}_labels": labels.astype(np.int64)}
    train, train_labels, test, labels = (
        torch.from_numpy(tensors[name]) for name in ("train", "train_labels", "test", "test_labels")
    )
    unit = [torch.nn.functional.normalize(rows, dim=1) for rows in (test, train)]
    values = {
        "lightly": percent(knn_predict(unit[0], unit[1].t(), train_labels, CLASSES), labels),
        "paper": vote(unit[0], labels, unit[1], train_labels, 200, 0.1),
        "dino": vote(unit[0], labels, unit[1], train_labels, 20, 0.07),
        "solo-learn": vote(test, labels, train, train_labels, 20, 0.07),
    }
    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r", "r_precision"), device=torch.device("cpu")
    )
    found = calculator.get_accuracy(unit[0], labels, unit[1], train_labels, ref_includes_query=False)
    values["pytorch-metric-learning"] = [
        100 * found[name] for name in ("precision_at_1", "mean_average_precision_at_r", "r_precision")
    ]
    print(values)
    assert len({values[name][0] for name in ("dino", "solo-learn", "lightly")}) == 3, "other rows would tell them apart"
    save_file(tensors | {f"{name}.values": np.array(v) for name, v in values.items()}, folder / "protocols.safetensors")


if __name__ == "__main__":
    main()
