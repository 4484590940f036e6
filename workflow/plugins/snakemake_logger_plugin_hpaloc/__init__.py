"""One line for a whole run: jobs done, what runs, the time that has passed, and an estimate of what is left.

`make demo` uses it where a person watches. It is Snakemake's plugin rich, with this line in place of its bars and its
table of jobs; messages, errors and the logs of failed jobs are printed as rich prints them.
"""

import csv
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text
from snakemake_logger_plugin_rich import LogHandler as RichLogHandler
from snakemake_logger_plugin_rich import events
from snakemake_logger_plugin_rich.event_handler import EventHandler

# How long a job of each rule of the demo takes on two cores; docs/make_demo_seconds.py writes it.
SECONDS = Path(__file__).parents[3] / "config" / "demo" / "seconds.csv"
# The pace of this machine counts as much as the demo's once so many seconds of the demo are done.
TRUSTED = 60.0
# The columns of the line before the rules that run: in a narrow terminal these are cut, and nothing wraps.
WIDTH = 55


class Estimate:
    """The seconds that are left of a run, from those that a job of each rule takes in the demo.

    A job is done by its share of the demo's run, and one that runs by a part of it. How long these shares take here
    tells the pace of this machine. Jobs of rules that the demo lacks count as a mean job.

    seconds: of a job of each rule, and its share of the run, which is less if jobs run side by side
    planned: how many jobs of each rule this run has
    clock: returns seconds
    """

    def __init__(
        self,
        seconds: Mapping[str, tuple[float, float]],
        planned: Mapping[str, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds, self.clock, self.started = seconds, clock, clock()
        self.mean = tuple(sum(of_rule) / len(seconds) for of_rule in zip(*seconds.values(), strict=True))
        self.total = sum(self._expect(rule)[1] * count for rule, count in planned.items())
        self.done = 0.0
        self.running: dict[int, tuple[str, float]] = {}

    def _expect(self, rule: str) -> tuple[float, ...]:
        return self.seconds.get(rule, self.mean)

    def start(self, job: int, rule: str) -> None:
        """Note that a job has started, perhaps once more."""
        self.running[job] = rule, self.clock()

    def end(self, job: int, done: bool) -> None:
        """Note that a job has ended; one that failed is not done."""
        found = self.running.pop(job, None)
        if done and found:
            self.done += self._expect(found[0])[1]

    def left(self) -> float:
        """Return the seconds that are left."""
        now, done = self.clock(), self.done
        # A copy: rich asks from a thread of its own.
        for rule, since in list(self.running.values()):
            seconds, share = self._expect(rule)
            done += share * min((now - since) / seconds, 1)
        pace = (now - self.started + TRUSTED) / (done + TRUSTED)
        return max(self.total - done, 0.0) * pace


def read_seconds(path: Path = SECONDS) -> dict[str, tuple[float, float]]:
    """Return the seconds of a job of each rule of the demo, and its share of the run."""
    with path.open(newline="") as file:
        return {row["rule"]: (float(row["seconds"]), float(row["share"])) for row in csv.DictReader(file)}


def tell(seconds: float) -> str:
    """Return the time that is left in whole minutes, as a person says it."""
    minutes = math.ceil(seconds / 60)
    if minutes <= 1:
        return "under a minute left"
    return f"about {minutes} min left" if minutes < 120 else f"about {round(minutes / 60)} h left"


class TimeLeft(ProgressColumn):
    """The time that is left, renewed once a second."""

    max_refresh = 1.0

    def get_table_column(self) -> Column:
        """Return the column, whose text stays in one line."""
        return Column(no_wrap=True)

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        return Text(tell(task.fields["estimate"].left()))


class RunLine(EventHandler):
    """The events of a run, shown in one line; rich prints all others.

    The workflow has no checkpoints, so all jobs are known when it starts.
    """

    def __init__(self, console: Console, **options: bool) -> None:
        line = Progress(
            SpinnerColumn(style="default"),
            TextColumn("{task.completed:.0f} of {task.total:.0f} jobs done"),
            TimeElapsedColumn(),
            TimeLeft(),
            TextColumn("[dim]{task.description}"),
            console=console,
            transient=True,
        )
        super().__init__(console, line, line, **options)
        self.task, self.estimate = None, None

    def handle_run_info(self, event_data: events.RunInfo, **kwargs: object) -> None:
        """Start the line, or list the jobs of a dry run."""
        if self.dryrun:
            super().handle_run_info(event_data, **kwargs)
            return
        self._stop_dag_status()
        self.total_jobs = event_data.total_job_count
        if self.total_jobs and self.task is None:
            self.estimate = Estimate(read_seconds(), event_data.per_rule_job_counts)
            self.task = self.progress.add_task("", total=self.total_jobs, estimate=self.estimate)
            self.progress.start()

    def handle_job_info(self, event_data: events.JobInfo, **kwargs: object) -> None:
        """Show the rule of a job that starts."""
        if self.dryrun:
            super().handle_job_info(event_data, **kwargs)
        if self.dryrun or self.task is None:
            return
        # What the report of a failed job needs.
        self.jobs_info[event_data.jobid] = {
            "rule": event_data.rule_name,
            "wildcards": event_data.wildcards,
            "log": event_data.log,
        }
        self.estimate.start(event_data.jobid, event_data.rule_name)
        self._show()

    def handle_job_finished(self, event_data: events.JobFinished, **kwargs: object) -> None:
        """Count a job."""
        if self.task is not None:
            self.completed += 1
            self.estimate.end(event_data.job_id, True)
            self._show()

    def handle_job_error(self, event_data: events.JobError, **kwargs: object) -> None:
        """Print the log of a job that failed."""
        if self.task is not None:
            self.estimate.end(event_data.jobid, False)
            self._show()
        super().handle_job_error(event_data, **kwargs)

    def _show(self) -> None:
        rules = Counter(rule for rule, _ in self.estimate.running.values())
        running = ", ".join(rule if count == 1 else f"{rule} × {count}" for rule, count in rules.items())
        shown = running[: max(self.console.width - WIDTH, 0)]
        self.progress.update(self.task, completed=self.completed, description=shown)


class LogHandler(RichLogHandler):
    """Snakemake's entry to this plugin: `--logger hpaloc` with this folder in PYTHONPATH."""

    def __post_init__(self) -> None:
        """Replace the bars of rich by the line, and keep jobs from writing over it."""
        super().__post_init__()
        # Jobs inherit both: no bars of their own, and nothing of what TensorFlow says of the processor.
        os.environ["HPALOC_RUN_LINE"] = "1"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        options = {
            name: getattr(self.common_settings, name)
            for name in ("dryrun", "printshellcmds", "show_failed_logs", "verbose")
        }
        self.event_handler = RunLine(self.console, **options)
