#!/usr/bin/env python3
"""What a PyTorch user would run instead, timed: one JSON line per measurement.

  peer_bench.py train    --device cpu|cuda --batch 64 --width 64 [--amp] [--channels-last] [--compile] [--method NAME] --steps 10
  peer_bench.py evaluate --images 2000 --width 64 [--amp] [--channels-last] [--compile]
  peer_bench.py epoch    --images 2560 --batch 64 --width 16 [--amp] [--channels-last] [--compile] [--transforms NAME]
  peer_bench.py augment  --images 2000 --size 32 [--transforms torchvision|v2|v2-tensor|albumentations]
  peer_bench.py knn     --train 50000 --test 10000 --dim 128 --k 200 [--device cpu|cuda] [--engine torch|faiss]
  peer_bench.py kmeans  --points 60502 --dim 128 --clusters 11316 --iterations 10 [--engine faiss|sklearn]
  peer_bench.py versions

`train` is one InvaSpread step on the CIFAR ResNet-18 (3x3 stem, no max-pool): forward and backward of 2 x batch
views, the in-batch softmax loss with gradient to the query side alone, SGD with momentum 0.9 and weight decay 5e-4.
With --method simclr, moco_v2 or byol it is the step of that method with lightly's parts (lightly_steps.py).
`--batch` counts images, so 2 x batch views pass through the network. `evaluate` embeds u8 images in batches of 250 without gradients.
`epoch` is a whole epoch: a Dataset of u8 images, `--transforms` twice an image, a DataLoader with as many worker
processes as `--workers` says, and the step of `train`; workers are started, and the network warmed up, before the clock is.
`kmeans` of faiss and scikit-learn starts from random points of its own choice, not ours; the time includes that start.
`--amp` is autocast to bf16. With `--compile` the warm-up goes on until PyTorch compiles nothing new, and the clock starts then.
Needs torch; train --method: lightly; augment, epoch: torchvision, pillow, albumentations; knn/kmeans: faiss-cpu or scikit-learn.
What cannot run here (a package or a compiler is missing, the processor has no bf16) ends with status 3 and {"cannot": REASON}.
"""
from __future__ import annotations

import argparse, importlib.metadata, json, os, re, resource, statistics, sys, time

CANNOT = 3


class Cannot(Exception):
    """This variant cannot run on this machine, for the reason that it says."""


def resnet18(width):
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
            self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
            same = stride == 1 and i == o
            self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.skip(x))

    layers, channels = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()], width
    for stage in range(4):
        for n in range(2):
            out = width * 2**stage
            layers.append(Block(channels, out, 2 if stage and not n else 1))
            channels = out
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(channels, 128))


