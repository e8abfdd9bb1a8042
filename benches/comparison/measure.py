"""Runs ours and the variants of the peers in turn."""
from __future__ import annotations

import argparse, contextlib, datetime, json, os, pathlib, platform, re, signal, subprocess, sys, time
from typing import Any, Optional

from . import machine
from .record import Entry, Here, checksum, elsewhere, finalists, pairs_of, stale, winner, write
from .rows import Row

PEER = pathlib.Path(__file__).resolve().parent.parent / "peer_bench.py"
# The status of peer_bench.py if a variant cannot run on this machine.
CANNOT = 3
# As many variants of each precision go on after the first pair.
FINALISTS = 2


class Failed(Exception):
    """A process did not do what it should."""


class Refused(Exception):
    """A process said that this machine cannot do what was asked for."""


class Crashed(Failed):
    """A process was ended by a signal."""


def without_paths(text: str) -> str:
    """The text with the last part of each path alone: the record is committed, and no path of this machine belongs in it."""
    return re.sub(r"(?<![\w.])(?:/[\w.@+~-]+)+/([\w.@+~-]+)", r"\1", text)


def answer(done: subprocess.CompletedProcess, figure: str, ours: bool) -> dict[str, Any]:
    command = done.args
    try:
        result = json.loads(done.stdout)
    except ValueError:
        result = None
    if not ours and done.returncode == CANNOT and isinstance(result, dict) and "cannot" in result:
        raise Refused(without_paths(str(result["cannot"])))
    said = f"{done.stdout}{done.stderr}".strip()
    if ours and done.returncode in (1, 2) and "bf16" in command and "bf16" in done.stderr:
        # The program's own answer: it names the precision that it does not have.
        raise Refused(without_paths(done.stderr.strip().split("\n")[0].replace("error: ", "", 1)))
    if done.returncode:
        raise (Crashed if done.returncode < 0 else Failed)(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    if ours and "--precision" in command and isinstance(result, dict):
        asked, took = command[command.index("--precision") + 1], result.get("precision")
        if asked != took:
            raise Failed(f"{' '.join(command)}: found precision {took} in what it says, expected {asked}")
    if not isinstance(result, dict) or figure not in result:
        raise Failed(f"{' '.join(command)}: expected JSON with {figure}, found:\n{said}")
    return result


def call(command: list[str], threads: int, figure: str, limit: float, ours: bool) -> dict[str, Any]:
    """Runs a program to its end, with all that it starts, and returns its figures."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=machine.environment(threads),
                                   start_new_session=True)
    except OSError as error:
        raise Failed(f"{' '.join(command)} cannot be run: {error}") from error
    try:
        out, err = process.communicate(timeout=limit)
    except BaseException as error:
        # A compiler or the workers of a DataLoader may still run.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Failed(f"{' '.join(command)} did not end within {limit:.0f} s; --limit allows more") from error
        raise
    return answer(subprocess.CompletedProcess(command, process.returncode, out, err), figure, ours)


def look(a: argparse.Namespace) -> Here:
    """This machine, by what the program and the peers' interpreter say."""
    tiny = ["bench", "knn", "--train", "50", "--test", "5", "--dim", "8", "--k", "5", "--repeats", "1", "--device", a.device, "--peak-side", "128", "--json"]
    ours = call([a.ours, *tiny], 1, "cpu", a.limit, ours=True)
    peers = call([a.python, str(PEER), "versions"], 1, "versions", a.limit, ours=False)
    return Here(ours["cpu"], os.cpu_count() or 1, ours["instruction_set"], machine.features(), ours.get("gpu"), checksum(a.ours), peers["versions"])


class Progress:
    """Says what was measured and how long the rest takes, from how long rows took before."""

    def __init__(self, rows: list[Row], record: dict[str, Entry], pairs: int) -> None:
        self.planned = {row.key: self.runs(row, pairs) for row in rows}
        self.before = {row.key: record[row.key]["seconds"] / record[row.key]["runs"] for row in rows if record.get(row.key, {}).get("runs")}
        self.begun, self.done = time.monotonic(), 0

    @staticmethod
    def runs(row: Row, pairs: int) -> int:
        return (len(row.ours) + len(row.peers)) + (pairs - 1) * (len(row.ours) + min(len(row.peers), FINALISTS * len(row.ours)))

    def took(self, row: Row, name: str, said: str) -> None:
        self.done += 1
        self.planned[row.key] = max(self.planned[row.key] - 1, 0)
        passed = time.monotonic() - self.begun
        left = sum(runs * self.before.get(key, passed / self.done) for key, runs in self.planned.items())
        print(f"[{self.done}/{self.done + sum(self.planned.values())}] {row.key} {name}: {said}; {passed / 60:.1f} min, about {left / 60:.0f} left",
              file=sys.stderr, flush=True)

    def end(self, row: Row) -> None:
        self.planned[row.key] = 0


def commands(a: argparse.Namespace, row: Row) -> dict[str, list[str]]:
    """What runs in a pair, by name."""
    threads = ["--threads", str(row.threads or a.threads)]
    ours = {f"ours {name}": [a.ours, "bench", *sizes, *threads, "--json"] for name, sizes in row.ours.items()}
    return ours | {name: [a.python, str(PEER), *sizes, *threads] for name, sizes in row.peers.items()}


def shown(a: argparse.Namespace, row: Row) -> dict[str, str]:
    """The commands without paths of this machine: the record is committed."""
    return {name: " ".join(["invaspread", *command[1:]] if name.startswith("ours ") else ["benches/peer_bench.py", *command[2:]])
            for name, command in commands(a, row).items()}


class Measuring:
    """The pairs of one row."""

    def __init__(self, a: argparse.Namespace, row: Row, progress: Progress, passed_over: list[str]) -> None:
        self.a, self.row, self.progress, self.passed_over = a, row, progress, passed_over
        self.commands = commands(a, row)
        self.going = [name for name in self.commands if name not in passed_over]
        self.pairs: dict[str, list[dict[str, Any]]] = {}
        self.left_out: dict[str, str] = {}
        self.others: Optional[float] = None
        self.first: dict[str, dict[str, Any]] = {}

    def pair(self, number: int) -> None:
        turn = number % len(self.going)
        # The figures of a check say nothing in any case.
        used = None if self.a.check else machine.others()
        if used is not None:
            self.others = max(self.others or 0, used)
            if used > machine.IDLE:
                print(f"warning: others use {used:.0%} of the cores: ours and the peers suffer from it differently, so these ratios say little",
                      file=sys.stderr, flush=True)
        with machine.BusyCore() if self.row.busy else contextlib.nullcontext() as core:
            for name in self.going[turn:] + self.going[:turn]:
                self.run(name, number)
        if core and not core.lasted:
            raise Failed(f"{self.row.key}: the process that keeps a core busy ended early; expected it to last for the whole pair")

    def result(self, name: str) -> dict[str, Any]:
        """What a process measures. A library of a peer that crashes gets a second try, and is of no use to anybody if that crashes too."""
        def once() -> dict[str, Any]:
            return call(self.commands[name], self.row.threads or self.a.threads, self.row.figure, self.a.limit, name.startswith("ours "))

        try:
            return once()
        except Crashed:
            if name.startswith("ours "):
                raise
        try:
            return once()
        except Crashed as error:
            raise Refused(f"it crashes: {without_paths(str(error).splitlines()[0])}") from error

    def run(self, name: str, number: int) -> None:
        try:
            result = self.result(name)
        except Refused as reason:
            if number:
                raise Failed(f"{self.row.key}, {name} ran in the first pair, and now: {reason}") from reason
            self.left_out[name] = str(reason)
            self.progress.took(self.row, name, f"left out: {reason}")
            return
        self.first.setdefault(name, result)
        kept = (self.row.figure, "peak_mib", "gflops", "machine_peak_gflops")
        self.pairs.setdefault(name, []).append({key: result[key] for key in kept if result.get(key) is not None})
        self.progress.took(self.row, name, f"{result[self.row.figure]:.4g} {self.row.figure}")

    def all(self) -> None:
        for number in range(self.a.pairs):
            self.pair(number)
            if number:
                continue
            ours, peers = ([name for name in self.pairs if name.startswith("ours ") == mine] for mine in (True, False))
            if not ours or not peers:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in self.left_out.items())
                raise Failed(f"{self.row.key}: no {'variant of the peer' if ours else 'precision of ours'} can run here: {reasons}")
            self.going = ours + finalists(self.row, {name: runs[0] for name, runs in self.pairs.items()}, FINALISTS)
            self.progress.planned[self.row.key] = len(self.going) * (self.a.pairs - 1)

    def entry(self, here: Here, seconds: float) -> Entry:
        first = next(result for name, result in self.first.items() if name.startswith("ours "))
        kernels = {k: v for name, result in self.first.items() for k, v in result.get("kernels", {}).items()}
        entry = dict(work=self.row.work, pairs=self.pairs, left_out=self.left_out, passed_over=self.passed_over, others_used=self.others, commands=shown(self.a, self.row),
                     versions={"ours": first["version"], **here.versions}, kernels=kernels, date=datetime.date.today().isoformat(),
                     threads=self.row.threads or self.a.threads, cpu=here.cpu, cores=here.cores, instruction_set=here.instruction_set,
                     features=here.features, gpu=here.gpu, program=here.program, python=platform.python_version(), seconds=seconds,
                     runs=sum(len(runs) for runs in self.pairs.values()))
        entry["best"] = {f"ours {line.ours} against {line.against or 'any'}": winner(self.row, line, entry) for line in self.row.lines}
        return entry


