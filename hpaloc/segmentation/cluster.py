"""The Dask workers of a segment job: its own processes, Slurm jobs, or those of a scheduler that runs already."""

import asyncio
import logging
import multiprocessing
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpaloc.segmentation.weights import SetupError

log = logging.getLogger("hpaloc")

# How often a field may take its worker down with it before it is set aside.
DEATHS_ALLOWED = 1

# How often a cluster is tried to be started, and how often in a row a Slurm job of workers may end before one has
# reached the scheduler.
_STARTS = 3

# How many workers may be started for each that there is to be, and one more, while no field is done.
_RESTARTS = 5

# Seconds that Slurm may refuse every job, as it does while its controller restarts.
_PATIENCE = 40.0

# Seconds that a scheduler, or squeue, may take to answer.
_ANSWER = 40.0

# Seconds that sbatch may take: it asks a busy controller several times by itself.
_SUBMISSION = 120.0

# Seconds between questions to Slurm's queue: while there is no worker, and while others work.
_LOOK = 5.0
_LOOK_WHILE_WORKING = 60.0

# Seconds without a worker that are nothing to speak of, and seconds until the log says again that nothing has changed.
_QUIET = 10.0
_REMIND = 180.0

# Seconds at most between two tries of a job that was refused or that ended.
_LONGEST_DELAY = 300.0

# States of a job whose workers are gone for good.
_OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
_OVER |= {"REVOKED", "TIMEOUT"}


@dataclass(frozen=True)
class Cluster:
    """A client, how many fields to keep in flight, and what looks after the workers while fields are out.

    watch is to be called often, with the number of fields done; it raises SetupError where no worker can be had that
    works.
    """

    client: Any
    in_flight: Callable[[], int]
    watch: Callable[[int], None]


@contextmanager
def start_cluster(dask_settings: Mapping[str, Any], n_workers: int, worker_mb: int) -> Iterator[Cluster]:
    """Yield the workers that the section ``dask`` of the configuration asks for, and stop those that were started.

    n_workers, worker_mb: number and memory (MB) of the job's own workers, where the section names no others.
    Raises SetupError naming the key, the folder or the command when they cannot be had.
    """
    if dask_settings.get("scheduler_address"):
        with _joined(dask_settings["scheduler_address"]) as cluster:
            yield cluster
        return
    import dask
    import distributed  # noqa: F401 - its defaults have to be there first: where they come later, the end of set drops them

    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": DEATHS_ALLOWED,
        # Tasks return a few numbers: there is nothing to spill, and a paused worker would only wait for itself.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
    }
    if dask_settings.get("jobqueue"):
        # The watch replaces jobs; the cluster would cancel the new job of a name for the lost worker of the old one.
        settings["distributed.deploy.lost-worker-timeout"] = "365 days"
        with dask.config.set(settings), _slurm(dask_settings["jobqueue"]) as cluster:
            yield cluster
        return
    # A nanny starts its worker anew, however long that takes on a busy machine; a cluster that gave it up in the
    # meantime, as it does after 15 s, would be left without workers and wait for ever.
    settings["distributed.deploy.lost-worker-timeout"] = "1 hour"
    with dask.config.set(settings), _local(n_workers, worker_mb) as cluster:
        yield cluster


def _one_line(error: BaseException | str) -> str:
    """Return what an error says, or the last thing that it was caused by, on one line."""
    while isinstance(error, BaseException) and error.__cause__:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


class _Reminder:
    """Says in the log what a job without workers waits for: when that changes, and every few minutes."""

    def __init__(self) -> None:
        self.said = ""
        self.since = self.last = time.monotonic()
        self.next = self.since + _QUIET

    def say(self, text: str) -> None:
        now = time.monotonic()
        if now - self.since >= _QUIET and (text != self.said or now - self.last >= _REMIND):
            log.warning("no Dask worker for %.0f s: %s", now - self.since, text)
            self.said, self.last = text, now

    def reset(self) -> None:
        self.said = ""
        self.since = time.monotonic()
        self.next = self.since + _QUIET


async def _kind(address: str) -> str:
    """Return what answers at an address: Scheduler, or Worker."""
    from distributed import Security, rpc

    async with rpc(address, connection_args=Security().get_connection_args("client")) as server:
        return str((await server.identity())["type"])