def loss(x, temperature=0.1):
    import torch
    n = len(x)
    s = x @ x.detach().t() / temperature
    s = s.masked_fill(torch.eye(n, dtype=torch.bool, device=x.device), float("-inf"))
    logp = torch.log_softmax(s.float(), dim=1)
    i = torch.arange(n, device=x.device)
    pos = (i + n // 2) % n
    neg = torch.log1p(-logp.exp().clamp(max=1 - 1e-7))
    neg[i, pos] = 0
    return -(logp[i, pos].sum() + neg.sum()) / n


def check_amp(a: argparse.Namespace) -> None:
    """On a processor without bf16, autocast falls back to loops that nobody would use."""
    import torch
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if a.amp and a.device == "cpu" and asked is not None and not asked():
        raise Cannot("PyTorch says that oneDNN has no bf16 for this processor")


def compiled(a: argparse.Namespace, function):
    """The function, compiled if that was asked for and a small one can be."""
    import torch
    if not a.compile:
        return function
    try:
        torch.compile(lambda x: torch.relu(x) + 1)(torch.ones(8, device=a.device))
    except Exception as error:
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().split("\n")[0]
        raise Cannot(f"torch.compile: {type(error).__name__}: {said}") from error
    return torch.compile(function)


def warm_up(a: argparse.Namespace, work) -> None:
    """Runs the work `--warmup` times; if it is compiled, again as often until nothing was compiled meanwhile."""
    def graphs() -> int:
        if not a.compile:
            return 0  # the compiler is not even imported: that would add to the memory
        from torch._dynamo.utils import counters
        return counters["stats"]["unique_graphs"]

    for _ in range(10):
        before = graphs()
        for _ in range(a.warmup):
            work()
        if graphs() == before and (a.warmup or not a.compile):
            return
    sys.exit(f"error: torch.compile still compiles after {10 * a.warmup} rounds of warm-up; expected at least one round without, see --warmup")


def training(a):
    """The network, and a function that takes one step on a batch of views."""
    import torch
    dev = torch.device(a.device)
    if a.device == "cpu":
        torch.set_num_threads(a.threads)
    else:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    check_amp(a)
    autocast = lambda: torch.autocast(dev.type, torch.bfloat16, enabled=a.amp)
    net = resnet18(a.width).to(dev, memory_format=memory_format(a)).train()
    if a.method == "invaspread":
        parameters = list(net.parameters())

        def loss_of(x):
            with autocast():
                f = net(x)
            return loss(torch.nn.functional.normalize(f.float()))
    else:
        from lightly_steps import METHODS
        with dev:
            # The heads take the place of the last layer.
            of_method, parameters = METHODS[a.method](net[:-1], 8 * a.width)

        def loss_of(x):
            with autocast():
                return of_method(x)
    opt = torch.optim.SGD(parameters, lr=0.003, momentum=0.9, weight_decay=5e-4, foreach=a.device == "cuda" or None)

    def step(x):
        opt.zero_grad(set_to_none=True)
        value = loss_of(x)
        value.backward()
        opt.step()
        return value

    return net, step


def memory_format(a):
    import torch
    return torch.channels_last if a.channels_last else torch.contiguous_format


def peak_mib(a):
    import torch
    # On Linux ru_maxrss is in KiB.
    return torch.cuda.max_memory_allocated() / 2**20 if a.device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(a):
    import torch
    step = compiled(a, training(a)[1])
    x = torch.randn(2 * a.batch, 3, 32, 32, device=a.device).to(memory_format=memory_format(a))
    sync = torch.cuda.synchronize if a.device == "cuda" else (lambda: None)
    warm_up(a, lambda: step(x))
    sync()
    # Nobody waits for a step of a GPU: there steps are timed in one go, five times.
    together, repeats = (a.steps, 5) if a.device == "cuda" else (1, a.steps)
    times = []
    for _ in range(repeats):
        t = time.perf_counter()
        for _ in range(together):
            step(x)
        sync()
        times.append((time.perf_counter() - t) / together)
    m = statistics.median(times)
    return dict(ms_per_step=1e3 * m, views_per_s=2 * a.batch / m, peak_mib=peak_mib(a))


def evaluate(a):
    import torch
    net, _ = training(a)
    net = compiled(a, net.eval())
    images = torch.randint(0, 256, (a.images, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMALIZE)

    def run(batches):
        with torch.inference_mode(), torch.autocast(a.device, torch.bfloat16, enabled=a.amp):
            for x in batches:
                x = ((x.float() / 255 - mean) / std).to(a.device, memory_format=memory_format(a))
                torch.nn.functional.normalize(net(x).float()).cpu()

    batches = images.split(250)
    # The last batch may be smaller, which is a shape of its own.
    warm_up(a, lambda: run((*batches[:2], batches[-1])))
    s = time.perf_counter(); run(batches)
    seconds = time.perf_counter() - s
    return dict(seconds=seconds, images_per_s=a.images / seconds, peak_mib=peak_mib(a))


NORMALIZE = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def albumentations(size: int):
    """The four transforms of albumentations on OpenCV, from an array to a tensor."""
    # It would look for a newer version of itself.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A, cv2
    from albumentations.pytorch import ToTensorV2
    # One process of a DataLoader, and the bench of one core, have one thread.
    cv2.setNumThreads(0)
    t = A.Compose([A.RandomResizedCrop((size, size), scale=(0.2, 1.0)), A.ColorJitter(0.4, 0.4, 0.4, 0.4, p=1.0), A.ToGray(p=0.2),
                   A.HorizontalFlip(p=0.5), A.Normalize(*NORMALIZE), ToTensorV2()])
    return lambda pixels: t(image=pixels)["image"]


def torchvision(size: int, kind: str):
    """The four transforms of torchvision: the first ones on Pillow, or those of v2 on Pillow or on a tensor."""
    import torch
    from PIL import Image
    if kind == "torchvision":
        import torchvision.transforms as T
        last = [T.ToTensor()]
    else:
        import torchvision.transforms.v2 as T
        last = [T.ToImage(), T.ToDtype(torch.float32, scale=True)]
    t = T.Compose([T.RandomResizedCrop(size, scale=(0.2, 1.0)), T.ColorJitter(0.4, 0.4, 0.4, 0.4), T.RandomGrayscale(0.2),
                   T.RandomHorizontalFlip(), *last, T.Normalize(*NORMALIZE)])
    if kind == "v2-tensor":
        return lambda pixels: t(torch.from_numpy(pixels).permute(2, 0, 1))
    return lambda pixels: t(Image.fromarray(pixels))


def transform(a: argparse.Namespace, size: int):
    return albumentations(size) if a.transforms == "albumentations" else torchvision(size, a.transforms)


class TwoViews:
    """u8 images, each as two views: what every contrastive PyTorch code has for a Dataset."""

    def __init__(self, a: argparse.Namespace):
        import numpy as np
        self.pixels = np.random.default_rng(0).integers(0, 256, (a.images, 32, 32, 3), dtype=np.uint8)
        self.transform = transform(a, 32)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        return self.transform(self.pixels[i]), self.transform(self.pixels[i])


def epoch(a):
    import torch
    step = compiled(a, training(a)[1])
    loader = torch.utils.data.DataLoader(TwoViews(a), a.batch, shuffle=True, drop_last=True, num_workers=a.workers,
                                         persistent_workers=a.workers > 0)

    def run(most):
        for n, (first, second) in enumerate(loader):
            step(torch.cat([first, second]).to(a.device, memory_format=memory_format(a))).item()
            if n + 1 == most:
                break

    warm_up(a, lambda: run(2))
    s = time.perf_counter(); run(None)
    seconds = time.perf_counter() - s
    return dict(seconds=seconds, views_per_s=2 * (a.images // a.batch * a.batch) / seconds, peak_mib=peak_mib(a))


def augment(a):
    import numpy as np, torch
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (256, a.size, a.size, 3), dtype=np.uint8)
    t = transform(a, a.size)
    for pixels in images:
        t(pixels)
    s = time.perf_counter()
    for i in range(a.images):
        t(images[i % 256])
    return dict(views_per_s_per_core=a.images / (time.perf_counter() - s))


def knn(a):
    import numpy as np
    rng = np.random.default_rng(0)
    tr, te = (rng.standard_normal((n, a.dim), dtype=np.float32) for n in (a.train, a.test))
    tr /= np.linalg.norm(tr, axis=1, keepdims=True); te /= np.linalg.norm(te, axis=1, keepdims=True)
    if a.engine == "faiss":
        import faiss
        faiss.omp_set_num_threads(a.threads)
        run = lambda: (lambda ix: (ix.add(tr), ix.search(te, a.k)))(faiss.IndexFlatIP(a.dim))
    else:
        import torch
        torch.set_num_threads(a.threads)
        t, e = torch.from_numpy(tr).to(a.device), torch.from_numpy(te).to(a.device)
        run = lambda: [(b @ t.t()).topk(a.k, dim=1)[1][0, 0].item() for b in e.split(500)]
    run()
    times = []
    for _ in range(5 if a.device == "cuda" else 1):
        s = time.perf_counter(); run()
        times.append(time.perf_counter() - s)
    return dict(seconds=statistics.median(times))


def kmeans(a):
    import numpy as np
    x = np.random.default_rng(0).standard_normal((a.points, a.dim), dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    s = time.perf_counter()
    if a.engine == "faiss":
        import faiss
        faiss.omp_set_num_threads(a.threads)
        faiss.Kmeans(a.dim, a.clusters, niter=a.iterations, max_points_per_centroid=10**9, min_points_per_centroid=1).train(x)
    else:
        from sklearn.cluster import KMeans
        KMeans(a.clusters, n_init=1, max_iter=a.iterations, tol=0, init="random").fit(x)
    seconds = time.perf_counter() - s
    return dict(seconds=seconds, seconds_per_iteration=seconds / a.iterations)


def versions(_: argparse.Namespace | None = None) -> dict[str, str]:
    found = {}
    for package in ("torch", "torchvision", "pillow", "albumentations", "opencv-python-headless", "faiss-cpu", "scikit-learn", "lightly", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def kernels() -> dict[str, str]:
    """What the libraries that were used chose for this processor, as they say it."""
    found = {}
    if "torch" in sys.modules:
        import torch
        found["PyTorch"] = torch.backends.cpu.get_cpu_capability()
    if "faiss" in sys.modules:
        import faiss
        found["faiss"] = faiss.get_compile_options().strip()
    try:
        import threadpoolctl
    except ImportError:
        return found
    for library in threadpoolctl.threadpool_info():
        if library.get("architecture"):
            found[library["internal_api"]] = library["architecture"]
    return found


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["train", "evaluate", "epoch", "augment", "knn", "kmeans", "versions"])
    p.add_argument("--device", default="cpu"); p.add_argument("--threads", type=int, default=2); p.add_argument("--engine", default="faiss")
    p.add_argument("--batch", type=int, default=64); p.add_argument("--width", type=int, default=64)
    p.add_argument("--method", choices=["invaspread", "simclr", "moco_v2", "byol"], default="invaspread")
    p.add_argument("--steps", type=int, default=10); p.add_argument("--warmup", type=int, default=2)
    p.add_argument("--transforms", choices=["torchvision", "v2", "v2-tensor", "albumentations"], default="torchvision")
    for f in ("amp", "channels-last", "compile"):
        p.add_argument("--" + f, action="store_true")
    for f, d in (("images", 2000), ("size", 32), ("train", 50000), ("test", 10000), ("dim", 128), ("k", 200), ("points", 60502), ("clusters", 11316),
                 ("iterations", 10), ("workers", 2)):
        p.add_argument("--" + f, type=int, default=d)
    return p


def main() -> None:
    a = parser().parse_args()
    try:
        found = globals()[a.what](a)
    except ImportError as error:
        print(json.dumps({"cannot": f"this Python has no {error.name}" if error.name else str(error)}))
        sys.exit(CANNOT)
    except Cannot as reason:
        print(json.dumps({"cannot": str(reason)}))
        sys.exit(CANNOT)
    print(json.dumps({**vars(a), **found, "versions": versions(), "kernels": kernels()}))


if __name__ == "__main__":
    main()
