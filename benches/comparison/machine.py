"""What this machine is, what others do on it, and a process that keeps a core of it busy."""
from __future__ import annotations

import os, pathlib, subprocess, sys, time
from typing import Optional

# Others may use this share of the cores before a pair.
IDLE = 0.1

# Extensions of a processor that change what a kernel can do, by the kernel's name for them.
FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16", "asimd": "NEON", "sve": "SVE", "bf16": "BF16"}

# Settings that lower what a library uses. The peers run without them.
LOWERING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS",
            "NPY_DISABLE_CPU_FEATURES", "INVASPREAD_SIMD")


def features(cpuinfo: Optional[str] = None) -> list[str]:
    """The extensions above that the processor has."""
    if cpuinfo is None:
        try:
            cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
    for line in cpuinfo.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            there = set(words.split())
            return [shown for flag, shown in FEATURES.items() if flag in there]
    return []


def environment(threads: int) -> dict[str, str]:
    """That of a measured process. Ours and peer_bench.py take --threads; the libraries below them (BLAS, OpenMP) look here."""
    kept = {name: value for name, value in os.environ.items() if name not in LOWERING}
    return kept | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}


def others() -> Optional[float]:
    """The share of the cores that others are using, over half a second; None where the system does not say."""
    def ticks() -> tuple[int, int]:
        found = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(found), found[3] + found[4]  # all; idle and waiting for a disk

    try:
        all_before, idle_before = ticks()
        time.sleep(0.5)
        all_after, idle_after = ticks()
    except (OSError, ValueError, IndexError):
        return None
    return 1 - (idle_after - idle_before) / max(all_after - all_before, 1)


def cannot_be_busy() -> Optional[str]:
    """Why no core can be kept busy beside a free one; None where one can."""
    if not hasattr(os, "sched_setaffinity"):
        return "this system cannot bind a process to a core"
    cores = os.sched_getaffinity(0)
    return None if len(cores) > 1 else f"this process may use {len(cores)} core, expected at least 2"


# It ends with its parent, also when that is killed.
SPIN = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(1_000_000): pass"


class BusyCore:
    """Keeps the last core that this process may use busy while the block runs, and ends that in any case."""

    def __init__(self) -> None:
        self.core = max(os.sched_getaffinity(0))

    def __enter__(self) -> "BusyCore":
        self.process = subprocess.Popen([sys.executable, "-c", SPIN, str(os.getpid())], stdin=subprocess.DEVNULL)
        try:
            os.sched_setaffinity(self.process.pid, {self.core})
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # One that has ended by itself leaves a core free: the pair would be called busy and was not.
        self.lasted = self.process.poll() is None
        self.process.kill()
        self.process.wait()
