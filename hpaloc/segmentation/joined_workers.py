"""The Dask workers of a running scheduler."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, Security, rpc

from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.workers import ANSWER, QUIET, Cluster, Reminder, one_line

log = logging.getLogger("hpaloc")


async def _kind(address: str) -> str:
    """Return the type of the server at an address: Scheduler or Worker."""
    async with rpc(address, connection_args=Security().get_connection_args("client")) as server:
        return str((await server.identity())["type"])


@contextmanager
def join_workers(address: str) -> Iterator[Cluster]:
    """Yield the workers of the scheduler at ``address``.

    Raises SetupError if there is none.
    """
    if address.startswith("inproc:"):
        raise SetupError(f"dask.scheduler_address: {address} is inside one process; give one such as tcp://node:8786")
    try:
        # Checked first, since a client without a scheduler delays the end of its process by a minute.
        kind = asyncio.run(asyncio.wait_for(_kind(address), ANSWER))
        if kind != "Scheduler":
            raise SetupError(f"a {kind} answers there")
        client = Client(address, set_as_default=False)
    except Exception as error:
        reason = f"no answer in {ANSWER:.0f} s" if isinstance(error, TimeoutError) else one_line(error)
        raise SetupError(f"dask.scheduler_address: there is no Dask scheduler at {address} ({reason})") from error
    reminder = Reminder()

    def look(done: int) -> None:
        if client.nthreads():
            reminder.reset()
        else:
            reminder.say(f"the fields wait until a worker joins the scheduler {address}")

    with client:
        log.info("segmenting on the Dask scheduler %s", address)
        yield Cluster(client, lambda: max(1, sum(client.nthreads().values())), look, seconds=QUIET)
