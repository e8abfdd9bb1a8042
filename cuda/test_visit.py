#!/usr/bin/env python3
"""Plays both stays of cuda/visit.py through on the emulated device, with the debug build of the program and the smallest sizes: every stage
leaves its result, pieces join to the same bytes, and a run that was stopped by the clock goes on from what came back.

  cuda/test_visit.py       after INVASPREAD_EMULATE=1 cuda/test.sh, which builds what this needs
"""
import array, hashlib, json, os, pathlib, random, re, shutil, subprocess, sys, tarfile, tempfile, time, unittest

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


def numbers(path):
    """The f32 tensors of a .safetensors file by name, without their shapes."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    found = {}
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            found[name] = array.array("f", content[8 + size + begin : 8 + size + end])
    return found


class Visit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.emulator, cls.program, cls.tests = built()
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.folder.name)
        cls.state = cls.path / "state"
        # What a machine may have and the emulated device cannot serve: PyTorch, and the libraries of its wheels.
        hidden = cls.path / "hidden"
        for name, text in (("torch", "raise ImportError('hidden by the test')"), ("nvidia", "")):
            (hidden / name).mkdir(parents=True)
            (hidden / name / "__init__.py").write_text(text)
        cls.env = {**os.environ, "LD_LIBRARY_PATH": str(cls.emulator), "HOME": str(cls.path), "PYTHONPATH": str(hidden), "PATH": "/usr/bin:/bin"}
        cls.begun = time.time()

    @classmethod
    def tearDownClass(cls):
        took = time.time() - cls.begun
        cls.folder.cleanup()
        print(f"both stays took {took:.0f} s")

    def visit(self, script, *arguments, code=0):
        return self.run_it([sys.executable, script, *arguments], code)

    def run_it(self, command, code=0):
        done = subprocess.run([*map(str, command)], env=self.env, capture_output=True, text=True)
        self.assertEqual(done.returncode, code, f"{command}: {done.stdout}{done.stderr}")
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
        # A debug build is larger than what may be taken along.
        packing = ["--program", self.program, "--preset", "0", "--largest", "100"]
        said = self.visit(VISIT, "pack", there, *packing, "--tests", *self.tests, "--images", source, "--count", "10")
        self.assertIn("10 images of each of the 6 files", said)
        return there

    def test_1_the_check_leaves_a_result_of_every_stage(self):
        there = self.pack()
        out = self.path / "back"
        self.visit(there / "visit.py", "check", "--out", out, "--state", self.state, "--short", "--part", "6", "--width", "4", "--tests", "numbers_reach hand_nan", *TINY, "optim.epochs=1")
        summary = json.loads((out / "visit.json").read_text())
        stages = {stage["name"]: stage for stage in summary["stages"]}
        self.assertEqual(list(stages), ["doctor", "tests", "sanitizer", "ours", "ways", "peers", "kernels", "train"])
        files = sorted(path.name for path in out.iterdir())
        self.assertLessEqual(len(files), 8, files)
        for stage in stages.values():
            self.assertGreater((out / stage["file"]).stat().st_size, 0, stage)
        text = {name: (out / stage["file"]).read_text() for name, stage in stages.items()}
        # The tools that a machine may lack are named, and everything else ended well, none by the clock.
        left_out = {name: stage["left_out"] for name, stage in stages.items() if "left_out" in stage}
        self.assertEqual(set(left_out), {"sanitizer", "peers", "kernels"}, left_out)
        self.assertEqual([left_out["sanitizer"], left_out["kernels"]], ["compute-sanitizer is not installed", "ncu is not installed"])
        self.assertIn("hidden by the test", left_out["peers"])
        for name in ("doctor", "tests", "ours", "train"):
            self.assertEqual(set(stages[name]["ended"]), {0}, text[name])
        self.assertEqual(set(stages["ways"]["ended"]), {0}, text["ways"])
        self.assertIn("env INVASPREAD_CUDA_SWITCHES=step=graph", text["ways"])
        print(", ".join(f"{name} {stage['seconds']:.0f} s" for name, stage in stages.items()))
        self.assertRegex(text["doctor"], r"method: invaspread trains: .*the same twice")
        self.assertRegex(text["tests"], r"test result: ok\. [1-9]")
        benches = [json.loads(found) for found in re.findall(r"^\{.*?^\}$", text["ours"], re.MULTILINE | re.DOTALL)]
        self.assertEqual([bench["what"] for bench in benches], ["train", "evaluate", "knn", "kmeans", "train"])
        for bench in benches:
            self.assertEqual((bench["peak_side"], bench["device"]), (128, "cuda"), bench)
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

    def test_4_a_large_program_is_refused(self):
        program = pathlib.Path(sys.executable).resolve()
        tests = [self.path / name for name in ("cuda_some-1", "cuda_other-2")]
        for test in tests:
            shutil.copy(program, test)
        packing = ["--program", program, "--tests", *tests, "--preset", "0", "--largest", "0.001", "--without", "cuda_other"]
        said = self.visit(VISIT, "pack", self.path / "large", *packing, code=1)
        self.assertRegex(said, r"program.tar.xz is [\d.]+ MB, expected at most 0.001 MB\. .* invaspread \([\d.]+ MB\), tests/cuda_some \([\d.]+ MB\)\..*--without")
        self.assertNotIn("cuda_other", said)

    def test_3_a_run_goes_on_from_what_came_back(self):
        there = self.pack()
        settings = [*TINY, *SYNTHETIC, "optim.epochs=40"]
        first, second, one, two = (self.path / name for name in ("first", "second", "one", "two"))
        # 45 of the seconds are for saving and packing, and those that are left are too few for all epochs. A slow machine gets more
        # of them until a step is done.
        for seconds in (5, 10, 20, 40, 80):
            self.visit(there / "visit.py", "train", "--out", first, "--state", one, "--minutes", (45 + seconds) / 60, *settings)
            if list(one.glob("runs/*/*/checkpoints/last.state.safetensors")):
                break
        told = json.loads((first / "visit.json").read_text())
        said = (first / "train.txt").read_text()
        self.assertEqual(told["stages"][-1]["ended"], ["stopped in time"], said)
        self.assertFalse(told["run"]["finished"], said)
        # Another machine, to which the first brought nothing but what came back.
        self.visit(there / "visit.py", "take", first, "--state", two)
        self.visit(there / "visit.py", "train", "--out", second, "--state", two, "--minutes", "15", *settings)
        said = (second / "train.txt").read_text()
        self.assertIn("resumed after epoch", said)
        told = json.loads((second / "visit.json").read_text())
        self.assertTrue(told["run"]["finished"], said)
        self.assertEqual([(stage["name"], stage["ended"]) for stage in told["stages"]], [("train", [0]), ("weights", [0])], said)
        self.assertLessEqual(len(list(second.iterdir())), 8)
        runs = self.path / "runs"
        self.assertIn("finished", self.visit(VISIT, "unpack", second, "--runs", runs))
        folder = runs / told["run"]["folder"]
        self.assertTrue((folder / "record.json").is_file())
        self.assertFalse((folder / "checkpoints/last.state.safetensors").exists())
        self.check_half(folder / "checkpoints/weights-f16.safetensors", two / "runs" / told["run"]["folder"] / "checkpoints/last.safetensors")

    def check_half(self, half, full):
        """The weights that came back are those of the run in f16, in half the bytes, and the program reads them."""
        entries = {path: json.loads(self.run_it([self.program, "weights", "inspect", path, "--json"])) for path in (half, full)}
        shapes = [[(entry["name"], entry["shape"]) for entry in entries[path]] for path in (half, full)]
        self.assertEqual(*shapes)
        self.assertEqual({entry["dtype"] for entry in entries[half] if entry["name"].endswith("weight")}, {"f16"})
        self.assertLess(half.stat().st_size, 0.6 * full.stat().st_size)
        again = self.path / "again.safetensors"
        self.run_it([self.program, "weights", "export", half, again])
        got, want = numbers(again), numbers(full)
        self.assertEqual(set(got), set(want))
        for name, values in want.items():
            # f16 has 11 bits; the smallest numbers lose more.
            for x, y in zip(got[name], values, strict=True):
                self.assertLessEqual(abs(x - y), 2**-11 * abs(y) + 2**-25, name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
