"""What the reports of calibrations have in common: a page, its style and colours, and the sentences below it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart also by readers who see fewer; x is always the solid line, y the dashed one
X_INK: Final = "#0072B2"
Y_INK: Final = "#D55E00"
DARK_INK: Final = "#000000"
FAINT_INK: Final = "0.6"
MARKED_INK: Final = "#CC79A7"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.titlelocation": "left",
}
_DPI: Final = 130
_LINE_INCHES: Final = 0.19
_LETTERS_AN_INCH: Final = 15


def drawn(size_inches: tuple[float, float], title: str, fill: Callable[[Any], None]) -> bytes:
    """Return a PNG with a title and what `fill` draws into the figure."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size_inches)
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        fill(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": "clusterofone"})
    return buffer.getvalue()


def page(
    title: str, size_inches: tuple[float, float], fill: Callable[[Any], None], notes: Sequence[str]
) -> bytes:
    """Return a PNG: a title, what `fill` draws into a part of the figure, and sentences below.

    Parameters
    ----------
    title
        Says what this is and of which files.
    size_inches
        Width, and height of the drawn part.
    fill
        Draws into a subfigure.
    notes
        What a person should know.
    """
    width, height = size_inches
    lines = [line for note in notes for line in _wrapped(note, width)]
    words = _LINE_INCHES * (len(lines) + 1)

    def fill_all(figure: Any) -> None:
        parts: Any = figure.subfigures(2, 1, height_ratios=[height, words])
        fill(parts[0])
        _write(parts[1], lines)

    return drawn((width, height + words), title, fill_all)


def _wrapped(note: str, width: float) -> list[str]:
    first, *more = textwrap.wrap(note, int(_LETTERS_AN_INCH * width)) or [""]
    return [f"•  {first}", *(f"    {line}" for line in more)]


def _write(part: Any, lines: Sequence[str]) -> None:
    for k, line in enumerate(lines):
        part.text(0.012, 1 - (k + 0.5) / (len(lines) + 1), line, va="center")


def show_map(
    part: Figure | Any, axis: Axes, values: npt.NDArray[np.floating], title: str, label: str, colours: str
) -> None:
    """Draw a map of the sensor, its scale from the first to the 99th percentile, so that single pixels do not set it."""
    known = values[np.isfinite(values)]
    low, high = (float(edge) for edge in np.quantile(known, [0.01, 0.99])) if known.size else (0.0, 1.0)
    shown = axis.imshow(
        values, cmap=colours, vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest", origin="upper"
    )
    axis.set_title(title)
    axis.set_xlabel("x [px]")
    axis.set_ylabel("y [px]")
    axis.spines[:].set_visible(True)
    colour_bar(part, axis, shown, label, extend="both")


def colour_bar(part: Figure | Any, axis: Axes, shown: Any, label: str, *, extend: str = "neither") -> None:
    """Draw the scale of an image beside it, as high as the image."""
    part.colorbar(shown, cax=axis.inset_axes((1.04, 0.0, 0.05, 1.0)), label=label, extend=extend)


def few_decades(axis: Axes) -> None:
    """Label a logarithmic x axis in plain numbers, 1, 2 and 5 of each decade where there are few decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    close = high < 50 * low
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if close else (1,)))
    if close:
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def show_histogram(
    axis: Axes, values: npt.NDArray[np.floating], title: str, label: str, *, logarithmic: bool = False
) -> None:
    """Draw how often values occur among the pixels, counts on a logarithmic scale, with the median marked."""
    known = values[np.isfinite(values)].astype(np.float64)
    if logarithmic:
        known = known[known > 0]
    low, high = (float(edge) for edge in np.quantile(known, [0.0, 1.0 if logarithmic else 0.9999]))
    high = max(high, low * (1 + 1e-6) + 1e-9)
    edges = np.geomspace(low, high, 120) if logarithmic else np.linspace(low, high, 120)
    axis.hist(known, bins=edges.tolist(), color=X_INK)
    axis.axvline(float(np.median(known)), color=Y_INK, linestyle="--", linewidth=1.2)
    axis.set_yscale("log")
    if logarithmic:
        few_decades(axis)
    axis.set_title(f"{title}: median {np.median(known):.4g}")
    axis.set_xlabel(label)
    axis.set_ylabel("pixels")
