"""The page that is made of the record: tables of ratios, of memory and of times, and what was left out."""
from __future__ import annotations

import argparse, statistics
from dataclasses import dataclass
from typing import Optional

from .machine import IDLE
from .record import Entry, known, not_measured, pairs_of, ratios, winner
from .rows import Line, Row, precision

BEGIN, END = "<!-- notes: written by hand, kept -->", "<!-- end of notes -->"
HEAD = "| work | ours | peer and its best variant | median | least to most | goal | met |\n|---|---|---|---|---|---|---|"


def host(entry: Entry) -> tuple:
    """The machine without the threads, of which augmentation uses one everywhere."""
    return entry["cpu"], entry["cores"], entry["instruction_set"], tuple(entry.get("features") or ()), entry.get("gpu")


def peers(entry: Entry) -> tuple:
    return tuple(sorted((name, version) for name, version in entry["versions"].items() if name != "ours"))


def processor(entry: Entry) -> str:
    """A sentence on the machine: what the processor has, and what ours uses of it."""
    has = ", ".join(entry["features"]) if entry.get("features") else "extensions not recorded"
    of = f"{entry['gpu']} ({entry['cpu']}, {entry['cores']} cores)" if entry.get("gpu") else f"{entry['cpu']}, {entry['cores']} cores"
    chose = "".join(f"; {library}: {what}" for library, what in sorted(entry.get("kernels", {}).items()))
    return f"{of}. The processor has: {has}. Kernels: ours: {entry['instruction_set']}{chose}"


@dataclass(frozen=True)
class Measured:
    """A row that was measured, with the letter of its machine and peers."""

    row: Row
    entry: Entry
    letter: str

    @property
    def work(self) -> str:
        # Sizes can be chosen, so this is the work that was measured and not the one of this command line.
        return self.entry["work"] + self.letter


def shown(row: Row, variant: str) -> str:
    return f"{row.peer} ({variant})" if variant.startswith(precision(variant)) else variant


def line_of(of: Measured, line: Line, best: str, found: list[float], goal: Optional[float], at_most: bool = False) -> str:
    used, median, open_ = of.entry.get("others_used"), statistics.median(found), not_measured(of.row, line, of.entry)
    note = f" (machine not idle: others used up to {used:.0%} of it)" if used is not None and used > IDLE else ""
    if goal is None:
        asked, met = "none", ""
    else:
        asked = f"{'at most' if at_most else 'at least'} {goal:g}x"
        # A ratio to a peer that is not the strongest meets no goal.
        met = f"open: {len(open_)} variant{'s' * (len(open_) > 1)} not measured" if open_ else "yes" if (median <= goal if at_most else median >= goal) else "**no**"
    return f"| {of.work}{note} | {line.ours} | {shown(of.row, best)} | **{median:.2f}x** | {min(found):.2f} to {max(found):.2f} | {asked} | {met} |"


def speed_and_memory(measured: list[Measured]) -> tuple[list[str], list[str]]:
    speed, memory = [], []
    for of in measured:
        for line in of.row.lines:
            best = winner(of.row, line, of.entry)
            if best is None:
                continue
            speed.append(line_of(of, line, best, ratios(of.row, line, of.entry, best), line.goal))
            runs = of.entry["pairs"]
            if line.memory is not None:
                used = [o["peak_mib"] / p["peak_mib"] for o, p in zip(runs[f"ours {line.ours}"], runs[best])]
                memory.append(line_of(of, line, best, used, line.memory, at_most=True))
            ours = [run["peak_mib"] for run in runs[f"ours {line.ours}"] if "peak_mib" in run]
            if of.row.most_mib is not None and ours:
                met = "yes" if max(ours) <= of.row.most_mib else "**no**"
                memory.append(f"| {of.work} | {line.ours} | none | **{statistics.median(ours):.0f} MiB** | {min(ours):.0f} to {max(ours):.0f} | "
                              f"at most {of.row.most_mib:,} MiB | {met} |")
    return speed, memory


def share_of_peak(measured: list[Measured]) -> list[str]:
    """A peak measured while something else used a core is too low: of all runs on as many threads of one machine, the highest counts."""
    def peak(run: dict[str, float]) -> float:
        # The first records hold the share of the peak instead.
        return run.get("machine_peak_gflops") or run["gflops"] / run["share_of_peak"]

    rated = []
    for of in measured:
        # The peak of a processor is that of f32.
        ours = of.entry["pairs"].get("ours bf16" if of.entry.get("gpu") and "f32" not in of.row.ours else "ours f32", [])
        runs = [run for run in ours if "gflops" in run]
        if runs and not of.row.busy:
            rated.append((of, (host(of.entry), of.entry["threads"]), runs))
    peaks: dict[tuple, float] = {}
    for _, where, runs in rated:
        peaks[where] = max([*map(peak, runs), peaks.get(where, 0)])
    return [f"| {of.work} | {statistics.median(run['gflops'] for run in runs) / peaks[where]:.2f} |" for of, where, runs in rated]


def times(measured: list[Measured]) -> list[str]:
    found = []
    for of in measured:
        for name, runs in of.entry["pairs"].items():
            memory = [run["peak_mib"] for run in runs if "peak_mib" in run]
            median = statistics.median(run[of.row.figure] for run in runs)
            found.append(f"| {of.row.key}{of.letter} | {name} | {len(runs)} | {f'{median:,.0f}' if median >= 1000 else f'{median:.4g}'} "
                         f"{of.row.figure.replace('_', ' ')} | {f'{statistics.median(memory):,.0f} MiB' if memory else ''} |")
    return found


