#!/usr/bin/env python3
"""Trains SimCLR, BYOL and Barlow Twins with lightly's parts in PyTorch, in the setting of `reproduce modern --profile quick`, and holds our
records against them: does each method learn here what it learns there?

  PYTHON benches/learning.py --cifar10 FOLDER --ours target/release/invaspread --runs runs [--methods simclr,byol,barlow_twins] [--seeds 0,1,2]

PYTHON has torch, torchvision, pillow and lightly. FOLDER holds CIFAR-10's binary batches (data_batch_1.bin ...); --runs is the folder of
our runs of `reproduce modern --profile quick`. The same images on both sides: the 10,000 training images that our generator draws for
data.seed 0 (drawn here again, and checked by the labels of our files), and the first 2,000 test images. The same network, batch, epochs,
learning rates, weight decay, transforms and draws as torchvision 0.2; the initial weights of PyTorch 0.4; heads and losses by lightly.
Our program measures both: weighted kNN on the pooled features.

A run that is done is kept in benches/learning.json and not trained again. The table goes between the two comments that mark it in
benches/README.md. A run takes about ten minutes on two cores. The exit code is 1 if a mean is further from lightly's than two standard errors of the
difference, on either side; both sides then need the same seeds, at least two.
"""
from __future__ import annotations

import argparse, json, math, pathlib, random, statistics, subprocess, sys, tempfile, time

try:
    import numpy as np
    import torch
    from PIL import Image
    from torchvision import transforms
    from torchvision.transforms import functional
    MISSING = None
except ImportError as error:
    MISSING = error.name

