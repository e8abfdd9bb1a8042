#!/usr/bin/env python3
"""A short stay on a GPU machine that is rented by the minute. cuda/README.md says step by step how it goes.

At home:
  visit.py pack OUT [--architecture 90] [--program FILE] [--tests FILE ...] [--images FOLDER]
                                   the files to take there, below 45 MB: this script, the program, its tests, images
  visit.py cut FILE OUT            a large file in pieces of 45 MB, which join to the same bytes
On the machine, beside what was brought:
  visit.py check --out OUT         everything that nine minutes can tell; no stage can end the others
  visit.py take FOLDER             puts brought pieces aside, and joins a file once all of its pieces are there
  visit.py train --out OUT [--minutes 9] [KEY=VALUE ...]
                                   trains on CIFAR-10 as long as there is time; what comes back resumes
At home again:
  visit.py unpack FOLDER [--runs runs]
                                   puts a run that came back where `invaspread` finds it

Whatever comes back is at most 8 files of 16 MiB. Needs Python 3.8 or newer and nothing else.
"""
import argparse, hashlib, json, lzma, os, pathlib, platform, shutil, signal, subprocess, sys, tarfile, time

HERE = pathlib.Path(__file__).resolve().parent
BROUGHT = 45_000_000  # bytes that go there at once
LARGEST_PROGRAM = 20_000_000  # bytes of the program and its tests, packed
RETURNED = 16 << 20  # bytes of a file that comes back
FILES = 8  # files that come back
PROGRAM = "program.tar.xz"  # the program and its tests, stripped
OF_EMULATOR = ("cuda_traffic",)  # tests that only the emulated device can run, because it counts
IMAGES = "images.xz"  # as many images of CIFAR-10 as fit, the same part of each of its files
CARDS = ("80", "86", "89", "90")
# The other way of each switch that is undecided (ARCHITECTURE.md): the first training bench is measured with each.
WAYS = ("step=graph", "convolution=legacy", "convolution=backend", "norm=apart", "sums=kernel", "weights=packed")
RECORD, SIDE = 3073, 32  # bytes of an image in CIFAR-10's binary files: the class, then red, green and blue; its side
BINARY = "cifar-10-batches-bin"
BATCHES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
ARCHIVE = "cifar-10-binary.tar.gz"


def fail(text, code=1):
    print(f"error: {text}", file=sys.stderr)
    sys.exit(code)


def megabytes(path):
    return f"{path.stat().st_size / 1e6:.1f} MB"


def digest(path):
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            hashed.update(block)
    return hashed.hexdigest()


# Pieces: NAME.000, NAME.001, ... and NAME.pieces.json, which lists them with their hashes.