@contextmanager
def _joined(address: str) -> Iterator[Cluster]:
    """Yield the workers of a scheduler that runs already."""
    from distributed import Client

    if address.startswith("inproc:"):
        raise SetupError(f"dask.scheduler_address: {address} is inside one process; give one such as tcp://node:8786")
    try:
        # Asked first, since a client that finds no scheduler holds up the end of its process for a minute.
        kind = asyncio.run(asyncio.wait_for(_kind(address), _ANSWER))
        if kind != "Scheduler":
            raise SetupError(f"what answers is a {kind}")
        client = Client(address, set_as_default=False)
    except Exception as error:
        reason = f"no answer in {_ANSWER:.0f} s" if isinstance(error, TimeoutError) else _one_line(error)
        raise SetupError(f"dask.scheduler_address: there is no Dask scheduler at {address} ({reason})") from error
    reminder = _Reminder()

    def in_flight() -> int:
        return max(1, sum(client.nthreads().values()))

    def watch(done: int) -> None:
        if time.monotonic() < reminder.next:
            return
        if client.nthreads():
            reminder.reset()
        else:
            reminder.say(f"the scheduler {address} has none; the fields wait until some join it")

    with client:
        log.info("segmenting on the Dask scheduler %s", address)
        yield Cluster(client, in_flight, watch)


def _check_semaphores() -> None:
    """Raise SetupError where a process can make no semaphore, without which it can start no worker."""
    try:
        multiprocessing.get_context("spawn").Semaphore()
    except OSError as error:
        raise SetupError(
            f"no Dask worker can be started: /dev/shm takes no semaphore ({error.strerror or error}); "
            "it has to be there, writable and not full, on the node of the job"
        ) from error


@contextmanager
def _scratch() -> Iterator[str]:
    """Yield a new folder for the files of workers, deleted at the end."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="hpaloc-dask-", ignore_cleanup_errors=True)
        # A full file system may still take a folder.
        Path(folder.name, "written").write_bytes(bytes(4096))
    except OSError as error:
        raise SetupError(
            f"no Dask worker can be started: its files cannot be written to the temporary folder ({_one_line(error)}); "
            "set TMPDIR to a folder that takes them"
        ) from error
    with folder as name:
        yield name


@contextmanager
def _local(n_workers: int, worker_mb: int) -> Iterator[Cluster]:
    """Yield workers of this machine, each a process of one thread."""
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.WARNING)
    _check_semaphores()
    with (
        _scratch() as scratch,
        _local_cluster(n_workers, worker_mb, scratch) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        log.info("segmenting with %d workers of %d MB", n_workers, worker_mb)
        yield Cluster(client, lambda: n_workers, _LocalWatch(cluster, n_workers, worker_mb))


def _local_cluster(n_workers: int, worker_mb: int, scratch: str) -> Any:
    from distributed import LocalCluster

    for attempt in range(1, _STARTS + 1):
        try:
            with _unheard("distributed", "tornado.application"):
                return LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=None,
                    local_directory=scratch,
                    memory_limit=f"{worker_mb}MB",
                    env={"DASK_LOGGING__DISTRIBUTED": "warning"},
                )
        except (RuntimeError, OSError) as error:
            # A worker that is killed before it has started takes the cluster with it.
            if attempt == _STARTS:
                raise SetupError(
                    f"the Dask workers of this job ({n_workers} of {worker_mb} MB) could not be started, "
                    f"{_STARTS} times in a row ({_one_line(error)})"
                ) from error
            log.warning("the workers could not be started (%s); trying again", _one_line(error))
    raise AssertionError


@contextmanager
def _unheard(*loggers: str) -> Iterator[None]:
    """Keep Dask's tracebacks out of the log where the error that follows says the same in a sentence."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class _Restarts:
    """Knows when workers only end and are started anew, as where their memory does not hold their libraries."""

    def __init__(self, n_workers: int, whose: str) -> None:
        self.most = _RESTARTS * (n_workers + 1)
        self.whose = whose
        self.done = 0
        self.started: set[object] = set()

    def count(self, workers: Iterable[object], done: int) -> None:
        """Raise SetupError when too many workers were there since a field was done."""
        if done != self.done:
            self.done = done
            self.started.clear()
        self.started.update(workers)
        if len(self.started) >= self.most:
            raise SetupError(
                f"{self.whose} end again and again, {len(self.started)} since the last field was done; what they said "
                "stands above in this log or in theirs (is their memory too small?)"
            )


