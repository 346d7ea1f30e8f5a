"""`clusterofone localise | test`: one series after the other through a cluster that runs, or a private one."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cluster.client import Client
from cluster.commands import console, given_files, surroundings
from cluster.commands.connection import Scheduler, Token, connect, relative_to_roots
from cluster.commands.following import follow as followed
from cluster.commands.following import summary
from cluster.commands.missing_metadata import Desk
from cluster.commands.options import Fit, Follow, Json, Like, Meta, MetadataFile, Set, analysis, job_request
from cluster.config import LabFolders, Places
from cluster.local import LocalCluster, Plan
from cluster.locate import read_config
from cluster.machine import core_count
from cluster.protocol import Job, JobRequest, Preview
from cluster.unseen import seen_name

PRIVATE: Final = "private"
_FIRST_START_S: Final = 120.0
_STARTING_S: Final = 20.0

Series = Annotated[
    list[Path],
    typer.Argument(
        help="One or more series: TIFF, OME-TIFF, PYME .h5, .dax, .raw, .npy, Zarr, NDTiff, a folder of TIFFs … (docs/formats.md)",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--workers",
        min=1,
        max=1024,
        help="Start a private cluster with this many workers",
        show_default="one that runs, else cores",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands; `localize` is the same as `localise`."""
    app.command("localise")(localise)
    app.command("localize", hidden=True)(localise)
    app.command("test")(preview)


@dataclass(frozen=True)
class Place:
    """A cluster to send jobs to, and how it names the files given on the command line."""

    client: Client
    roots: tuple[Path, ...]
    private: bool
    copied: Mapping[Path, str] = field(default_factory=dict)

    def with_its_names(self, request: JobRequest, series: Path) -> JobRequest:
        """Return a request whose settings name files as the data server does; unchanged for a cluster elsewhere."""
        if not self.roots:
            return request
        named = given_files.renamed(request.analysis, series, self.roots, self.copied)
        return request.model_copy(update={"analysis": named})

    def name_of(self, series: Path) -> str:
        """Return how the data server names a series."""
        name = relative_to_roots(series, self.roots)
        if name is not None:
            return name
        if self.roots and series.exists():
            console.refuse(f"{series}: not under a root of that cluster ({', '.join(map(str, self.roots))})")
        return series.as_posix()


def localise(
    series: Series,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="The result file", show_default="analysis/<series>.h5r beside the series"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let -o replace a file.")] = False,
    fit: Fit = None,
    settings: Set = None,
    meta: Meta = None,
    metadata: MetadataFile = None,
    like: Like = None,
    workers: Workers = None,
    task_frames: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, hidden=True, help="A fixed task size, for tests.")
    ] = None,
    follow: Follow = False,
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Localise series, with a progress bar; the exit status is 0 only if every frame was localised or skipped.

    Examples: [bold]clusterofone localise series.tif[/] · [bold]clusterofone localise *.tif --set threshold=1.2 -n 4[/] ·
    [bold]clusterofone localise foreign.tif --meta voxelsize.x=0.1 --meta voxelsize.y=0.1 --meta Camera.ADOffset=100 …[/]
    """
    _check_arguments(series, output, overwrite=overwrite, local=scheduler is None)
    ended: list[Job] = []
    desk = Desk("localise")
    chosen = analysis(fit, settings, like)
    with _place(series, chosen, workers, scheduler, token, task_frames, output) as place:
        for path in series:
            request = job_request(
                place.name_of(path), fit, settings, meta, metadata, like, name=seen_name(path.name)
            )
            request = place.with_its_names(request, path)
            request = request.model_copy(update={"output": _asked_output(place, output), "follow": follow})
            job = desk.sent(place.client.submit_request, request, str(path))
            job = _followed(place, job)
            ended.append(_delivered(place, job, output))
            console.say(summary(ended[-1]))
    if json:
        _print_jobs(ended)
    if any(job.state != "done" for job in ended):
        raise typer.Exit(console.FAILED)


def preview(
    series: Annotated[Path, typer.Argument(help="The series.")],
    frames: Annotated[
        int, typer.Option(min=1, max=1000, help="How many frames, spread through the series.")
    ] = 12,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The picture", show_default="<series>_test.png here")
    ] = None,
    fit: Fit = None,
    settings: Set = None,
    meta: Meta = None,
    metadata: MetadataFile = None,
    like: Like = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Show what would be detected and fitted, on frames spread through the series: a table and a picture.

    Example: [bold]clusterofone test series.tif --set threshold=1.5[/]
    """
    from cluster.commands.preview import picture, table

    _check_arguments([series], None, overwrite=True, local=scheduler is None)
    target = output or Path(f"{series.stem}_test.png")
    chosen = analysis(fit, settings, like)
    with _place([series], chosen, workers, scheduler, token, None, None) as place:
        name = place.name_of(series)
        request = place.with_its_names(job_request(name, fit, settings, meta, metadata, like), series)
        if place.private or place.roots:
            _wait_for_a_worker(place.client, _FIRST_START_S if place.private else _STARTING_S)

        def tested(asked: JobRequest) -> Preview:
            return place.client.preview(name, analysis=asked.analysis, metadata=asked.metadata, frames=frames)

        found = Desk("test").sent(tested, request, str(series))
        picture(place.client, found, target)
    for note in found.notes:
        console.say(f"note: {note}")
    if json:
        console.print_json(found)
    else:
        console.out.print(table(found))
    console.say(f"picture: {target}")