def cut(source, folder, size):
    """Cuts a file; returns the list of its pieces. The list itself is written by the caller."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces, whole = [], hashlib.sha256()
    with open(source, "rb") as file:
        while block := file.read(size):
            name = f"{source.name}.{len(pieces):03}"
            (folder / name).write_bytes(block)
            whole.update(block)
            pieces.append(dict(name=name, bytes=len(block), sha256=hashlib.sha256(block).hexdigest()))
    return dict(name=source.name, bytes=source.stat().st_size, sha256=whole.hexdigest(), pieces=pieces)


def join(listed, folder, target):
    """Joins the pieces in `folder`; says which are missing or damaged, or else writes `target` and returns nothing."""
    wrong = []
    for piece in listed["pieces"]:
        path = folder / piece["name"]
        if not path.is_file():
            wrong.append(f"{piece['name']} is missing")
        elif digest(path) != piece["sha256"]:
            wrong.append(f"{piece['name']} is damaged")
    if wrong:
        return wrong
    half = target.with_name(f".unfinished-{target.name}")
    with open(half, "wb") as file:
        for piece in listed["pieces"]:
            file.write((folder / piece["name"]).read_bytes())
    if digest(half) != listed["sha256"]:
        half.unlink()
        return [f"the pieces do not join to {listed['name']}"]
    half.rename(target)
    return []


# At home


def binary(a):
    """Builds the program for one generation of cards, without suites and reports, stripped."""
    if a.program:
        return pathlib.Path(a.program), [pathlib.Path(test) for test in a.tests]
    root = HERE.parent
    env = {**os.environ, "INVASPREAD_CUDA_ARCHITECTURES": a.architecture, "CARGO_PROFILE_RELEASE_STRIP": "symbols"}
    cargo = [str(HERE / "cargo.sh")]
    small = ["--no-default-features", "--features", "invaspread/cuda"]
    subprocess.run(cargo + ["build", "--release", "-p", "invaspread"] + small, cwd=root, env=env, check=True)
    packages = [f for name in ("tensor", "losses", "metrics", "runner") for f in ("-p", f"invaspread-{name}")]
    tests = ["test", "--no-run", "--release", "--message-format=json-render-diagnostics", "--features", "invaspread-runner/cuda"]
    said = subprocess.run(cargo + tests + packages + ["--test", "cuda*"], cwd=root, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    made = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    found = [pathlib.Path(m["executable"]) for m in made if m.get("executable") and m["target"]["kind"] == ["test"]]
    programs = sorted(root.glob("target/*-linux-gnu/release/invaspread"), key=lambda path: path.stat().st_mtime)
    return programs[-1], found


def pack(a):
    out = pathlib.Path(a.out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    program, tests = binary(a)
    tests = [test for test in tests if test.name.split("-")[0] not in a.without]
    stripped = out / "stripped"
    (stripped / "tests").mkdir(parents=True)
    for source, target in [(program, stripped / "invaspread")] + [(test, stripped / "tests" / test.name.split("-")[0]) for test in tests]:
        while target.exists():  # two crates have a test of this name
            target = target.with_name(target.name + "_")
        shutil.copy(source, target)
        if shutil.which("strip"):
            subprocess.run(["strip", str(target)], check=True)
    held = [f"{path.relative_to(stripped)} ({megabytes(path)})" for path in sorted(stripped.rglob("*")) if path.is_file()]
    for name in ("benches/peer_bench.py",):
        shutil.copy(HERE.parent / name, stripped)
    with lzma.open(out / PROGRAM, "wb", preset=a.preset) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        # In the order of their sizes, programs that share most of their code are near one another: that saves an eighth.
        for path in sorted((path for path in stripped.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size):
            tar.add(path, pathlib.Path("program") / path.relative_to(stripped))
    shutil.rmtree(stripped)
    shutil.copy(__file__, out / "visit.py")
    if (out / PROGRAM).stat().st_size > a.largest * 1e6:
        fail(f"{out / PROGRAM} is {megabytes(out / PROGRAM)}, expected at most {a.largest:g} MB. Before it was packed it held {', '.join(held)}. "
             "Leave tests out with --without NAME; give --program a release build for one architecture, without feature report; or raise --largest")
    room = BROUGHT - sum(path.stat().st_size for path in out.iterdir())
    if a.images:
        pack_images(pathlib.Path(a.images), out / IMAGES, room, a.count)
    for path in sorted(out.iterdir()):
        print(f"{path}: {megabytes(path)}")
    print(f"take all of {out} there ({sum(p.stat().st_size for p in out.iterdir()) / 1e6:.1f} MB), then: python3 visit.py check --out OUT")


def pack_images(folder, target, room, count):
    """Packs the first images of each file: `count` of them, or as many as fit into `room` bytes."""
    missing = [name for name in BATCHES if not (folder / name).is_file()]
    if missing:
        fail(f"{folder} has no {', '.join(missing)}; expected the folder {BINARY}", 2)

    def packed(count):
        return lzma.compress(b"".join((folder / name).read_bytes()[: count * RECORD] for name in BATCHES), preset=6)

    if not count:
        sample = 100
        count = min(10_000, int(room / len(packed(sample)) * sample))
    while len(found := packed(count)) > room:
        count = int(count * 0.95 * room / len(found))
    target.write_bytes(found)
    print(f"{target.name}: {count} images of each of the {len(BATCHES)} files")


def cut_at_home(a):
    source, out = pathlib.Path(a.file), pathlib.Path(a.folder)
    if not source.is_file():
        fail(f"{source}: no such file", 2)
    listed = cut(source, out, a.bytes)
    (out / f"{source.name}.pieces.json").write_text(json.dumps(listed, indent=1))
    for piece in listed["pieces"]:
        print(f"{out / piece['name']}: {piece['bytes'] / 1e6:.1f} MB")
    print(f"bring each with {source.name}.pieces.json, one after the other: python3 visit.py take FOLDER")


# On the machine


class Machine:
    """What was brought, unpacked, and the environment that the program runs in."""

    def __init__(self, a):
        self.state = pathlib.Path(a.state).resolve()
        self.state.mkdir(parents=True, exist_ok=True)
        self.folder = self.state / "program"
        packed = HERE / PROGRAM
        if packed.is_file() and not (self.folder / "invaspread").is_file():
            with lzma.open(packed) as tar, tarfile.open(fileobj=tar) as files:
                files.extractall(self.state)
        self.program = self.folder / "invaspread"
        if not self.program.is_file():
            fail(f"no {PROGRAM} beside this script and none unpacked in {self.state}; `visit.py pack` makes it", 2)
        self.program.chmod(0o755)
        self.env = dict(os.environ)
        self.env.setdefault("CUDA_CACHE_PATH", str(self.state / "compiled"))
        self.notes = self.link_libraries()

    def link_libraries(self):
        """Puts the libraries of PyTorch's wheels first on the path, also under the unversioned names that are asked for first."""
        try:
            found = subprocess.run(
                [sys.executable, "-c", "import nvidia; print('\\n'.join(nvidia.__path__))"], capture_output=True, text=True, timeout=30)
        except subprocess.TimeoutExpired:
            return "python did not say where the wheels are"
        links = self.state / "libraries"
        links.mkdir(exist_ok=True)
        count = 0
        for folder in found.stdout.split() if found.returncode == 0 else []:
            for path in sorted(pathlib.Path(folder).glob("**/lib/lib*.so.*")):
                for name in (path.name, path.name.split(".so.")[0] + ".so"):
                    if not (links / name).is_symlink():
                        (links / name).symlink_to(path)
                        count += 1
        if any(links.iterdir()):
            self.env["LD_LIBRARY_PATH"] = ":".join(filter(None, [str(links), self.env.get("LD_LIBRARY_PATH")]))
        return f"{count} links to libraries of the wheels" if count else "no libraries of wheels"


