"""Makes ntxent.safetensors: NT-Xent and its gradient by PyTorch's own normalize, cross_entropy and autograd, in
f64.

    python3 tests/goldens/ntxent.py [FOLDER] [SEED]      # FOLDER is tests/goldens and SEED is 0 if not given

It needs torch and safetensors. The two views of a batch enter two separate cross-entropies, as in the paper's own
code, so that this program shares neither the order of rows nor the mask of the diagonal with the code under test.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

CASES = [(2, 8, 0.5), (8, 128, 0.5), (64, 128, 0.1), (33, 65, 0.07), (5, 16, 1.0)]  # pairs, columns, temperature


def ntxent(features: torch.Tensor, temperature: float) -> torch.Tensor:
    one, two = features.chunk(2)
    pairs = len(one)
    own = torch.eye(pairs, dtype=torch.bool)
    labels = torch.arange(pairs)
    sums = []
    for queries, keys in [(one, two), (two, one)]:
        within = (queries @ queries.T / temperature).masked_fill(own, float("-inf"))
        logits = torch.cat([queries @ keys.T / temperature, within], dim=1)
        sums.append(torch.nn.functional.cross_entropy(logits, labels))
    return sum(sums) / 2


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    tensors = {}
    for number, (pairs, columns, temperature) in enumerate(CASES):
        directions = torch.randn(pairs, columns, dtype=torch.float64)
        views = [directions + 0.5 * torch.randn(pairs, columns, dtype=torch.float64) for _ in range(2)]
        # The features are rounded to f32 first, so that both programs compute on the same numbers.
        features = torch.nn.functional.normalize(torch.cat(views)).float().double().requires_grad_()
        loss = ntxent(features, temperature)
        loss.backward()
        tensors |= {
            f"ntxent.{number}.features": features.detach().float(),
            f"ntxent.{number}.temperature": torch.tensor(temperature, dtype=torch.float64),
            f"ntxent.{number}.loss": loss.detach(),
            f"ntxent.{number}.grad": features.grad,
        }
    save_file(tensors, folder / "ntxent.safetensors", {"made_with": f"torch {torch.__version__}"})


main()
