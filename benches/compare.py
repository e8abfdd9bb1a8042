#!/usr/bin/env python3
"""Times our program and the code that a PyTorch user would run, in turn on this machine, and writes benches/README.md.

  python3 benches/compare.py --ours target/release/invaspread --python PYTHON [--pairs 5] [--only train,knn]
  python3 benches/compare.py --render
  (either with --device cuda for a GPU, and --record FILE and --out FILE for others than benches/comparison.json and benches/README.md)

PYTHON is an interpreter with torch, torchvision, pillow, faiss-cpu and scikit-learn. In each pair ours and every variant of the
peer run once, each in a process of its own, in an order that moves on by one from pair to pair. A ratio is the peer's time over
ours within one pair; where the peer has variants, it is the one with the better median. `--only` measures some workloads again and
keeps the others, so a run that broke off can go on; `--render` writes the README from what was measured before. Standard library
only, Python 3.9 or later.
"""
import argparse, datetime, json, os, pathlib, platform, statistics, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
BEGIN, END = "<!-- notes: written by hand, kept -->", "<!-- end of notes -->"
# Others may use this share of the cores before a pair.
IDLE = 0.1
FORMATS = {"NCHW": [], "channels-last": ["--channels-last"]}
GPU_FORMATS = {
    "eager": [], "channels-last": ["--channels-last"], "AMP bf16": ["--amp", "--channels-last"],
    "compiled": ["--channels-last", "--compile"], "AMP bf16, compiled": ["--amp", "--channels-last", "--compile"],
}


def train(width, batch, goal, steps, warmup=2, formats=FORMATS, memory=0.6):
    sizes = ["train", "--width", str(width), "--batch", str(batch), "--steps", str(steps), "--warmup", str(warmup)]
    return dict(key=f"train-{width}-{batch}", work=f"training step, ResNet-18, width {width}, {2 * batch} views", peer="PyTorch",
                ours=sizes, peers={name: sizes + flags for name, flags in formats.items()}, figure="ms_per_step", goal=goal, memory=memory)


def on_gpu(a):
    evaluation = ["evaluate", "--images", str(a.images), "--width", "64"]
    knn = ["knn", "--train", "50000", "--test", "10000", "--dim", "128", "--k", "200"]
    rows = [
        train(64, 128, 1.2, 30, 5, GPU_FORMATS, 1.0), train(64, 512, 1.2, 15, 5, GPU_FORMATS, 1.0),
        dict(key="evaluate", work=f"evaluation: embedding {a.images:,} images, width 64", peer="PyTorch", ours=evaluation + ["--repeats", "3"],
             peers={name: evaluation + flags for name, flags in GPU_FORMATS.items() if "compile" not in name}, figure="seconds", goal=1.0),
        dict(key="knn", work="kNN: 10,000 against 50,000 x 128, k = 200", peer="PyTorch", ours=knn + ["--repeats", "5"],
             peers={"torch": knn + ["--engine", "torch"]}, figure="seconds", goal=1.0),
    ]
    for row in rows:
        # Convolutions in bf16; the search is in f32 on either side.
        row["ours"] = row["ours"] + ["--device", "cuda", "--precision", "f32" if row["key"] == "knn" else "bf16"]
        row["peers"] = {name: command + ["--device", "cuda"] for name, command in row["peers"].items()}
    return rows


