"""The metrics, beside scikit-learn, pytorch-metric-learning, lightly and the program."""

import json
import os
import subprocess
import sys

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


@pytest.mark.parametrize(
    ("ours", "theirs", "dtype", "last"),
    [
        (np.int64, np.uint64, np.int64, 2**53 + 1),
        (np.uint64, np.float64, np.int64, 2**54),
        (np.int16, np.int32, np.int32, 5),
        (np.float32, np.float64, np.float64, 5),
    ],
)
def test_labels_of_two_types_are_predicted_exactly(ours, theirs, dtype, last):
    names = np.array([2, 4 if theirs == np.float64 else last - 1, last])
    assert knn(ROWS[:3], names.astype(ours), ROWS[:3], names.astype(theirs), k=1).predictions.tolist() == names.tolist()
    assert linear(ROWS[:3], names.astype(ours), ROWS[:3], names.astype(theirs)).predictions.dtype == dtype


def test_labels_from_2_to_the_63_on_are_told_apart():
    names = [1, 2**63, 2**63 + 1]
    found = knn(ROWS[:3], names, ROWS[:3], names, k=1).predictions
    assert found.tolist() == names and found.dtype == np.uint64
    found = knn(ROWS[:3], np.array([-1, 1, 1]), ROWS[:3], np.array(names, np.uint64), k=1).predictions
    assert found.tolist() == names
    with pytest.raises(ValueError, match="labels: found whole numbers from -1 to 9223372036854775808, expected all in int64"):
        measure(ROWS[:3], [1, -1, 2**63])


def test_bytes_are_words_beside_words():
    names = ["\N{LATIN SMALL LETTER E WITH ACUTE}", "a", "z"]
    found = knn(ROWS[:3], names, ROWS[:3], np.array([name.encode() for name in names]), k=1)
    assert found.predictions.tolist() == names


def test_several_values_of_a_setting_may_be_of_any_kind():
    rows, labels = groups(60, 3)
    for ranks in ([1, 10], (1, 10), np.array([1, 10]), [np.int64(1), np.int64(10)], range(1, 11, 9)):
        found = measure(rows, labels, metrics="retrieval", intervals=False, eval__retrieval__recall_at=ranks)
        assert {"recall_at_1", "recall_at_10"} <= found["metrics"].keys() and "recall_at_2" not in found["metrics"]


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


def test_nmi_by_the_protocol_of_pytorch_metric_learning_is_its_on_average():
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    torch = pytest.importorskip("torch")
    rows, labels = groups(600, 30, noise=1.5)
    theirs, ours = [], []
    for seed in range(20):
        calculator = accuracy.AccuracyCalculator(
            include=("NMI", "AMI"), kmeans_func=inference.FaissKMeans(seed=seed), device=torch.device("cpu")
        )
        found = calculator.get_accuracy(torch.from_numpy(unit(rows)), torch.from_numpy(labels))
        theirs.append([100 * found["NMI"], 100 * found["AMI"]])
        found = measure(rows, labels, as_="pytorch-metric-learning", intervals=False, seed=seed)["metrics"]
        ours.append([found["nmi_arithmetic"], found["ami"]])
    theirs, ours = np.array(theirs), np.array(ours)
    error = np.sqrt((theirs.var(axis=0, ddof=1) + ours.var(axis=0, ddof=1)) / len(ours))
    assert (error > 0).all()
    assert (np.abs(theirs.mean(axis=0) - ours.mean(axis=0)) < 3 * error).all(), (theirs.mean(axis=0), ours.mean(axis=0))


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


