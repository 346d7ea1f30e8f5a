"""The files that a finished job offers."""

from __future__ import annotations

from typing import Final

from nicegui import ui

KINDS: Final = (
    ("h5r", ".h5r (PYME)"),
    ("csv", "CSV (ThunderSTORM)"),
    ("hdf5", "Picasso .hdf5"),
    ("yaml", "Picasso .yaml"),
    ("parquet", "Parquet"),
    ("smlm", ".smlm"),
)


def download_menu(job_id: str) -> None:
    """Add a menu of the files to the element around."""
    with ui.menu(), ui.column().classes("q-pa-sm").style("gap: 4px"):
        download_links(job_id)


def download_links(job_id: str) -> None:
    """Add a link for each kind of file; Picasso wants its two beside each other."""
    with ui.element("div").classes("downloads"):
        for kind, word in KINDS:
            ui.link(word, f"/data/jobs/{job_id}/results.{kind}").props("download")