def workloads(a):
    if a.device == "cuda":
        return on_gpu(a)
    evaluation = ["evaluate", "--images", str(a.images), "--width", "64"]
    epoch = ["epoch", "--images", str(a.epoch_images), "--batch", "64", "--width", "16"]
    kmeans = ["kmeans", "--points", "60502", "--dim", "128", "--clusters", "11316", "--iterations", "3"]
    knn = ["knn", "--train", "50000", "--test", "10000", "--dim", "128", "--k", "200"]
    retrieval = ["knn", "--train", "60502", "--test", "60502", "--dim", "128", "--k", "1000"]
    return [
        train(64, 32, 2.2, 10), train(64, 64, 2.2, 6), train(16, 32, 1.7, 40), train(16, 64, 1.7, 20),
        dict(key="evaluate", work=f"evaluation: embedding {a.images:,} images, width 64", peer="PyTorch",
             ours=evaluation + ["--repeats", "1"], peers={name: evaluation + flags for name, flags in FORMATS.items()},
             figure="seconds", goal=1.8),
        dict(key="augment", work="augmentation: the four transforms at 32x32, one core", peer="torchvision on Pillow",
             ours=["augment", "--images", "20000", "--repeats", "1"], peers={"torchvision": ["augment", "--images", "3000"]},
             figure="views_per_s_per_core", rate=True, goal=25),
        dict(key="knn", work="kNN: 10,000 against 50,000 x 128, k = 200", peer="faiss IndexFlatIP, PyTorch",
             ours=knn + ["--repeats", "1"], peers={"faiss": knn + ["--engine", "faiss"], "torch": knn + ["--engine", "torch"]},
             figure="seconds", goal=1.0),
        dict(key="retrieval", work="R@K at the size of Products: 60,502 x 128 among themselves, k = 1,000", peer="faiss IndexFlatIP, PyTorch",
             ours=retrieval + ["--repeats", "1"], peers={"faiss": retrieval + ["--engine", "faiss"], "torch": retrieval + ["--engine", "torch"]},
             figure="seconds", goal=1.0, most_mib=2048),
        dict(key="kmeans", work="k-means: 60,502 x 128, 11,316 clusters, an iteration", peer="faiss",
             ours=kmeans, peers={"faiss": kmeans + ["--engine", "faiss"]}, figure="seconds_per_iteration", goal=1.0, most_mib=2048),
        dict(key="epoch", work=f"InvaSpread epoch of {a.epoch_images:,} images, width 16, 128 views a step, data to update",
             peer="PyTorch, DataLoader with 2 workers", ours=epoch,
             peers={name: epoch + flags for name, flags in FORMATS.items()}, figure="seconds", goal=2.0),
    ]


def call(command, threads, figure):
    # Ours and peer_bench.py take --threads; the libraries below them (BLAS, OpenMP) look here.
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **limits})
    except OSError as e:
        sys.exit(f"error: {' '.join(command)} cannot be run: {e}")
    said = f"{done.stdout}{done.stderr}"
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}:\n{said}")
    try:
        result = json.loads(done.stdout)
    except json.JSONDecodeError:
        result = None
    if not isinstance(result, dict) or figure not in result:
        sys.exit(f"error: {' '.join(command)}: expected JSON with {figure}, found:\n{said}")
    return result


def busy():
    """The share of the cores that others are using, over half a second; None where the system does not say."""
    def ticks():
        found = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(found), found[3] + found[4]  # all; idle and waiting for a disk

    try:
        all_before, idle_before = ticks()
        time.sleep(0.5)
        all_after, idle_after = ticks()
    except (OSError, ValueError, IndexError):
        return None
    return 1 - (idle_after - idle_before) / max(all_after - all_before, 1)


def write(path, text):
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def measure(a, record):
    names = {name for w in workloads(a) for name in (w["key"], w["key"].split("-")[0])}
    only = a.only.split(",") if a.only else names
    for name in only:
        if name not in names:
            sys.exit(f"error: --only: found {name}, expected some of {', '.join(sorted(names))}")
    chosen = [w for w in workloads(a) if w["key"] in only or w["key"].split("-")[0] in only]
    begun, done, total = time.monotonic(), 0, sum(a.pairs * (1 + len(w["peers"])) for w in chosen)
    for w in chosen:
        threads = 1 if w["key"] == "augment" else a.threads
        commands = {"ours": [a.ours, "bench", *w["ours"], "--threads", str(threads), "--json"]}
        commands |= {name: [a.python, str(HERE / "peer_bench.py"), *sizes, "--threads", str(threads)] for name, sizes in w["peers"].items()}
        pairs, busiest = [], None
        for pair in range(a.pairs):
            names = list(commands)
            names = names[pair % len(names):] + names[:pair % len(names)]
            results, used = {}, busy()
            if used is not None:
                busiest = max(busiest or 0, used)
                if used > IDLE:
                    print(f"warning: others use {used:.0%} of the cores: ours and the peers suffer from it differently, so these ratios "
                          "say little", file=sys.stderr, flush=True)
            for name in names:
                results[name] = call(commands[name], threads, w["figure"])
                done += 1
                passed = time.monotonic() - begun
                print(f"[{done}/{total}] {w['key']} {name}: {results[name][w['figure']]:.4g} {w['figure']}; "
                      f"{passed / 60:.1f} min, {passed / done * (total - done) / 60:.1f} left", file=sys.stderr, flush=True)
            pairs.append(results)
        first = pairs[0]
        versions = {"ours": first["ours"]["version"]}
        versions |= {k: v for name in w["peers"] for k, v in first[name]["versions"].items()}
        # The record is committed: no path of this machine belongs in it.
        shown = {n: " ".join(["invaspread" if n == "ours" else "benches/peer_bench.py", *c[1 if n == "ours" else 2:]])
                 for n, c in commands.items()}
        kept = (w["figure"], "peak_mib", "gflops", "machine_peak_gflops")
        keep = {n: [{k: p[n][k] for k in kept if p[n].get(k) is not None} for p in pairs] for n in commands}
        record[w["key"]] = dict(work=w["work"], pairs=keep, busy=busiest, commands=shown, versions=versions, date=datetime.date.today().isoformat(), threads=threads,
                                cpu=first["ours"]["cpu"], cores=os.cpu_count(), instruction_set=first["ours"]["instruction_set"], gpu=first["ours"].get("gpu"),
                                python=platform.python_version())
        write(a.record, json.dumps(record, indent=1) + "\n")
    return record


