#!/usr/bin/env python3
"""What a PyTorch user would run instead, timed: one JSON line per measurement.

  peer_bench.py train   --device cpu|cuda --batch 64 --width 64 [--amp] [--channels-last] [--compile] --steps 10
  peer_bench.py evaluate --images 2000 --width 64 [--channels-last]
  peer_bench.py epoch   --images 2560 --batch 64 --width 16 [--channels-last]
  peer_bench.py augment --images 2000 --size 32
  peer_bench.py knn     --train 50000 --test 10000 --dim 128 --k 200 [--device cpu|cuda] [--engine torch|faiss]
  peer_bench.py kmeans  --points 60502 --dim 128 --clusters 11316 --iterations 10 [--engine faiss|sklearn]

`train` is one InvaSpread step on the CIFAR ResNet-18 (3x3 stem, no max-pool): forward and backward of 2 x batch
views, the in-batch softmax loss with gradient to the query side alone, SGD with momentum 0.9 and weight decay 5e-4.
`--batch` counts images, so 2 x batch views pass through the network. `evaluate` embeds u8 images in batches of 250 without gradients.
`epoch` is a whole epoch: a Dataset of u8 images, torchvision's transforms on Pillow twice an image, a DataLoader with as many worker
processes as `--workers` says, and the step of `train`; workers are started, and the network warmed up, before the clock is.
`kmeans` of faiss starts from random points of its own choice, not ours; its time includes that start.
Needs torch; augment, epoch: torchvision, pillow; knn/kmeans: faiss-cpu or scikit-learn.
"""
import argparse, importlib.metadata, json, resource, statistics, time


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


def training(a):
    """The network, and a function that takes one step on a batch of views."""
    import torch
    dev = torch.device(a.device)
    if a.device == "cpu":
        torch.set_num_threads(a.threads)
    else:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    net = resnet18(a.width).to(dev, memory_format=memory_format(a)).train()
    opt = torch.optim.SGD(net.parameters(), lr=0.003, momentum=0.9, weight_decay=5e-4, foreach=a.device == "cuda" or None)

    def step(x):
        opt.zero_grad(set_to_none=True)
        with torch.autocast(dev.type, torch.bfloat16, enabled=a.amp):
            f = net(x)
        value = loss(torch.nn.functional.normalize(f.float()))
        value.backward()
        opt.step()
        return value

    return net, torch.compile(step) if a.compile else step


def memory_format(a):
    import torch
    return torch.channels_last if a.channels_last else torch.contiguous_format


def peak_mib(a):
    import torch
    # On Linux ru_maxrss is in KiB.
    return torch.cuda.max_memory_allocated() / 2**20 if a.device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(a):
    import torch
    _, step = training(a)
    x = torch.randn(2 * a.batch, 3, 32, 32, device=a.device).to(memory_format=memory_format(a))
    sync = torch.cuda.synchronize if a.device == "cuda" else (lambda: None)
    for _ in range(a.warmup):
        step(x)
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
    net.eval()
    images = torch.randint(0, 256, (a.images, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMALIZE)

    def run(images):
        with torch.no_grad():
            for x in images.split(250):
                x = ((x.float() / 255 - mean) / std).to(a.device, memory_format=memory_format(a))
                torch.nn.functional.normalize(net(x)).cpu()

    run(images[:1000])
    s = time.perf_counter(); run(images)
    seconds = time.perf_counter() - s
    return dict(seconds=seconds, images_per_s=a.images / seconds, peak_mib=peak_mib(a))


NORMALIZE = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def transform(size):
    import torchvision.transforms as T
    return T.Compose([T.RandomResizedCrop(size, scale=(0.2, 1.0)), T.ColorJitter(0.4, 0.4, 0.4, 0.4), T.RandomGrayscale(0.2),
                      T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(*NORMALIZE)])


class TwoViews:
    """u8 images, each as two views: what every contrastive PyTorch code has for a Dataset."""

    def __init__(self, images):
        import numpy as np
        self.pixels = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
        self.transform = transform(32)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        from PIL import Image
        image = Image.fromarray(self.pixels[i])
        return self.transform(image), self.transform(image)


def epoch(a):
    import torch
    _, step = training(a)
    loader = torch.utils.data.DataLoader(TwoViews(a.images), a.batch, shuffle=True, drop_last=True, num_workers=a.workers,
                                         persistent_workers=a.workers > 0)

    def run(most):
        for n, (first, second) in enumerate(loader):
            step(torch.cat([first, second]).to(a.device, memory_format=memory_format(a))).item()
            if n + 1 == most:
                break

    run(2)
    s = time.perf_counter(); run(None)
    seconds = time.perf_counter() - s
    return dict(seconds=seconds, views_per_s=2 * (a.images // a.batch * a.batch) / seconds, peak_mib=peak_mib(a))


def augment(a):
    import numpy as np, torch
    from PIL import Image
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    ims = [Image.fromarray(rng.integers(0, 256, (a.size, a.size, 3), dtype=np.uint8)) for _ in range(256)]
    t = transform(a.size)
    for i in range(50):
        t(ims[i])
    s = time.perf_counter()
    for i in range(a.images):
        t(ims[i % 256])
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


def versions():
    found = {}
    for package in ("torch", "torchvision", "pillow", "faiss-cpu", "scikit-learn", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("what", choices=["train", "evaluate", "epoch", "augment", "knn", "kmeans"])
p.add_argument("--device", default="cpu"); p.add_argument("--threads", type=int, default=2); p.add_argument("--engine", default="faiss")
p.add_argument("--batch", type=int, default=64); p.add_argument("--width", type=int, default=64)
p.add_argument("--steps", type=int, default=10); p.add_argument("--warmup", type=int, default=2)
for f in ("amp", "channels-last", "compile"):
    p.add_argument("--" + f, action="store_true")
for f, d in (("images", 2000), ("size", 32), ("train", 50000), ("test", 10000), ("dim", 128), ("k", 200), ("points", 60502), ("clusters", 11316), ("iterations", 10), ("workers", 2)):
    p.add_argument("--" + f, type=int, default=d)
a = p.parse_args()
print(json.dumps({**vars(a), **globals()[a.what](a), "versions": versions()}))
