#!/usr/bin/env python3
"""Times our Python module beside what a PyTorch user would call in its place, in turn on this machine, and writes benches/PYTHON.md.

  PYTHON benches/python_module.py --module FOLDER [--cifar10 FOLDER] [--pairs 5] [--only loader,loader-alone,measure,measure-nmi]
  PYTHON benches/python_module.py --render

PYTHON has torch, torchvision, pillow, albumentations, pytorch-metric-learning and faiss. FOLDER of --module holds the package `invaspread` with its
built module, as a wheel installs it (`pip install --target FOLDER target/wheels/*.whl`). The images are those of CIFAR-10's binary
batches in --cifar10, or else noise.

- loader: an epoch in PyTorch on 7,680 images of 32 x 32 pixels: two views of each, ResNet-18 of width 16, channels-last, batch 128, SGD, the
  loss of train.py in python/examples. Ours: `Loader`. Peers: DataLoader with 2 workers, kept between epochs, with torchvision's
  transforms on Pillow images or version 2 of them on tensors, or with albumentations. The second epoch is timed.
- loader-alone: the same without the network, on all images of CIFAR-10 (or 50,000 of noise).
- measure: R@1, MAP@R and R-precision of 60,502 rows of 128 in 11,316 classes, the size of Stanford Online Products. Ours: `measure`, without
  intervals and then with them. Peer: AccuracyCalculator with faiss. Time and the peak of the resident set.
- measure-nmi: the same with NMI, by the peer's k-means (faiss): one start at random rows, 25 steps. So is ours; both use all rows, which are
  five for each cluster.

Each side is a process of its own with as many threads as there are cores. In the first pair every variant runs; in the others ours and the
best variant of each library, in alternating order. A ratio is the peer's time divided by ours within a pair.
"""
from __future__ import annotations

import argparse, json, os, pathlib, platform, resource, statistics, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
RECORD, PAGE = HERE / "python_module.json", HERE / "PYTHON.md"
SIZE, BATCH, EPOCH_IMAGES = 32, 128, 7_680
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
ROWS, DIMENSIONS, CLASSES = 60_502, 128, 11_316
VARIANTS = {
    "loader": ["torchvision on Pillow", "torchvision v2", "albumentations"],
    "loader-alone": ["torchvision on Pillow", "torchvision v2", "albumentations"],
    "measure": ["pytorch-metric-learning with faiss"],
    "measure-nmi": ["pytorch-metric-learning with faiss"],
}
TITLES = {
    "loader": "an epoch of PyTorch (ResNet-18 of width 16, two views, batch 128) fed by the loader",
    "loader-alone": "the same with a step of no cost",
    "measure": "R@1, MAP@R and R-precision of 60,502 x 128 among themselves",
    "measure-nmi": "the same with NMI",
}
# The goal beside each library; none for those that are measured for comparison alone.
GOALS = {("loader", "torchvision"): 1.4, ("loader-alone", "torchvision"): 15.0, ("measure-nmi", "pytorch-metric-learning"): 2.0,
         ("measure", "pytorch-metric-learning"): 2.0}


def images(folder, count):
    import numpy as np

    if not folder:
        return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    files = [pathlib.Path(folder) / f"data_batch_{number}.bin" for number in range(1, 6)]
    records = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 3073) for file in files])
    return np.ascontiguousarray(records[:count, 1:].reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))


class TwoOf:
    """A data set of two views of each image, made by one of the peers."""

    def __init__(self, pixels, kind):
        self.pixels, self.kind = pixels, kind
        if kind == "albumentations":
            import albumentations as a
            from albumentations.pytorch import ToTensorV2

            self.views = a.Compose([
                a.RandomResizedCrop((SIZE, SIZE), scale=(0.2, 1.0)), a.ColorJitter(0.4, 0.4, 0.4, 0.4, p=1.0),
                a.ToGray(p=0.2), a.HorizontalFlip(p=0.5), a.Normalize(MEAN, STD), ToTensorV2()])
            return
        if kind == "torchvision v2":
            import torch
            from torchvision.transforms import v2 as t

            last = [t.ToDtype(torch.float32, scale=True), t.Normalize(MEAN, STD)]
        else:
            from torchvision import transforms as t

            last = [t.ToTensor(), t.Normalize(MEAN, STD)]
        self.views = t.Compose([
            t.RandomResizedCrop(SIZE, scale=(0.2, 1.0)), t.ColorJitter(0.4, 0.4, 0.4, 0.4), t.RandomGrayscale(0.2),
            t.RandomHorizontalFlip(), *last])

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        pixels = self.pixels[index]
        if self.kind == "albumentations":
            return self.views(image=pixels)["image"], self.views(image=pixels)["image"]
        if self.kind == "torchvision v2":
            import torch

            image = torch.from_numpy(pixels).permute(2, 0, 1)
        else:
            from PIL import Image

            image = Image.fromarray(pixels)
        return self.views(image), self.views(image)