def ratios(measured, figure, rate=False):
    """The better variant's name, and its time over ours in each pair."""
    runs = measured["pairs"]
    median = {name: statistics.median(r[figure] for r in results) for name, results in runs.items() if name != "ours"}
    best = (max if rate else min)(median, key=median.get)
    pairs = zip(runs["ours"], runs[best])
    return best, [o[figure] / p[figure] if rate else p[figure] / o[figure] for o, p in pairs]


def row(work, peer, best, found, goal, at_most=False, busy=None):
    if busy is not None and busy > IDLE:
        work += f" (machine not idle: others used up to {busy:.0%} of it)"
    median = statistics.median(found)
    met = median <= goal if at_most else median >= goal
    variant = f"{peer} ({best})" if best.lower() not in peer.lower() else peer
    return f"| {work} | {variant} | **{median:.2f}x** | {min(found):.2f} to {max(found):.2f} | " \
           f"{'at most' if at_most else 'at least'} {goal}x | {'yes' if met else '**no**'} |"


def machine(measured):
    if measured.get("gpu"):
        return f"{measured['gpu']} ({measured['cpu']}, {measured['cores']} cores)"
    return f"{measured['cpu']}, {measured['cores']} cores, {measured['instruction_set']}, {measured['threads']} threads"


def host(measured):
    """The machine without the threads, of which augmentation uses one everywhere."""
    return measured["cpu"], measured["cores"], measured["instruction_set"], measured.get("gpu")


def machine_peak(run):
    # The first records hold the share of the peak instead.
    return run.get("machine_peak_gflops") or run["gflops"] / run["share_of_peak"]


