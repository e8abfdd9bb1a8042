"""Makes moco_v2.safetensors, byol.safetensors, simsiam.safetensors and nnclr.safetensors: the losses of MoCo v2,
BYOL, SimSiam and NNCLR with their gradients, in f64, by lightly's loss functions and PyTorch's autograd.

    python3 tests/goldens/predictions.py [FOLDER] [SEED]  # FOLDER is tests/goldens and SEED is 0 if not given

It needs torch, lightly and safetensors. The rows are not scaled to length 1: this is part of what is computed. The
loss of each direction is computed on its own, and the directions are combined as the papers say.
- MoCo v2: lightly's NTXentLoss with a memory bank, which holds the queue.
- BYOL: 2 + 2 NegativeCosineSimilarity in each direction, added up (equation 2 of the paper).
- SimSiam: half of NegativeCosineSimilarity in each direction (equation 4 of the paper).
- NNCLR: PyTorch's cross_entropy on the similarities of the neighbors with the predictions, half of each direction
  (section 3.2 of the paper). lightly's tutorial uses NT-Xent in its place, which is another loss.
"""

import importlib.metadata
import sys
from pathlib import Path

import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, normalize

SIZES = [(2, 8), (8, 128), (64, 128), (33, 65), (5, 16)]  # images, columns
TEMPERATURES = [0.5, 0.2, 0.1, 0.07, 1.0]
ROWS_OF_QUEUE = [3, 100, 256, 65, 7]
cosine = NegativeCosineSimilarity()


def random(rows: int, columns: int) -> torch.Tensor:
    # The rows are rounded to f32 first, so that both programs compute on the same numbers.
    return torch.randn(rows, columns, dtype=torch.float64).float().double()


def moco_v2(queries, keys, queue, temperature):
    loss = NTXentLoss(temperature, memory_bank_size=(len(queue), queue.shape[1]))
    loss.memory_bank.bank = normalize(queue)
    loss.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    return loss(queries, keys)


def byol(predictions, targets, _):
    (p1, p2), (t1, t2) = predictions.chunk(2), targets.chunk(2)
    return (2 + 2 * cosine(p1, t2)) + (2 + 2 * cosine(p2, t1))


def simsiam(predictions, projections, _):
    (p1, p2), (z1, z2) = predictions.chunk(2), projections.chunk(2)
    return (cosine(p1, z2) + cosine(p2, z1)) / 2


def nnclr(predictions, neighbors, temperature):
    def one_way(neighbors, predictions):
        logits = normalize(neighbors) @ normalize(predictions).T / temperature
        return cross_entropy(logits, torch.arange(len(logits)))

    (p1, p2), (n1, n2) = predictions.chunk(2), neighbors.chunk(2)
    return (one_way(n1, p2) + one_way(n2, p1)) / 2


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    made_with = f"torch {torch.__version__}, lightly {importlib.metadata.version('lightly')}"
    for name, function in [("moco_v2", moco_v2), ("byol", byol), ("simsiam", simsiam), ("nnclr", nnclr)]:
        tensors = {}
        for number, ((images, columns), temperature) in enumerate(zip(SIZES, TEMPERATURES)):
            views = 1 if name == "moco_v2" else 2
            directions = random(images, columns).repeat(views, 1)
            features = (directions + random(images * views, columns)).float().double().requires_grad_()
            targets = (directions + random(images * views, columns)).float().double()
            case = {"features": features.detach().float(), "targets": targets.float()}
            constants = [targets]
            if name == "moco_v2":
                queue = random(ROWS_OF_QUEUE[number], columns)
                case["queue"] = queue.float()
                constants.append(queue)
            if name in ("moco_v2", "nnclr"):
                case["temperature"] = torch.tensor(temperature, dtype=torch.float64)
            loss = function(features, *constants, temperature)
            loss.backward()
            case |= {"loss": loss.detach(), "grad": features.grad}
            tensors |= {f"{name}.{number}.{what}": tensor.contiguous() for what, tensor in case.items()}
        save_file(tensors, folder / f"{name}.safetensors", {"made_with": made_with})


main()