def passed_over(row: Row, record: dict[str, Entry], here: Here) -> list[str]:
    """The variants that need not run while a core is busy: on this idle machine, others of their precision were faster."""
    quiet = record.get(row.quiet or "")
    if not pairs_of(quiet) or elsewhere(quiet, here):
        return []
    first = {name: runs[0] for name, runs in quiet["pairs"].items()}
    return [name for name in row.peers if name in first and name not in finalists(row, first, FINALISTS)]


def wanted(a: argparse.Namespace, rows: list[Row], record: dict[str, Entry], here: Here) -> list[Row]:
    """The rows that are measured now; says of the others why not."""
    found = []
    for row in rows:
        entry = record.get(row.key)
        reason = stale(entry, here, shown(a, row), a.pairs) if entry and pairs_of(entry) else "never measured"
        if a.again or (pairs_of(entry) < a.pairs if a.missing else reason):
            found.append(row)
        else:
            as_is = f" ({reason} since)" if reason else ""
            print(f"{row.key}: kept as measured on {entry['date']}{as_is}; --again measures it again", file=sys.stderr, flush=True)
    return found


def measure(a: argparse.Namespace, rows: list[Row], record: dict[str, Entry]) -> list[str]:
    """Measures the rows, writes each into the record when it is complete, and returns what failed."""
    here, failures = look(a), []
    rows = wanted(a, rows, record, here)
    progress = Progress(rows, record, a.pairs)
    for row in rows:
        cannot = machine.cannot_be_busy() if row.busy else None
        if cannot and pairs_of(record.get(row.key)):
            print(f"{row.key}: kept as it was measured elsewhere: {cannot}", file=sys.stderr, flush=True)
        elif cannot:
            record[row.key] = dict(work=row.work, cannot=cannot, cpu=here.cpu, date=datetime.date.today().isoformat())
            print(f"{row.key}: left out: {cannot}", file=sys.stderr, flush=True)
        else:
            begun, measuring = time.monotonic(), Measuring(a, row, progress, passed_over(row, record, here))
            try:
                measuring.all()
            except Failed as error:
                failures.append(str(error))
                print(f"error: {error}\n{row.key} is left as it was; going on", file=sys.stderr, flush=True)
                progress.end(row)
                continue
            record[row.key] = measuring.entry(here, time.monotonic() - begun)
        progress.end(row)
        write(a.record, json.dumps(record, indent=1) + "\n")
    return failures
