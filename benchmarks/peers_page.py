"""The page that says what `peers.py` measured, as Markdown tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_INTRODUCTION = """# Beside its peers

Made by `benchmarks/peers.py`; do not edit. The same frames and the same ROIs go to every program. All run in one thread on one
core and take turns; a figure is the median of {repeat} turns. Imports and first runs (compilation) are not in the
rates. "CPU" is processor time, which does not grow when something else uses the machine; where wall time and CPU
time tell different stories, believe CPU time.

- Machine: {cpu}, {cores} cores, {system}; load averages {load}.
- Commit {commit}. {versions}.
- Command: `{command}`
"""

_WORKLOAD = """## The whole pipeline

{frames} frames of {size_px} × {size_px} px in memory, {emitters} molecules in each, {photons:g} photons, {background:g} background photons/px, sigma
{sigma_px:g} px, pixels of 100 nm, no read noise; molecules at least {border_px:g} px from the edge. Background `-30:0` for us (but in the second
row) and for PYME; Picasso and SMAPpy subtract no temporal background. ROIs are 7 × 7 px where nothing else is said. Each program detects with a threshold at which it finds all it can without
false ones. RMSE is per axis; "isolated" molecules have no other within 1.5 µm. The CRLB is {bound:.2f} nm.
"""

_FIT = """## The fit alone, {side} × {side} px

{amount} ROIs of the same molecules, cut beforehand, in photons; x, y, photons, background and sigma free (Picasso's `gaussmle` has two
sigmas). Ours and SMAPpy return the CRLB and the log-likelihood of each fit, Picasso the log-likelihood only. CRLB {bound:.2f} nm.
"""

_STARTS = """## Starts

Seconds to import each program; then of its first whole pipeline, beside a later one. Ours and parts of Picasso are compiled once per
installation and then kept on disk; the rest of Picasso is compiled at every start.
"""

_NAMES = {
    "ours": "**clusterofone**",
    "ours, percentile (the default)": "clusterofone, percentile as background (its default)",
    "ours, no background": "clusterofone, no background",
}
_Report = dict[str, Any]


def write_page(path: Path, reports: list[_Report], command: str) -> None:
    """Write the page of one run of `peers.py`."""
    by_name = {report["name"]: report for report in reports}
    sides = [int(name.rpartition("_")[2]) for name in by_name if name.startswith("fit_only_")]
    bound = by_name[f"fit_only_{sides[0]}"]["crlb_nm"]
    whole = by_name["pipeline"]
    parts = [
        _INTRODUCTION.format(**{**whole, "versions": _versions(whole)}, command=command),
        _WORKLOAD.format(**whole["workload"], bound=bound),
        _pipeline_table(whole),
        *[part for side in sides for part in _fit_section(by_name[f"fit_only_{side}"], side)],
        _ratio(by_name["roi_size"]),
        _starts(whole, by_name["imports"]),
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _versions(report: _Report) -> str:
    named = {
        name: number
        for versions in report["versions"].values()
        for name, number in versions.items()
        if name in ("clusterofone", "picassosr", "smappy-smlm", "python-microscopy")
    }
    missing = [f"{name} not measured" for name in report["left_out"]]
    return ", ".join([*(f"{name} {number}" for name, number in named.items()), *missing])


def _pipeline_table(report: _Report) -> str:
    rows = []
    for name, figures in report["contenders"].items():
        faster = report["times_faster"].get(name)
        rows.append(
            [
                _NAMES.get(name, name),
                f"{figures['frames_per_s']:.0f}",
                f"{figures['frames_per_cpu_s']:.0f}",
                *_times(faster),
                f"{figures['recall']:.3f}",
                f"{figures['precision']:.3f}",
                f"{figures['rmse_nm']:.2f}",
                f"{figures['rmse_isolated_nm']:.2f}",
            ]
        )
    heads = [
        "",
        "frames/s",
        "frames/CPU s",
        "we are × faster",
        "(CPU)",
        "recall",
        "precision",
        "RMSE [nm]",
        "isolated [nm]",
    ]
    return _table(heads, rows)


def _fit_section(report: _Report, side: int) -> list[str]:
    rows = []
    for name, figures in report["contenders"].items():
        faster = report["times_faster"].get(name)
        rows.append(
            [
                _NAMES.get(name, name),
                f"{figures['rois_per_s']:,.0f}",
                f"{figures['rois_per_cpu_s']:,.0f}",
                *_times(faster),
                f"{figures['rmse_nm']:.2f}",
                f"{figures['rmse_over_crlb']:.3f}",
                str(figures["failed"]),
            ]
        )
    heads = ["", "fits/s", "fits/CPU s", "we are × faster", "(CPU)", "RMSE [nm]", "RMSE/CRLB", "failed"]
    amount = report["contenders"]["ours"]["amount"]
    return [_FIT.format(side=side, amount=f"{amount:,}", bound=report["crlb_nm"]), _table(heads, rows)]


def _ratio(report: _Report) -> str:
    return (
        f"An 11 × 11 px ROI is fitted at {100 * report['ours_11_over_7']:.0f} % of the rate of a 7 × 7 px one "
        f"({100 * report['ours_11_over_7_cpu']:.0f} % by CPU time).\n"
    )


def _starts(whole: _Report, imports: _Report) -> str:
    rows = [[_NAMES.get(name, name), f"{seconds:.1f}"] for name, seconds in imports["import_s"].items()]
    first = [
        [_NAMES.get(name, name), f"{figures['first_run_s']:.1f}", f"{_steady(figures):.1f}"]
        for name, figures in whole["contenders"].items()
    ]
    return "\n".join(
        [_STARTS, _table(["", "import [s]"], rows), _table(["", "first run [s]", "later run [s]"], first)]
    )


def _steady(figures: _Report) -> float:
    return float(sorted(figures["wall_s"])[len(figures["wall_s"]) // 2])


def _times(faster: dict[str, float] | None) -> list[str]:
    return [f"{faster[clock]:.1f}" for clock in ("wall", "cpu")] if faster else ["–", "–"]


def _table(heads: list[str], rows: list[list[str]]) -> str:
    rules = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rules, *rows]) + "\n"
