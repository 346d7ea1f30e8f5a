"""The page and the picture of `agreement.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_INKS = {"PYME": "#777777", "wls": "#c55a11", "mle": "#0b5394"}
_TRUTH_ROWS = (
    ("rows", "rows", "{:.0f}"),
    ("recall", "recall", "{:.3f}"),
    ("rmse_nm", "RMSE of an axis, all molecules (nm)", "{:.2f}"),
    ("filtered_rmse_nm", "the same, `nchi2` < 2 only", "{:.2f}"),
    ("filtered_recall", "recall with `nchi2` < 2", "{:.3f}"),
    ("isolated_rmse_nm", "RMSE of an axis, no other molecule within 1.5 µm (nm)", "{:.2f}"),
    ("isolated_rmse_over_errors", "the same over the reported errors", "{:.3f}"),
    ("photons", "photons, median (truth 1000)", "{:.0f}"),
    ("sigma_nm", "sigma, median (truth 130 nm)", "{:.1f}"),
    ("background_adu", "background, median (truth 40 ADU)", "{:.1f}"),
    ("error_nm", "reported error of x, median (nm)", "{:.2f}"),
    ("nchi2", "`nchi2`, median", "{:.3f}"),
)
_PYME_ROWS = (
    ("matched", "rows that both have", "{:.0f}"),
    ("only_ours", "rows that PYME lacks", "{:.0f}"),
    ("only_pymes", "rows that only PYME has", "{:.0f}"),
    ("same_roi", "share with the same ROI, to the pixel", "{:.3f}"),
    (
        "difference_same_roi",
        "same ROI: median difference of the position, the larger of x and y (errors)",
        "{:.4f}",
    ),
    ("within_a_tenth_same_roi", "same ROI: share that differs by less than a tenth of an error", "{:.3f}"),
    ("difference_other_roi", "ROI one pixel aside: median difference (errors)", "{:.3f}"),
    ("A_difference_same_roi", "same ROI: median difference of the height (errors)", "{:+.2f}"),
    ("sigma_difference_same_roi", "same ROI: of sigma (errors)", "{:+.2f}"),
    ("background_difference_same_roi", "same ROI: of the background (errors)", "{:+.2f}"),
    ("x0_error_ratio", "reported error of x over PYME's, median", "{:.3f}"),
    ("sigma_error_ratio", "reported error of sigma over PYME's, median", "{:.3f}"),
)
_WHY = """
## Why they differ

- **Rows.** PYME takes connected regions above the threshold and loses 5 px along the border; we take local maxima up to the last pixel. Two molecules whose regions touch are one row in
  PYME and two here.
- **ROI.** PYME centres it on the centroid of a region, we on the top of a parabola. Where that rounds to the next pixel, other pixels are fitted, and the result moves by a fraction of
  its error. On the same pixels `wls` *is* PYME's estimator: the same weights, model and errors, with an analytic instead of a numerical Jacobian.
- **sigma.** PYME and `wls` sample the Gaussian at pixel centres, which makes it √(130² + 100²/12) = 133.2 nm. `mle` integrates it over the pixel.
- **Background.** Weights from the data give pixels that happen to be dim too much weight: the background of PYME and `wls` is one part in twenty too low. The likelihood has
  no such bias; its height A is that of a sharper peak with the same number of photons.
- **Errors and RMSE.** `mle` is at the Cramér–Rao bound, PYME and `wls` some 5 % above it. PYME's errors are a little smaller than its true ones; those of `mle` are not.
- **Neighbours.** `mle` models what neighbours shine into a ROI; PYME and `wls` do not, and rows that a neighbour pulls make most of their RMSE. Pairs that detection takes for one molecule remain in every
  column; `nchi2` singles them out. What it takes from PYME and `wls` are all the pulled rows, from `mle` those pairs only: compare the recall.
"""


def write_page(result: dict[str, Any], path: Path) -> None:
    """Write the tables of a result, and what they mean, as Markdown."""
    first, last = result["frames"]
    against_truth = _table(("PYME", "wls", "mle"), result["truth"], _TRUTH_ROWS)
    against_pyme = _table(("wls", "mle"), result["pyme"], _PYME_ROWS)
    text = f"""# Agreement with PYME

A simulated series (256 × 256 px, 20 molecules a frame, 1000 photons, 20 background photons/px, sigma 130 nm), its frames {first} to {last} localised by PYME 26.9's own cluster
(LatGaussFitFR, threshold 1, no background, 11 × 11 px, debounce 3) and by us with the same settings, once with `wls` and once with `mle`. Made by

    python benchmarks/agreement.py --series sim_200f.tif --pyme pyme_cluster_200f.h5r --truth sim_truth_first_200_frames.csv \\
        --page docs/agreement.md --picture docs/pictures/agreement.png

![Differences in errors; sigma; background](pictures/agreement.png)

## Beside the truth

{against_truth}

## Row by row beside PYME

{against_pyme}
{_WHY}"""
    path.write_text(text, encoding="utf-8")


def _table(names: tuple[str, ...], figures: dict[str, Any], rows: Any) -> str:
    lines = ["| | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for key, title, style in rows:
        values = [figures[name][key] for name in names]
        shown = [style.format(value) if value is not None else "–" for value in values]
        lines.append(f"| {title} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def draw(tables: dict[str, Any], differences: dict[str, Any], path: Path) -> None:
    """Draw the differences in errors, sigma and background."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise SystemExit("--picture needs matplotlib: pip install matplotlib") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for name, values in differences.items():
        _histogram(axes[0], name, values.ravel(), np.linspace(-2, 2, 81))
    for name, rows in tables.items():
        _histogram(axes[1], name, rows["fitResults"]["sigma"], np.linspace(110, 160, 51))
        _histogram(axes[2], name, rows["fitResults"]["background"], np.linspace(32, 46, 57))
    axes[0].set(xlabel="position less PYME's, in PYME's errors", ylabel="values", yscale="log")
    axes[1].axvline(130, color="black", linewidth=0.6)
    axes[1].set(xlabel="sigma (nm)", ylabel="rows")
    axes[2].axvline(40, color="black", linewidth=0.6)
    axes[2].set(xlabel="background (ADU)", ylabel="rows")
    for panel in axes:
        panel.legend(frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _histogram(axes: Any, name: str, values: Any, bins: Any) -> None:
    style = ("stepfilled", 0.35) if name == "PYME" else ("step", 1.0)
    axes.hist(values, bins, histtype=style[0], alpha=style[1], color=_INKS[name], label=name, linewidth=1.2)
