"""The metrics, beside scikit-learn, pytorch-metric-learning and the program."""

import json
import os
import subprocess

import numpy as np
import pytest

from invaspread import cluster, knn, linear, measure, retrieval


def groups(rows, classes, dim=16, noise=0.9, seed=0):
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(classes, dim))
    labels = random.integers(0, classes, rows)
    return (centers[labels] + noise * random.normal(size=(rows, dim))).astype(np.float32), labels


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_knn_is_the_vote_of_neighbors():
    test, labels = groups(60, 5, seed=1)
    train, of_train = groups(300, 5, seed=2)
    found = knn(test, labels, train, of_train, k=20, temperature=0.1)
    similar = unit(test) @ unit(train).T
    for row, ours in enumerate(found.predictions):
        nearest = np.argsort(-similar[row], kind="stable")[:20]
        votes = np.bincount(of_train[nearest], np.exp(similar[row, nearest] / 0.1), minlength=5)
        assert ours == votes.argmax()
    assert found.top1 == pytest.approx(100 * np.mean(found.predictions == labels))
    assert found.top5 == 100


def test_words_are_labels_too():
    test, labels = groups(40, 3, seed=1)
    train, of_train = groups(90, 3, seed=2)
    names = np.array(["cat", "ant", "Bee"])
    by_number, by_name = knn(test, labels, train, of_train), knn(test, names[labels], train, list(names[of_train]))
    assert by_number.top1 == by_name.top1
    assert np.array_equal(names[by_number.predictions], by_name.predictions)
    assert linear(test, names[labels], train, names[of_train]).predictions[0] in names


def test_retrieval_is_that_of_pytorch_metric_learning():
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    torch = pytest.importorskip("torch")
    rows, labels = groups(200, 8, noise=1.5)
    names = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
    theirs = accuracy.AccuracyCalculator(include=names, device=torch.device("cpu")).get_accuracy(
        torch.from_numpy(unit(rows)), torch.from_numpy(labels)
    )
    ours = retrieval(rows, labels, recall_at=(1,))
    assert ours["recall_at_1"] == pytest.approx(100 * theirs["precision_at_1"], abs=1e-9)
    assert ours["map_at_r"] == pytest.approx(100 * theirs["mean_average_precision_at_r"], abs=1e-4)
    assert ours["r_precision"] == pytest.approx(100 * theirs["r_precision"], abs=1e-4)


def test_clusters_agree_as_in_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rows, labels = groups(300, 6, noise=1.2)
    found = cluster(rows, 6, labels)
    assert found.nmi == pytest.approx(100 * metrics.normalized_mutual_info_score(labels, found.assignments))
    assert found.nmi_geometric == pytest.approx(
        100 * metrics.normalized_mutual_info_score(labels, found.assignments, average_method="geometric")
    )
    assert found.ami == pytest.approx(100 * metrics.adjusted_mutual_info_score(labels, found.assignments))
    from sklearn.cluster import KMeans

    theirs = KMeans(6, n_init=10, random_state=0).fit(unit(rows))
    assert found.inertia == pytest.approx(theirs.inertia_, rel=1e-3)
    assert cluster(rows, 6).nmi is None
    # The clusters of `measure` are these.
    assert found.nmi == measure(rows, labels, metrics="nmi", intervals=False)["metrics"]["nmi_arithmetic"]


