"""Makes barlow_twins.safetensors, vicreg.safetensors, swav.safetensors and dino.safetensors: the four losses with
their gradients, in f64, by lightly's loss functions and PyTorch's autograd.

    python3 tests/goldens/multi_view.py [FOLDER] [SEED]   # FOLDER is tests/goldens and SEED is 0 if not given

It needs torch, lightly and safetensors. For SwAV and DINO, rows and prototypes enter, and the scores between them
are part of what is computed: DINO's last layer is PyTorch's weight_norm with a gain of 1.
"""

import importlib.metadata
import sys
from pathlib import Path

import torch
from lightly.loss import BarlowTwinsLoss, DINOLoss, SwaVLoss, VICRegLoss
from safetensors.torch import save_file
from torch.nn.functional import linear, normalize
from torch.nn.utils.parametrizations import weight_norm

# images, columns
SIZES = [(2, 8), (64, 32), (33, 65), (8, 128)]
# images, columns, prototypes, small views, queued rows of each large view
SWAV = [(2, 8, 5, 0, 0), (16, 32, 40, 2, 0), (9, 17, 12, 4, 30)]
# images, columns, prototypes, small views
DINO = [(2, 8, 5, 0), (16, 32, 40, 3), (9, 17, 12, 6)]


def random(rows, columns):
    # The numbers are rounded to f32 first, so that both programs compute on the same ones.
    return torch.randn(rows, columns, dtype=torch.float64).float().double()


def unit(rows, columns):
    return normalize(random(rows, columns)).float().double()


def pairs(images, columns, spread):
    first = random(images, columns)
    return (spread * torch.cat([first, first + 0.5 * random(images, columns)])).float().double()


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def differentiated(features, loss, **others):
    """Returns the loss of the features, and its gradients; `others` are further tensors with a gradient."""
    value = loss.reshape(())
    gradients = torch.autograd.grad(value, [features, *others.values()])
    entries = {"features": features.detach().float(), "loss": value.detach(), "grad": gradients[0]}
    return entries | {f"grad_{name}": gradient for name, gradient in zip(others, gradients[1:])}


def two_views():
    barlow_twins, vicreg = {}, {}
    weights = [(25.0, 25.0, 1.0), (1.0, 3.0, 2.0), (25.0, 25.0, 1.0), (0.0, 1.0, 0.5)]
    for case, (images, columns) in enumerate(SIZES):
        # The smallest spread is that at which most columns vary too little for VICReg.
        for files, make in [(barlow_twins, barlow_twins_case), (vicreg, vicreg_case)]:
            features = pairs(images, columns, [1.0, 0.3, 1.0, 3.0][case]).requires_grad_()
            one, two = features.chunk(2)
            for name, tensor in make(features, one, two, weights[case], [0.0051, 0.5, 0.005, 0.0051][case]).items():
                files[f"{make.__name__.removesuffix('_case')}.{case}.{name}"] = tensor
    return {"barlow_twins": barlow_twins, "vicreg": vicreg}


def barlow_twins_case(features, one, two, _weights, off_diagonal):
    loss = BarlowTwinsLoss(lambda_param=off_diagonal)(one, two)
    return differentiated(features, loss) | {"lambda": number(off_diagonal)}


def vicreg_case(features, one, two, weights, _off_diagonal):
    loss = VICRegLoss(*weights)(one, two)
    return differentiated(features, loss) | {key: number(w) for key, w in zip(["lambda", "mu", "nu"], weights)}


def swav():
    tensors = {}
    for case, (images, columns, prototypes, small, queued) in enumerate(SWAV):
        temperature = [0.1, 0.1, 0.2][case]
        features = unit((2 + small) * images, columns).requires_grad_()
        weight = unit(prototypes, columns).requires_grad_()
        views = linear(features, weight).chunk(2 + small)
        queues = [unit(queued, columns) for _ in range(2)] if queued else None
        of_queue = [linear(queue, weight) for queue in queues] if queues else None
        loss = SwaVLoss(temperature=temperature)(list(views[:2]), list(views[2:]), of_queue)
        entries = differentiated(features, loss, weight=weight) | {
            "weight": weight.detach().float(),
            "images": number(float(images)),
            "queued": number(float(queued)),
            "temperature": number(temperature),
        }
        entries |= {f"queue_{view}": queue.float() for view, queue in enumerate(queues or [])}
        tensors |= {f"swav.{case}.{name}": tensor for name, tensor in entries.items()}
    return {"swav": tensors}


def dino():
    tensors = {}
    for case, (images, columns, prototypes, small) in enumerate(DINO):
        features = unit((2 + small) * images, columns).requires_grad_()
        layer = weight_norm(torch.nn.Linear(columns, prototypes, bias=False, dtype=torch.float64))
        gain, weight = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        with torch.no_grad():
            gain.fill_(1.0)
            weight.copy_(random(prototypes, columns))
        teacher = random(2 * images, prototypes)
        center = random(1, prototypes).reshape(1, 1, -1)
        settings = {"teacher_temperature": [0.07, 0.5, 0.04][case], "center_momentum": [0.9, 0.9, 0.5][case]}
        loss_function = DINOLoss(prototypes, student_temp=0.1, center_momentum=settings["center_momentum"])
        loss_function.center = center.clone()
        temperature = settings["teacher_temperature"]
        # lightly makes an f32 number of the temperature; a tensor in f64 stays one.
        loss = loss_function(list(teacher.chunk(2)), list(layer(features).chunk(2 + small)), number(temperature))
        entries = differentiated(features, loss, weight=weight) | {
            "weight": weight.detach().float(),
            "teacher": teacher.float(),
            "center_before": center.reshape(-1).float(),
            "center_after": loss_function.center.reshape(-1),
            "images": number(float(images)),
            "temperature": number(0.1),
        }
        entries |= {key: number(value) for key, value in settings.items()}
        tensors |= {f"dino.{case}.{name}": tensor for name, tensor in entries.items()}
    return {"dino": tensors}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    made_with = f"torch {torch.__version__}, lightly {importlib.metadata.version('lightly')}"
    for name, tensors in (two_views() | swav() | dino()).items():
        tensors = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        save_file(tensors, folder / f"{name}.safetensors", {"made_with": made_with})


main()
