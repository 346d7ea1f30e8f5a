"""The lab's folders, asked from the event loop: in threads, and not for ever, for they may lie on a share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from cluster.errors import Unavailable
from cluster.lab import Completed, Lab, wants_none
from cluster.lab_listing import list_presets, list_profiles
from cluster.presets import KEY as PRESET
from cluster.presets import read_shelf, with_preset
from cluster.profiles import KEY, NONE
from cluster.protocol import MetadataValue, PresetInfo, ProfileListing
from cluster.threads import DaemonThread
from fitting.fit_types import Fit

T = TypeVar("T")
_LONGEST_S: Final = 20.0


class LabDesk:
    """Answers about profiles and presets. Every method raises `Unavailable` if a folder does not answer."""

    def __init__(self, lab: Lab, *, longest_s: float = _LONGEST_S) -> None:
        self._lab = lab
        self._longest_s = longest_s
        self._profiles = DaemonThread("profiles")
        self._presets = DaemonThread("presets")

    def close(self) -> None:
        """Let the threads go; a share that hangs is not waited for."""
        self._profiles.close()
        self._presets.close()

    async def with_preset(
        self, analysis: Mapping[str, Any], elsewhere: Mapping[str, Fit]
    ) -> tuple[dict[str, Any], str | None]:
        """Return settings with those of their preset under them, and what to note of it.

        Raises
        ------
        Invalid
            If there is no such preset, or what it says cannot be used; names it, and the file of a lab's own.
        """
        if PRESET not in analysis:
            return dict(analysis), None
        shelf = await self._asked(self._presets, lambda: read_shelf(self._lab.folders.presets))
        return with_preset(analysis, shelf, elsewhere)

    async def completed(
        self, metadata: Mapping[str, MetadataValue], analysis: Mapping[str, Any]
    ) -> Completed:
        """Return metadata and settings with what profiles and folders of camera maps add; raises as `Lab.completed`."""
        if wants_none(analysis):
            return self._lab.completed(metadata, analysis)  # touches no folder
        return await self._asked(self._profiles, lambda: self._lab.completed(metadata, analysis))

    async def presets(self, elsewhere: Mapping[str, Fit]) -> list[PresetInfo]:
        """Return the presets; `elsewhere` are fits that only workers have."""
        return await self._asked(self._presets, lambda: list_presets(self._lab, elsewhere))

    async def profiles(
        self, series: str | None = None, metadata: Mapping[str, MetadataValue] | None = None
    ) -> ProfileListing:
        """Return the profiles, and what a series of these metadata would get."""
        return await self._asked(self._profiles, lambda: list_profiles(self._lab, series, metadata))

    async def _asked(self, thread: DaemonThread, ask: Callable[[], T]) -> T:
        folders = self._lab.folders
        try:
            async with asyncio.timeout(self._longest_s):
                return await thread.call(ask)
        except TimeoutError as error:
            places = (
                (folders.profiles, folders.calibration) if thread is self._profiles else (folders.presets,)
            )
            said = ", ".join(str(path) for path in places if path)
            instead = f"; --set {KEY}={NONE} goes on without profiles" if thread is self._profiles else ""
            raise Unavailable(f"{said} did not answer within {self._longest_s:g} s{instead}") from error
        except OSError as error:
            raise Unavailable(f"{error.filename}: cannot be read now: {error.strerror or error}") from error
