#!/usr/bin/env python3
"""Compares the quality of our k-means with scikit-learn's and faiss's: inertia and NMI over seeds, one start each.

  cargo build --release -p invaspread-metrics --example kmeans_of_file
  PYTHON benches/kmeans_quality.py --ours target/release/examples/kmeans_of_file --cifar10 FOLDER [--seeds 10]

PYTHON has numpy, scipy, scikit-learn and faiss-cpu. FOLDER holds CIFAR-10's binary batches (data_batch_1.bin ...). Sets: scikit-learn's digits (1,797 x 64,
10 clusters), 10,000 of CIFAR-10's images in their first 64 principal components (10 clusters), and blobs (6,000 x 64, 1,000 clusters).
Ours and scikit-learn start with k-means++ and end at a tolerance of 1e-4; faiss starts from random points and has no tolerance, so it
gets 100 iterations. The inertia of all three is computed here, in f64, from the means of their assignments; NMI is scikit-learn's. The
table goes between the two comments that mark it in benches/README.md. The exit code is 1 if our mean inertia is more than 0.1 % above the
best peer's, or if our NMI is worse by more than its spread allows.
"""
import argparse, json, pathlib, statistics, subprocess, sys, tempfile

try:
    import faiss
    import numpy as np
    import scipy.linalg
    import sklearn
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_digits, make_blobs
    from sklearn.metrics import normalized_mutual_info_score
    MISSING = None
except ImportError as error:
    MISSING = error.name

HERE = pathlib.Path(__file__).resolve().parent
BEGIN, END = "<!-- k-means quality: written by benches/kmeans_quality.py -->", "<!-- end of k-means quality -->"


def cifar10(folder):
    batch = np.fromfile(folder / "data_batch_1.bin", np.uint8)
    if batch.size != 10_000 * 3073:
        sys.exit(f"error: {folder / 'data_batch_1.bin'}: found {batch.size} bytes, expected 10,000 images of 3,073")
    batch = batch.reshape(-1, 3073)
    x = batch[:, 1:].astype(np.float64) / 255
    x -= x.mean(0)
    _, vectors = scipy.linalg.eigh(x.T @ x, subset_by_index=[3072 - 64, 3071])
    return x @ vectors[:, ::-1], batch[:, 0]


def sets(a):
    digits = load_digits()
    yield "digits, 1,797 x 64, k = 10", digits.data, digits.target, 10
    if a.cifar10:
        x, y = cifar10(a.cifar10)
        yield "CIFAR-10 in 64 PCA columns, 10,000 x 64, k = 10", x, y, 10
    x, y = make_blobs(6000, 64, centers=1000, cluster_std=3.0, random_state=0)
    yield "blobs, 6,000 x 64, k = 1,000", x, y, 1000


def ours(a, x, k):
    with tempfile.NamedTemporaryFile(suffix=".f32") as file:
        file.write(x.tobytes())
        file.flush()
        done = subprocess.run([a.ours, file.name, str(x.shape[1]), str(k), str(a.seeds)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {a.ours} ended with {done.returncode}: {done.stderr}")
    for line in done.stdout.splitlines():
        found = json.loads(line)
        yield np.array(found["assignments"]), found["iterations"]


def scikit_learn(a, x, k):
    for seed in range(a.seeds):
        found = KMeans(k, n_init=1, random_state=seed).fit(x)
        yield found.labels_, found.n_iter_


def faiss_kmeans(a, x, k):
    for seed in range(a.seeds):
        found = faiss.Kmeans(x.shape[1], k, niter=100, seed=seed, max_points_per_centroid=len(x), min_points_per_centroid=1)
        found.train(x)
        yield found.index.search(x, 1)[1][:, 0], 100


def inertia(x, labels):
    """Returns the inertia to the means of the clusters, which depends on the assignments alone."""
    x = x.astype(np.float64)
    counts = np.bincount(labels)
    means = np.stack([np.bincount(labels, column) for column in x.T], 1)[counts > 0] / counts[counts > 0, None]
    at = np.cumsum(counts > 0) - 1
    return float(((x - means[at[labels]]) ** 2).sum())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ours", required=True, help="the example kmeans_of_file, built")
    p.add_argument("--cifar10", type=pathlib.Path, help="a folder with data_batch_1.bin; without it that set is left out")
    p.add_argument("--seeds", type=int, default=10)
    p.add_argument("--out", type=pathlib.Path, default=HERE / "README.md", help="where the table goes, between its two comments")
    a = p.parse_args()
    batch = a.cifar10 and a.cifar10 / "data_batch_1.bin"
    for what, file in (("--ours", pathlib.Path(a.ours)), ("--cifar10", batch), ("--out", a.out)):
        if file and not file.is_file():
            p.error(f"{what}: there is no file {file}")
    if a.seeds < 2:
        p.error(f"--seeds: found {a.seeds}, expected at least 2, for a standard deviation")
    if MISSING:
        sys.exit(f"error: this Python has no {MISSING}, expected one with numpy, scipy, scikit-learn and faiss-cpu")
    lines, met = [], True
    for name, x, y, k in sets(a):
        x = np.ascontiguousarray(x, np.float32)
        found = {}
        for program, cluster in (("ours", ours), ("scikit-learn", scikit_learn), ("faiss", faiss_kmeans)):
            runs = [(inertia(x, labels), 100 * normalized_mutual_info_score(y, labels), n) for labels, n in cluster(a, x, k)]
            found[program] = [(statistics.mean(v), statistics.stdev(v)) for v in zip(*runs)]
            (i, di), (m, dm), (n, _) = found[program]
            lines.append(f"| {name} | {program} | {i:,.1f} ± {di:,.1f} | {m:.2f} ± {dm:.2f} | {n:.0f} |")
            print(lines[-1], file=sys.stderr, flush=True)
        best = min(found["scikit-learn"][0][0], found["faiss"][0][0])
        mean, spread = found["ours"][1]
        peer, peer_spread = found["scikit-learn"][1]
        # Two means of so many seeds differ by chance within two of their standard errors.
        chance = 2 * ((spread**2 + peer_spread**2) / a.seeds) ** 0.5
        good = found["ours"][0][0] <= 1.001 * best and mean >= peer - chance
        met &= good
        print(f"{name}: inertia {found['ours'][0][0] / best:.5f} of the best peer's; {'met' if good else 'NOT MET'}", file=sys.stderr)
    table = "\n".join(["", f"Mean ± standard deviation over {a.seeds} seeds, one start each (scikit-learn {sklearn.__version__}, faiss {faiss.__version__}).", "",
                       "| set | program | inertia | NMI (%) | iterations |", "|---|---|---|---|---|", *lines, ""])
    text = a.out.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        sys.exit(f"error: {a.out}: found no comments that mark the table, expected {BEGIN} and {END}")
    before, rest = text.split(BEGIN, 1)
    a.out.write_text(before + BEGIN + "\n" + table + "\n" + END + rest.split(END, 1)[1], encoding="utf-8")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
