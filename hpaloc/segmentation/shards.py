"""The driver: one shard's fields over a Dask cluster, one field a task, every field accounted for."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from hpaloc.allocation import keep_freed_memory
from hpaloc.files import FileNameError
from hpaloc.image_metadata import resolve_pixel_size
from hpaloc.images import check_field, open_field
from hpaloc.manifests import ManifestRow, unchanged
from hpaloc.masks import write_masks
from hpaloc.pixels.strips import Lazily, strips
from hpaloc.planes import as_plain, from_plain
from hpaloc.progress import track
from hpaloc.rle import MAX_PIXELS, RunLengths, is_table
from hpaloc.segmentation.backends import COLOURS_OF, segment_field
from hpaloc.segmentation.clock import clock
from hpaloc.segmentation.cluster import Cluster, DaskSettings, start_cluster
from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.outcome import new_row, reason_of, write_outcome
from hpaloc.segmentation.ready_made import Given, read_given
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.weights import ready

log = logging.getLogger("hpaloc")

# The memory that one worker may need for a field of 4096 x 4096 px, in MB, with its libraries.
WORKER_MB = {"watershed": 900, "hpacellseg": 3000, "instanseg": 3000, "masks": 900}

# The memory of a worker's libraries, in MB, and the least memory of channels and label images, in bytes per pixel, also
# of a field that is read in strips: a field that cannot fit is refused by its header, one that may fit is tried.
_LIBRARIES_MB = 200
_BYTES_PER_PIXEL, _BYTES_PER_LAZY_PIXEL = 7, 3


def segment_to_files(task: Mapping[str, Any]) -> dict[str, Any]:
    """Read one field, segment it and write its two masks, in a worker.

    An error of the field, or an ID that cannot be a file name, becomes a row of status "rejected"; SetupError,
    ImportError and errors of writing (a full disk) are raised, since they concern every field.

    task: field, paths, states, pixel_size (nan for that of the files), settings, out_dir, chunk_above, max_pixels,
    max_lazy_pixels, cell_mask, nucleus_mask, tables, as plain values, so that a worker can receive it before it can
    import hpaloc
    Returns one row of SEGMENTED and ``seconds``, the time spent reading, filtering (channels to signals, or networks to
    probabilities), labelling (the rest of the segmentation) and writing.
    """
    import cv2

    # A worker has one thread for its field; OpenCV would use every core of the node.
    cv2.setNumThreads(1)
    keep_freed_memory()
    row = new_row(task["field"], task["pixel_size"])
    settings = SegmentationSettings(**task["settings"])
    try:
        started = time.perf_counter()
        given: Given | None = None
        paths = {colour: from_plain(path) for colour, path in task["paths"].items()}
        # Tables of masks were read and checked before.
        masks = {kind: path for kind in ("cell_mask", "nucleus_mask") if (path := task[kind]) and not is_table(path)}
        with unchanged(paths | masks, task["states"]):
            used = [colour for colour in COLOURS_OF[settings.backend] if colour in paths]
            images = open_field(paths, used, task["max_pixels"], _lazily(task, settings))
            check_field(images, paths)
            row["pixel_size"] = resolve_pixel_size(task["pixel_size"], paths)
            if task["cell_mask"]:
                given = read_given(
                    task["field"], task["cell_mask"], task["nucleus_mask"], task["tables"], task["max_pixels"]
                )
            image = images["blue"]
            row |= {"height": image.shape[0], "width": image.shape[1], "dtype": str(image.dtype)}
            read = time.perf_counter()
            # A large field is read here.
            with clock() as spent:
                nuclei, cells = segment_field(
                    images, row["pixel_size"], settings, given=given, chunk_above=task["chunk_above"]
                )
            segmented = time.perf_counter()
            del images, image
    except (SetupError, ImportError):
        # Every field would fail in the same way.
        raise
    except Exception as error:
        return row | {"status": "rejected", "reason": reason_of(error)}
    try:
        write_masks(task["out_dir"], task["field"], cells, nuclei)
    except FileNameError as error:
        return row | {"status": "rejected", "reason": reason_of(error)}
    row["n_cells"] = max(int(strip.max()) for strip in strips(cells))
    row["seconds"] = {
        "read": read - started,
        "filter": spent.get("filter", 0.0),
        "label": segmented - read - spent.get("filter", 0.0),
        "write": time.perf_counter() - segmented,
    }
    return row


def _lazily(task: Mapping[str, Any], settings: SegmentationSettings) -> Lazily | None:
    """Return which images of a field are read in strips: the backends with networks and given masks need arrays."""
    above = task["chunk_above"]
    return Lazily(above, task["max_lazy_pixels"]) if above and settings.backend == "watershed" else None


def _entry() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    # Defined inside a function, so that cloudpickle sends it by value: a worker of any scheduler finds hpaloc through
    # the task itself, whatever its working directory and PYTHONPATH.
    root = str(Path(__file__).resolve().parents[2])

    def run(task: Mapping[str, Any]) -> dict[str, Any]:
        import sys

        if root not in sys.path:
            sys.path.insert(0, root)
        from hpaloc.segmentation.shards import segment_to_files

        return segment_to_files(task)

    return run


def _results(
    cluster: Cluster, tasks: Sequence[Mapping[str, Any]], at_once: int | None = None
) -> Iterator[tuple[Mapping[str, Any], dict[str, Any] | Exception]]:
    """Yield each task with its row, or with the error of the cluster; at most ``at_once`` are submitted at a time."""
    from distributed import as_completed

    run = _entry()
    waiting = iter(tasks)
    out: dict[str, Mapping[str, Any]] = {}
    completed = as_completed(loop=cluster.client.loop)
    done = 0
    while True:
        for task in islice(waiting, max(0, (at_once or cluster.in_flight()) - len(out))):
            future = cluster.client.submit(run, task, pure=False, retries=0)
            out[future.key] = task
            completed.add(future)
        if not out:
            return
        while not completed.has_ready():
            cluster.watch(done)
            time.sleep(0.01)
        future = next(completed)
        done += 1
        task = out.pop(future.key)
        if future.status == "finished":
            yield task, future.result()
        elif future.status == "error":
            error = future.exception()
            if isinstance(error, ImportError):
                raise SetupError(
                    f"a Dask worker lacks what the segmentation needs ({error}); give it the environment of the job"
                ) from error
            yield task, error
        else:
            raise SetupError("the Dask scheduler stopped before it returned every field (dask.scheduler_address)")
        future.release()


def _rows_of(cluster: Cluster, tasks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the row of each task by its field; a field whose worker died twice, the second time alone, is rejected."""
    from distributed.scheduler import KilledWorker

    by_field: dict[str, dict[str, Any]] = {}
    died: list[Mapping[str, Any]] = []
    for task, result in track(_results(cluster, tasks), total=len(tasks), what="fields"):
        if isinstance(result, KilledWorker):
            died.append(task)
        elif isinstance(result, Exception):
            raise result
        else:
            by_field[task["field"]] = result
    # Another field may have killed the worker; alone on the cluster, only the fields at fault kill it again.
    for task in died:
        log.warning("%s: its worker died; trying it alone", task["field"])
        for _, result in _results(cluster, [task], at_once=1):
            if isinstance(result, Exception) and not isinstance(result, KilledWorker):
                raise result
            killed = {"status": "rejected", "reason": "its worker died each time it was tried (out of memory?)"}
            by_field[task["field"]] = (
                result if isinstance(result, dict) else new_row(task["field"], task["pixel_size"]) | killed
            )
    return by_field