class Results:
    """The folder that comes back. Each stage's file is written as the stage goes, and cut to its last part at the end."""

    def __init__(self, out, title):
        self.out = pathlib.Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.summary = dict(what=title, begun=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), host=platform.platform(), stages=[])
        self.begun = time.time()
        self.save()

    def save(self):
        half = self.out / ".visit.json"
        half.write_text(json.dumps(self.summary, indent=1))
        half.rename(self.out / "visit.json")

    def stage(self, name, file, commands, seconds, env, cwd=None, interrupt=False, lacks=None):
        """Runs commands one after the other, at most `seconds` in all. Whatever happens is noted, and the next stage begins.
        `lacks` says what the stage needs and the machine does not have; the stage is then left out."""
        path, begun, ended = self.out / file, time.time(), []
        if lacks:
            path.write_text(f"== left out: {lacks}\n")
            self.note(dict(name=name, file=file, ended=ended, left_out=lacks, seconds=0.0), f"left out: {lacks}")
            return ended
        for command in commands:
            left = seconds - (time.time() - begun)
            shown = " ".join(map(str, command))
            with open(path, "ab") as log:
                log.write(f"== {shown}\n".encode())
                log.flush()
                if left <= 0:
                    ended.append("no time left")
                    log.write(b"== no time left\n")
                    continue
                try:
                    child = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, cwd=cwd, start_new_session=True)
                except OSError as error:
                    ended.append(str(error))
                    log.write(f"== {error}\n".encode())
                    continue
                ended.append(wait(child, left, interrupt))
                log.write(f"== ended: {ended[-1]} after {time.time() - begun:.1f} s\n".encode())
            shorten(path)
        self.note(dict(name=name, file=file, ended=ended, seconds=round(time.time() - begun, 1)), ", ".join(map(str, ended)))
        return ended

    def note(self, stage, told):
        self.summary["stages"].append(stage)
        self.save()
        print(f"{time.time() - self.begun:6.1f} s  {stage['name']}: {told}", flush=True)


def wait(child, seconds, interrupt):
    """Waits for a process; one that takes too long is interrupted (a run then saves its state), then killed with all it began."""
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    try:
        if interrupt:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(40)
                return "stopped in time"
            except subprocess.TimeoutExpired:
                pass
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
    return "out of time"


def lacks_tool(name):
    """What is missing, if a program of this name is not on the path."""
    return None if shutil.which(name) else f"{name} is not installed"