class _LocalWatch:
    """Replaces workers whose nanny has given up, as it does when the process dies while it is being started anew."""

    def __init__(self, cluster: Any, n_workers: int, worker_mb: int) -> None:
        self.cluster = cluster
        self.n_workers = n_workers
        self.restarts = _Restarts(n_workers, f"the Dask workers of this job ({n_workers} of {worker_mb} MB, mem_mb)")
        self.next = 0.0

    def __call__(self, done: int) -> None:
        from distributed.core import Status

        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + 1
        nannies = dict(self.cluster.workers)
        lost = [name for name, nanny in nannies.items() if nanny.status in (Status.closed, Status.failed)]
        # One that could start no process has no id to be told by.
        self.restarts.count({nanny.pid or (name, now) for name, nanny in nannies.items()}, done)
        for name in lost:
            log.warning("worker %s could not be started anew; another takes its place", name)
            self.cluster.workers.pop(name, None)
        if lost:
            self.cluster.scale(self.n_workers)


@contextmanager
def _slurm(jobqueue: Mapping[str, Any]) -> Iterator[Cluster]:
    """Yield workers that are Slurm jobs; a job that ends is replaced."""
    from distributed import Client

    if shutil.which("sbatch") is None:
        raise SetupError(
            f"dask.jobqueue asks for Slurm jobs, but {socket.gethostname()} has no sbatch on its PATH; "
            "set dask.jobqueue to null, or run where jobs may be submitted"
        )
    try:
        import dask_jobqueue  # noqa: F401
    except ImportError as error:
        raise SetupError(
            f"dask.jobqueue needs the package dask-jobqueue, which the environment of the job lacks ({error})"
        ) from error
    try:
        cluster, jobs, processes = _slurm_cluster(jobqueue)
    except Exception as error:
        # SLURMCluster checks few of its arguments, and what a wrong one comes to may be any error.
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        reason = f"SLURMCluster of dask-jobqueue knows no key {unknown[1]}" if unknown else _one_line(error)
        if not isinstance(error, SetupError | ValueError) and not unknown:
            reason = f"SLURMCluster of dask-jobqueue cannot work with these settings ({type(error).__name__}: {reason})"
        raise SetupError(f"dask.jobqueue: {reason}") from error
    with cluster, Client(cluster, set_as_default=False) as client:
        log.info("segmenting on %d Slurm jobs of %d Dask workers", jobs, processes)
        cluster.scale(jobs=jobs)
        yield Cluster(
            client, lambda: jobs * processes, _SlurmWatch(cluster, jobs, processes, jobqueue.get("log_directory"))
        )


def _check_jobqueue(jobqueue: Mapping[str, Any]) -> None:
    """Raise SetupError naming the first key of ``dask.jobqueue`` whose value SLURMCluster could not work with."""
    import dask

    # Null leaves a key to dask-jobqueue's own settings, which have no jobs.
    if "jobs" in jobqueue and jobqueue["jobs"] is None:
        raise SetupError("jobs has to be an integer of 1 or more, not null")
    for key, value in jobqueue.items():
        if value is None:
            continue
        for keys, fits, wanted in _WANTED:
            if key in keys and not fits(value):
                raise SetupError(f"{key} has to be {wanted}, not {value!r}")
    section = jobqueue.get("config_name")
    if section and not isinstance(dask.config.get("jobqueue", {}).get(section), Mapping):
        raise SetupError(f"config_name has to be a section of jobqueue in Dask's own settings, not {section!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_text(value: Any) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or (_is_number(value) and value >= 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_memory(value: Any) -> bool:
    from dask.utils import parse_bytes

    try:
        return _is_text(value) and parse_bytes(value) > 0
    except (ValueError, TypeError):
        return False


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(part, str) or _is_number(part) for part in value)


# What the values of keys of dask.jobqueue have to be, where they are not null: keys, check, and what it asks for.
_WANTED: tuple[tuple[set[str], Callable[[Any], bool], str], ...] = (
    ({"jobs", "processes", "cores", "job_cpu"}, _is_count, "an integer of 1 or more"),
    ({"memory"}, _is_memory, "a size such as 24GB"),
    (
        {"job_extra_directives", "worker_extra_args", "job_script_prologue", "job_directives_skip"}
        | {"job_extra", "extra", "env_extra", "header_skip"},
        _is_list,
        "a list of texts",
    ),
    (
        {"queue", "account", "project", "walltime", "job_mem", "job_name", "name", "death_timeout"},
        _is_text,
        "a text",
    ),
    (
        {"interface", "protocol", "local_directory", "log_directory", "shared_temp_directory", "python", "shebang"}
        | {"worker_command", "config_name"},
        lambda value: isinstance(value, str) and bool(value.strip()),
        "a text",
    ),
    ({"scheduler_options"}, lambda value: isinstance(value, Mapping), "a table of keys"),
    (
        {"n_workers", "job_cls", "loop", "asynchronous", "scheduler", "scheduler_cls"},
        lambda value: False,
        "left out, since it is set for you",
    ),
    ({"security", "nanny"}, lambda value: isinstance(value, bool), "true or false"),
)


