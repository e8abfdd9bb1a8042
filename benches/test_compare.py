#!/usr/bin/env python3
"""Checks benches/compare.py, and the parts of benches/learning.py that need no torch, in seconds, without torch: a script answers in place of our program and of the peers.

  python3 benches/test_compare.py
"""
from __future__ import annotations

import argparse, json, os, pathlib, subprocess, sys, tempfile, time, unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent

import compare
import learning
import peer_bench
from comparison import machine, measure, page, record, rows

# Answers as the program does, or as peer_bench.py. What it was asked for goes into calls.txt, one line each.
ANSWERS = """#!{python}
import json, os, pathlib, sys, time
folder = pathlib.Path(__file__).resolve().parent
asked, peer = sys.argv[1:], "peer_bench.py" in sys.argv[1]
with open(folder / "calls.txt", "a") as file:
    print(*([pathlib.Path(asked[0]).name] * peer), *asked[peer:], file=file)
says = json.loads((folder / "says.json").read_text())
words = " ".join(asked)
for part, (status, out, err) in says.items():
    if part in words and not (part == "bf16" and peer):
        if status == "crash":
            os.abort()
        if status == "hang":
            pid = os.fork()
            if pid == 0:
                (folder / "child.txt").write_text(str(os.getpid()))
            time.sleep(600)
        print(out, end="")
        print(err, end="", file=sys.stderr)
        sys.exit(status)
value = 10.0 + 20 * peer - 1 * ("--channels-last" in words) - 2 * ("--compile" in words) - 4 * ("--amp" in words or "bf16" in words)
names = ["ms_per_step", "seconds", "seconds_per_iteration", "views_per_s_per_core"]
found = dict.fromkeys(names, value) | dict(peak_mib=100.0 + 300 * peer)
if peer:
    found |= dict(versions=dict(torch="1.0"), kernels=dict(PyTorch="AVX2"))
else:
    found |= dict(version="invaspread 0.0.0", cpu="Some Processor", instruction_set="Avx2", gpu=None, gflops=50.0, machine_peak_gflops=100.0)
    if "--precision" in asked:
        found["precision"] = "f32" if "ignores" in says else asked[asked.index("--precision") + 1]
print(json.dumps(found))
"""
REFUSED = "error: failed to run bench train: precision bf16 is for device=cuda; see /some/where/notes.txt\n"