def left_out(rows: list[Row], record: dict[str, Entry], letters: dict[str, str]) -> list[str]:
    """What could not run, by its reason, and what was not measured yet."""
    reasons: dict[tuple[str, str], dict[str, list[str]]] = {}
    lacking, never = [], []
    for row in rows:
        entry = record.get(row.key)
        if entry is None or not pairs_of(entry):
            never.append(f"{row.key} ({entry['cannot']})" if entry and "cannot" in entry else row.key)
            continue
        for name, reason in entry.get("left_out", {}).items():
            reasons.setdefault((reason, letters[row.key]), {}).setdefault(name, []).append(row.key)
        missing = [name for name in (*(f"ours {ours}" for ours in row.ours), *row.peers) if name not in known(entry)]
        if missing:
            lacking.append(f"- {row.key}{letters[row.key]}: not measured yet: {'; '.join(missing)}")
    found = []
    for (reason, letter), names in reasons.items():
        # Most variants lack in the same rows.
        by_rows: dict[tuple[str, ...], list[str]] = {}
        for name, keys in names.items():
            by_rows.setdefault(tuple(keys), []).append(name)
        what = "; and ".join(f"{'; '.join(these)} of {', '.join(keys)}" for keys, these in by_rows.items())
        found.append(f"- {what}{letter}: {reason}")
    found += lacking
    if never:
        found.append(f"- rows not measured: {', '.join(never)}")
    return found or ["Nothing."]


def render(a: argparse.Namespace, rows: list[Row], record: dict[str, Entry]) -> str:
    """The whole page, with the notes of the page that is there."""
    there = {row.key: record[row.key] for row in rows if pairs_of(record.get(row.key))}
    if not there:
        raise ValueError(f"{a.record} holds no measurement; run without --render first")
    groups = list(dict.fromkeys((host(entry), peers(entry)) for entry in there.values()))
    letters = {key: f" ({'ABCDEFGHIJKLMNOP'[groups.index((host(entry), peers(entry)))]})" if len(groups) > 1 else "" for key, entry in there.items()}
    measured = [Measured(row, there[row.key], letters[row.key]) for row in rows if row.key in there]
    quiet, busy = ([of for of in measured if of.row.busy == which] for which in (False, True))
    speed, memory = speed_and_memory(quiet)
    machines = []
    for number, (where, packages) in enumerate(groups):
        of = [entry for entry in there.values() if (host(entry), peers(entry)) == (where, packages)]
        widest = max(of, key=lambda entry: (entry["threads"], len(entry.get("kernels", {}))))
        dates = sorted({entry["date"] for entry in of})
        name = f"{'ABCDEFGHIJKLMNOP'[number]}: " if len(groups) > 1 else ""
        machines.append(f"- {name}{processor(widest)}. {widest['threads']} threads, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}. "
                        f"{', '.join(sorted({entry['versions']['ours'] for entry in of}))}; {', '.join(' '.join(p) for p in packages)}")
    old = a.out.read_text(encoding="utf-8") if a.out.exists() else ""
    notes = old.split(BEGIN)[1].split(END)[0] if BEGIN in old and END in old else "\n"
    gpu = a.device == "cuda"
    pairs = min(pairs_of(entry) for entry in there.values())
    held = "bytes that tensors took up on the device at once" if gpu else "resident set of the whole process"
    peak = ("the fastest large matrix product by cuBLAS in the same precision" if gpu else
            "fused multiply-adds in f32 on registers alone (the highest peak of all\nthese runs with the same number of threads). Winograd computes a 3x3 "
            "convolution with a quarter of the products, so the share can be\nabove 1. Rows in f32")
    with_busy = "" if not busy else f"""
## With one core busy

The same work while another process computes on one of the cores, as on a machine that somebody uses. The variants are those that were
the fastest two of each precision above, if those rows are of the same machine, program and peers.

{HEAD}
{chr(10).join(speed_and_memory(busy)[0])}
"""
    commands = [f"- {of.row.key}, {name}: `{command}`" for of in measured for name, command in of.entry["commands"].items()
                if name in of.entry["pairs"]]
    return f"""# Side by side with PyTorch{' on a GPU' if gpu else ', torchvision, albumentations, faiss, scikit-learn, lightly'}

`benches/compare.py` writes this page; do not edit the tables. Every figure is a ratio within a pair of runs: the peer's time divided by
ours. The two run one after the other on {'the same GPU' if gpu else 'the same cores'}, in separate processes, and the order rotates from pair to pair; there are at
least {pairs} pair{'s' * (pairs != 1)} for each row. A peer has variants (precision, memory layout, eager or compiled, library). All of them run in the first
pair, the two fastest of each precision in every pair, and the one with the best median counts. Where ours is in f32 beside PyTorch's
step or evaluation, it is held against PyTorch in f32; where ours is in bf16, against PyTorch in any precision. Memory is the peak of the
{held}: ours divided by the peer's, or ours alone where the goal is a number of MiB.

{chr(10).join(machines)}

## Speed

{HEAD}
{chr(10).join(speed)}
{with_busy}
## Memory

{HEAD}
{chr(10).join(memory)}

## Left out

{chr(10).join(left_out(rows, record, letters))}

## Share of the machine's peak

Operations of the plain computation per second, divided by {peak}.

| work | share |
|---|---|
{chr(10).join(share_of_peak(quiet))}

## Times of every variant

| row | program | pairs | median | peak memory |
|---|---|---|---|---|
{chr(10).join(times(measured))}

{BEGIN}{notes}{END}

## Commands

{'`just gpu-session` has' if gpu else '`just bench-compare PYTHON`, which is'} `python3 benches/compare.py{' --device cuda' * gpu} --ours INVASPREAD --python PYTHON`{', which ran' if gpu else ', ran'} these:

{chr(10).join(commands)}
"""