def lacks_pytorch(env):
    """What is missing, if the peers' benches cannot run."""
    asked = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 9)"
    try:
        said = subprocess.run([sys.executable, "-c", asked], env=env, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "PyTorch did not say within 60 s whether it sees a GPU"
    if said.returncode in (0, 9):
        return "PyTorch sees no GPU" if said.returncode else None
    return f"PyTorch cannot be imported: {said.stderr.strip().splitlines()[-1] if said.stderr.strip() else said.returncode}"


def shorten(path, most=RETURNED):
    if path.stat().st_size > most:
        with open(path, "rb") as file:
            file.seek(-(most - 100), os.SEEK_END)
            rest = file.read()
        path.write_bytes(b"(the beginning is left out)\n" + rest)


def unpack_images(machine):
    """The folder of the images that were brought, a folder for each class; None without images."""
    folder, packed = machine.state / "images", HERE / IMAGES
    if not packed.is_file() or folder.is_dir():
        return folder if folder.is_dir() else None
    records = lzma.decompress(packed.read_bytes())
    images = len(records) // RECORD
    tests = images // len(BATCHES)
    half, plane = machine.state / "images.unfinished", SIDE * SIDE
    for number in range(images):
        record = records[number * RECORD : (number + 1) * RECORD]
        to = half / ("test" if number >= images - tests else "train") / f"class{record[0]}"
        to.mkdir(parents=True, exist_ok=True)
        pixels = bytearray(3 * plane)
        for channel in range(3):
            pixels[channel::3] = record[1 + channel * plane : 1 + (channel + 1) * plane]
        (to / f"{number:05}.ppm").write_bytes(b"P6 %d %d 255\n" % (SIDE, SIDE) + pixels)
    half.rename(folder)
    return folder


def check(a):
    results = Results(a.out, "check")
    machine = Machine(a)
    results.summary["libraries"] = machine.notes
    program, env, part = machine.program, machine.env, a.part
    results.stage("doctor", "1-doctor.txt", [[program, "doctor"]], 60 * part, env)
    tests = sorted((machine.folder / "tests").glob("*")) if (machine.folder / "tests").is_dir() else []
    for test in tests:
        test.chmod(0o755)
    careful = {**env, "PROPTEST_CASES": "4", "RUST_BACKTRACE": "1", "INVASPREAD_EXPECT_CUDA": "1"}
    filters = a.tests.split() if a.tests else []
    results.stage("tests", "2-tests.txt", [[test, "--test-threads=1", *filters] for test in tests], 70 * part, careful,
                  lacks=None if tests else "no test programs were brought")
    sanitizer = shutil.which("compute-sanitizer")
    own = [test for test in tests if test.name.startswith("cuda_ops")] or tests[:1]
    checked = [[sanitizer, f"--tool={tool}", "--error-exitcode=9", test, "--test-threads=1"] for tool in ("memcheck", "racecheck") for test in own]
    results.stage("sanitizer", "3-sanitizer.txt", checked, 60 * part, {**careful, "PROPTEST_CASES": "1"}, lacks=lacks_tool("compute-sanitizer") or (None if own else "no test programs were brought"))
    # The product that measures the peak rate would take minutes on a device that is emulated.
    in_f32 = ["--device", "cuda", "--json"] + (["--peak-side", "128"] if a.short else [])
    on_gpu = ["--precision", "bf16", *in_f32]
    width, few = (["--width", str(a.width)] if a.width else []), ["--steps", "2", "--warmup", "1"] if a.short else ["--steps", "30", "--warmup", "5"]
    batches, rows = ("4",) if a.short else ("128", "512"), ["--train", "500", "--test", "50"] if a.short else ["--train", "50000", "--test", "10000"]
    points = ["--points", "300", "--clusters", "5"] if a.short else ["--points", "60502", "--clusters", "11316"]
    ours = [[program, "bench", "train", "--batch", batch, *few, *width, *on_gpu] for batch in batches]
    ours += [[program, "bench", "evaluate", "--images", "8" if a.short else "10000", *width, *on_gpu],
             [program, "bench", "knn", *rows, "--dim", "128", "--k", "20" if a.short else "200", *in_f32],
             [program, "bench", "kmeans", *points, "--dim", "128", "--iterations", "3", *in_f32]]
    results.stage("ours", "4-ours.txt", ours, 45 * part, env)
    ways = [["env", f"INVASPREAD_CUDA_SWITCHES={way}", *ours[0]] for way in (WAYS[:1] if a.short else WAYS)]
    results.stage("ways", "4-ours.txt", ways, (10 if a.short else 60) * part, env)
    peer = [sys.executable, machine.folder / "peer_bench.py", "train", "--device", "cuda", "--batch", batches[0], *few, *width, "--amp", "--channels-last"]
    results.stage("peers", "5-peers.txt", [peer, peer + ["--compile"]], 105 * part, env, lacks=lacks_pytorch(env))
    ncu = shutil.which("ncu")
    profiled = [ncu, "--clock-control", "none", "--launch-skip", "600", "--launch-count", "320", "--metrics", "gpu__time_duration.sum,dram__bytes.sum", "--csv",
                program, "bench", "train", "--batch", "128", "--steps", "1", "--warmup", "2", *on_gpu]
    results.stage("kernels", "6-kernels.txt", [profiled], 60 * part, env, lacks=lacks_tool("ncu"))
    images = unpack_images(machine)
    of = ["dataset=folder", f"data.folder.path={images}"] if images else ["dataset=synthetic"]
    train = [program, "train", *of, "method=invaspread", "profile=paper", "device=cuda", "precision=bf16", f"runs.root={machine.state / 'runs'}", *a.settings]
    results.stage("train", "7-train.txt", [train], 90 * part, env, interrupt=True)
    print(f"what comes back is in {results.out}")


def take(a):
    """Puts the pieces in a folder aside, and joins every file whose pieces are all there."""
    state = pathlib.Path(a.state)
    pieces = state / "pieces"
    pieces.mkdir(parents=True, exist_ok=True)
    for path in sorted(pathlib.Path(a.folder).iterdir()):
        if path.name.endswith(".pieces.json") or path.suffix[1:].isdigit():
            shutil.copy(path, pieces)
        if path.name == "visit.json" and "run" in (told := json.loads(path.read_text())):
            # A run that came back from an earlier stay: its list of pieces came with it.
            (pieces / "run.tar.pieces.json").write_text(json.dumps(told["run"]["pieces"]))
    lists = sorted(pieces.glob("*.pieces.json"))
    if not lists:
        fail(f"{a.folder} has no .pieces.json (of `visit.py cut`) and no visit.json (of a run that came back), which list the pieces", 2)
    (state / "data").mkdir(exist_ok=True)
    for path in lists:
        listed = json.loads(path.read_text())
        target = state / "data" / listed["name"]
        if target.is_file() and digest(target) == listed["sha256"]:
            print(f"{target} is there")
            continue
        wrong = join(listed, pieces, target)
        damaged = [text for text in wrong if text.endswith("damaged")]
        print(f"{listed['name']}: {'; '.join(wrong)}" if wrong else f"{target} is whole, {megabytes(target)}")
        if damaged:
            fail("bring the damaged pieces again")


# Files of a run that come back: everything but what is derived from the state, and but the claims of the machine that is left behind.
LEFT_OUT = ("last.safetensors", "best.safetensors")
CLAIMS = "lease-"


def train(a):
    results = Results(a.out, "train")
    machine = Machine(a)
    results.summary["libraries"] = machine.notes
    # A run that came back from an earlier stay goes on.
    brought = machine.state / "data" / "run.tar"
    runs = machine.state / "runs"
    if brought.is_file() and not runs.is_dir():
        with tarfile.open(brought) as tar:
            tar.extractall(runs)
    data = machine.state / "data"
    is_there = (data / ARCHIVE).is_file()
    of = ["dataset=cifar10", f"data.root={data}"] if is_there else ["dataset=synthetic"]
    if not is_there:
        print("no CIFAR-10 was brought (`visit.py take`): this trains on generated images")
    settings = [*of, "method=invaspread", "profile=paper", "device=cuda", "precision=bf16", f"runs.root={runs}", *a.settings]
    # What is left of the time goes to saving and packing.
    results.stage("train", "train.txt", [[machine.program, "train", *settings]], a.minutes * 60 - 45, machine.env, interrupt=True)
    # Of several runs, the one that was trained last.
    changed = sorted(runs.glob("*/*/status.json"), key=lambda path: path.stat().st_mtime)
    for folder in [path.parent for path in changed[-1:]]:
        done = (folder / "record.json").is_file()
        packed = results.out / "run.tar"
        weights = folder / "checkpoints" / "last.safetensors"
        half = machine.state / "weights-f16.safetensors"
        if done:
            export = [machine.program, "weights", "export", weights, half, f"runs.root={runs}"]
            results.stage("weights", "train.txt", [export + ["--half"]], 40, machine.env)
        # Momentum and full weights are only of use to a run that goes on.
        left_out = LEFT_OUT + (("last.state.safetensors", "train.safetensors") if done else ())
        with tarfile.open(packed, "w") as tar:
            for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in left_out):
                if not path.relative_to(folder).parts[0].startswith(CLAIMS):
                    tar.add(path, path.relative_to(runs))
            if done and half.is_file():
                tar.add(half, (folder / "checkpoints" / half.name).relative_to(runs))
        results.summary["run"] = dict(folder=str(folder.relative_to(runs)), finished=done, pieces=cut(packed, results.out, RETURNED))
        packed.unlink()
        results.save()
    files = [path for path in results.out.iterdir()]
    if len(files) > FILES:
        print(f"{len(files)} files, of which a lender that takes back {FILES} leaves some: {', '.join(path.name for path in files)}")
    print(f"what comes back is in {results.out}")