def batches(kind, pixels):
    """Returns a function that begins an epoch and gives the two views of each batch."""
    if kind == "ours":
        from invaspread import Loader, TwoViews

        loader = Loader(pixels, TwoViews(SIZE), batch_size=BATCH, seed=0, output="torch")
        return lambda: (views for views, _, _ in loader)
    import torch

    loader = torch.utils.data.DataLoader(
        TwoOf(pixels, kind), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    return lambda: iter(loader)


def epoch(kind, pixels, trains):
    import torch
    import torch.nn.functional as f

    step = lambda views: None
    if trains:
        import torchvision

        torch.manual_seed(0)
        network = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2], num_classes=128)
        narrow(network)
        network = network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)

        def step(views):
            rows = f.normalize(network(torch.cat(list(views)).to(memory_format=torch.channels_last)))
            logits = (rows @ rows.T / 0.1).fill_diagonal_(-torch.inf)
            loss = f.cross_entropy(logits, torch.arange(len(rows)).roll(len(rows) // 2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    begin, seconds = batches(kind, pixels), 0.0
    for _ in range(2):
        start, seen = time.perf_counter(), 0
        for views in begin():
            step(views)
            seen += len(views[0])
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "images": seen}


def narrow(network):
    """Makes torchvision's ResNet-18 one of width 16 with a stem for 32 pixels."""
    import torch

    def replaced(module):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.Conv2d):
                less = (child.in_channels if child.in_channels == 3 else child.in_channels // 4, child.out_channels // 4)
                setattr(module, name, torch.nn.Conv2d(*less, child.kernel_size, child.stride, child.padding, bias=False))
            elif isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.BatchNorm2d(child.num_features // 4))
            else:
                replaced(child)

    replaced(network)
    network.conv1 = torch.nn.Conv2d(3, 16, 3, padding=1, bias=False)
    network.maxpool = torch.nn.Identity()
    network.fc = torch.nn.Linear(128, 128)


def rows():
    """Returns rows with classes of about five rows, as near to each other as Recall@1 of about 60 % needs."""
    import numpy as np

    draw = np.random.default_rng(0)
    labels = np.concatenate([np.arange(CLASSES), draw.integers(0, CLASSES, ROWS - CLASSES)])
    centers = draw.normal(size=(CLASSES, DIMENSIONS))
    found = centers[labels] + 1.6 * draw.normal(size=(ROWS, DIMENSIONS))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float32), labels


def measured(kind, with_nmi):
    found, labels = rows()
    before = peak()
    if kind == "ours":
        from invaspread import measure

        asked = dict(metrics=["retrieval"], eval__retrieval__recall_at=[1])
        if with_nmi:
            asked |= dict(metrics=["retrieval", "nmi"], eval__retrieval__kmeans_restarts=1,
                          eval__retrieval__kmeans_iterations=25, eval__retrieval__kmeans_start="random")
        start = time.perf_counter()
        result = measure(found, labels, intervals=False, **asked)["metrics"]
        seconds = time.perf_counter() - start
        most = peak()
        start = time.perf_counter()
        measure(found, labels, intervals=True, **asked)
        names = ["recall_at_1", "map_at_r", "r_precision", "nmi_arithmetic"]
        values = [result[name] for name in names if name in result]
        with_intervals = time.perf_counter() - start
        return {"seconds": seconds, "with_intervals": with_intervals, "mib": most, "before": before, "values": values}
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    asked = ("precision_at_1", "mean_average_precision_at_r", "r_precision", *(["NMI"] if with_nmi else []))
    calculator = AccuracyCalculator(include=asked, k="max_bin_count", device=torch.device("cpu"))
    start = time.perf_counter()
    result = calculator.get_accuracy(torch.from_numpy(found), torch.from_numpy(labels))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "mib": peak(), "before": before, "values": [100 * float(result[name]) for name in asked]}


