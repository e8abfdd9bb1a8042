"""The raw figures by row, as they are kept in a file, and what follows from them."""
from __future__ import annotations

import hashlib, json, os, pathlib, statistics
from dataclasses import dataclass
from typing import Any, Optional

from .rows import PRECISIONS, Line, Row, precision

# A row as it was measured.
Entry = dict[str, Any]


@dataclass(frozen=True)
class Here:
    """This machine, the program and the peers, without which a figure means nothing."""

    cpu: str
    cores: int
    instruction_set: str
    features: list[str]
    gpu: Optional[str]
    # The program's checksum: its version stays the same from build to build.
    program: str
    # Of the peers' packages.
    versions: dict[str, str]


def checksum(path: str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16]


def write(path: pathlib.Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def read(path: pathlib.Path) -> dict[str, Entry]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected the JSON that benches/compare.py writes. Move it away to begin anew") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found {type(found).__name__}, expected an object with an entry for each row. Move it away to begin anew")
    return found


def pairs_of(entry: Optional[Entry]) -> int:
    """How many pairs of the row are there."""
    return max((len(runs) for runs in (entry or {}).get("pairs", {}).values()), default=0)


def stale(entry: Entry, here: Here, commands: dict[str, str], pairs: int) -> Optional[str]:
    """Why a row must be measured to be one of this machine, program and peers; None where it is one."""
    if pairs_of(entry) < pairs:
        return f"{pairs_of(entry)} of {pairs} pairs are there"
    return "other commands ran" if entry["commands"] != commands else elsewhere(entry, here)


def elsewhere(entry: Entry, here: Here) -> Optional[str]:
    """What differs from this machine, program and peers; None where nothing does."""
    for what in ("cpu", "cores", "instruction_set", "features", "gpu", "program"):
        if entry.get(what) != getattr(here, what):
            return f"another {what.replace('_', ' ')}"
    if {name: version for name, version in entry["versions"].items() if name != "ours"} != here.versions:
        return "other versions of the peers' packages"
    return None


def rivals(entry: Entry, ours: str, against: Optional[str]) -> list[str]:
    """The variants of the peer that ran in every pair, in this precision or in any."""
    runs = entry["pairs"]
    return [name for name, results in runs.items() if not name.startswith("ours ") and len(results) == len(runs[ours])
            and against in (None, precision(name))]


def winner(row: Row, line: Line, entry: Entry) -> Optional[str]:
    """The variant with the best median among those that the line holds ours against; None where one side did not run."""
    ours = f"ours {line.ours}"
    if ours not in entry["pairs"]:
        return None
    medians = {name: statistics.median(run[row.figure] for run in entry["pairs"][name]) for name in rivals(entry, ours, line.against)}
    return (max if row.rate else min)(medians, key=medians.__getitem__, default=None)


def ratios(row: Row, line: Line, entry: Entry, best: str) -> list[float]:
    """The time of the peer's best variant over ours, in each pair."""
    pairs = zip(entry["pairs"][f"ours {line.ours}"], entry["pairs"][best])
    return [o[row.figure] / p[row.figure] if row.rate else p[row.figure] / o[row.figure] for o, p in pairs]


def known(entry: Entry) -> set[str]:
    """What ran, cannot run, or was slower than others on the idle machine."""
    return {*entry["pairs"], *entry.get("left_out", {}), *entry.get("passed_over", [])}


def not_measured(row: Row, line: Line, entry: Entry) -> list[str]:
    """The variants that the line should hold ours against and that nothing is known of."""
    return [name for name in row.peers if name not in known(entry) and line.against in (None, precision(name))]


def finalists(row: Row, first: dict[str, dict[str, float]], most: int) -> list[str]:
    """The fastest variants of each precision in the first pair."""
    found: list[str] = []
    for name in PRECISIONS:
        ran = [variant for variant in first if variant in row.peers and precision(variant) == name]
        found += sorted(ran, key=lambda variant: first[variant][row.figure], reverse=row.rate)[:most]
    return found
