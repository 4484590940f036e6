"""A Slurm for tests: a one-node one, started and stopped by the tools in ../shared, or a reason to skip."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

# The states of a job that is over.
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}
TOOLS = (Path(__file__).parents[2] / "../shared/tools").resolve()


def answers():
    """Return whether a Slurm with a free node answers."""
    done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and any(state in done.stdout for state in ("idle", "mixed"))


def stopped(process):
    """Return whether a process can do nothing more, None where there is none of this id."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return state in "TZ"


def until(condition, watched=None, seconds=600):
    """Return what ``condition`` returns once it is true; ``watched`` is a process that must not end before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended = watched is not None and watched.poll() is not None
        if found := condition():
            return found
        assert not ended, f"ended with {watched.returncode} before {condition}"
        time.sleep(0.2)
    raise TimeoutError(f"{condition} was not met in {seconds} s")


class OneNodeSlurm:
    """A running one-node Slurm whose state is in ``folder``."""

    def __init__(self, folder):
        self.folder = folder

    def jobs(self):
        """Return (job id, state, comment, partition) of every job that the controller knows, oldest first."""
        done = subprocess.run(
            ["squeue", "--noheader", "--states=all", "--sort=i", "--format=%i|%T|%k|%P"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [tuple(line.split("|")) for line in done.stdout.splitlines()]

    def running(self, comment, watched=None):
        """Wait until a job runs whose comment is ``comment`` or goes on with _ after it, and return its id."""

        def found():
            return next(
                (job for job, state, of, _ in self.jobs() if state == "RUNNING" and f"{of}_".startswith(f"{comment}_")),
                None,
            )

        return until(found, watched)

    def processes(self, job):
        """Return the ids of the processes of a running job; none while Slurm is still launching it."""
        done = subprocess.run(["scontrol", "listpids", job], capture_output=True, text=True, check=False)
        return [int(line.split()[0]) for line in done.stdout.splitlines()[1:] if int(line.split()[0]) > 0]

    def freeze(self, job):
        """Stop every process of a running job, those that it is just starting too."""

        def still():
            processes = self.processes(job)
            awake = [process for process in processes if stopped(process) is False]
            for process in awake:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGSTOP)
            if not processes:
                state = next((state for id, state, _, _ in self.jobs() if id == job), "RUNNING")
                assert state == "RUNNING", f"job {job} was {state} before it could be stopped"
            return processes and not awake

        until(still)

    def ended(self):
        """Return whether no job is left that waits, runs or is being ended."""
        # Without an answer from the controller there are none at all.
        return bool(jobs := self.jobs()) and all(state in ENDED for _, state, _, _ in jobs)

    def stop(self, daemon):
        """End one of the daemons and wait until it is gone."""
        pid = int((self.folder / f"run/{daemon}.pid").read_text())
        os.kill(pid, 15)
        until(lambda: not Path(f"/proc/{pid}").exists())

    def start(self, daemon):
        """Start one of the daemons again."""
        conf = self.folder / "etc/slurm.conf"
        command = [f"/usr/sbin/{daemon}", "-f", conf]
        subprocess.run(command, check=True, cwd=self.folder / "run", start_new_session=True)


@contextmanager
def one_node_slurm(folder, accounting="none", settings=(), cpus=None, megabytes=None):
    """Start a one-node Slurm with its state in ``folder``, yield it, and stop it; skip where there is no way to.

    ``accounting`` is none or dbd; ``settings`` are further lines of slurm.conf. ``cpus`` and ``megabytes`` are what the
    node says it has, whether or not the machine has as much.
    """
    if shutil.which("sbatch") is None:
        pytest.skip("sbatch is not installed")
    if not (TOOLS / "slurm-up").is_file() or os.geteuid() != 0:
        pytest.skip("there is no tool, or no right, to start a one-node Slurm")
    if accounting == "dbd" and not Path("/usr/sbin/slurmdbd").exists():
        pytest.skip("slurmdbd is not installed")
    with open(Path(tempfile.gettempdir(), "one-node-slurm.lock"), "w") as lock:
        # Its ports and /etc/slurm are the machine's, and tests run side by side.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers():
            pytest.skip("another Slurm answers on this machine")
        environment = dict(os.environ)
        if cpus:
            environment |= {"NCPU": str(cpus), "MEM": str(megabytes)}
        log = folder / "up.log"
        with open(log, "w") as out:
            # Into a file: the daemons keep the descriptors they inherit, and a pipe would never end.
            subprocess.run(
                [TOOLS / "slurm-up", folder, accounting], check=True, stdout=out, stderr=out, env=environment
            )
        slurm = OneNodeSlurm(folder)
        try:
            if settings:
                with open(folder / "etc/slurm.conf", "a") as conf:
                    conf.writelines(f"{line}\n" for line in settings)
                for daemon in ("slurmd", "slurmctld"):
                    slurm.stop(daemon)
                for daemon in ("slurmctld", "slurmd"):
                    slurm.start(daemon)
                until(answers)
            yield slurm
        finally:
            subprocess.run(["scancel", "--quiet", "--state=RUNNING"], check=False)
            subprocess.run([TOOLS / "slurm-down", folder], check=False, stdout=subprocess.DEVNULL)
            for name in ("slurm.conf", "gres.conf"):
                # The tool leaves them. Every start of snakemake asks the controller for its settings and would wait
                # ten seconds for one that is gone.
                if (link := Path("/etc/slurm", name)).is_symlink():
                    link.unlink()