def peak():
    """Returns the peak of the resident set of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(row, kind, cifar10):
    """Does one side of a row, in this process."""
    if row.startswith("measure"):
        return measured(kind, row == "measure-nmi")
    return epoch(kind, images(cifar10, EPOCH_IMAGES if row == "loader" else 50_000), row == "loader")


def run(arguments, row, kind):
    command = [sys.executable, __file__, "--module", arguments.module, "--alone", row, "--kind", kind]
    command += ["--cifar10", arguments.cifar10] if arguments.cifar10 else []
    threads = str(os.cpu_count())
    environment = dict(os.environ, OMP_NUM_THREADS=threads, RAYON_NUM_THREADS=threads)
    if kind == "ours":
        environment["PYTHONPATH"] = arguments.module
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{row}, {kind}: exit code {done.returncode}\n{done.stderr}")
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"{row}, {kind}: {result['seconds']:.2f} s", file=sys.stderr)
    return result


def library(kind):
    return kind.split()[0]


def pairs_of(arguments, row):
    """Returns the best variant of each library, and what each pair found."""
    found = [{"ours": run(arguments, row, "ours"), **{kind: run(arguments, row, kind) for kind in VARIANTS[row]}}]
    seconds = {}
    for kind in VARIANTS[row]:
        seconds.setdefault(library(kind), {})[kind] = found[0][kind]["seconds"]
    best = [min(of_library, key=of_library.get) for of_library in seconds.values()]
    for number in range(1, arguments.pairs):
        order = ["ours", *best]
        found.append({kind: run(arguments, row, kind) for kind in (order if number % 2 == 0 else order[::-1])})
    return {"best": best, "pairs": found}


def machine():
    import importlib.metadata as packages

    names = ["torch", "torchvision", "pillow", "albumentations", "pytorch-metric-learning", "faiss-cpu", "scikit-learn", "numpy"]
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {packages.version(name)}")
        except packages.PackageNotFoundError:
            versions.append(f"{name} not installed")
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}; {', '.join(versions)}; {time.strftime('%Y-%m-%d')}"


def row_of(title, ratios, goal, peer, unit="x", most=False):
    median = statistics.median(ratios)
    if goal is None:
        said, met = "-", "-"
    else:
        said = f"at {'most' if most else 'least'} {goal:.2g}{unit}"
        met = "yes" if (median <= goal if most else median >= goal) else "**no**"
    return f"| {title} | {peer} | **{median:.2f}{unit}** | {min(ratios):.2f} to {max(ratios):.2f} | {len(ratios)} | {said} | {met} |"


def page(record):
    lines = ["# The Python module beside PyTorch's loader and pytorch-metric-learning", "",
             "`benches/python_module.py` writes this page; do not edit it. Its head says what is timed. A ratio is the peer's time divided by ours",
             "within a pair of runs, one after the other on the same cores, each in a process of its own; the best variant of each library counts.",
             "", "| work | peer and its best variant | median | least to most | pairs | goal | met |", "|---|---|---|---|---|---|---|"]
    for row, found in record["rows"].items():
        pairs = found["pairs"]
        for best in found["best"]:
            ratios = [pair[best]["seconds"] / pair["ours"]["seconds"] for pair in pairs]
            peer = best if row.startswith("measure") else f"DataLoader, 2 workers, {best}"
            lines.append(row_of(TITLES[row], ratios, GOALS.get((row, library(best))), peer))
        if row.startswith("measure"):
            memory = [pair["ours"]["mib"] / pair[best]["mib"] for pair in pairs]
            lines.append(row_of("peak memory of that process, ours divided by the peer's", memory, 1 / 3, best, most=True))
            more = [pair["ours"]["with_intervals"] / pair["ours"]["seconds"] - 1 for pair in pairs]
            lines.append(row_of("time that the intervals add, as a share of the metrics' own", more, 0.1, "-", unit="", most=True))
    lines += ["", "Each with " + record["machine"] + ".", ""]
    for row, found in record["rows"].items():
        if row.startswith("measure"):
            pair, best = found["pairs"][0], found["best"][0]
            said = lambda values: ", ".join(f"{value:.3f}" for value in values)
            names = "R@1, MAP@R, R-precision" + (", NMI" if row == "measure-nmi" else "")
            lines.append(f"{names} in percent: ours {said(pair['ours']['values'])}; theirs {said(pair[best]['values'])}.")
    return "\n".join(lines).rstrip() + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--module", help="a folder with the package invaspread, built for release")
    p.add_argument("--cifar10", help="the folder of data_batch_1.bin to data_batch_5.bin")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--only", default=",".join(VARIANTS), help="rows, by comma")
    p.add_argument("--render", action="store_true", help="only write the page from the record")
    p.add_argument("--alone", choices=VARIANTS, help=argparse.SUPPRESS)
    p.add_argument("--kind", help=argparse.SUPPRESS)
    arguments = p.parse_args()
    if arguments.alone:
        print(json.dumps(alone(arguments.alone, arguments.kind, arguments.cifar10)))
        return
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"rows": {}}
    if not arguments.render:
        asked = arguments.only.split(",")
        unknown = [row for row in asked if row not in VARIANTS]
        if unknown or not arguments.module:
            p.error(f"found --only {','.join(unknown)}, expected {', '.join(VARIANTS)}" if unknown else "expected --module FOLDER")
        record["machine"] = machine()
        for row in asked:
            record["rows"][row] = pairs_of(arguments, row)
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record))
    print(page(record))


if __name__ == "__main__":
    main()