def files(folder):
    """Writes rows, a gallery, and other embeddings of both, as the program reads them; returns the arrays."""
    rows, labels = groups(120, 7, noise=1.5)
    gallery, of_gallery = groups(90, 7, noise=1.5, seed=3)
    random = np.random.default_rng(5)
    arrays = {
        "rows": (rows, labels, np.arange(120) // 9 % 4),
        "gallery": (gallery, of_gallery, np.arange(90) // 7 % 4),
        "other": (rows[:, :9] + random.normal(size=(120, 9)), labels, None),
        "other_gallery": (gallery[:, :9] + random.normal(size=(90, 9)), of_gallery, None),
    }
    for name, (embeddings, classes, cameras) in arrays.items():
        more = {} if cameras is None else {"camera": cameras}
        np.savez(folder / f"{name}.npz", embeddings=embeddings, labels=classes, **more)
    return arrays


@pytest.fixture
def program(tmp_path):
    """Returns a function that runs `invaspread measure rows.npz` with further arguments and returns its JSON."""
    path = os.environ.get("INVASPREAD_PROGRAM")
    if path is None:
        pytest.skip("INVASPREAD_PROGRAM does not name the program")

    def run(*arguments):
        command = [os.path.abspath(path), "measure", "rows.npz", "--json", *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True, cwd=tmp_path).stdout)

    return run


def with_intervals_as_tuples(found):
    if isinstance(found, dict):
        if found.keys() == {"low", "high"}:
            return found["low"], found["high"]
        return {name: with_intervals_as_tuples(value) for name, value in found.items()}
    return [with_intervals_as_tuples(value) for value in found] if isinstance(found, list) else found


GALLERY = ("--gallery", "gallery.npz")


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ((), {}),
        (GALLERY, {}),
        (("--metrics", "all", "seed=3"), {"metrics": "all", "seed": 3}),
        ((*GALLERY, "--metrics", "all", "eval.k=7"), {"metrics": ["all"], "eval__k": 7}),
        (
            ("--metrics", "fnmr,shape", "--fmr", "1e-2,0.5", "--unscaled"),
            {"metrics": ["fnmr", "shape"], "fmr": [1e-2, 0.5], "normalize": False},
        ),
        (("--same-source", "camera", "--metrics", "map,cmc,fnmr"), {"metrics": ["map", "cmc", "fnmr"]}),
        (("--same-source", "camera", "--same-source-leaves-out", "all"), {"same_source_leaves_out": "all"}),
        ((*GALLERY, "--same-source", "camera", "--metrics", "knn,fnmr"), {"metrics": ["knn", "fnmr"]}),
        (("--against", "other.npz", "--intervals", "queries"), {"intervals": "queries"}),
        ((*GALLERY, "--against", "other.npz", "--against-gallery", "other_gallery.npz"), {}),
        ((*GALLERY, "--as", "lightly", "--intervals", "none"), {"as_": "lightly", "intervals": False}),
        ((*GALLERY, "--as", "solo-learn"), {"as_": "solo-learn"}),
        (("--as", "pytorch-metric-learning"), {"as_": "pytorch-metric-learning"}),
        (("--per-class", "classes.json"), {"per_class": True}),
        ((*GALLERY, "--per-class", "classes.json", "--metrics", "default,mrr"), {"metrics": ["default", "mrr"]}),
    ],
)
def test_measure_is_the_program(tmp_path, program, flags, arguments):
    arrays = files(tmp_path)
    (rows, labels, cameras), (gallery, of_gallery, of_cameras) = arrays["rows"], arrays["gallery"]
    arguments = dict(arguments)
    if "--gallery" in flags:
        arguments |= {"gallery": gallery, "gallery_labels": of_gallery}
    if "--same-source" in flags:
        arguments |= {"same_source": cameras}
        if "--gallery" in flags:
            arguments |= {"gallery_same_source": of_cameras}
    if "--against" in flags:
        arguments |= {"against": arrays["other"][0]}
        if "--gallery" in flags:
            arguments |= {"against_gallery": arrays["other_gallery"][0]}
    arguments["per_class"] = "--per-class" in flags
    expected, found = with_intervals_as_tuples(program(*flags)), measure(rows, labels, **arguments)

    # What was read, and who asked for it, has other names in Python.
    drawn = expected["intervals"] or {"metrics": {}}
    expected["intervals"] = drawn.pop("metrics")
    if drawn:
        expected["protocol"]["intervals"] |= drawn
    if arguments["per_class"]:
        expected["per_class"] = json.loads((tmp_path / "classes.json").read_text())["per_class"]
    of_files = {"test", "gallery", "arrays", "same_source", "notes", "settings", "against"}
    assert found.keys() == expected.keys()
    for name in expected.keys() - of_files - {"protocol"}:
        assert found[name] == expected[name], name
    assert {**found["protocol"], "gallery": None} == {**expected["protocol"], "gallery": None}
    values = [{key: setting["value"] for key, setting in one["settings"].items()} for one in (found, expected)]
    assert values[0] == values[1]
    assert len(found["notes"]) == len(expected["notes"])
    assert (found["same_source"] is None) == (expected["same_source"] is None)
    if "--same-source" in flags:
        assert found["same_source"]["leaves_out"] == expected["same_source"]["leaves_out"]
    assert (found["against"] is None) == (expected["against"] is None)
    if "--against" in flags:
        for name in ("metrics", "differences"):
            assert found["against"][name] == expected["against"][name] and found["against"][name]
    # No text speaks of files or flags, which Python has none of.
    assert not [text for text in (json.dumps(found),) if ".npz" in text or "--" in text]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_numbers_of_any_type_are_measured_to_the_bit(tmp_path, program, dtype):
    rows, labels = groups(120, 7, noise=1.5)
    np.savez(tmp_path / "rows.npz", embeddings=rows.astype(dtype), labels=labels)
    found, expected = measure(rows.astype(dtype), labels), with_intervals_as_tuples(program())
    assert found["metrics"] == expected["metrics"]
    assert found["intervals"] == expected["intervals"]["metrics"] and found["intervals"]


