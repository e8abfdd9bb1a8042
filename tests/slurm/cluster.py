"""A Slurm cluster of two nodes in a folder, for tests: munged, slurmctld and two slurmd of this user, on this host.

It needs no systemd and no path that belongs to root, and leaves nothing behind. The settings differ from a usual
cluster's only in what makes a test slow: a requeued job may begin after 5 seconds (`cred_expire`, 120 unless set), and
a node counts as lost after 10 seconds (`SlurmdTimeout`).
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

NODES = ("n1", "n2")
PACKAGES = "slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge"
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmstepd", "sbatch", "scontrol", "squeue", "scancel")


def missing():
    """Returns the programs of Slurm and munge that are not on this machine."""
    return [name for name in DAEMONS if not shutil.which(name, path=PLACES)]


def wait(what, is_so, seconds):
    """Waits until `is_so()` is true, and fails after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := is_so()):
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.2)
    return found


def free_ports(number):
    """Returns ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """The cluster in `folder`; use it in a `with`."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.env = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PLACES}
        self.children = {}

    def __enter__(self):
        (self.folder / "log").mkdir(parents=True)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self._write_conf()
        try:
            paths = {
                "key-file": "munge.key",
                "socket": "munge.socket",
                "pid-file": "munged.pid",
                "log-file": "log/munged.log",
                "seed-file": "munge.seed",
            }
            options = [f"--{name}={self.folder / path}" for name, path in paths.items()]
            self._start("munged", ["munged", "--foreground", "--force", *options])
            wait("munged", (self.folder / "munge.socket").exists, 10)
            self._start("slurmctld", ["slurmctld", "-D", "-i"])
            for node in NODES:
                self.start_node(node)
            wait("two idle nodes", self._are_idle, 40)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self._processes():
            self._end(process)
        for child in self.children.values():
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _are_idle(self):
        for name, child in self.children.items():
            if child.poll() is not None:
                log = (self.folder / "log" / f"{name}.log").read_text()
                raise AssertionError(f"{name} ended with {child.returncode}:\n{log[-2000:]}")
        return self.call("sinfo", "-h", "-N", "-p", "low", "-o", "%T", check=False).split() == ["idle"] * len(NODES)

    def _write_conf(self):
        host, user = socket.gethostname().split(".")[0], pwd.getpwuid(os.getuid()).pw_name
        control, first, second = free_ports(3)
        partition = "PartitionName={} Nodes=n[1-2] PriorityTier={} PreemptMode={} State=UP"
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": control,
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "CryptoType": "crypto/munge",
            "AuthInfo": f"socket={self.folder}/munge.socket,cred_expire=5",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool-%n",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd-%n.pid",
            "SlurmdLogFile": self.folder / "log" / "slurmd-%n.log",
            "SlurmctldDebug": "debug",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SwitchType": "switch/none",
            "MpiDefault": "none",
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "sched_interval=1,bf_interval=1",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "ReturnToService": 2,
            "SlurmdTimeout": 10,
            "KillWait": 20,
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            # Two processors on each node, however many this host has.
            "SlurmdParameters": "config_overrides",
            "AccountingStorageType": "accounting_storage/none",
            "JobCompType": "jobcomp/none",
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        for node, port in zip(NODES, (first, second)):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 Sockets=1 CoresPerSocket=2 "
                "ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN"
            )
        lines.append(partition.format("low", 1, "REQUEUE") + " Default=YES")
        lines.append(partition.format("cancelled", 1, "CANCEL"))
        lines.append(partition.format("high", 9, "OFF"))
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")

    def _start(self, name, command):
        log = open(self.folder / "log" / f"{name}.log", "ab")
        program = shutil.which(command[0], path=PLACES)
        self.children[name] = subprocess.Popen(
            [program, *command[1:]], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        log.close()

    def start_node(self, node):
        """Starts the daemon of a node."""
        self._start(f"slurmd-{node}", ["slurmd", "-D", "-N", node, "-d", shutil.which("slurmstepd", path=PLACES)])

    def kill_node(self, node):
        """Kills the daemon of a node and all that runs there, as a power cut does; returns how many processes there were."""
        daemon = self.children[f"slurmd-{node}"]
        daemon.kill()
        daemon.wait()
        of_node = [one for one in self._processes() if self._variable(one, "SLURMD_NODENAME") == node or self._is_step(one, node)]
        for process in of_node:
            self._end(process)
        return len(of_node)

    def _processes(self):
        """Returns the processes of this cluster: those that have its settings in their environment."""
        mine = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                if self._variable(int(entry.name), "SLURM_CONF") == self.env["SLURM_CONF"]:
                    mine.append(int(entry.name))
        return mine

    @staticmethod
    def _variable(process, name):
        try:
            for pair in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                if pair.startswith(name.encode() + b"="):
                    return pair.split(b"=", 1)[1].decode()
        except OSError:
            pass
        return None

    def _is_step(self, process, node):
        """Returns whether a process is a slurmstepd of a node, which writes into the log of the node's slurmd."""
        try:
            if "slurmstepd" not in Path(f"/proc/{process}/comm").read_text():
                return False
            log = str(self.folder / "log" / f"slurmd-{node}.log")
            return any(os.readlink(link) == log for link in Path(f"/proc/{process}/fd").iterdir())
        except OSError:
            return False

    @staticmethod
    def _end(process):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def call(self, *command, check=True, cwd=None):
        """Calls a program in the cluster's environment and returns what it wrote."""
        done = subprocess.run(command, env=self.env, cwd=cwd, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def facts(self, job):
        """Returns what Slurm says about a job or a task of an array."""
        words = self.call("scontrol", "--oneliner", "show", "job", str(job), check=False).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job):
        """Returns the state of a job or a task."""
        return self.facts(job).get("JobState", "GONE")

    def queue(self):
        """Returns the queue, for people and for failures."""
        return self.call("squeue", "--array", "-o", "%.12i %.10P %.22j %.3t %.6M %.8R", check=False)
