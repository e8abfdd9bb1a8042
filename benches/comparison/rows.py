"""The rows of the comparison: what ours and every variant of a peer run, which of them are held against each other, and the goals."""
from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Optional

PRECISIONS = ("f32", "bf16")


@dataclass(frozen=True)
class Line:
    """A line of the tables: ours in one precision beside the best of the peer's variants in one precision, or in any."""

    ours: str
    against: Optional[str] = None
    # None: nothing was asked for.
    goal: Optional[float] = None
    # At most this share of the peer's memory.
    memory: Optional[float] = None


@dataclass(frozen=True)
class Row:
    key: str
    work: str
    peer: str
    figure: str
    # The command of ours, and of each variant of the peer, without the program.
    ours: dict[str, list[str]]
    peers: dict[str, list[str]]
    lines: list[Line]
    # Whether more of the figure is better.
    rate: bool = False
    # The most memory that ours may take, in MiB.
    most_mib: Optional[int] = None
    threads: Optional[int] = None
    # The key of the same work on an idle machine, if this is it while another process keeps one core busy.
    quiet: Optional[str] = None

    @property
    def busy(self) -> bool:
        return self.quiet is not None


def variants(device: str) -> dict[str, list[str]]:
    """PyTorch in {f32, bf16 autocast} x {NCHW, channels-last} x {eager, compiled}."""
    found = {}
    for precision, amp in (("f32", []), ("bf16", ["--amp"])):
        for layout, last in (("NCHW", []), ("channels-last", ["--channels-last"])):
            for way, flag in (("eager", []), ("compiled", ["--compile"])):
                found[f"{precision}, {layout}, {way}"] = [*amp, *last, *flag, "--device", device]
    return found


def precision(variant: str) -> str:
    """The precision of a variant, from its name. Searches and transforms have one alone, f32."""
    first = variant.split(",")[0]
    return first if first in PRECISIONS else "f32"


def both(command: list[str], device: str = "cpu") -> dict[str, list[str]]:
    """Ours in each precision. Whether the program has it on this device is its own answer, when it runs."""
    return {name: [*command, "--device", device, "--precision", name] for name in PRECISIONS}


def beside(sizes: list[str], flags: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: [*sizes, *extra] for name, extra in flags.items()}


def train(width: int, batch: int, steps: int, goal: float) -> Row:
    sizes = ["train", "--width", str(width), "--batch", str(batch), "--steps", str(steps), "--warmup", "3"]
    return Row(f"train-{width}-{batch}", f"training step, ResNet-18, width {width}, {2 * batch} views", "PyTorch", "ms_per_step", both(sizes),
               beside(sizes, variants("cpu")), [Line("bf16", goal=goal, memory=0.35), Line("f32", "f32", 2.5, 0.6)])


LIGHTLY = "lightly on PyTorch"
# The methods whose step is held against lightly's: lightly's name and ours, and what the tables call it.
OF_LIGHTLY = (("simclr", "ntxent", "SimCLR"), ("moco_v2", "moco_v2", "MoCo v2"), ("byol", "byol", "BYOL"))


def lightly(method: str, ours: str, label: str, width: int, steps: int) -> Row:
    sizes = ["train", "--width", str(width), "--batch", "64", "--steps", str(steps), "--warmup", "3", "--method"]
    return Row(f"{method}-{width}", f"training step of {label}, ResNet-18, width {width}, 128 views", LIGHTLY, "ms_per_step",
               both([*sizes, ours]), beside([*sizes, method], variants("cpu")), [Line("bf16", goal=1.5), Line("f32", "f32", 1.5)])


def search(key: str, work: str, sizes: list[str], most_mib: Optional[int] = None) -> Row:
    engines = {"faiss IndexFlatIP": ["--engine", "faiss"], "PyTorch": ["--engine", "torch"]}
    return Row(key, work, "faiss, PyTorch", "seconds", {"f32": [*sizes, "--repeats", "1"]}, beside(sizes, engines), [Line("f32", goal=2.0)], most_mib=most_mib)


def on_cpu(a: argparse.Namespace) -> list[Row]:
    evaluation = ["evaluate", "--images", str(a.images), "--width", "64"]
    epoch = ["epoch", "--images", str(a.epoch_images), "--batch", "64", "--width", "16"]
    kmeans = ["kmeans", "--points", "60502", "--dim", "128", "--clusters", "11316", "--iterations", "3"]
    transforms = {"torchvision on Pillow": "torchvision", "torchvision v2 on Pillow": "v2", "torchvision v2 on tensors": "v2-tensor",
                  "albumentations on OpenCV": "albumentations"}
    # An epoch takes longest, and its variants differ as those of a step do: NCHW is left to the step.
    epochs = {f"{name}, {of}": [*flags, "--transforms", of] for name, flags in variants("cpu").items() if "channels-last" in name
              for of in ("torchvision", "albumentations") if of == "albumentations" or name == "f32, channels-last, eager"}
    return [
        train(64, 32, 10, 1.9), train(64, 64, 6, 1.9), train(16, 32, 40, 1.6), train(16, 64, 20, 1.6),
        *(lightly(*names, width, steps) for names in OF_LIGHTLY for width, steps in ((64, 6), (16, 20))),
        Row("evaluate", f"evaluation: embedding {a.images:,} images, width 64", "PyTorch", "seconds", both([*evaluation, "--repeats", "1"]),
            beside([*evaluation, "--warmup", "1"], variants("cpu")), [Line("bf16", goal=2.0), Line("f32", "f32", 1.8)]),
        Row("augment", "augmentation: the four transforms at 32x32, one core", "torchvision, albumentations", "views_per_s_per_core",
            {"f32": ["augment", "--images", "20000", "--repeats", "1"]},
            {name: ["augment", "--images", "3000", "--transforms", of] for name, of in transforms.items()}, [Line("f32", goal=12.0)], rate=True, threads=1),
        search("knn", "kNN: 10,000 against 50,000 x 128, k = 200", ["knn", "--train", "50000", "--test", "10000", "--dim", "128", "--k", "200"]),
        search("retrieval", "R@K at the size of Products: 60,502 x 128 among themselves, k = 1,000",
               ["knn", "--train", "60502", "--test", "60502", "--dim", "128", "--k", "1000"], 2048),
        Row("kmeans", "k-means: 60,502 x 128, 11,316 clusters, an iteration", "faiss, scikit-learn", "seconds_per_iteration", {"f32": kmeans},
            beside(kmeans, {"faiss": ["--engine", "faiss"], "scikit-learn": ["--engine", "sklearn"]}), [Line("f32", goal=1.5)], most_mib=2048),
        Row("epoch", f"InvaSpread epoch of {a.epoch_images:,} images, width 16, 128 views a step, data to update", "PyTorch, DataLoader with 2 workers",
            "seconds", both(epoch), beside([*epoch, "--warmup", "1"], epochs), [Line("bf16"), Line("f32", "f32", 2.0)]),
    ]