def test_linear_classifiers_are_those_of_scikit_learn():
    svm = pytest.importorskip("sklearn.svm")
    from sklearn.linear_model import LogisticRegression

    test, labels = groups(200, 4, noise=2.0, seed=1)
    train, of_train = groups(400, 4, noise=2.0, seed=2)
    ours = linear(test, labels, train, of_train)
    theirs = svm.LinearSVC(dual=True, tol=1e-8, max_iter=100_000).fit(unit(train), of_train)
    assert np.mean(ours.predictions == theirs.predict(unit(test))) > 0.99
    ours = linear(test, labels, train, of_train, classifier="logistic", normalize=False)
    theirs = LogisticRegression(tol=1e-10, max_iter=10_000).fit(train, of_train)
    assert np.array_equal(ours.predictions, theirs.predict(test))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_measure_is_the_program_to_the_bit(tmp_path, dtype):
    program = os.environ.get("INVASPREAD_PROGRAM")
    if program is None:
        pytest.skip("INVASPREAD_PROGRAM does not name the program")
    rows, labels = groups(120, 7, noise=1.5)
    others, of_others = groups(90, 7, noise=1.5, seed=3)
    for name, (embeddings, classes) in {"a": (rows, labels), "b": (others, of_others)}.items():
        np.savez(tmp_path / f"{name}.npz", embeddings=embeddings.astype(dtype), labels=classes)
    for gallery in (None, (others, of_others)):
        arguments = [] if gallery is None else ["--gallery", tmp_path / "b.npz"]
        said = subprocess.run(
            [program, "measure", tmp_path / "a.npz", "--json", *arguments, "seed=3"], check=True, capture_output=True
        )
        program_found = json.loads(said.stdout)
        of_gallery = () if gallery is None else (gallery[0].astype(dtype), gallery[1])
        found = measure(rows.astype(dtype), labels, *of_gallery, seed=3)
        assert found["metrics"] == program_found["metrics"]
        ends = {name: (one["low"], one["high"]) for name, one in program_found["intervals"]["metrics"].items()}
        assert found["intervals"] == ends and ends


def test_settings_of_the_program_are_keywords():
    rows, labels = groups(60, 3)
    found = measure(rows, labels, metrics=["retrieval"], intervals=False, eval__retrieval__recall_at=[1, 5])
    assert set(found["metrics"]) == {"recall_at_1", "recall_at_5", "map_at_r", "r_precision"}
    assert found["intervals"] == {} and found["recall_at"] == [1, 5]
    every = measure(rows, labels, metrics=["precision", "mrr", "map", "cmc", "fnmr", "hubness"])
    assert {"mrr", "map"} <= set(every["metrics"])
    assert set(measure(rows, labels, metrics="all")["metrics"]) > set(every["metrics"])


def test_tensors_are_taken_and_unscaled_rows_are_ranked_by_inner_product():
    torch = pytest.importorskip("torch")
    rows, labels = groups(80, 4)
    tensor = torch.from_numpy(rows).requires_grad_()
    assert retrieval(tensor, torch.from_numpy(labels)) == retrieval(rows, labels)
    scales = 1 + np.arange(80, dtype=np.float32)[:, None]
    assert retrieval(rows * scales, labels) == retrieval(rows, labels)
    assert retrieval(rows * scales, labels, normalize=False) != retrieval(rows, labels)
    assert retrieval(tensor.bfloat16(), labels)["recall_at_1"] > 0


ROWS, LABELS = groups(10, 2)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: measure(ROWS, LABELS[:9]), "9 labels of 10 embeddings"),
        (lambda: measure(np.full((3, 2), np.nan), [0, 1, 0]), "NaN in row 0"),
        (lambda: measure(ROWS[0], LABELS), "shape"),
        (lambda: measure(ROWS, LABELS + 0.5), "0.5|1.5"),
        (lambda: measure(ROWS, LABELS, ROWS), "gallery_labels"),
        (lambda: measure(ROWS, LABELS, ROWS[:, :3], LABELS), "16"),
        (lambda: measure(ROWS, LABELS, metrics=["knn"]), "without a gallery"),
        (lambda: measure(ROWS, LABELS, metrics=["recall"]), "expected default, all, knn"),
        (lambda: measure(ROWS, LABELS, intervals="rows"), "intervals"),
        (lambda: measure(ROWS, LABELS, eval__kk=3), "eval.kk"),
        (lambda: measure(ROWS[:1], LABELS[:1]), "one row"),
        (lambda: measure(np.array([[object()]]), [0]), "embeddings: found an array of object"),
        (lambda: measure(ROWS, ["a"] * 10, ROWS, LABELS), "words"),
        (lambda: knn(ROWS, LABELS, ROWS, LABELS, k=0), "k: found 0"),
        (lambda: knn(ROWS, LABELS, ROWS, LABELS, temperature=0), "temperature"),
        (lambda: cluster(ROWS, 11), "11|clusters"),
        (lambda: cluster(ROWS, 0), "clusters and starts"),
        (lambda: linear(ROWS, LABELS, ROWS, LABELS, classifier="tree"), "classifier"),
        (lambda: linear(ROWS, LABELS, ROWS, LABELS, c=0.0), "C"),
    ],
)
def test_what_cannot_be_measured_is_told(call, told):
    with pytest.raises(ValueError, match=told):
        call()