def test_knn_is_that_of_lightly():
    predict = pytest.importorskip("lightly.utils.benchmarking.knn").knn_predict
    torch = pytest.importorskip("torch")
    test, labels = groups(150, 9, noise=1.5, seed=1)
    train, of_train = groups(500, 9, noise=1.5, seed=2)
    banks = [torch.from_numpy(unit(rows)) for rows in (test, train)]
    theirs = predict(banks[0], banks[1].t(), torch.from_numpy(of_train), 9).numpy()
    ours = knn(test, labels, train, of_train)
    assert np.array_equal(ours.predictions, theirs[:, 0])
    found = measure(test, labels, train, of_train, as_="lightly")["metrics"]
    assert found == {
        "knn_top1": pytest.approx(100 * np.mean(theirs[:, 0] == labels)),
        "knn_top5": pytest.approx(100 * np.mean((theirs[:, :5] == labels[:, None]).any(axis=1))),
    }


def test_what_is_beside_the_percentages_is_returned_too():
    rows, labels = groups(200, 5)
    cameras = np.array(["left", "right"])[np.arange(200) % 2]
    found = measure(
        rows,
        labels,
        metrics=["retrieval", "fnmr", "hubness", "shape"],
        fmr=0.1,
        same_source=list(cameras),
        against=rows[:, :4],
        per_class=True,
    )
    assert found["verification"]["genuine_pairs"] > 0 and found["verification"]["at"][0]["fmr"] == 0.1
    assert found["shape"]["rows"] == 200 and found["hubness"]["k"] > 0
    assert found["same_source"] == found["same_source"] | {"sources": 2, "leaves_out": "class"}
    assert found["protocol"]["gallery"] == "each test row among the others"
    assert found["protocol"]["intervals"]["units"] == "classes" and found["protocol"]["normalized"]
    assert any("5 classes are few" in note for note in found["notes"])
    assert [one["class"] for one in found["per_class"]] == [0, 1, 2, 3, 4]
    assert sum(one["rows"] for one in found["per_class"]) == 200
    difference = found["against"]["differences"]["recall_at_1"]
    low, high = difference["interval"]
    assert low <= difference["value"] <= high
    assert measure(rows, labels)["per_class"] is None


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
        (lambda: measure(ROWS, LABELS, metrics=["knn"]), '`metrics="knn"` .*need a gallery'),
        (lambda: measure(ROWS, LABELS, metrics=["recall"]), "metrics: .*expected one of default, all, knn"),
        (lambda: measure(ROWS, LABELS, metrics=["map"], eval__k=3), "need a gallery"),
        (lambda: measure(ROWS, LABELS, as_="dino"), '`as_="dino"` .* expected gallery beside it'),
        (lambda: measure(ROWS, LABELS, as_="lightning"), "as_: .*expected one of paper, lightly"),
        (lambda: measure(ROWS, LABELS, ROWS, LABELS, as_="dino", metrics="map"), 'metrics and as_="dino"'),
        (lambda: measure(ROWS, LABELS, as_="paper", normalize=False), "normalize=False and as_"),
        (lambda: measure(ROWS, LABELS, ROWS, LABELS, as_="lightly", eval__k=3), '`eval.k` is set by `as_="lightly"`'),
        (lambda: measure(ROWS, LABELS, fmr=0.1), "fnmr is not among metrics"),
        (lambda: measure(ROWS, LABELS, metrics="fnmr", fmr=[0.1, 2]), "fmr: found 2"),
        (lambda: measure(ROWS, LABELS, same_source=LABELS[:9]), "same_source: found 9 sources of the 10 rows of embeddings"),
        (lambda: measure(ROWS, LABELS, same_source=LABELS + 0.5), "same_source: found"),
        (lambda: measure(ROWS, LABELS, ROWS, LABELS, same_source=LABELS), "expected gallery_same_source beside it"),
        (lambda: measure(ROWS, LABELS, gallery_same_source=LABELS), "gallery_same_source: expected gallery"),
        (lambda: measure(ROWS, LABELS, same_source_leaves_out="all"), "expected same_source beside it"),
        (
            lambda: measure(ROWS, LABELS, same_source=LABELS, same_source_leaves_out="none"),
            'same_source_leaves_out: found "none", expected one of class, all',
        ),
        (
            lambda: measure(ROWS, LABELS, ROWS, LABELS, same_source=LABELS, gallery_same_source=["a"] * 10),
            "same_source and gallery_same_source: found numbers and words",
        ),
        (lambda: measure(ROWS, LABELS, against=ROWS[:9]), "10 labels of 9 embeddings.*against"),
        (lambda: measure(ROWS, LABELS, against=ROWS * np.nan), "against: found NaN"),
        (lambda: measure(ROWS, LABELS, ROWS, LABELS, against=ROWS), "against: expected against_gallery beside it"),
        (lambda: measure(ROWS, LABELS, against_gallery=ROWS), "against_gallery: expected against"),
        (lambda: measure(ROWS, LABELS, intervals="rows"), "intervals"),
        (lambda: measure(ROWS, LABELS, eval__kk=3), "eval.kk"),
        (lambda: measure(ROWS[:1], LABELS[:1]), "one row"),
        (lambda: measure([[1.0], [1.0, 2.0]], [0, 1]), "embeddings: found list of list of float, of which numpy makes no"),
        (lambda: measure(ROWS, LABELS, metrics=[]), "metrics: found an empty list"),
        (lambda: measure(ROWS, LABELS, metrics="map,recall"), 'metrics: found "recall", expected one of'),
        (lambda: measure(ROWS, LABELS, ROWS, LABELS, as_="solo-learn", normalize=True), "normalize=True and as_"),
        (lambda: measure(ROWS, LABELS, ROWS, LABELS, as_="lightly", normalize=True), "normalize=True and as_"),
        (lambda: knn(ROWS, LABELS, ROWS, LABELS, temperature=float("nan")), "temperature: found NaN"),
        (lambda: knn(ROWS, LABELS, ROWS, LABELS, k=-1), "k: found -1"),
        (lambda: cluster(ROWS, 2, seed=-1), "seed: found -1"),
        (lambda: measure(ROWS, ["a"] * 10, ROWS, LABELS), "labels and gallery_labels: .*words"),
        (lambda: knn(ROWS, ["a"] * 10, ROWS, LABELS), "labels and gallery_labels: .*words"),
        (lambda: knn(ROWS, LABELS, ROWS, LABELS, k=0), "k: found 0"),
        (lambda: knn(ROWS, LABELS, ROWS, LABELS, temperature=0), "temperature"),
        (lambda: cluster(ROWS, 11), "11|clusters"),
        (lambda: cluster(ROWS, 0), "clusters and starts"),
        (lambda: linear(ROWS, LABELS, ROWS, LABELS, classifier="tree"), "classifier"),
        (lambda: linear(ROWS, LABELS, ROWS, LABELS, c=0.0), "C"),
        (lambda: measure(ROWS, LABELS, metrics="fnmr", fmr=[]), "fmr: found no rates, expected at least one"),
        (lambda: measure(np.ma.masked_less(ROWS, 0), LABELS), r"embeddings: found masked values, expected none; use .filled\(\)"),
        (lambda: measure(ROWS, np.ma.masked_equal(LABELS, 1)), "labels: found masked values, expected none"),
    ],
)
def test_what_cannot_be_measured_is_told(call, told):
    with pytest.raises(ValueError, match=told) as error:
        call()
    assert "--" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: measure(["a", "b"], [0, 1]), "embeddings: found list of str, expected numbers of shape"),
        (lambda: measure([["a"], ["b"]], [0, 1]), "embeddings: found list of list of str, expected numbers"),
        (lambda: measure(np.array([[object()]]), [0]), "embeddings: found an array of object, expected numbers"),
        (lambda: measure(ROWS, None), "labels: found None, expected a whole number or a word for each row"),
        (lambda: measure(ROWS, LABELS, ROWS.astype(str), LABELS), "gallery: found an array of <U"),
        (lambda: measure(ROWS, LABELS, against=["a"] * 10), "against: found list of str"),
        (lambda: measure(ROWS, LABELS, same_source={}), "same_source: found dict, expected the source of each row"),
        (lambda: measure(ROWS, LABELS, metrics=5), r'metrics: found int 5, expected names, such as metrics=\["map", "cmc"\]'),
        (lambda: measure(ROWS, LABELS, metrics=["map", 5]), "metrics: found list of int and str"),
        (lambda: measure(ROWS, LABELS, as_=5), "as_: found int 5"),
        (lambda: measure(ROWS, LABELS, normalize="yes"), "normalize: found str 'yes', expected True or False"),
        (lambda: measure(ROWS, LABELS, intervals=5), "intervals: found int 5"),
        (lambda: measure(ROWS, LABELS, metrics="fnmr", fmr="low"), "fmr: found str 'low'"),
        (lambda: measure(ROWS, LABELS, per_class=1), "per_class: found int 1"),
        (lambda: measure(ROWS, LABELS, same_source=LABELS, same_source_leaves_out=1), "same_source_leaves_out: found int 1"),
        (lambda: retrieval(ROWS, LABELS, recall_at=5), "recall_at: found int 5"),
        (lambda: retrieval(ROWS, LABELS, recall_at=(1, 2.5)), "recall_at: found float 2.5"),
        (lambda: knn(ROWS, LABELS, None, None), "gallery: found None"),
        (lambda: knn(ROWS, LABELS, ROWS, LABELS, k="20"), "k: found str '20', expected a whole number"),
        (lambda: knn(ROWS, LABELS, ROWS, LABELS, temperature="0.1"), "temperature: found str '0.1'"),
        (lambda: knn(ROWS, LABELS, ROWS, LABELS, normalize=None), "normalize: found None"),
        (lambda: cluster(ROWS, 2.5), "clusters: found float 2.5"),
        (lambda: cluster(ROWS, 2, starts=None), "starts: found None"),
        (lambda: linear(ROWS, LABELS, ROWS, LABELS, classifier=1), "classifier: found int 1"),
        (lambda: linear(ROWS, LABELS, ROWS, LABELS, c="1"), "c: found str '1'"),
    ],
)
def test_an_argument_of_another_type_is_named(call, told):
    with pytest.raises(TypeError, match=told):
        call()


def test_metrics_may_stand_in_one_word():
    rows, labels = groups(60, 3)
    several = measure(rows, labels, metrics=("map", "cmc"), intervals=False)["metrics"]
    assert several and measure(rows, labels, metrics="map, cmc", intervals=False)["metrics"] == several


def test_rows_are_scaled_as_the_protocol_says_or_else_as_asked():
    rows, labels = groups(80, 4)
    rows *= 1 + np.arange(80, dtype=np.float32)[:, None]
    assert measure(rows, labels)["metrics"] == measure(rows, labels, normalize=True)["metrics"]
    assert measure(rows, labels)["protocol"]["normalized"]
    assert not measure(rows, labels, normalize=False)["protocol"]["normalized"]


def test_ctrl_c_ends_a_call_at_once():
    script = """
import os, signal, threading, time
import numpy as np
from invaspread import cluster

rows = np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float32)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
began = time.monotonic()
try:
    cluster(rows, 1000, starts=1000)
    print("ended")
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - began)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    word, after = said.stdout.split()
    assert word == "interrupted" and 0.5 < float(after) < 10
