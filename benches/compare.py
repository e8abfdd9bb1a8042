#!/usr/bin/env python3
"""Times our program and the code that a PyTorch user would run, in turn on this machine, and writes benches/README.md.

  python3 benches/compare.py --ours target/release/invaspread --python PYTHON [--pairs 5] [--only train,busy-train]
  python3 benches/compare.py --render
  python3 benches/compare.py --check --ours PROGRAM --python PYTHON
  (each with --device cuda for a GPU, and --record FILE and --out FILE for others than benches/comparison.json and benches/README.md)

PYTHON is an interpreter with torch, torchvision, pillow, albumentations, opencv-python-headless, faiss-cpu, scikit-learn and lightly. A variant
of a peer that cannot run here (a package or a compiler is missing, the processor has no bf16) is left out, and the page says so; the
same goes for ours in a precision that the program refuses.

In the first pair ours, in each precision, and every variant of the peer run once, each in a process of its own. In each further pair
the two fastest variants of each precision run, in an order that moves on by one from pair to pair. A ratio is the peer's time over
ours within one pair, for the variant with the best median. Rows named busy-... are the same while a process keeps one core busy;
they leave out the variants that were slower on the idle machine.

A row is kept when it is complete. The same command goes on where an earlier one stopped: what was measured on this machine, with this
program and these peers, is not measured again. `--missing` also keeps what other machines or programs measured, `--again` keeps
nothing. `--render` writes the page from what was measured before. `--check` runs everything once in the smallest sizes, prints the
page and keeps nothing. Standard library only, Python 3.9 or later.
"""
from __future__ import annotations

import argparse, os, pathlib, signal, sys, tempfile

from comparison import page, record
from comparison.measure import Failed, measure
from comparison.rows import chosen, rows, small

HERE = pathlib.Path(__file__).resolve().parent


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ours", default="target/release/invaspread", help="the program, built for release")
    p.add_argument("--python", help="an interpreter with the peers' packages")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--only", help="rows to measure, by comma: train-64-32, or the first words: train, evaluate, augment, knn, retrieval, kmeans, epoch, simclr, moco_v2, byol, busy")
    p.add_argument("--images", type=int, default=10_000, help="images of the evaluation")
    p.add_argument("--epoch-images", type=int, default=2_560, help="images of the epoch")
    p.add_argument("--limit", type=float, default=1800, help="seconds after which a process is ended")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: training, evaluation and kNN on a GPU")
    p.add_argument("--record", type=pathlib.Path, help="where the raw figures are kept; benches/comparison.json (gpu.json) if not given")
    p.add_argument("--out", type=pathlib.Path, help="where the tables are written; benches/README.md (GPU.md) if not given")
    way = p.add_mutually_exclusive_group()
    way.add_argument("--again", action="store_true", help="measure rows again that are complete")
    way.add_argument("--missing", action="store_true", help="measure only rows that are not complete on any machine")
    way.add_argument("--render", action="store_true", help="only write the page from the record")
    way.add_argument("--check", action="store_true", help="run everything once in the smallest sizes, and keep nothing")
    return p


def main() -> None:
    p = parser()
    a = p.parse_args()
    a.record = a.record or HERE / ("gpu.json" if a.device == "cuda" else "comparison.json")
    a.out = a.out or HERE / ("GPU.md" if a.device == "cuda" else "README.md")
    if not a.render and not a.python:
        p.error("--python: expected an interpreter with torch, torchvision, pillow, albumentations, opencv-python-headless, faiss-cpu, scikit-learn and lightly")
    for flag in ("pairs", "threads", "images", "epoch_images", "limit"):
        if getattr(a, flag) < 1:
            p.error(f"--{flag.replace('_', '-')}: found {getattr(a, flag)}, expected at least 1")
    # What was started must end with this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        failures = run(a)
    except (Failed, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if failures:
        sys.exit(f"error: {len(failures)} row{'s' * (len(failures) > 1)} failed; the first: {failures[0]}")


def run(a: argparse.Namespace) -> list[str]:
    """Does what the command line asks for, and returns what failed."""
    everything = rows(a)
    picked = chosen(everything, a.only)
    if a.check:
        a.pairs, everything, picked = 1, [small(row) for row in everything], [small(row) for row in picked]
        with tempfile.TemporaryDirectory() as folder:
            a.record, a.out = pathlib.Path(folder, "check.json"), pathlib.Path(folder, "check.md")
            figures: dict[str, record.Entry] = {}
            failures = measure(a, picked, figures)
            if any(map(record.pairs_of, figures.values())):
                print(page.render(a, everything, figures))
        return failures
    figures = record.read(a.record)
    failures = [] if a.render else measure(a, picked, figures)
    if a.render or any(map(record.pairs_of, figures.values())):
        record.write(a.out, page.render(a, everything, figures))
        print(f"wrote {a.out}", file=sys.stderr)
    return failures


if __name__ == "__main__":
    main()
