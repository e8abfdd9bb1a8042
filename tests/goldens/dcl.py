"""Makes dcl.safetensors: DCL and DCLW with their gradients, by JAX's logsumexp, softmax and automatic
differentiation, in f64.

    python3 tests/goldens/dcl.py [FOLDER] [SEED]      # FOLDER is tests/goldens and SEED is 0 if not given

It needs jax and safetensors. The equations are written anew from the paper and not taken from a published
program. The loss of a batch is computed view by view: for the queries of one view, the keys of both views,
without those of the query's own image, are gathered into one matrix. So this program shares neither the order of
rows nor the masks nor the closed form of the gradient with the code under test. The gradient passes through the
weights of DCLW.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp, softmax
from safetensors.numpy import save_file

jax.config.update("jax_enable_x64", True)

# pairs, columns, temperature, sigma
CASES = [(2, 8, 0.5, None), (64, 128, 0.1, None), (33, 65, 0.07, None), (8, 128, 0.1, 0.5), (33, 65, 0.07, 0.5), (5, 16, 1.0, 0.1)]


def one_view(queries, others, temperature, weights):
    pairs = len(queries)
    apart = np.array([[j for j in range(pairs) if j != i] for i in range(pairs)])
    keys = jnp.concatenate([queries[apart], others[apart]], axis=1)
    negatives = jnp.einsum("id,ijd->ij", queries, keys) / temperature
    positives = (queries * others).sum(axis=1) / temperature
    return (logsumexp(negatives, axis=1) - weights * positives).mean()


def dcl(features, temperature, sigma):
    one, two = jnp.split(features, 2)
    weights = 1.0 if sigma is None else 2 - len(one) * softmax((one * two).sum(axis=1) / sigma)
    return (one_view(one, two, temperature, weights) + one_view(two, one, temperature, weights)) / 2


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    generator = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    tensors = {}
    for number, (pairs, columns, temperature, sigma) in enumerate(CASES):
        directions = generator.standard_normal((pairs, columns))
        # The noise is larger for later images, so that the pairs are not equally close.
        spread = np.linspace(0.2, 1.5, pairs)[:, None]
        views = np.concatenate([directions + spread * generator.standard_normal((pairs, columns)) for _ in range(2)])
        # The features are rounded to f32 first, so that both programs compute on the same numbers.
        features = (views / np.linalg.norm(views, axis=1, keepdims=True)).astype(np.float32)
        loss, gradient = jax.value_and_grad(dcl)(jnp.asarray(features, jnp.float64), temperature, sigma)
        tensors |= {
            f"dcl.{number}.features": features,
            f"dcl.{number}.temperature": np.float64(temperature),
            f"dcl.{number}.loss": np.asarray(loss),
            f"dcl.{number}.grad": np.asarray(gradient),
        }
        if sigma is not None:
            tensors[f"dcl.{number}.sigma"] = np.float64(sigma)
    tensors = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    save_file(tensors, folder / "dcl.safetensors", {"made_with": f"jax {jax.__version__}"})


main()
