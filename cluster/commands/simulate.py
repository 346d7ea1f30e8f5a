"""`clusterofone simulate | demo`: series with known truth, and what a real cluster makes of one."""

from __future__ import annotations

import json as json_text
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cluster.commands import console
from cluster.commands.following import follow, summary
from cluster.commands.localise import private_cluster
from cluster.commands.options import Json
from cluster.protocol import Job, JobRequest
from cluster.unseen import seen_name


class Structure(StrEnum):
    """What the molecules sit on."""

    FILAMENTS = "filaments"
    RINGS = "rings"
    GRID = "grid"
    UNIFORM = "uniform"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("simulate")(simulate)
    app.command()(demo)


def simulate(
    series: Annotated[Path, typer.Argument(metavar="OUT.tif")],
    frames: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 1000,
    size: Annotated[int, typer.Option(help="Width and height \\[px].")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed gives the same series.")] = 0,
    structure: Annotated[Structure, typer.Option(help="What the molecules sit on.")] = Structure.FILAMENTS,
    emitters: Annotated[float, typer.Option(help="Mean number of shining molecules a frame.")] = 20.0,
    photons: Annotated[float, typer.Option(help="Mean photons of a molecule in a frame.")] = 1000.0,
    photon_spread: Annotated[
        float, typer.Option(help="Standard deviation over mean of these; 0: all the same.")
    ] = 0.0,
    background: Annotated[float, typer.Option(help="Background \\[photons/px].")] = 20.0,
    pixel_nm: Annotated[float, typer.Option(help="Size of a pixel \\[nm].")] = 100.0,
    sigma: Annotated[float, typer.Option(help="Width of the PSF \\[px].")] = 1.3,
    read_noise: Annotated[float, typer.Option(help="Read noise \\[e⁻ rms].")] = 1.6,
    em_gain: Annotated[float, typer.Option(help="EM gain, 1 for none.")] = 1.0,
    on_frames: Annotated[float, typer.Option(help="Mean time a molecule shines \\[frames].")] = 3.0,
    drift: Annotated[float, typer.Option(help="Drift along x \\[nm/frame].")] = 0.0,
    dark_frames: Annotated[int, typer.Option(min=0, help="Frames before the laser is on.")] = 0,
    sensor_maps: Annotated[
        bool, typer.Option("--sensor-maps", help="Every pixel has its own offset, noise and gain.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Simulate a series with known truth: OUT.tif, OUT.json (metadata), OUT.truth.csv.

    Example: [bold]clusterofone simulate rings.tif --structure rings --frames 5000 --seed 7[/]
    """
    from fitting.simulate import Simulation

    sim = Simulation(
        frames=frames,
        height_px=size,
        width_px=size,
        pixel_nm=pixel_nm,
        sigma_px=sigma,
        photons=photons,
        photon_spread=photon_spread,
        background_photons=background,
        emitters_per_frame=emitters,
        structure=structure.value,
        on_frames=on_frames,
        drift_nm_per_frame=(drift, 0.0),
        dark_frames=dark_frames,
        read_noise_e=read_noise,
        em_gain=em_gain,
        sensor_maps=sensor_maps,
        seed=seed,
    )
    files = _target(series, overwrite=overwrite)
    _write(sim, files)
    console.say(f"series: {files.series}   metadata: {files.metadata}   truth: {files.truth}")


def demo(
    frames: Annotated[int, typer.Option(min=10, help="Number of frames to simulate.")] = 4000,
    out: Annotated[Path, typer.Option(help="Folder for what the demo makes.")] = Path("clusterofone-demo"),
    workers: Annotated[
        int | None,
        typer.Option("-n", "--workers", metavar="N", min=1, help="Worker processes", show_default="cores"),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same series.")] = 1,
    json: Json = False,
) -> None:
    """Simulate molecules, localise them through a real cluster on this machine, and compare with the truth.

    Example: [bold]clusterofone demo --frames 5000[/]
    """
    from cluster.commands import simulated
    from cluster.results.h5r import read
    from fitting.simulate import Simulation

    sim = Simulation(
        frames=frames,
        height_px=160,
        width_px=160,
        emitters_per_frame=8,
        photons=1500,
        photon_spread=0.4,
        seed=seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    files = simulated.SeriesFiles(out / "demo.tif")
    console.say(f"1. simulate {frames} frames of {sim.width_px}×{sim.height_px} pixels with known truth")
    _write(sim, files)
    console.say("2. localise them: a scheduler, a data server and workers, talking HTTP on this machine")
    started = time.monotonic()
    job = _localised(files.series, workers)
    seconds = time.monotonic() - started
    console.say(summary(job))
    if job.output is None or job.state != "done":
        console.refuse("the demo did not finish; see above", console.FAILED)
    console.say("3. draw them, and compare with the truth")
    results = read(Path(job.output))
    picture = _draw(files.series, Path(job.output), out)
    report = _report(results.rows, simulated.read_truth(files.truth), job, seconds)
    (out / "report.json").write_text(json_text.dumps(report, indent=1) + "\n", encoding="utf-8")
    if json:
        console.print_json(report)
    else:
        console.out.print(_table(report))
    console.say(
        f"result: {job.output}\npicture: {picture} (beside the camera's: {out / 'before_and_after.png'})\nreport: {out / 'report.json'}"
    )


def _target(series: Path, *, overwrite: bool) -> Any:
    from cluster.commands import simulated

    if series.suffix.lower() not in {".tif", ".tiff"}:
        console.refuse(f"{series}: a series is written as .tif", console.USAGE)
    if not series.absolute().parent.is_dir():
        console.refuse(f"{series}: there is no folder {series.absolute().parent}")
    files = simulated.SeriesFiles(series)
    if files.existing() and not overwrite:
        console.refuse(f"{files.existing()[0]}: exists; give --overwrite to replace it")
    return files


def _write(sim: Any, files: Any) -> None:
    from cluster.commands import simulated

    with console.progress() as bar:
        shown = bar.add_task("simulating", total=sim.frames, rates="")
        simulated.write(sim, files, lambda count: bar.advance(shown, count))


def _localised(series: Path, workers: int | None) -> Job:
    with private_cluster(series.resolve().parent, workers) as place:
        request = JobRequest(series=series.name, name=seen_name(series.name), owner="demo")
        return follow(place.client, place.client.submit_request(request), own_workers=True)


def _draw(series: Path, results: Path, out: Path) -> Path:
    """Write the picture, and the same beside what the camera saw; return the first."""
    import tifffile

    from cluster.results.picture_files import Look, before_and_after, render_file

    target = out / "demo.png"
    picture = render_file(results, target, look=Look(pixel_nm=10.0), replace=True)
    camera = tifffile.memmap(series, mode="r").mean(axis=0)
    (out / "before_and_after.png").write_bytes(before_and_after(camera, picture))
    return target


def _report(rows: Any, truth: dict[str, Any], job: Job, seconds: float) -> dict[str, Any]:
    from fitting import scoring

    score = scoring.score(scoring.columns_of(rows), truth, radius_nm=250.0)
    return {
        "frames": job.frames.total,
        "molecules": score.n_truth,
        "localisations": score.n_found,
        "recall": round(score.recall, 4),
        "precision": round(score.precision, 4),
        "rmse_nm_per_axis": round(score.accuracy.rmse_nm / 2**0.5, 2),
        "rmse_isolated_nm_per_axis": round(score.isolated.rmse_nm / 2**0.5, 2),
        "rmse_over_crlb_isolated": round(score.isolated.rmse_over_crlb, 3),
        "bias_nm": [round(score.accuracy.bias_x_nm, 2), round(score.accuracy.bias_y_nm, 2)],
        "seconds_with_start": round(seconds, 1),
        "frames_per_s": round(job.frames.total / max(1e-9, (job.finished or 0) - (job.started or 0)), 1),
        "output": job.output,
    }


def _table(report: dict[str, Any]) -> Table:
    table = Table(
        title="against the truth (matched within 250 nm)", show_header=False, box=None, title_justify="left"
    )
    meanings = {
        "recall": "of the molecules, found",
        "precision": "of the localisations, real",
        "rmse_nm_per_axis": "RMSE of an axis, all matched \\[nm]",
        "rmse_isolated_nm_per_axis": "RMSE of an axis, molecules without a neighbour \\[nm]",
        "rmse_over_crlb_isolated": "RMSE over what theory allows (CRLB), without a neighbour",
        "localisations": "localisations",
        "frames_per_s": "frames/s through the cluster",
    }
    for key, meaning in meanings.items():
        table.add_row(meaning, str(report[key]))
    return table
