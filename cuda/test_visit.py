#!/usr/bin/env python3
"""Plays both stays of cuda/visit.py through on the emulated device, with the debug build of the program and the smallest sizes: every stage
leaves its result, pieces join to the same bytes, and a run that was stopped by the clock goes on from what came back.

  cuda/test_visit.py       after INVASPREAD_EMULATE=1 cuda/test.sh, which builds what this needs
"""
import hashlib, json, os, pathlib, random, subprocess, sys, tarfile, tempfile, time, unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
VISIT = ROOT / "cuda" / "visit.py"
# A run of seconds on the emulated device.
TINY = ["model.width=4", "model.embedding=8", "optim.batch_size=16", "eval.k=5"]
SYNTHETIC = ["data.synthetic.train=32", "data.synthetic.test=16", "data.synthetic.image_size=16", "augment.size=16", "model.pool=2"]


def built():
    """The emulated device, the program for it and the tests of its kernels, as cuda/test.sh leaves them."""
    emulator = ROOT / "target" / "cuda" / "emulator"
    programs = sorted(ROOT.glob("target/*-linux-gnu/debug/invaspread"), key=lambda path: path.stat().st_mtime)
    tests = [path for path in ROOT.glob("target/*-linux-gnu/debug/deps/cuda_ops-*") if path.suffix == ""]
    tests.sort(key=lambda path: path.stat().st_mtime)
    if not (emulator / "libcuda.so.1").is_file() or not programs or not tests:
        sys.exit("error: the emulated device, the program or the tests are missing; run INVASPREAD_EMULATE=1 cuda/test.sh first")
    return emulator, programs[-1], tests[-1:]


class Visit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.emulator, cls.program, cls.tests = built()
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.folder.name)
        cls.state = cls.path / "state"
        cls.begun = time.time()

    @classmethod
    def tearDownClass(cls):
        took = time.time() - cls.begun
        cls.folder.cleanup()
        print(f"both stays took {took:.0f} s")

    def visit(self, script, *arguments, code=0):
        env = {**os.environ, "LD_LIBRARY_PATH": str(self.emulator), "HOME": str(self.path)}
        done = subprocess.run([sys.executable, script, *map(str, arguments)], env=env, capture_output=True, text=True)
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def pack(self):
        """Images in the form of CIFAR-10's binary files, and everything that is taken along."""
        source, there = self.path / "cifar-10-batches-bin", self.path / "there"
        if there.is_dir():
            return there
        source.mkdir()
        draw = random.Random(1)
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            (source / name).write_bytes(b"".join(bytes([i % 3]) + draw.randbytes(3072) for i in range(12)))
        said = self.visit(VISIT, "pack", there, "--program", self.program, "--preset", "0", "--tests", *self.tests, "--images", source, "--count", "10")
        self.assertIn("10 images of each of the 6 files", said)
        return there

    def test_1_the_check_leaves_a_result_of_every_stage(self):
        there = self.pack()
        out = self.path / "back"
        self.visit(there / "visit.py", "check", "--out", out, "--state", self.state, "--short", "--part", "0.5", "--width", "4", "--tests", "numbers_reach hand_nan", *TINY, "optim.epochs=1")
        summary = json.loads((out / "visit.json").read_text())
        stages = {stage["name"]: stage for stage in summary["stages"]}
        self.assertEqual(list(stages), ["doctor", "tests", "sanitizer", "ours", "ways", "peers", "kernels", "train"])
        files = sorted(path.name for path in out.iterdir())
        self.assertLessEqual(len(files), 8, files)
        for stage in stages.values():
            self.assertGreater((out / stage["file"]).stat().st_size, 0, stage)
        text = {name: (out / stage["file"]).read_text() for name, stage in stages.items()}
        for name in ("tests", "train"):
            self.assertEqual(set(stages[name]["ended"]), {0}, text[name])
        # The doctor's methods and the benches' peak take minutes on the emulated device; a stage that runs out of time ends nothing else.
        for name in ("doctor", "ours", "ways"):
            self.assertTrue(set(stages[name]["ended"]) <= {0, "out of time", "no time left"}, text[name])
        self.assertIn("test result: ok", text["tests"])
        self.assertIn("env INVASPREAD_CUDA_SWITCHES=step=graph", text["ways"])
        # What a machine lacks is said, and ends nothing.
        self.assertTrue(stages["peers"]["ended"])
        self.assertRegex(text["train"], r"kNN|knn")

    def test_2_pieces_join_to_the_same_bytes(self):
        source, pieces = self.path / "whole.bin", self.path / "pieces"
        source.write_bytes(random.Random(2).randbytes(100_001))
        self.visit(VISIT, "cut", source, pieces, "--bytes", "40000")
        names = sorted(path.name for path in pieces.iterdir())
        self.assertEqual(names, ["whole.bin.000", "whole.bin.001", "whole.bin.002", "whole.bin.pieces.json"])
        # One after the other, each with the list; a damaged one is asked for again.
        for name in names[:3]:
            brought = self.path / f"brought-{name}"
            brought.mkdir()
            for taken in (name, names[3]):
                (brought / taken).write_bytes((pieces / taken).read_bytes())
            if name == names[1]:
                (brought / name).write_bytes(b"x" * 40_000)
                self.assertIn("whole.bin.001 is damaged", self.visit(VISIT, "take", brought, "--state", self.state, code=1))
                (brought / name).write_bytes((pieces / name).read_bytes())
            said = self.visit(VISIT, "take", brought, "--state", self.state)
            self.assertIn("is whole" if name == names[2] else "whole.bin.002 is missing", said)
        joined = self.state / "data" / "whole.bin"
        self.assertEqual(hashlib.sha256(joined.read_bytes()).digest(), hashlib.sha256(source.read_bytes()).digest())

    def test_3_a_run_goes_on_from_what_came_back(self):
        there = self.pack()
        settings = [*TINY, *SYNTHETIC, "optim.epochs=100", "runs.checkpoint_seconds=0"]
        first, second = self.path / "first", self.path / "second"
        # 45 of the seconds are for saving and packing; the rest is not enough.
        self.visit(there / "visit.py", "train", "--out", first, "--state", self.path / "one", "--minutes", "1.0", *settings)
        run = json.loads((first / "visit.json").read_text())["run"]
        self.assertFalse(run["finished"], (first / "train.txt").read_text())
        # Another machine, to which the first brought nothing but what came back.
        other = self.path / "two"
        self.visit(there / "visit.py", "take", first, "--state", other)
        self.visit(there / "visit.py", "train", "--out", second, "--state", other, "--minutes", "8", *settings)
        said = (second / "train.txt").read_text()
        self.assertIn("resumed after epoch", said)
        run = json.loads((second / "visit.json").read_text())["run"]
        self.assertTrue(run["finished"], said)
        self.assertLessEqual(len(list(second.iterdir())), 8)
        runs = self.path / "runs"
        self.assertIn("finished", self.visit(VISIT, "unpack", second, "--runs", runs))
        folder = runs / run["folder"]
        self.assertTrue((folder / "record.json").is_file() and (folder / "checkpoints/weights-f16.safetensors").is_file())
        self.assertFalse((folder / "checkpoints/last.state.safetensors").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
