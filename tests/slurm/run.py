"""Runs `launcher=slurm` on a real Slurm: `python3 tests/slurm/run.py PROGRAM [--required] [--keep FOLDER]`.

Starts a cluster of two nodes (cluster.py), submits runs, and disturbs them: a node loses its power, tasks are preempted
by a job of a partition with a higher priority (`PreemptMode=REQUEUE` and `CANCEL`), a task comes near its time limit, a
requeue is refused, and a task is cancelled. All that should end complete must do so, with the weights of a run that
nobody disturbed, byte by byte, and with its record apart from times. Without Slurm the test is skipped, loudly; with
--required that is a failure.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster import PACKAGES, Cluster, missing, wait

# Three rows and two seeds: six runs. They are small, and long enough to be disturbed.
SUITE = """
title = "Rows for a test of the cluster"
seeds = [0, 1]
overrides = ["dataset=synthetic", "profile=smoke"]

[[row]]
key = "invaspread"
overrides = ["method=invaspread"]

[[row]]
key = "nce"
overrides = ["method=nce"]

[[row]]
key = "triplet"
overrides = ["method=triplet"]
"""
SMALL = (
    "device=cpu model.width=4 model.embedding=8 model.pool=2 augment.size=16 data.synthetic.image_size=16 data.synthetic.train=256 "
    "data.synthetic.test=32 data.subset=256 data.test_subset=32 optim.batch_size=32 eval.k=5 eval.every=50"
).split()
EPOCHS = "optim.epochs=25"
# Longer than the 30 seconds between two of Slurm's looks at time limits.
LONG = "optim.epochs=120"
# What differs between two runs of the same settings: times, memory and threads.
OF_A_RUN = {
    "seconds", "images_per_second", "training_processor_seconds", "peak_memory_bytes", "started", "finished", "threads", "arguments"
}  # fmt: skip
SINGLE = ["train", "dataset=synthetic", "profile=smoke", "method=invaspread", *SMALL]
ON_SLURM = ["launcher=slurm", "slurm.partition=low", "slurm.cpus=1", "slurm.memory=200M"]


class Test:
    def __init__(self, program, folder, cluster):
        self.program, self.cluster = program, cluster
        # Paths with all that a script could misread.
        self.work = folder / "it's a \"work\" $HOME #1"
        self.runs = self.work / "runs 50%A `id`"
        self.plain = folder / "undisturbed"
        (self.work / "experiments" / "suite").mkdir(parents=True)
        (self.work / "experiments" / "suite" / "mini.toml").write_text(SUITE)

    def call(self, *arguments, code=0, runs=None, env=None):
        command = [self.program, *arguments]
        if arguments[0] in ("train", "reproduce"):
            command.append(f"--runs={runs or self.runs}")
        done = subprocess.run(command, cwd=self.work, env=env or self.cluster.env, capture_output=True, text=True)
        assert done.returncode == code, f"{command}: {done.returncode}, expected {code}\n{done.stdout}{done.stderr}"
        return done.stdout, done.stderr

    def beside(self, arguments):
        """Starts the program outside of Slurm, on one thread."""
        env = {**self.cluster.env, "RAYON_NUM_THREADS": "1"}
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([self.program, *arguments], cwd=self.work, env=env, **silent)

    def submit(self, *arguments):
        """Submits runs and returns the launch: its folder, the number of its array and of its report, and its runs."""
        out, _ = self.call(*arguments, "--json")
        launch = json.loads(out)
        launch["folder"] = Path(launch["folder"])
        return launch

    def log(self, launch, index=0, array=None):
        path = launch["folder"] / f"{array or launch['array']}_{index}.log"
        return path.read_text() if path.exists() else ""

    def is_training(self, launch, index=0):
        """Returns whether a task has trained an epoch of its run."""
        return "  epoch 1/" in self.log(launch, index)

    def jobs(self, launch):
        return [json.loads(line) for line in (launch["folder"] / "jobs.jsonl").read_text().splitlines()]

    def preempt(self, task):
        """Lets a job of a higher priority take the whole node of a task, for a second."""
        node = self.cluster.facts(task)["NodeList"]
        high = ["--partition=high", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
        return self.cluster.call("sbatch", "--parsable", *high).strip()

    def is_done(self, launch, index=0):
        return (self.runs / launch["runs"][index] / "record.json").exists()

    def same_as_undisturbed(self, run):
        for name in ("checkpoints/last.safetensors", "checkpoints/best.safetensors", "config.toml", "embeddings/test.safetensors"):
            one, other = (root / run / name for root in (self.runs, self.plain))
            assert one.read_bytes() == other.read_bytes(), f"{run}: {name} is not that of an undisturbed run"
        one, other = (json.loads((root / run / "record.json").read_text()) for root in (self.runs, self.plain))
        unlike = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
        assert unlike <= OF_A_RUN, f"{run}: the records differ in {unlike - OF_A_RUN}"
        # Arguments are kept as they were typed, and the launcher is not among them.
        assert one.get("arguments") == other.get("arguments"), f"{run}: {one['arguments']} {other['arguments']}"


def say(text, began=time.monotonic()):
    print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--required", action="store_true", help="fail where Slurm is missing")
    parser.add_argument("--keep", type=Path, help="an empty folder to work in, which stays")
    asked = parser.parse_args()
    if absent := missing():
        print(f"SKIPPED: the test of launcher=slurm needs {', '.join(absent)}; apt-get install --no-install-recommends {PACKAGES}")
        sys.exit(1 if asked.required else 0)
    program = str(asked.program.resolve())
    with tempfile.TemporaryDirectory(prefix="slurm-") as temporary:
        folder = asked.keep.resolve() if asked.keep else Path(temporary)
        with Cluster(folder / "cluster") as cluster:
            say("two nodes are idle: " + cluster.call("sinfo", "--version").strip())
            test = Test(program, folder, cluster)
            try:
                run(test)
            except BaseException:
                print(cluster.queue())
                for log in sorted(test.runs.glob("launches/*/*.log")):
                    print(f"== {log.parent.name}/{log.name}\n{log.read_text()[-1500:]}")
                raise
    say("every run ended as an undisturbed one")


def run(test):
    cluster = test.cluster
    nothing_is_written(test)
    suite = ["reproduce", "mini", *SMALL, EPOCHS]
    # The tasks are disturbed while the undisturbed runs are done beside them.
    launch = test.submit(*suite, *ON_SLURM)
    long = test.submit(*SINGLE, LONG, *ON_SLURM, "slurm.time=1", "slurm.signal_seconds=30")
    assert launch["array"] and launch["report"] and len(launch["runs"]) == 6, launch
    plain = [test.beside([*command, f"--runs={test.plain}"]) for command in (suite, [*SINGLE, LONG])]
    _, told = test.call(*suite, *ON_SLURM)
    assert f"left out (job {launch['array']})" in told and "nothing is submitted" in told, told

    wait("tasks 0 to 2 train", lambda: all(test.is_training(launch, index) for index in range(3)), 90)
    of_node = {node: [] for node in ("n1", "n2")}
    for index in range(6):
        facts = cluster.facts(f"{launch['array']}_{index}")
        if facts.get("JobState") == "RUNNING":
            of_node[facts["NodeList"]].append(index)
    say(f"tasks run on {of_node}")
    preempted = of_node["n1"][0]
    test.preempt(f"{launch['array']}_{preempted}")
    wait("the preemption", lambda: "Slurm requeues the task" in test.log(launch, preempted), 40)
    say(f"task {preempted} was preempted, wrote its checkpoint and is requeued by Slurm")
    lost = of_node["n2"]
    ended = cluster.kill_node("n2")
    assert ended >= 2 * len(lost), f"{ended} processes of {len(lost)} tasks were killed"
    wait("the loss of the node", lambda: all(int(cluster.facts(f"{launch['array']}_{i}").get("Restarts", 0)) for i in lost), 90)
    say(f"node n2 lost its power, and Slurm requeues {lost}")
    cluster.start_node("n2")

    wait("the time limit", lambda: "is requeued and resumes the run" in test.log(long), 100)
    say("the long run was stopped before its time limit and requeued itself")
    wait("six runs", lambda: all(test.is_done(launch, index) for index in range(6)), 300)
    wait("the report", lambda: cluster.state(launch["report"]) == "COMPLETED", 60)
    assert wait("the end of the undisturbed runs", lambda: all(one.poll() is not None for one in plain), 200)
    assert all(one.returncode == 0 for one in plain)
    report = (test.runs / "mini-report" / "report.md").read_text()
    assert all(name in report for name in ("InvaSpread", "NCE", "Triplet")), report
    for index in range(6):
        test.same_as_undisturbed(launch["runs"][index])
    no_task_ran_anothers_run(test, launch)
    assert "restart 1" in test.log(launch, preempted) and all("restart 1" in test.log(launch, index) for index in lost)
    resumed = "resumed after epoch"
    assert resumed in test.log(launch, preempted), "the preempted task began again from nothing"
    say("six runs and their report: done")

    refused_requeue(test)
    cancelled_by_a_user(test)
    preempted_and_cancelled(test)
    no_progress(test)
    wait("the long run", lambda: test.is_done(long), 200)
    test.same_as_undisturbed(long["runs"][0])
    assert resumed in test.log(long), test.log(long)
    assert cluster.state(f"{long['array']}_0") in ("COMPLETED", "COMPLETING"), cluster.state(f"{long['array']}_0")
    _, told = test.call(*suite, *ON_SLURM)
    assert "all runs are finished: nothing is submitted" in told, told


def nothing_is_written(test):
    out, told = test.call("reproduce", "mini", *SMALL, EPOCHS, *ON_SLURM, "slurm.at_once=2", "--dry-run")
    assert "#SBATCH --array=0-5%2" in out and "slurm report" in out and "nothing is written or submitted" in told, out + told
    assert not test.runs.exists()
    _, told = test.call(*SINGLE, *ON_SLURM, "slurm.constraint=nosuch", code=1)
    assert "sbatch --parsable" in told and "Batch job submission failed" in told, told


def no_task_ran_anothers_run(test, launch):
    tasks = [json.loads(line) for line in (launch["folder"] / "runs.jsonl").read_text().splitlines()]
    for task in tasks:
        began = re.findall(r"^task (\d+) of .*: run (\S+), job (\S+?)(?:, restart \d+)?$", test.log(launch, task["index"]), re.M)
        assert began, test.log(launch, task["index"])
        expected = (str(task["index"]), task["run"], f"{launch['array']}_{task['index']}")
        assert set(began) == {expected}, f"{began}, expected {expected}"


def one_run(test, seed):
    """Submits a run of its own and waits until it trains."""
    launch = test.submit(*SINGLE, EPOCHS, f"seed={seed}", *ON_SLURM)
    wait("the task trains", lambda: test.is_training(launch), 60)
    return launch, f"{launch['array']}_0"


def refused_requeue(test):
    launch, task = one_run(test, 11)
    test.cluster.call("scontrol", "update", f"JobId={task}", "Requeue=0")
    test.cluster.call("scancel", "--signal=USR1", "--batch", task)
    wait("a new job", lambda: [job for job in test.jobs(launch) if job["kind"] == "task"], 40)
    assert "Slurm does not requeue the task" in wait("the note", lambda: test.log(launch), 10)
    wait("the run", lambda: test.is_done(launch), 120)
    again = test.jobs(launch)[-1]["job"]
    assert "resumed after epoch" in test.log(launch, array=again), test.log(launch, array=again)
    say("a task that Slurm did not requeue submitted its index again")


def cancelled_by_a_user(test):
    launch, task = one_run(test, 12)
    test.cluster.call("scancel", task)
    wait("the end of the task", lambda: test.cluster.state(task) == "CANCELLED", 40)
    wait("the note", lambda: "was cancelled and is not requeued" in test.log(launch), 10)
    assert len(test.jobs(launch)) == 1 and not test.is_done(launch)
    status = json.loads((test.runs / launch["runs"][0] / "status.json").read_text())
    assert status["state"] == "interrupted", status
    # By hand, where it stopped.
    _, told = test.call("slurm", "task", str(launch["folder"]), "0")
    assert "by hand" in told and "resumed after epoch" in told and test.is_done(launch), told
    say("a task that was cancelled did not come back, and its run was ended by hand")


def preempted_and_cancelled(test):
    launch = test.submit(*SINGLE, EPOCHS, "seed=13", *ON_SLURM, "slurm.partition=cancelled")
    wait("the task trains", lambda: test.is_training(launch), 60)
    test.preempt(f"{launch['array']}_0")
    wait("the end of the run", lambda: test.is_done(launch), 120)
    jobs = test.jobs(launch)
    log = test.log(launch) + "".join(test.log(launch, array=job["job"]) for job in jobs[1:])
    assert "resumed after epoch" in log and "was cancelled" not in log, log
    say("a task that was preempted by PreemptMode=CANCEL went on" + (" as a new job" if len(jobs) > 1 else ""))


def no_progress(test):
    # The run is held by a process outside of Slurm, so the task can only wait for it.
    run = [*SINGLE, "optim.epochs=4000", "seed=14"]
    holder = test.beside([*run, f"--runs={test.runs}"])
    try:
        wait("the holder trains", lambda: list(test.runs.glob("train/*-s14/lease-*")), 30)
        launch = test.submit(*run, *ON_SLURM)
        wait("the task waits", lambda: "waiting for a run of another process" in test.log(launch), 40)
        test.cluster.call("scancel", "--signal=USR1", "--batch", f"{launch['array']}_0")
        wait("the failure", lambda: test.cluster.state(f"{launch['array']}_0") == "FAILED", 40)
        assert "took no step since this task began" in test.log(launch), test.log(launch)
        assert test.cluster.facts(f"{launch['array']}_0")["Restarts"] == "0" and len(test.jobs(launch)) == 1
    finally:
        holder.send_signal(signal.SIGTERM)
        holder.wait()
    say("a task without progress was not requeued")


if __name__ == "__main__":
    main()