def _check_arguments(series: list[Path], output: Path | None, *, overwrite: bool, local: bool) -> None:
    for path in series:
        if local and not path.is_file():
            _check_not_a_file(path)
    if output is None:
        return
    if len(series) > 1:
        console.refuse("-o names one result, but there are several series; leave it out", console.USAGE)
    if output.suffix != ".h5r":
        console.refuse(f"-o {output}: a result file ends in .h5r", console.USAGE)
    if output.exists() and not overwrite:
        console.refuse(f"-o {output}: exists; give --overwrite to replace it")
    if not output.absolute().parent.is_dir():
        console.refuse(f"-o {output}: there is no folder {output.absolute().parent}")
    if not os.access(output.absolute().parent, os.W_OK):
        console.refuse(f"-o {output}: the folder {output.absolute().parent} cannot be written")


def _check_not_a_file(path: Path) -> None:
    """A folder may be a series, and a name may end in a part of one (cell.h5!images)."""
    from cluster.dataserver.readers import registry  # slow to load, and for files not needed

    if registry.is_series_path(path):
        return
    if path.is_dir():
        console.refuse(f"{path}: is a folder, and no series itself; name the series in it")
    console.refuse(f"{path}: there is no such file")


@contextlib.contextmanager
def _place(
    series: list[Path],
    chosen: Mapping[str, Any],
    workers: int | None,
    scheduler: str | None,
    token: str | None,
    task_frames: int | None,
    output: Path | None,
) -> Iterator[Place]:
    """Return the cluster that is named or that this user runs here, else (and always with -n) a private one."""
    if scheduler is not None or read_config(surroundings.places().config).scheduler:
        connection = connect(scheduler, token)
        yield Place(connection.client, connection.runtime.roots if connection.runtime else (), private=False)
        return
    runtime = surroundings.own_runtime() if workers is None and task_frames is None else None
    if runtime is not None and _serves_all(runtime.roots, series, chosen):
        console.say(f"using your cluster {runtime.name!r} at {runtime.url}")
        yield Place(Client(runtime.url, surroundings.own_token(runtime.name)), runtime.roots, private=False)
        return
    root = series_root(series)
    files = given_files.files_of(chosen, series, [root])
    elsewhere = [file for file in sorted(files) if relative_to_roots(file, (root,)) is None]
    with private_cluster(
        root,
        workers,
        task_frames=task_frames,
        results_root=_results_root(series, output),
        elsewhere=elsewhere,
    ) as place:
        yield place