def _slurm_cluster(jobqueue: Mapping[str, Any]) -> tuple[Any, int, int]:
    """Return a cluster that has no job yet, the number of its jobs, and that of the processes of a job."""
    from dask_jobqueue import SLURMCluster

    _check_jobqueue(jobqueue)
    options = dict(jobqueue)
    jobs = options.pop("jobs", 1)
    # One field a process, as in a LocalCluster: a death, or a shortage of memory, then concerns one field.
    processes = options.get("processes") or options.get("cores") or 1
    options["processes"] = processes
    prologue = options.get("job_script_prologue") or []
    options["scheduler_options"] = {"dashboard_address": None, **(options.get("scheduler_options") or {})}
    memory = "DASK_DISTRIBUTED__WORKER__MEMORY__"
    options["job_script_prologue"] = [
        # Workers are started by a shell that knows nothing of the settings of this process.
        *(f"export {memory}{name}=False" for name in ("TARGET", "SPILL", "PAUSE")),
        f"export {memory}TERMINATE=0.95",
        *prologue,
    ]
    return SLURMCluster(job_cls=_job_class(), **options), jobs, processes


def _job_class() -> Any:
    """Return dask-jobqueue's Slurm job, but one that keeps what sbatch said when it was refused."""
    from dask_jobqueue import slurm
    from distributed.deploy.spec import ProcessInterface

    class SLURMJob(slurm.SLURMJob):  # type: ignore[misc]
        # Why sbatch refused the job, the state that it ended in, when either was seen, and whether a worker came of it.
        refusal: str | None = None
        ended: str | None = None
        seen = 0.0
        worked = False

        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:
                # Raised, it would end as a traceback in the log, and the job would never be tried again.
                said = str(error).partition("stderr:\n")[2].strip() or str(error)
                self.refusal = " ".join(said.split())
                self.seen = time.monotonic()
                await ProcessInterface.start(self)

        async def _submit_job(self, script_filename: str) -> Any:
            try:
                return await asyncio.wait_for(super()._submit_job(script_filename), _SUBMISSION)
            except TimeoutError as error:
                raise RuntimeError(f"no answer in {_SUBMISSION:.0f} s") from error

        async def close(self) -> None:
            with suppress(OSError):
                await super().close()
            await ProcessInterface.close(self)

    return SLURMJob


