"""Makes embedding_shape.safetensors: effective rank, RankMe, uniformity and spread of sets of rows, and the alignment
of two views, by numpy's singular values in f64.

    python3 tests/goldens/embedding_shape.py [FOLDER] [SEED]      # FOLDER is tests/goldens and SEED is 0 if not given

It needs numpy and safetensors. The equations are written anew from the papers. The singular values come from a
decomposition of the rows themselves, and distances from differences of rows, so this program shares neither the
product matrices nor the order of sums with the code under test.
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# rows, columns, the power by which the columns fall off, the common offset
CASES = [(300, 16, 0.0, 0.0), (100, 128, 0.0, 0.0), (257, 33, 1.0, 0.3), (64, 8, 2.0, 5.0), (500, 24, 0.5, 50.0)]


def rank(values, epsilon):
    shares = values / values.sum() + epsilon
    shares = shares[shares > 0]
    return np.exp(-(shares * np.log(shares)).sum())


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    random = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    tensors = {}
    for case, (rows, columns, power, offset) in enumerate(CASES):
        x = random.normal(size=(rows, columns)) * np.arange(1, columns + 1) ** -power
        x[:, 0] += offset
        y = x + 0.1 * random.normal(size=x.shape)
        x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
        x, y = (v.astype(np.float32) for v in (x, y))
        a, b = x.astype(np.float64), y.astype(np.float64)
        centered = a - a.mean(axis=0)
        distances = ((a[:, None] - a[None]) ** 2).sum(axis=2)[np.triu_indices(rows, 1)]
        values = [
            rank(np.linalg.svd(centered, compute_uv=False), 0.0),
            rank(np.linalg.svd(a, compute_uv=False), 1e-7),
            np.log(np.exp(-2 * distances).mean()),
            np.sqrt(columns) * a.std(axis=0).mean(),
            ((a - b) ** 2).sum(axis=1).mean(),
        ]
        tensors |= {f"{case}.rows": x, f"{case}.second": y, f"{case}.values": np.array(values)}
    save_file(tensors, folder / "embedding_shape.safetensors")


if __name__ == "__main__":
    main()