def unpack(a):
    runs, came = pathlib.Path(a.runs), pathlib.Path(a.folder)
    told = came / "visit.json"
    run = json.loads(told.read_text()).get("run") if told.is_file() else None
    if not run:
        fail(f"{told} is not there, or of a stay that trained nothing", 2)
    folder, packed = runs / run["folder"], runs / "run.tar"
    if (folder / "record.json").is_file():
        fail(f"{folder} is there and finished; move it away first")
    runs.mkdir(parents=True, exist_ok=True)
    wrong = join(run["pieces"], came, packed)
    if wrong:
        fail(f"the run in {came} is not whole: {'; '.join(wrong)}")
    with tarfile.open(packed) as tar:
        tar.extractall(runs)
    packed.unlink()
    print(f"{folder}: {'finished' if run['finished'] else 'unfinished; `visit.py take` brings the same pieces there again, to go on'}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(dest="command", required=True)
    c = commands.add_parser("pack")
    c.add_argument("out")
    c.add_argument("--architecture", default="90", choices=CARDS, help="compute capability of the card: 80 A100, 86 RTX 30, 89 RTX 40 and L4, 90 H100 and H200")
    c.add_argument("--program", help="one that is built already")
    c.add_argument("--preset", type=int, default=9 | lzma.PRESET_EXTREME, help="of xz, 0 to 9: how hard to compress")
    c.add_argument("--tests", nargs="*", default=[], help="test programs that are built already")
    c.add_argument("--without", nargs="*", default=list(OF_EMULATOR), metavar="NAME", help=f"test programs that are not taken along; {', '.join(OF_EMULATOR)} if not given")
    c.add_argument("--largest", type=float, default=LARGEST_PROGRAM / 1e6, metavar="MB", help=f"most that {PROGRAM} may take")
    c.add_argument("--images", help=f"the folder {BINARY}")
    c.add_argument("--count", type=int, help="images of each of its files, instead of as many as fit")
    c.set_defaults(do=pack)
    c = commands.add_parser("cut")
    c.add_argument("file")
    c.add_argument("folder")
    c.add_argument("--bytes", type=int, default=BROUGHT - 1_000_000, help="of a piece")
    c.set_defaults(do=cut_at_home)
    for name, do in (("check", check), ("train", train)):
        c = commands.add_parser(name)
        c.add_argument("--out", required=True, help="the folder that comes back")
        c.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of the training, as optim.epochs=100")
        c.set_defaults(do=do)
        if name == "check":
            c.add_argument("--part", type=float, default=1.0, help="of each stage's time")
            c.add_argument("--short", action="store_true", help="the smallest sizes, for a device that is emulated")
            c.add_argument("--width", type=int, help="channels of the first stage in the benches; 64 if not given")
            c.add_argument("--tests", help="only the tests whose names hold one of these words")
        else:
            c.add_argument("--minutes", type=float, default=9.0, help="that the command may take in all")
        c.add_argument("--state", default=os.path.expanduser("~/invaspread-visit"), help="what stays on the machine between commands")
    c = commands.add_parser("take")
    c.add_argument("folder")
    c.add_argument("--state", default=os.path.expanduser("~/invaspread-visit"))
    c.set_defaults(do=take)
    c = commands.add_parser("unpack")
    c.add_argument("folder")
    c.add_argument("--runs", default="runs")
    c.set_defaults(do=unpack)
    a = p.parse_args()
    a.do(a)


if __name__ == "__main__":
    main()
