"""What a file may cost before it is called damaged: generous to large files and slow shares, hard on what never ends."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from cluster.dataserver.readers.registry import file_on_disk


@dataclass(frozen=True)
class Limits:
    """Each number with its reason; tests give smaller ones."""

    memory_bytes: int = 2 << 30
    """Beyond what the process has when it is ready. The largest request is 256 MiB as served, twice that in float64;
    beside it lie chunks of at most 256 MiB and the index of the series."""

    base_s: float = 60.0
    """For whatever takes no time on a disk that is there: a header, a few pages."""

    open_s_per_gb: float = 10.0
    """An uncompressed series has a page each 0.1 to 1 MB, and a share may take 5 ms for each of the two reads that a
    page costs: 10 s for 1000 pages."""

    folder_s: float = 900.0
    """A folder may hold 100,000 files, of which a busy share names a hundred a second."""

    read_s_per_mb: float = 1.0
    """The slowest link over which anyone would localise: 1 MB/s."""

    ready_s: float = 60.0
    """The process loads its libraries, from a cold disk perhaps."""

    computing_share: float = 0.1
    """A request that took its time and computed for less than this part of it was waiting for a disk or share: that is
    no fault of the file. On a slow share, Python's work takes a hundredth of the time."""

    again_after_s: float = 120.0
    """A file that a disk or share did not give in time is left alone for so long: whoever asks hears so at once."""

    stuck_s: float = 600.0
    """The process leaves by itself when it could not attend to its pipe for so long: nobody might be there to end it."""

    watches_memory: bool = sys.platform != "linux"
    """Where the system does not hold a process to a limit, its resident size is looked at, and it is ended."""

    def opening_s(self, path: Path) -> float:
        """Return how long a series may take to be opened [s]."""
        file = file_on_disk(path)
        try:
            return (
                self.folder_s
                if file.is_dir()
                else self.base_s + self.open_s_per_gb * file.stat().st_size / 1e9
            )
        except OSError:
            return self.base_s

    def reading_s(self, size_bytes: int) -> float:
        """Return how long frames of this size together may take to be read [s]."""
        return self.base_s + self.read_s_per_mb * size_bytes / 1e6