class _SlurmWatch:
    """Tries jobs again that were refused or that ended, says what the workers wait for, and knows when to give up."""

    def __init__(self, cluster: Any, jobs: int, processes: int, log_directory: str | None) -> None:
        self.cluster = cluster
        self.jobs = jobs
        self.logs = Path(log_directory or ".")
        self.reminder = _Reminder()
        self.restarts = _Restarts(jobs * processes, "the Dask workers of the Slurm jobs (memory of dask.jobqueue)")
        # By job name, which a job keeps when it is tried again: how often in a row it was tried, how often it died.
        self.tries: dict[str, int] = {}
        self.deaths: dict[str, int] = {}
        self.refused_since: float | None = None
        self.next = self.next_look = 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + 1
        workers = list(self.cluster.scheduler.workers.values())
        self.restarts.count({worker.server_id for worker in workers}, done)
        absent = self._absent({str(worker.name) for worker in workers})
        working = len(absent) < len(self.cluster.workers)
        if working:
            self.reminder.reset()
        alive = {name: job for name, job in absent.items() if job.job_id and job.ended is None}
        if alive and now >= self.next_look:
            self.next_look = now + (_LOOK_WHILE_WORKING if working else _LOOK)
            waiting = self._look(alive)
            alive = {name: job for name, job in alive.items() if job.ended is None}
            if not working:
                self.reminder.say(waiting)
        if working or alive:
            self.refused_since = None
        elif len(absent) == self.jobs:
            self._give_up(absent)
        else:
            self.reminder.say("sbatch has not answered yet")
        self._try_again(absent)

    def _absent(self, workers: set[str]) -> dict[str, Any]:
        """Return the jobs that no worker of is there; those that have some begin to count anew."""
        # Where a job has several processes, a number follows the name of the job.
        there = workers | {name.rpartition("-")[0] for name in workers}
        absent = {}
        for name, job in list(self.cluster.workers.items()):
            if name in there:
                job.worked = True
                self.tries.pop(name, None)
                self.deaths.pop(name, None)
            else:
                absent[name] = job
        return absent

    def _look(self, alive: Mapping[str, Any]) -> str:
        """Ask the queue for jobs, mark those that have ended, and return what the others do."""
        found, trouble = _queue([job.job_id for job in alive.values()])
        if trouble:
            return f"{len(alive)} Slurm jobs of workers were accepted, and squeue does not say what they do ({trouble})"
        for name, job in alive.items():
            state, _ = found.get(job.job_id, ("", ""))
            if state and state not in _OVER:
                continue
            job.ended = state or "no longer in the queue"
            job.seen = time.monotonic()
            if not job.worked:
                self.deaths[name] = self.deaths.get(name, 0) + 1
            log.warning(
                "Slurm job %s of Dask workers has ended (%s)%s; another takes its place",
                job.job_id,
                job.ended,
                "" if job.worked else " before one of them reached the scheduler",
            )
        of_state = {job.job_id: " ".join(found[job.job_id]).strip() for job in alive.values() if job.ended is None}
        return "Slurm jobs of workers: " + ", ".join(f"{job} {state}" for job, state in of_state.items())

    def _give_up(self, absent: Mapping[str, Any]) -> None:
        """Raise SetupError when no job is left and there is no hope of another."""
        now = time.monotonic()
        died = [job for name, job in absent.items() if job.ended and self.deaths.get(name, 0) >= _STARTS]
        if died:
            raise SetupError(
                f"the Slurm jobs of Dask workers end before one has reached the scheduler, {_STARTS} times in a row; "
                f"the last is job {died[0].job_id} ({died[0].ended}){self._output(died[0].job_id)}; see the keys of "
                "dask.jobqueue (python, interface, memory, job_script_prologue)"
            )
        refused = [job for job in absent.values() if job.refusal]
        if not refused:
            return
        self.refused_since = self.refused_since or min(job.seen for job in refused)
        if now - self.refused_since >= _PATIENCE:
            raise SetupError(
                f"Slurm has refused the jobs of Dask workers for {now - self.refused_since:.0f} s; sbatch says: "
                f"{refused[-1].refusal}; see the keys of dask.jobqueue"
            )

    def _output(self, job_id: str) -> str:
        """Return where a job's output lies and its last line, as the end of a clause."""
        for path in sorted(self.logs.glob(f"*-{job_id}.*")):
            lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
            if said := [line.strip() for line in lines if line.strip()]:
                return f", whose output {path} ends with: {said[-1]}"
        return f" and left no output in {self.logs.resolve()}"

    def _try_again(self, absent: Mapping[str, Any]) -> None:
        """Submit jobs in the place of those that were refused or have ended, after a delay that grows."""
        from distributed.core import Status

        now = time.monotonic()
        for name, job in absent.items():
            if not (job.refusal or job.ended) or now - job.seen < min(2.0 ** self.tries.get(name, 0), _LONGEST_DELAY):
                continue
            if job.refusal:
                log.warning("sbatch refused a job of Dask workers; trying again (%s)", job.refusal)
            self.tries[name] = self.tries.get(name, 0) + 1
            job.status = Status.closed
            self.cluster.workers.pop(name, None)
        if len(self.cluster.workers) < self.jobs:
            self.cluster.scale(jobs=self.jobs)


def _queue(jobs: list[str]) -> tuple[dict[str, tuple[str, str]], str]:
    """Return state and reason of the jobs that Slurm knows, and why it gave no answer."""
    command = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%r", f"--jobs={','.join(jobs)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, _one_line(error)
    # What squeue says of a single job that has been forgotten; of several it leaves out those.
    if done.returncode and "Invalid job id" not in done.stderr:
        return {}, _one_line(done.stderr)
    rows = [line.strip().split("|") for line in done.stdout.splitlines()]
    # The reason None is no reason.
    return {row[0]: (row[1], "" if row[2] == "None" else f"({row[2]})") for row in rows if len(row) == 3}, ""