def render(a, record):
    speed, memory, share, commands = [], [], [], []
    hosts = list(dict.fromkeys(host(m) for m in record.values()))
    letter = {h: f" ({'ABCDEFGH'[n]})" if len(hosts) > 1 else "" for n, h in enumerate(hosts)}
    # A peak measured while something else used a core is too low: of all runs on as many threads of one
    # machine, the highest counts.
    peaks = {}
    for measured in record.values():
        found = [machine_peak(r) for r in measured["pairs"]["ours"] if "gflops" in r]
        peaks[machine(measured)] = max([*found, peaks.get(machine(measured), 0)])
    for w in workloads(a):
        measured = record.get(w["key"])
        if measured is None:
            continue
        best, found = ratios(measured, w["figure"], w.get("rate", False))
        # Sizes can be chosen, so this is the work that was measured and not the one of this command line.
        work = measured.get("work", w["work"]) + letter[host(measured)]
        speed.append(row(work, w["peer"], best, found, w["goal"], busy=measured.get("busy")))
        if "memory" in w:
            used = [o["peak_mib"] / p["peak_mib"] for o, p in zip(measured["pairs"]["ours"], measured["pairs"][best])]
            memory.append(row(work, w["peer"], best, used, w["memory"], at_most=True))
        if "most_mib" in w and all("peak_mib" in run for run in measured["pairs"]["ours"]):
            used = [run["peak_mib"] for run in measured["pairs"]["ours"]]
            met = "yes" if max(used) <= w["most_mib"] else "**no**"
            memory.append(f"| {work} | none | **{statistics.median(used):.0f} MiB** | {min(used):.0f} to {max(used):.0f} | at most {w['most_mib']:,} MiB | {met} |")
        rates = [r["gflops"] for r in measured["pairs"]["ours"] if "gflops" in r]
        if rates:
            share.append(f"| {work} | {statistics.median(rates) / peaks[machine(measured)]:.2f} |")
        commands += [f"{w['key']}, {name}: `{command}`" for name, command in measured["commands"].items()]
    if not speed:
        sys.exit(f"error: {a.record} holds no measurement; run without --render first")
    machines = "; ".join(dict.fromkeys(machine(m) + letter[host(m)] for k, m in record.items() if k != "augment" or len(record) == 1))
    versions = sorted({f"{k} {v}" if k != "ours" else v for m in record.values() for k, v in m["versions"].items()})
    dates = sorted({m["date"] for m in record.values()})
    pairs = min(len(m["pairs"]["ours"]) for m in record.values())
    old = a.out.read_text(encoding="utf-8") if a.out.exists() else ""
    notes = old.split(BEGIN)[1].split(END)[0] if BEGIN in old and END in old else "\n"
    where = ("the same GPU" if a.device == "cuda" else "the same cores")
    held = ("bytes that tensors took up on the device at once" if a.device == "cuda" else "resident set of the whole process")
    peak = ("the fastest large matrix product by cuBLAS in the same precision" if a.device == "cuda" else
            "fused multiply-adds on registers alone (the highest peak of all these runs\nwith the same number of threads). Winograd computes a 3x3 "
            "convolution with a quarter of the products, so the share can be above 1")
    absolute = ""
    if a.device == "cuda":
        # On a GPU the times themselves are of interest.
        lines = []
        for w in workloads(a):
            if w["key"] in record:
                runs = record[w["key"]]["pairs"]
                figures = {name: statistics.median(r[w["figure"]] for r in results) for name, results in runs.items()}
                lines += [f"| {record[w['key']]['work']} | {name} | {value:.4g} {w['figure'].replace('_', ' ')} |" for name, value in figures.items()]
        absolute = "\n## Times\n\n| work | program | median |\n|---|---|---|\n" + "\n".join(lines) + "\n"
    write(a.out, f"""# Side by side with PyTorch{'' if a.device == 'cuda' else ', torchvision, faiss'}{' on a GPU' if a.device == 'cuda' else ''}

`benches/compare.py` writes this page; do not edit the tables. Every figure is a ratio within a pair of runs: the peer's time divided by
ours. The two run one after the other on {where}, in separate processes, and the order rotates from pair to pair; there are at
least {pairs} pair{'s' * (pairs != 1)} for each row. If the peer has variants (memory layout, precision, engine), the one with the better median counts. Memory is
the peak of the {held}: ours divided by the peer's, or ours alone where the goal is a number of MiB.

{machines}, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}. {', '.join(versions)}.

## Speed

| work | peer | median | least to most | goal | met |
|---|---|---|---|---|---|
{chr(10).join(speed)}

## Memory

| work | peer | median | least to most | goal | met |
|---|---|---|---|---|---|
{chr(10).join(memory)}

## Share of the machine's peak

Operations of the plain computation per second, divided by {peak}.

| work | share |
|---|---|
{chr(10).join(share)}
{absolute}
{BEGIN}{notes}{END}

## Commands

{'`just gpu-session` has' if a.device == 'cuda' else '`just bench-compare PYTHON`, which is'} `python3 benches/compare.py{' --device cuda' * (a.device == 'cuda')} --ours INVASPREAD --python PYTHON`{', which ran' if a.device == 'cuda' else ', ran'} these:

{chr(10).join('- ' + c for c in commands)}
""")
    print(f"wrote {a.out}", file=sys.stderr)


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--ours", default="target/release/invaspread", help="the program, built for release")
p.add_argument("--python", help="an interpreter with the peers' packages")
p.add_argument("--pairs", type=int, default=5)
p.add_argument("--threads", type=int, default=os.cpu_count())
p.add_argument("--only", help="workloads to measure, by comma: train, train-64-32, evaluate, augment, knn, kmeans, epoch")
p.add_argument("--images", type=int, default=10_000, help="images of the evaluation")
p.add_argument("--epoch-images", type=int, default=2_560, help="images of the epoch")
p.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: training, evaluation and kNN on a GPU")
p.add_argument("--record", type=pathlib.Path, help="where the raw figures are kept; benches/comparison.json (gpu.json) if not given")
p.add_argument("--out", type=pathlib.Path, help="where the tables are written; benches/README.md (GPU.md) if not given")
p.add_argument("--render", action="store_true", help="only write the README from the record")
a = p.parse_args()
a.record = a.record or HERE / ("gpu.json" if a.device == "cuda" else "comparison.json")
a.out = a.out or HERE / ("GPU.md" if a.device == "cuda" else "README.md")
if not a.render and not a.python:
    p.error("--python: expected an interpreter with torch, torchvision, pillow and faiss-cpu")
for flag in ("pairs", "threads", "images", "epoch_images"):
    if getattr(a, flag) < 1:
        p.error(f"--{flag.replace('_', '-')}: found {getattr(a, flag)}, expected at least 1")
record = json.loads(a.record.read_text(encoding="utf-8")) if a.record.exists() else {}
render(a, record if a.render else measure(a, record))