class Session(unittest.TestCase):
    """The whole command on a script that answers."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.program, self.python = self.folder / "program", self.folder / "python"
        for path in (self.program, self.python):
            path.write_text(ANSWERS.replace("{python}", sys.executable))
            path.chmod(0o755)
        self.says({})
        self.record, self.page = self.folder / "record.json", self.folder / "page.md"

    def says(self, answers: dict[str, tuple]) -> None:
        (self.folder / "says.json").write_text(json.dumps(answers))

    def run_it(self, *arguments: object, code: int = 0) -> str:
        command = [sys.executable, HERE / "compare.py", "--ours", self.program, "--python", self.python, "--record", self.record, "--out", self.page, "--pairs", "3",
                   *arguments]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def calls(self) -> list[str]:
        """What ran since the last time this was asked, without the two questions of what is here."""
        path = self.folder / "calls.txt"
        found = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [line for line in found if "--train 50 --test 5" not in line and line != "peer_bench.py versions"]

    def entries(self) -> dict[str, record.Entry]:
        return json.loads(self.record.read_text())

    def test_the_fastest_two_of_each_precision_go_on_and_the_best_counts(self) -> None:
        said = self.run_it("--only", "train-64-32")
        ran = self.calls()
        # Two of ours and eight of the peer's; then two and four in each of two pairs.
        self.assertEqual(len(ran), 10 + 2 * 6)
        self.assertIn("--precision f32", ran[0])
        self.assertIn("--precision bf16", ran[10], "the order moves on by one")
        entry = self.entries()["train-64-32"]
        self.assertEqual({name: len(runs) for name, runs in entry["pairs"].items()}, {
            "ours f32": 3, "ours bf16": 3, "f32, NCHW, eager": 1, "f32, NCHW, compiled": 3, "f32, channels-last, eager": 1, "f32, channels-last, compiled": 3,
            "bf16, NCHW, eager": 1, "bf16, NCHW, compiled": 3, "bf16, channels-last, eager": 1, "bf16, channels-last, compiled": 3})
        self.assertEqual(entry["best"], {"ours bf16 against any": "bf16, channels-last, compiled", "ours f32 against f32": "f32, channels-last, compiled"})
        text = self.page.read_text()
        # 23 over 6, and 27 over 10.
        self.assertIn("| bf16 | PyTorch (bf16, channels-last, compiled) | **3.83x** | 3.83 to 3.83 | at least 1.9x | yes |", text)
        self.assertIn("| f32 | PyTorch (f32, channels-last, compiled) | **2.70x** | 2.70 to 2.70 | at least 2.5x | yes |", text)
        self.assertIn("| bf16 | PyTorch (bf16, channels-last, compiled) | **0.25x** | 0.25 to 0.25 | at most 0.35x | yes |", text)
        self.assertIn("| training step, ResNet-18, width 64, 64 views | 0.50 |", text)
        self.assertIn("rows not measured: train-64-64, ", text)
        self.assertIn("[22/22] train-64-32", said)
        self.assertNotIn(str(self.folder), self.record.read_text() + text)

    def test_a_rate_is_better_when_higher(self) -> None:
        self.run_it("--only", "augment")
        self.assertEqual(set(self.entries()["augment"]["best"].values()), {"torchvision on Pillow"})
        self.assertIn("| **0.33x** |", self.page.read_text())  # ours 10 a second, the peer 30
        self.assertTrue(all("--threads 1" in line for line in self.calls()))

    def test_what_cannot_run_is_left_out_and_said(self) -> None:
        self.says({"bf16": (1, "", REFUSED), "--compile": (3, json.dumps({"cannot": "no compiler at /usr/local/bin/cc"}), "")})
        self.run_it("--only", "train-64-32")
        self.assertEqual(len(self.calls()), 10 + 2 * 5)
        entry = self.entries()["train-64-32"]
        self.assertEqual(set(entry["left_out"]), {"ours bf16", *(name for name in rows.variants("cpu") if "compiled" in name)})
        self.assertIsNone(entry["best"]["ours bf16 against any"])
        text = self.page.read_text()
        self.assertIn("- ours bf16 of train-64-32: failed to run bench train: precision bf16 is for device=cuda; see notes.txt\n", text)
        self.assertRegex(text, r"- f32, NCHW, compiled; .*; bf16, channels-last, compiled of train-64-32: no compiler at cc\n")
        self.assertNotIn("| bf16 | PyTorch", text)
        self.assertIn("| f32 | PyTorch (f32, channels-last, eager) | **2.90x** | 2.90 to 2.90 | at least 2.5x | yes |", text)

    def test_a_precision_that_was_not_taken_is_no_figure(self) -> None:
        self.says({"ignores": (0, "", "")})
        self.assertIn("found precision f32 in what it says, expected bf16", self.run_it("--only", "train-16-32", code=1))
        self.assertFalse(self.record.exists())

    def test_a_row_that_is_there_is_kept(self) -> None:
        arguments = ("--only", "kmeans,knn")
        self.run_it(*arguments)
        self.assertEqual(len(self.calls()), 2 * 9)
        self.assertIn("kmeans: kept as measured on ", self.run_it(*arguments))
        self.assertEqual(self.calls(), [])
        entries = self.entries()
        del entries["knn"]
        self.record.write_text(json.dumps(entries))
        self.run_it(*arguments)
        self.assertTrue(all(" --k " in line for line in self.calls()))
        self.run_it(*arguments, "--again")
        self.assertEqual(len(self.calls()), 2 * 9)
        # Another build of the program is another program.
        self.program.write_text(self.program.read_text() + "\n")
        self.assertIn("(another program since)", self.run_it(*arguments, "--missing"))
        self.assertEqual(self.calls(), [])
        self.run_it(*arguments)
        self.assertEqual(len(self.calls()), 2 * 9)

    @unittest.skipIf(machine.cannot_be_busy(), machine.cannot_be_busy())
    def test_a_row_with_a_busy_core_runs_what_was_fastest_without(self) -> None:
        self.run_it("--only", "busy-kmeans,busy-train-16-32,train-16-32")
        ran = self.calls()
        self.assertEqual(len(ran), (10 + 2 * 6) + 3 * 6 + 3 * 3)
        self.assertTrue(all("--steps 40" in line for line in ran[:22]) and all("--steps 20" in line for line in ran[22:40]))
        entry = self.entries()["busy-train-16-32"]
        self.assertEqual(entry["passed_over"], [name for name in rows.variants("cpu") if "eager" in name])
        text = self.page.read_text()
        self.assertNotIn("open", text)
        self.assertNotIn("- busy-train-16-32: not measured yet", text)
        busy = text.split("## With one core busy")[1].split("## Memory")[0]
        self.assertIn("| **3.83x** | 3.83 to 3.83 | none |  |", busy)
        self.assertIn("| **2.70x** | 2.70 to 2.70 | at least 2.5x | yes |", busy)
        # On another machine nothing is known of what is fast.
        entries = self.entries()
        entries["train-16-32"]["features"] = ["AMX-BF16"]
        self.record.write_text(json.dumps(entries))
        self.run_it("--only", "busy-train-16-32", "--again")
        self.assertEqual(len(self.calls()), 10 + 2 * 6)

    def test_other_machines_and_peers_are_kept_apart(self) -> None:
        self.run_it("--only", "kmeans,knn")
        entries = self.entries()
        entries["knn"]["versions"]["torch"] = "0.9"
        entries["kmeans"]["features"] = ["AVX2", "AMX-BF16"]
        self.record.write_text(json.dumps(entries))
        self.run_it("--render")
        text = self.page.read_text()
        self.assertIn("- A: Some Processor, ", text)
        self.assertRegex(text, r"- B: .*The processor has: AVX2, AMX-BF16\. Kernels: ours: Avx2; PyTorch: AVX2\.")
        self.assertIn("k = 200 (A) |", text)
        self.assertIn("an iteration (B) |", text)

    def test_a_row_that_fails_stays_and_the_others_go_on(self) -> None:
        self.run_it("--only", "kmeans")
        before = self.entries()["kmeans"]
        self.says({"--engine sklearn": (1, "", "Traceback: broken\n")})
        said = self.run_it("--only", "kmeans,epoch", "--again", code=1)
        self.assertIn("ended with 1:\nTraceback: broken", said)
        self.assertIn("error: 1 row failed", said)
        self.assertEqual(self.entries()["kmeans"], before)
        self.assertIn("epoch", self.entries())
        # A row without a peer is no comparison.
        self.says({"kmeans --points": (3, json.dumps({"cannot": "this Python has no faiss"}), "")})
        # Status 3 is an answer of a peer alone.
        self.assertIn("ended with 3", self.run_it("--only", "kmeans", "--again", code=1))
        self.says({"--engine": (3, json.dumps({"cannot": "this Python has no faiss"}), "")})
        self.assertIn("no variant of the peer can run here: faiss: this Python has no faiss", self.run_it("--only", "kmeans", "--again", code=1))

    def test_a_peer_that_crashes_twice_is_left_out_and_ours_is_not(self) -> None:
        self.says({"--engine sklearn": ("crash", "", "")})
        self.run_it("--only", "kmeans")
        self.assertEqual(sum("sklearn" in line for line in self.calls()), 2)
        self.assertRegex(self.page.read_text(), r"- scikit-learn of kmeans: it crashes: python peer_bench.py kmeans .* ended with -6:\n")
        self.says({"--clusters 11316 --iterations 3 --threads": ("crash", "", "")})
        self.assertIn("kmeans is left as it was", self.run_it("--only", "kmeans", "--again", code=1))

    def test_a_process_that_hangs_is_ended_with_what_it_started(self) -> None:
        self.says({"--engine faiss": ("hang", "", "")})
        said = self.run_it("--only", "kmeans", "--limit", "10", code=1)
        self.assertIn("did not end within 10 s; --limit allows more", said)
        child = int((self.folder / "child.txt").read_text())
        self.assertTrue(gone(child))

    def test_a_check_runs_every_row_and_keeps_nothing(self) -> None:
        said = self.run_it("--check")
        self.assertIn("## With one core busy" if machine.cannot_be_busy() is None else "rows not measured: busy-train-64-32 (", said)
        self.assertIn("| not k-means: 60,502 x 128, 11,316 clusters, an iteration, but the smallest sizes | f32 |", said)
        self.assertFalse(self.record.exists() or self.page.exists())
        ran = self.calls()
        self.assertTrue(ran and not any("60502" in line or "--width 64" in line or "--batch 32" in line for line in ran))

    def test_notes_are_kept(self) -> None:
        self.page.write_text(f"old\n{page.BEGIN}\nmine\n{page.END}\nold")
        self.run_it("--only", "kmeans")
        self.assertIn(f"{page.BEGIN}\nmine\n{page.END}", self.page.read_text())
        self.assertNotIn("old", self.page.read_text())

    def test_mistakes_are_named(self) -> None:
        self.assertIn("--only: found trains, expected some of train-64-32, ", self.run_it("--only", "trains", code=1))
        self.record.write_text("{")
        self.assertIn("record.json: ", self.run_it("--only", "kmeans", code=1))
        self.record.write_text("{}")
        self.assertIn("holds no measurement", self.run_it("--render", code=1))


class Parts(unittest.TestCase):
    def test_every_command_of_a_peer_is_one(self) -> None:
        for device in ("cpu", "cuda"):
            found = rows.rows(compare.parser().parse_args(["--device", device]))
            self.assertEqual(len({row.key for row in found}), len(found))
            for row in found:
                for command in [*row.peers.values(), *rows.small(row).peers.values()]:
                    asked = peer_bench.parser().parse_args(command)
                    self.assertEqual(asked.what, command[0])
                for line in row.lines:
                    self.assertIn(line.ours, row.ours)
                    self.assertTrue([name for name in row.peers if line.against in (None, rows.precision(name))], row.key)
        self.assertEqual(len(rows.variants("cpu")), 8)

    def test_the_page_is_the_one_of_the_record(self) -> None:
        a = argparse.Namespace(**vars(compare.parser().parse_args(["--render"])) | dict(record=HERE / "comparison.json", out=HERE / "README.md"))
        self.assertEqual(page.render(a, rows.rows(a), record.read(a.record)), a.out.read_text(encoding="utf-8"), "run benches/compare.py --render")

    def test_extensions_of_processors(self) -> None:
        self.assertEqual(machine.features("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n"), ["AVX2", "AVX-512", "AVX512-BF16", "AMX-BF16"])
        self.assertEqual(machine.features("flags : fpu sse2 avx2x\n"), [])
        self.assertEqual(machine.features("Features : fp asimd bf16\n"), ["NEON", "BF16"])
        self.assertEqual(machine.features(""), [])

    def test_paths_are_cut(self) -> None:
        self.assertEqual(measure.without_paths("no /usr/lib/x.so, 3/4 of a/b; see /tmp/a-b/c.py:3"), "no x.so, 3/4 of a/b; see c.py:3")

    def test_peers_run_without_what_lowers_a_library(self) -> None:
        os.environ["OPENBLAS_CORETYPE"] = "Haswell"
        self.addCleanup(os.environ.pop, "OPENBLAS_CORETYPE")
        self.assertNotIn("OPENBLAS_CORETYPE", machine.environment(1))
        self.assertEqual(machine.environment(3)["OMP_NUM_THREADS"], "3")


class Learning(unittest.TestCase):
    """The table of benches/learning.py, and its copy of our generator."""

    def test_the_generator_has_the_published_answers(self) -> None:
        self.assertEqual(learning.philox([0] * 4, [0] * 2), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])
        self.assertEqual(learning.philox([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]), [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1])
        self.assertEqual(sorted(learning.shuffled(list(range(50)), learning.words(3, 0))), list(range(50)))

    def test_methods_that_differ_are_named_and_one_seed_decides_nothing(self) -> None:
        ours = {"simclr": {0: 40.0, 1: 41.0, 2: 40.5}, "byol": {0: 30.0, 1: 30.5}, "barlow_twins": {0: 9.0}}
        theirs = {"simclr": {"0": 40.2, "1": 40.8, "2": 40.7}, "byol": {"0": 35.0, "1": 35.5, "2": 1.0}, "barlow_twins": {"0": 50.0, "1": 50.0}}
        text, apart = learning.table(theirs, ours, "torch 1.0")
        self.assertIn("| SimCLR | 0, 1, 2 | 40.50 ± 0.50 | 40.57 ± 0.32 | -0.07 | 0.34 |", text)
        self.assertIn("| BYOL | 0, 1 | 30.25 ± 0.35 | 35.25 ± 0.35 | -5.00 | 0.35 |", text)
        self.assertIn("| Barlow Twins | 0 | 9.00 | 50.00 | -41.00 | one seed has none |", text)
        self.assertEqual(apart, ["BYOL: -5.00, 14.1 standard errors"])

    def test_the_table_takes_the_place_of_an_earlier_one(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "page.md")
            path.write_text("# Page\n\ntext\n", encoding="utf-8")
            learning.write(path, "first")
            first = path.read_text(encoding="utf-8")
            path.write_text(first + "\nmore\n", encoding="utf-8")
            learning.write(path, "second")
            self.assertEqual(path.read_text(encoding="utf-8"), first.replace("first", "second") + "\nmore\n")


@unittest.skipIf(machine.cannot_be_busy(), machine.cannot_be_busy())
class Busy(unittest.TestCase):
    def test_a_core_is_busy_and_free_again(self) -> None:
        with self.assertRaises(ZeroDivisionError), machine.BusyCore() as core:
            pid = core.process.pid
            self.assertEqual(os.sched_getaffinity(pid), {max(os.sched_getaffinity(0))})
            before = ticks(pid)
            # On a machine with other work the process gets less than the whole core.
            for _ in range(100):
                time.sleep(0.1)
                if ticks(pid) > before:
                    break
            self.assertGreater(ticks(pid), before)
            raise ZeroDivisionError
        self.assertTrue(core.lasted)
        self.assertTrue(gone(pid))

    def test_one_that_ended_early_is_noticed(self) -> None:
        with machine.BusyCore() as core:
            core.process.kill()
            core.process.wait()
        self.assertFalse(core.lasted)

    def test_it_ends_with_a_parent_that_is_killed(self) -> None:
        script = "import time\nfrom comparison.machine import BusyCore\nwith BusyCore() as core:\n print(core.process.pid, flush=True)\n time.sleep(600)"
        with subprocess.Popen([sys.executable, "-c", script], cwd=HERE, stdout=subprocess.PIPE, text=True) as parent:
            pid = int(parent.stdout.readline())
            parent.kill()
        self.assertTrue(gone(pid))


def ticks(pid: int) -> int:
    """The time on a processor that a process has had."""
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


def gone(pid: int) -> bool:
    """Whether a process ends, within a minute."""
    for _ in range(600):
        try:
            # What nobody has waited for is a zombie.
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    unittest.main(verbosity=2)