# What a training step is held to while another process has a core; nothing was asked of the other rows.
BUSY_GOAL = 2.5


def while_busy(row: Row) -> Row:
    """The same work, in half of the steps, while another process keeps one core busy, as on a machine that somebody uses."""
    def shorter(command: list[str]) -> list[str]:
        return [str(-(-int(word) // 2)) if before == "--steps" else word for before, word in zip(["", *command], command)]

    training = row.key.startswith("train-")
    lines = [replace(line, goal=BUSY_GOAL if training and line.ours == "f32" else None, memory=None) for line in row.lines]
    return replace(row, key=f"busy-{row.key}", lines=lines, most_mib=None, quiet=row.key,
                   ours={n: shorter(c) for n, c in row.ours.items()}, peers={n: shorter(c) for n, c in row.peers.items()})


def on_gpu(a: argparse.Namespace) -> list[Row]:
    # A GPU is there for minutes: NCHW, which is not faster there, once.
    few = {name: flags for name, flags in variants("cuda").items() if "channels-last" in name or name == "f32, NCHW, eager"}
    eager = {name: flags for name, flags in few.items() if "eager" in name}
    evaluation = ["evaluate", "--images", str(a.images), "--width", "64"]
    knn = ["knn", "--train", "50000", "--test", "10000", "--dim", "128", "--k", "200"]

    def step(batch: int, steps: int) -> Row:
        sizes = ["train", "--width", "64", "--batch", str(batch), "--steps", str(steps), "--warmup", "5"]
        return Row(f"train-64-{batch}", f"training step, ResNet-18, width 64, {2 * batch} views", "PyTorch", "ms_per_step",
                   {"bf16": both(sizes, "cuda")["bf16"]}, beside(sizes, few), [Line("bf16", goal=1.2, memory=1.0)])

    # Convolutions in bf16; the search is in f32 on either side.
    return [
        step(128, 30), step(512, 15),
        Row("evaluate", f"evaluation: embedding {a.images:,} images, width 64", "PyTorch", "seconds",
            {"bf16": both([*evaluation, "--repeats", "3"], "cuda")["bf16"]}, beside(evaluation, eager), [Line("bf16", goal=1.0)]),
        Row("knn", "kNN: 10,000 against 50,000 x 128, k = 200", "PyTorch", "seconds", {"f32": both([*knn, "--repeats", "5"], "cuda")["f32"]},
            {"PyTorch": [*knn, "--engine", "torch", "--device", "cuda"]}, [Line("f32", goal=1.0)]),
    ]


def rows(a: argparse.Namespace) -> list[Row]:
    if a.device == "cuda":
        return on_gpu(a)
    quiet, fewer = on_cpu(a), argparse.Namespace(**{**vars(a), "images": -(-a.images // 4)})
    # R@K is the search of kNN in other sizes, and lightly's steps are nearly all of the network, as the steps of the paper's method.
    once = {"retrieval"} | {row.key for row in quiet if row.peer == LIGHTLY}
    return quiet + [while_busy(row) for row in on_cpu(fewer) if row.key not in once]


# Sizes of seconds, to see that everything runs; the figures say nothing. At width 4 PyTorch 2.15, compiled,
# writes past the end of its memory.
SMALL = {"--width": "16", "--batch": "4", "--steps": "1", "--warmup": "1", "--images": "16", "--train": "300", "--test": "20", "--dim": "8",
         "--k": "5", "--points": "60", "--clusters": "4", "--iterations": "1"}


def small(row: Row) -> Row:
    def shrunk(command: list[str]) -> list[str]:
        return [SMALL.get(before, word) for before, word in zip(["", *command], command)]

    return replace(row, work=f"not {row.work}, but the smallest sizes", ours={n: shrunk(c) for n, c in row.ours.items()},
                   peers={n: shrunk(c) for n, c in row.peers.items()})


def chosen(all_rows: list[Row], only: Optional[str]) -> list[Row]:
    """The rows that `only` names, by key or by the first words of it."""
    if not only:
        return all_rows
    found = []
    for name in only.split(","):
        named = [row for row in all_rows if row.key == name or row.key.startswith(name + "-")]
        if not named:
            raise ValueError(f"--only: found {name}, expected some of {', '.join(row.key for row in all_rows)}, or the first words of one")
        found += named
    return [row for row in all_rows if row in found]