HERE = pathlib.Path(__file__).resolve().parent
BEGIN, END = "<!-- learning beside lightly: written by benches/learning.py -->", "<!-- end of learning beside lightly -->"
# The setting of profile quick.
WIDTH, BATCH, EPOCHS, TRAIN, TEST = 16, 64, 10, 10_000, 2_000
RATES = [0.03] * 8 + [0.003, 0.0015]
ROWS = {"simclr": "SimCLR", "byol": "BYOL", "barlow_twins": "Barlow Twins"}


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10, as crates/random has it."""
    for round in range(10):
        if round:
            key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [b >> 32 ^ counter[1] ^ key[0], b % 2**32, a >> 32 ^ counter[3] ^ key[1], a % 2**32]
    return counter


def words(purpose: int, index: int):
    """The 32-bit words of our stream of seed 0 and epoch 0."""
    place = 0
    while True:
        yield from philox([place, 0, index, purpose], [0, 0])
        place += 1


def shuffled(items: list[int], stream) -> list[int]:
    for last in range(len(items) - 1, 0, -1):
        n = last + 1
        while (product := next(stream) * n) % 2**32 < 2**32 % n:
            pass
        other = product >> 32
        items[last], items[other] = items[other], items[last]
    return items


def subset(labels) -> list[int]:
    """The training images that data.subset=10_000 takes of CIFAR-10: 1,000 of each class, in ascending order."""
    chosen = []
    for c in range(10):
        chosen += shuffled([int(i) for i in np.flatnonzero(labels == c)], words(3, c))[: TRAIN // 10]
    return sorted(chosen)


def cifar10(folder: pathlib.Path, names: list[str]):
    found = []
    for name in names:
        batch = np.fromfile(folder / name, np.uint8)
        if batch.size != 10_000 * 3073:
            sys.exit(f"error: {folder / name}: found {batch.size} bytes, expected 10,000 images of 3,073")
        found.append(batch.reshape(-1, 3073))
    rows = np.concatenate(found)
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


class Crop:
    """The resized crop as torchvision 0.2 drew it: the ratio uniform, and the sides exchanged half of the time."""

    def __call__(self, image):
        width, height = image.size
        for _ in range(10):
            area, ratio = random.uniform(0.2, 1.0) * width * height, random.uniform(3 / 4, 4 / 3)
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if random.random() < 0.5:
                w, h = h, w
            if w <= width and h <= height:
                return functional.resized_crop(image, random.randint(0, height - h), random.randint(0, width - w), h, w, [32, 32])
        return functional.resized_crop(image, 0, 0, min(width, height), min(width, height), [32, 32])


class Views(torch.utils.data.Dataset if not MISSING else object):
    def __init__(self, pixels):
        from peer_bench import NORMALIZE
        self.pixels = pixels
        self.transform = transforms.Compose([Crop(), transforms.ColorJitter(0.4, 0.4, 0.4, 0.4), transforms.RandomGrayscale(0.2), transforms.RandomHorizontalFlip(),
                                             transforms.ToTensor(), transforms.Normalize(*NORMALIZE)])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int):
        image = Image.fromarray(self.pixels[i])
        return self.transform(image), self.transform(image)


def seed_worker(_: int) -> None:
    random.seed(torch.initial_seed())


def train(method: str, seed: int, pixels, threads: int):
    """Trains a network and returns it."""
    from lightly_steps import METHODS
    from peer_bench import resnet18
    torch.manual_seed(seed)
    random.seed(seed)
    torch.set_num_threads(threads)
    net = resnet18(WIDTH)[:-1]
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight)  # PyTorch 0.4's default
    net = net.to(memory_format=torch.channels_last).train()
    loss_of, parameters = METHODS[method](net, 8 * WIDTH)
    optimizer = torch.optim.SGD(parameters, lr=RATES[0], momentum=0.9, weight_decay=5e-4)
    loader = torch.utils.data.DataLoader(Views(pixels), BATCH, shuffle=True, drop_last=True, num_workers=threads, worker_init_fn=seed_worker)
    for epoch, rate in enumerate(RATES):
        began, total = time.perf_counter(), 0.0
        optimizer.param_groups[0]["lr"] = rate
        for step, (first, second) in enumerate(loader):
            part = (epoch * len(loader) + step) / (EPOCHS * len(loader))
            optimizer.zero_grad(set_to_none=True)
            value = loss_of(torch.cat([first, second]).to(memory_format=torch.channels_last), part)
            value.backward()
            optimizer.step()
            total += value.item()
        if not math.isfinite(total):
            sys.exit(f"error: {method}, seed {seed}: the loss is not finite in epoch {epoch + 1}")
        print(f"{method}, seed {seed}, epoch {epoch + 1}/{EPOCHS}: loss {total / len(loader):.4f}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return net.eval()


def embed(net, pixels):
    from peer_bench import NORMALIZE
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALIZE)
    with torch.inference_mode():
        parts = [net((torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255 - mean) / std) for part in np.array_split(pixels, -(-len(pixels) // 250))]
    return torch.cat(parts).numpy()


def measured(ours: pathlib.Path, gallery, test) -> float:
    """kNN top 1 in percent, measured by our program."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, (rows, labels) in (("gallery", gallery), ("test", test)):
            files.append(pathlib.Path(folder, f"{name}.npz"))
            np.savez(files[-1], embeddings=rows, labels=labels)
        said = subprocess.run([ours, "measure", files[1], "--gallery", files[0], "--json"], capture_output=True, text=True)
    if said.returncode:
        sys.exit(f"error: {ours} measure: {said.stderr.strip()}")
    return json.loads(said.stdout)["metrics"]["knn_top1"]


