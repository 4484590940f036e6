"""The steps of the Dockerfile in a bare Debian: no step of the installation may hide in the machine of a developer."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from workflow_runs import ROOT, write_small_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("mmdebstrap"), reason="a bare Debian needs root and mmdebstrap"
    ),
]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# What a site needs to reach its package index.
PASSED = ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "UV_INDEX_URL", "http_proxy", "https_proxy", "no_proxy")


def steps():
    """Return the instructions of the Dockerfile as (word, rest), with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]


class Room:
    """A bare Debian in a folder, with /proc while it is used."""

    def __init__(self, root):
        self.root, self.folder = root, "/"
        self.environment = {name: os.environ[name] for name in PASSED if name in os.environ}
        self.environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        if Path(CERTIFICATES).is_file():
            self.environment |= {"PIP_CERT": CERTIFICATES, "SSL_CERT_FILE": CERTIFICATES}

    def inside(self, path):
        return self.root / str(path).lstrip("/")

    def run(self, command):
        """Run a command in the room; return what it printed."""
        words = ["chroot", self.root, "sh", "-c", f"cd {self.folder} && {command}"]
        done = subprocess.run(
            words, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
        return done.stdout

    def size(self):
        """Return the size of all files in MB."""
        done = subprocess.run(["du", "-smx", self.root], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[0])


@pytest.fixture
def room(tmp_path):
    made = Room(tmp_path / "root")
    release = re.fullmatch(r"debian:(\w+)-slim", dict(steps())["FROM"])[1]
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", release, made.root], check=True
    )
    for path in ("/etc/resolv.conf", CERTIFICATES):
        if Path(path).is_file():
            shutil.copyfile(path, made.inside(path))
    made.inside("/dev/shm").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "proc", "proc", made.inside("/proc")], check=True)
    yield made
    subprocess.run(["umount", made.inside("/proc")], check=True)


def test_the_image_is_built_in_a_bare_debian_and_runs_the_chain(room, tmp_path):
    for word, rest in steps():
        if word == "RUN":
            room.run(f"DEBIAN_FRONTEND=noninteractive TENSORFLOW= && export DEBIAN_FRONTEND TENSORFLOW && {rest}")
        elif word == "WORKDIR":
            room.folder = rest
            room.inside(rest).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            *names, target = rest.split()
            for name in names:
                shutil.copy(ROOT / name, room.inside(Path(room.folder, target)) / name)
        elif word == "ENV":
            name, value = rest.split("=", maxsplit=1)
            room.environment[name] = value.replace(f"${name}", room.environment.get(name, ""))
        else:
            assert word in ("FROM", "ARG"), word
    print(f"the image's files: {room.size()} MB")
    # What git has, as a clone would.
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        room.inside(f"/clone/{name}").parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, room.inside(f"/clone/{name}"))
    room.inside("/data").mkdir()
    write_small_run(room.inside("/data"))
    room.run("snakemake --snakefile /clone/Snakefile --directory /data --cores 2 --configfile /data/config.yaml")
    assert room.inside("/data/results/browser/index.html").exists()
    assert room.inside("/data/results/report.zip").exists()
