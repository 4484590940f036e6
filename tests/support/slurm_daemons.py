"""The daemons of a one-node Slurm on 127.0.0.1: munged, slurmctld, slurmd, and for accounting mariadbd and slurmdbd.

The node has the partitions `cpu` and `gpu` and one GPU by name, on a device that does nothing. It starts within
seconds. It needs root and Debian's packages munge, slurm-wlm, slurm-client and slurm-wlm-basic-plugins, for accounting
also slurmdbd and mariadb-server, all without what they recommend. Configuration, state, logs and process ids are in one
folder, but for two links in /etc/slurm: Snakemake's plugin clears the variable that could name another place.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

# The first line of a slurm.conf that this program wrote.
MARK = "# A one-node Slurm of the tests of hpaloc."
LINKS = Path("/etc/slurm")
PROGRAMS = ("sbatch", "munge", "/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd")
ACCOUNTING_PROGRAMS = ("sacctmgr", "mariadb-install-db", "mariadb-admin", "/usr/sbin/mariadbd", "/usr/sbin/slurmdbd")
SLURM_CONF = """{mark}
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=6817
SlurmdPort=6818
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=1,sched_min_interval=100000
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
GresTypes=gpu
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
NodeName={host} NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cpus} RealMemory={megabytes} Gres=gpu:fake:1 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=gpu Nodes={host} Default=NO MaxTime=1-00:00:00 State=UP
"""
GRES_CONF = "NodeName={host} Name=gpu Type=fake File=/dev/null\n"
WITHOUT_ACCOUNTING = ("AccountingStorageType=accounting_storage/none",)
WITH_ACCOUNTING = (
    "AccountingStorageType=accounting_storage/slurmdbd",
    "AccountingStorageHost=127.0.0.1",
    "AccountingStoragePort=6819",
    "AccountingStorageTRES=gres/gpu",
)
SLURMDBD_CONF = """AuthType=auth/munge
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort=6819
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CommunicationParameters=NoInAddrAny
"""


def until(condition, watched=None, seconds=600):
    """Wait for ``condition`` and return its result; ``watched`` is a process that must not end before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended = watched is not None and watched.poll() is not None
        if found := condition():
            return found
        assert not ended, f"ended with {watched.returncode} before {condition}"
        time.sleep(0.2)
    raise TimeoutError(f"{condition} was not met in {seconds} s")


def succeeds(*command):
    """Return whether a command succeeds, whatever it prints."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def answers():
    """Return whether a Slurm with a free node answers."""
    done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and any(state in done.stdout for state in ("idle", "mixed"))


def configured_otherwise():
    """Return whether /etc/slurm has the configuration of another Slurm than that of these tests."""
    conf = LINKS / "slurm.conf"
    return conf.exists() and not conf.read_text().startswith(MARK)


def stop_daemon(pid_file):
    """End the daemon whose process id is in a file, if there is one, and wait until it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        pid = int(Path(pid_file).read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists())


def start_daemon(folder, name, *arguments, **options):
    """Start a daemon that puts itself into the background."""
    command = [f"/usr/sbin/{name}", *arguments]
    # Into a file: a daemon keeps the descriptors it inherits, and a pipe would never end.
    with open(folder / f"log/{name}.out", "a") as out:
        options |= {"stdout": out, "stderr": out, "cwd": folder / "run", "start_new_session": True}
        subprocess.run(command, check=True, **options)


def start_slurm_daemon(folder, name):
    """Start slurmctld or slurmd with the configuration in ``folder``."""
    start_daemon(folder, name, "-f", folder / "etc/slurm.conf")


def _start_munged(folder, stack):
    """Start munged, with the key that its package made, unless it is already running."""
    if succeeds("munge", "--no-input"):
        return
    for place, mode in (("/run/munge", 755), ("/var/log/munge", 700), ("/var/lib/munge", 700)):
        subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "-m", str(mode), place], check=True)
    stack.callback(stop_daemon, "/run/munge/munged.pid")
    start_daemon(folder, "munged", user="munge", group="munge", extra_groups=[])
    until(lambda: succeeds("munge", "--no-input"))


def _start_database(folder, stack):
    """Start a MariaDB without a port, slurmdbd on it, and enter the cluster and its one user."""
    data, socket_file = folder / "mysql", folder / "run/mysql.sock"
    subprocess.run(["install", "-d", "-o", "mysql", "-g", "mysql", data], check=True)
    (folder / "run").chmod(0o777)
    install = ["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db"]
    with open(folder / "log/mariadb.out", "w") as out:
        subprocess.run([*install, "--auth-root-authentication-method=socket"], check=True, stdout=out, stderr=out)
        server = ["/usr/sbin/mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={socket_file}"]
        server += ["--skip-networking", "--innodb-buffer-pool-size=256M", "--innodb-lock-wait-timeout=900"]
        database = subprocess.Popen(server, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    stack.callback(database.wait)
    stack.callback(database.terminate)
    until(lambda: succeeds("mariadb-admin", f"--socket={socket_file}", "ping"), database)
    conf = folder / "etc/slurmdbd.conf"
    conf.touch(0o600)
    conf.write_text(SLURMDBD_CONF.format(host=_host(), folder=folder))
    stack.callback(stop_daemon, folder / "run/slurmdbd.pid")
    # It looks for its own configuration in the same folder.
    places = {"SLURM_CONF": str(folder / "etc/slurm.conf"), "MYSQL_UNIX_PORT": str(socket_file)}
    start_daemon(folder, "slurmdbd", env=os.environ | places)
    until(lambda: succeeds("sacctmgr", "--noheader", "list", "cluster"))
    for words in (
        ("cluster", "tests"),
        ("account", "tests", "Description=tests", "Organization=tests"),
        ("user", "root", "account=tests"),
    ):
        succeeds("sacctmgr", "--immediate", "add", *words)


def _host():
    return socket.gethostname().split(".")[0]


def _link(conf, stack):
    """Link a configuration into /etc/slurm for as long as the daemons run."""
    link = LINKS / conf.name
    link.unlink(missing_ok=True)
    link.symlink_to(conf)
    # Every start of Snakemake asks the controller for its settings, and would wait ten seconds without one.
    stack.callback(link.unlink, missing_ok=True)


@contextmanager
def slurm_daemons(folder, accounting=False, settings=(), cpus=None, megabytes=None):
    """Start the daemons with their state in ``folder``, and stop those that started at the end.

    ``settings`` are further lines of slurm.conf. ``cpus`` and ``megabytes`` are what the node says it has, whether or
    not the machine has as much.
    """
    for name in ("etc", "run", "log", "spool", "state"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    LINKS.mkdir(exist_ok=True)
    places = {"mark": MARK, "host": _host(), "folder": folder}
    megabytes = megabytes or psutil.virtual_memory().total * 9 // 10 // 2**20
    conf = SLURM_CONF.format(**places, cpus=cpus or os.cpu_count(), megabytes=megabytes)
    lines = (*(WITH_ACCOUNTING if accounting else WITHOUT_ACCOUNTING), *settings)
    (folder / "etc/slurm.conf").write_text(conf + "".join(f"{line}\n" for line in lines))
    (folder / "etc/gres.conf").write_text(GRES_CONF.format(**places))
    with ExitStack() as stack:
        for name in ("slurm.conf", "gres.conf"):
            _link(folder / "etc" / name, stack)
        _start_munged(folder, stack)
        if accounting:
            _start_database(folder, stack)
        for name in ("slurmctld", "slurmd"):
            stack.callback(stop_daemon, folder / f"run/{name}.pid")
            start_slurm_daemon(folder, name)
        until(answers, seconds=60)
        yield