def _serves_all(roots: tuple[Path, ...], series: list[Path], chosen: Mapping[str, Any]) -> bool:
    """Whether a cluster has the series, and the files that the settings name."""
    if not all(relative_to_roots(path, roots) for path in series):
        return False
    return all(relative_to_roots(file, roots) for file in given_files.files_of(chosen, series, roots))


@contextlib.contextmanager
def private_cluster(
    root: Path,
    workers: int | None,
    *,
    task_frames: int | None = None,
    results_root: Path | None = None,
    elsewhere: Sequence[Path] = (),
) -> Iterator[Place]:
    """Run a cluster of our own for the length of a command; its state is gone afterwards.

    `elsewhere` are files outside the root that jobs need: it serves copies, from a root of their own.
    """
    with tempfile.TemporaryDirectory(prefix="clusterofone-", ignore_cleanup_errors=True) as home:
        caches = surroundings.places().cache
        places = Places(config=Path(home) / "config", state=Path(home) / "state", cache=caches)
        environ = {**os.environ, "CLUSTEROFONE_HOME": home, "CLUSTEROFONE_CACHE": str(caches)}
        given = Path(home).resolve() / "given"
        copied = given_files.copy_to(given, elsewhere)
        plan = Plan(
            name=PRIVATE,
            places=places,
            roots=(root, given) if copied else (root,),
            workers=core_count() if workers is None else workers,
            port=None,
            task_frames=task_frames,
            results_root=results_root,
            lab=_lab_folders(),
        )
        with LocalCluster(plan, environ, on_event=console.say) as cluster:
            yield Place(Client(cluster.url, cluster.token), plan.roots, private=True, copied=copied)


def _lab_folders() -> LabFolders:
    """Return the lab's folders for a private cluster: one that is not there, and that nobody spoke of, is none."""
    folders = surroundings.lab_folders()
    if folders.configured or (folders.profiles is not None and folders.profiles.is_dir()):
        return folders
    return folders.model_copy(update={"profiles": None})


def series_root(series: list[Path]) -> Path:
    """Return the folder that holds all the series: what a private cluster serves."""
    folders = [path.resolve().parent for path in series]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        console.refuse("the series lie on different drives; localise them one at a time")


def _results_root(series: list[Path], output: Path | None) -> Path | None:
    if output is not None:
        return output.absolute().parent
    return surroundings.results_root((series_root(series),))


def _asked_output(place: Place, output: Path | None) -> str | None:
    if output is None or not place.private:
        return None
    return f".{seen_name(output.stem)}.{os.getpid()}.h5r" if output.exists() else str(output.absolute())


def _followed(place: Place, job: Job) -> Job:
    try:
        return followed(place.client, job, own_workers=place.private)
    except KeyboardInterrupt:
        console.say(f"cancelling {job.id} …")
        place.client.cancel(job.id)
        raise


def _delivered(place: Place, job: Job, output: Path | None) -> Job:
    """Put the result where -o says, if it is not there yet."""
    if output is None or job.output is None or Path(job.output) == output.absolute():
        return job
    place.client.download(job.id, "h5r", output, overwrite=True)  # asked for, and checked, before the job
    if place.private:
        Path(job.output).unlink(missing_ok=True)
    return job.model_copy(update={"output": str(output.absolute())})


def _wait_for_a_worker(client: Client, longest_s: float) -> None:
    """Wait until a worker of this machine's cluster has started; the first start compiles for a while."""
    deadline = time.monotonic() + longest_s
    with console.err.status("waiting for a worker (the first start compiles the fits)"):
        while time.monotonic() < deadline:
            if any(worker.state in {"idle", "working"} for worker in client.workers()):
                return
            time.sleep(0.2)


def _print_jobs(jobs: list[Job]) -> None:
    if len(jobs) == 1:
        console.print_json(jobs[0])
    else:
        console.print_json({"jobs": [job.model_dump(mode="json") for job in jobs]})