def _tasks(
    rows: Sequence[ManifestRow],
    out_dir: Path,
    settings: SegmentationSettings,
    dask: DaskSettings,
    worker_mb: int,
    tables: Mapping[str, Mapping[str, RunLengths | str]],
) -> list[dict[str, Any]]:
    """Return the task of each field, see ``segment_to_files``; arguments as in ``segment_shard``, and MB a worker."""
    # Only their scheduler knows the memory of workers elsewhere.
    own = not (dask.scheduler_address or dask.jobqueue)
    fits, fits_in_strips = (
        min(max(0, worker_mb - _LIBRARIES_MB) * 10**6 // bytes_each, MAX_PIXELS) if own else MAX_PIXELS
        for bytes_each in (_BYTES_PER_PIXEL, _BYTES_PER_LAZY_PIXEL)
    )
    tasks = []
    for row in rows:
        given = (row.cell_mask, row.nucleus_mask) if settings.backend == "masks" else (None, None)
        tasks.append(
            {
                "field": row.id,
                "paths": {colour: as_plain(path) for colour, path in row.paths.items()},
                "states": row.states,
                "pixel_size": float(row.pixel_size),
                "settings": asdict(settings),
                "out_dir": str(out_dir.resolve()),
                "chunk_above": dask.chunk_above,
                "max_pixels": fits,
                "max_lazy_pixels": fits_in_strips,
                "cell_mask": given[0],
                "nucleus_mask": given[1],
                "tables": {path: of.get(row.id) for path, of in tables.items() if path in given},
            }
        )
    return tasks


def segment_shard(
    rows: Sequence[ManifestRow],
    out_dir: Path,
    settings: SegmentationSettings,
    dask: DaskSettings,
    threads: int,
    memory_mb: int,
    max_rejected_fraction: float,
    tables: Mapping[str, Mapping[str, RunLengths | str]] | None = None,
) -> None:
    """Segment the fields of one shard and write their masks and fields.parquet into a folder.

    A field that cannot be read or segmented, or that kills its worker twice when run alone, becomes a row of
    status "rejected" with the reason. The bytes written do not depend on the number of workers. A script that calls
    this needs the guard ``if __name__ == "__main__"``, since workers are spawned.

    rows: the shard's manifest
    out_dir: gets {id}_cellmask.png and {id}_nucleimask.png (see ``masks.write_mask``) and fields.parquet (schema
    SEGMENTED, in the order of ``rows``)
    threads, memory_mb: of the job, memory in MB; it has a process per thread, fewer if memory is short
    tables: those of masks for the backend masks, as ``mask_tables.read_tables`` returns them
    Raises SetupError for missing weights or a missing GPU, and TooManyRejected (after writing everything) if more than
    ceil(max_rejected_fraction x fields) are rejected.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    if rows:
        # Weights are fetched, or refused, once before any worker starts.
        ready(settings.weights, any("yellow" in row.paths for row in rows), settings.backend)
    n_workers = max(1, min(threads, memory_mb // WORKER_MB[settings.backend], len(rows)))
    worker_mb = max(1, memory_mb // n_workers)
    by_field: dict[str, dict[str, Any]] = {}
    if tasks := _tasks(rows, out_dir, settings, dask, worker_mb, tables or {}):
        with start_cluster(dask, n_workers, worker_mb) as cluster:
            by_field = _rows_of(cluster, tasks)
    ordered = [by_field[row.id] for row in rows]
    _log_shares(ordered)
    write_outcome(ordered, out_dir, max_rejected_fraction)


def _log_shares(rows: Sequence[Mapping[str, Any]]) -> None:
    spent: dict[str, float] = {}
    for row in rows:
        for step, seconds in row.get("seconds", {}).items():
            spent[step] = spent.get(step, 0.0) + seconds
    total = sum(spent.values())
    if total > 0:
        shares = ", ".join(f"{step} {100 * seconds / total:.0f} %" for step, seconds in spent.items())
        log.info("%.1f fields per minute and core; %s", 60 * len(rows) / total, shares)
