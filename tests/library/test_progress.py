"""Progress: a bar for a person at a terminal, log lines otherwise, and a job's log holds everything."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JOB = """
import os, sys
from hpaloc.progress import log_to, track
log_to(sys.argv[1])
print("from python")
os.write(2, b"from a C library\\n")
assert list(track(range(5), what="cells")) == [0, 1, 2, 3, 4]
raise SystemExit("the error")
"""


def run_job(log, stderr, **environment):
    environment |= {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", JOB, str(log)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, env=environment, check=False)


def test_without_a_terminal_the_log_has_plain_lines_and_the_screen_nothing(tmp_path):
    done = run_job(tmp_path / "job.log", subprocess.PIPE)
    text = (tmp_path / "job.log").read_text()
    assert done.stderr == b""
    for expected in ("from python", "from a C library", "cells: 5 done", "the error"):
        assert expected in text
    assert "\r" not in text


def show(log, **environment):
    """Run the job at a terminal; return what it wrote there."""
    ours, theirs = pty.openpty()
    # A terminal of no size would get no bar.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    run_job(log, theirs, **environment)
    os.close(theirs)
    screen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        screen += part
    os.close(ours)
    return screen


def test_at_a_terminal_a_bar_is_drawn_on_the_screen_and_not_in_the_log(tmp_path):
    screen = show(tmp_path / "job.log")
    assert b"cells" in screen
    assert b"5/5" in screen or b"0/5" in screen
    assert "5/5" not in (tmp_path / "job.log").read_text()


def test_where_one_line_shows_the_run_a_job_writes_nothing_on_the_screen(tmp_path):
    assert show(tmp_path / "job.log", HPALOC_RUN_LINE="1") == b""
    assert "cells: 5 done" in (tmp_path / "job.log").read_text()