def of_ours(runs: pathlib.Path) -> dict[str, dict[int, float]]:
    """kNN top 1 of our finished runs of profile quick, by row and seed."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(runs.glob("modern/*/record.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["profile"] == "quick":
            found.setdefault(record["row"], {})[record["seed"]] = record["metrics"]["knn_top1"]["last"]
    return found


def table(theirs: dict, ours: dict, versions: str) -> tuple[str, list[str]]:
    lines = [f"Mean ± standard deviation of kNN top 1 (%) over seeds ({versions}). Profile quick: reduced, not the paper's level.", "",
             "| method | seeds | ours | lightly on PyTorch | difference | its standard error |", "|---|---|---|---|---|---|"]
    apart = []
    for key, name in ROWS.items():
        seeds = sorted(set(theirs.get(key, {})) & set(map(str, ours.get(key, {}))))
        if not seeds:
            continue
        a, b = [ours[key][int(s)] for s in seeds], [theirs[key][s] for s in seeds]
        difference = statistics.mean(a) - statistics.mean(b)
        if len(seeds) < 2:
            lines.append(f"| {name} | {', '.join(seeds)} | {a[0]:.2f} | {b[0]:.2f} | {difference:+.2f} | one seed has none |")
            continue
        error = math.sqrt((statistics.variance(a) + statistics.variance(b)) / len(seeds))
        shown = [f"{statistics.mean(x):.2f} ± {statistics.stdev(x):.2f}" for x in (a, b)]
        lines.append(f"| {name} | {', '.join(seeds)} | {shown[0]} | {shown[1]} | {difference:+.2f} | {error:.2f} |")
        if abs(difference) > 2 * error:
            apart.append(f"{name}: {difference:+.2f}, {abs(difference) / error:.1f} standard errors")
    return "\n".join(lines), apart


def write(page: pathlib.Path, text: str) -> None:
    whole = page.read_text(encoding="utf-8")
    block = f"{BEGIN}\n\n{text}\n\n{END}"
    if BEGIN in whole:
        before, rest = whole.split(BEGIN)
        whole = before + block + rest.split(END)[1]
    else:
        whole = whole.rstrip("\n") + f"\n\n## What methods learn beside lightly's\n\n`benches/learning.py` makes this table; its header says what is compared.\n\n{block}\n"
    page.write_text(whole, encoding="utf-8")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cifar10", type=pathlib.Path, required=True)
    p.add_argument("--ours", type=pathlib.Path, default=pathlib.Path("target/release/invaspread"))
    p.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"))
    p.add_argument("--methods", default=",".join(ROWS))
    p.add_argument("--seeds", default="0,1,2")
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    if MISSING:
        sys.exit(f"error: this Python has no {MISSING}")
    methods, seeds = a.methods.split(","), [int(seed) for seed in a.seeds.split(",")]
    for method in methods:
        if method not in ROWS:
            sys.exit(f"error: --methods: found {method}, expected some of {', '.join(ROWS)}")
    pixels, labels = cifar10(a.cifar10, [f"data_batch_{i}.bin" for i in range(1, 6)])
    chosen = subset(labels)
    gallery, gallery_labels = pixels[chosen], labels[chosen].astype(np.int64)
    test, test_labels = cifar10(a.cifar10, ["test_batch.bin"])
    test, test_labels = test[:TEST], test_labels[:TEST].astype(np.int64)
    check_labels(a.runs, gallery_labels, test_labels)
    kept = HERE / "learning.json"
    theirs = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for seed in seeds:
        for method in methods:
            if str(seed) not in theirs.get(method, {}):
                net = train(method, seed, gallery, a.threads)
                found = measured(a.ours, (embed(net, gallery), gallery_labels), (embed(net, test), test_labels))
                print(f"{method}, seed {seed}: kNN {found:.2f}%", file=sys.stderr)
                theirs.setdefault(method, {})[str(seed)] = found
                kept.write_text(json.dumps(theirs, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    from peer_bench import versions
    used = ", ".join(f"{name} {version}" for name, version in versions().items() if name in ("torch", "torchvision", "lightly"))
    text, apart = table(theirs, of_ours(a.runs), used)
    print(text)
    write(HERE / "README.md", text)
    if apart:
        sys.exit("error: more than two standard errors apart: " + "; ".join(apart))


def check_labels(runs: pathlib.Path, gallery, test) -> None:
    """Ends the program unless our runs have these labels, in this order."""
    from safetensors.numpy import load_file
    for folder in sorted(runs.glob("modern/*")):
        for name, want in (("train", gallery), ("test", test)):
            path = folder / "embeddings" / f"{name}.safetensors"
            if path.exists() and (len((found := load_file(path)["labels"])) != len(want) or (found != want).any()):
                sys.exit(f"error: {path}: its labels are not those of the {len(want):,} images that are trained and measured here")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
