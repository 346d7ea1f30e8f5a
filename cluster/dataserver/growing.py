"""Series that another program is still writing: how far each has come, and its frames, which are final once counted.

Such a series is known by its first frame: that stays as it is while the file grows, and when the program rewrites its
header or adds its notes at the end. The frame that was last counted is looked at again each time, so that a file that
was replaced by one with the same beginning is noticed too.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cluster.dataserver.readers.interface import Frames, GoesOn, Grows, Progress, SeriesReader, SeriesShape
from cluster.errors import ClusterError, Conflict, Invalid, NotFound, Unavailable
from cluster.fingerprint import GROWS, Stamp, stamp
from cluster.protocol import SeriesEvent

Clock = Callable[[], float]
_SETTLES_S: Final = 1.0  # after a mark of the end the last bytes may still be on their way
_PATIENCE_S: Final = 10.0  # for this long after a change, what cannot be read is not called lost
_FRESH_S: Final = 120.0
_IDLE_SHARE: Final = 4.0  # of the time between two looks, a fifth at most is spent on looking
_SHORTEST_S: Final = 0.05


@dataclass(frozen=True)
class Look:
    """How a series was when it was looked at last; `changed_at` and `looked_at` by the store's clock [s]."""

    reader: SeriesReader
    beginning: str
    salt: str
    progress: Progress
    witness: tuple[int, str]  # the frame last counted, and its digest
    stamp: Stamp
    changed_at: float
    looked_at: float
    took_s: float

    @property
    def fingerprint(self) -> str:
        """Return what the series is known by while it grows."""
        return f"{GROWS}{hashlib.sha256((self.beginning + self.salt).encode()).hexdigest()[:24]}"

    @property
    def complete(self) -> bool:
        """Return whether the format says that this was all, and nothing has come since."""
        return self.progress.ended and self.looked_at - self.changed_at >= _SETTLES_S

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is as far as it has come."""
        shape = self.reader.shape
        if self.complete:
            return replace(shape, identity=self.fingerprint)
        return replace(
            shape, frames=self.progress.whole, missing=(), complete=False, identity=self.fingerprint
        )


@dataclass
class _Held:
    gate: threading.RLock = field(default_factory=threading.RLock)
    look: Look | None = None
    used_at: float = 0.0


class GrowingReaders:
    """Series that are followed while another program writes them; safe to use from several threads."""

    def __init__(
        self,
        opener: Callable[[Path], SeriesReader],
        *,
        now: Clock,
        wall: Clock = time.time,
        idle_s: float = 60.0,
    ) -> None:
        self._opener = opener
        self._now = now
        self._wall = wall
        self._idle_s = idle_s
        self._held: dict[Path, _Held] = {}
        self._books = threading.Lock()

    def look(self, file: Path) -> Look:
        """Return how far a series has come.

        Raises
        ------
        Invalid
            If it is none, or of a format that cannot be followed.
        Unavailable
            If nothing can be read of it yet, or just now.
        """
        with self._using(file) as held:
            known = held.look
            if known is not None:
                pause_s = max(_SHORTEST_S, _IDLE_SHARE * known.took_s)
                if self._now() - known.looked_at < pause_s:
                    return known
            return self._look_now(file, held)

    def frames(
        self, file: Path, start: int, stop: int, pinned: str
    ) -> tuple[Frames, tuple[int, ...], SeriesShape]:
        """Return frames [start, stop), those that are missing, which are zero, and the shape of the file as it is.

        Raises
        ------
        Conflict
            If it is not the series of the fingerprint `pinned`.
        Invalid
            If there are no such frames.
        Unavailable
            If frames that are there cannot be read just now.
        """
        with self._using(file) as held:
            failed: Unavailable | None = None
            for look in self._looks(file, held):
                failed = None
                shape = look.reader.shape
                if look.fingerprint != pinned or stop > shape.frames:
                    continue
                try:
                    frames, missing = look.reader.read(start, stop)
                    is_same = _digest_of(look.reader, 0) == look.beginning
                    if is_same:
                        self._check_final(file, look, missing)
                        return frames, missing, shape
                except Unavailable as error:
                    failed = (
                        error  # whoever parsed it is gone, or what was read of its index is no longer true
                    )
            if failed is not None:
                raise failed
            assert held.look is not None
            if held.look.fingerprint != pinned:
                raise Conflict(f"the file changed: {file.name} is not the series that this was asked of")
            raise Invalid(
                f"{file.name} has {held.look.reader.shape.frames} frames so far; [{start}, {stop}) is no range of them",
                field="stop",
            )

    def shape(self, file: Path, pinned: str, stop: int) -> SeriesShape:
        """Return what the file holds, all that is promised included, looking again if frames up to `stop` are not there."""
        with self._using(file) as held:
            for look in self._looks(file, held):
                if look.fingerprint == pinned and stop <= look.reader.shape.frames:
                    break
            assert held.look is not None
            return held.look.reader.shape

    def events(self, file: Path) -> list[SeriesEvent]:
        """Return the events that there are so far."""
        with self._using(file) as held:
            return (held.look or self._look_now(file, held)).reader.events()

    def close_idle(self) -> None:
        """Let go of series that nobody has asked for lately."""
        self._close(before=self._now() - self._idle_s)

    def close(self) -> None:
        """Let go of all."""
        self._close(before=None)

    def _close(self, before: float | None) -> None:
        with self._books:
            old = [file for file, held in self._held.items() if before is None or held.used_at <= before]
            dropped = [self._held.pop(file) for file in old]
        for held in dropped:
            with held.gate:
                if held.look is not None:
                    held.look.reader.close()
                    held.look = None

    @contextmanager
    def _using(self, file: Path) -> Iterator[_Held]:
        with self._books:
            held = self._held.setdefault(file, _Held())
            held.used_at = self._now()
        with held.gate:
            yield held
            held.used_at = self._now()
            if self._held.get(file) is not held and held.look is not None:  # dropped while it was waited for
                held.look.reader.close()
                held.look = None

    def _looks(self, file: Path, held: _Held) -> Iterator[Look]:
        """Yield what is known, then how it is now."""
        if held.look is not None:
            yield held.look
        yield self._look_now(file, held)

    def _check_final(self, file: Path, look: Look, missing: tuple[int, ...]) -> None:
        lost = next((frame for frame in missing if frame < look.progress.whole), None)
        if lost is not None and self._now() - look.changed_at < _PATIENCE_S:
            raise Unavailable(f"frame {lost} of {file.name} cannot be read now, while the file is written")

    def _look_now(self, file: Path, held: _Held) -> Look:
        known = held.look
        look = self._went_on(file, known) if known is not None else None
        held.look = look or self._judged(file, lambda: self._open(file, known), known)
        if known is not None:
            known.reader.close()
        return held.look

    def _went_on(self, file: Path, known: Look) -> Look | None:
        """Return how it is now if it has only grown, by what is known of it; None if that no longer fits."""
        reader = known.reader
        if not isinstance(reader, GoesOn):
            return None
        try:
            look = self._judged(file, reader.renewed, known)
        except (ClusterError, OSError):
            return None
        if look.fingerprint == known.fingerprint:
            return look
        look.reader.close()
        return None

    def _judged(self, file: Path, opened: Callable[[], SeriesReader], known: Look | None) -> Look:
        began = self._now()
        reader = opened()
        try:
            return self._judge(file, reader, known, began)
        except BaseException:
            reader.close()
            raise

    def _judge(self, file: Path, reader: SeriesReader, known: Look | None, began: float) -> Look:
        if not isinstance(reader, Grows):
            raise Invalid(
                f"{file.name} cannot be followed: frames of {reader.shape.format} cannot be read safely while they are "
                "written; submit it when it is finished (clusterofone auto does so)",
                field="follow",
            )
        progress = reader.progress(known.progress.whole if known is not None else 0)
        beginning = _digest_of(reader, 0) if progress.whole else None
        if beginning is None:
            raise Unavailable(f"{file.name} holds no whole frame yet")
        salt = known.salt if known is not None and known.beginning == beginning else ""
        if known is not None and known.beginning == beginning:
            seen = _digest_of(reader, known.witness[0])
            if seen is None:
                raise Unavailable(
                    f"frame {known.witness[0]} of {file.name}, which was there, cannot be read now"
                )
            if seen != known.witness[1]:
                salt = seen
            else:
                progress = replace(progress, whole=max(progress.whole, known.progress.whole))
        witness = progress.whole - 1
        present = stamp(reader.files)
        changed = known is None or known.stamp != present or known.salt != salt
        now = self._now()
        return Look(
            reader=reader,
            beginning=beginning,
            salt=salt,
            progress=progress,
            witness=(witness, _digest_of(reader, witness) or ""),
            stamp=present,
            changed_at=now if changed or known is None else known.changed_at,
            looked_at=now,
            took_s=now - began,
        )

    def _open(self, file: Path, known: Look | None) -> SeriesReader:
        try:
            return self._opener(file)
        except NotFound as error:
            raise Unavailable(f"{file.name} is not there now") if known is not None else error from error
        except Invalid as error:
            if known is None and not self._is_fresh(file):
                raise
            raise Unavailable(f"{error.detail} (it is being written; it will be looked at again)") from error
        except OSError as error:
            raise Unavailable(f"{file.name} cannot be read now: {error.strerror or error}") from error

    def _is_fresh(self, file: Path) -> bool:
        """Whether a file that makes no sense may only be unfinished; its clock need not be ours, so this decides nothing else."""
        try:
            return abs(self._wall() - file.stat().st_mtime) < _FRESH_S
        except OSError:
            return False


def _digest_of(reader: SeriesReader, frame: int) -> str | None:
    """Return a digest of a frame and its kind; None if it cannot be read."""
    shape = reader.shape
    if frame >= shape.frames:
        return None
    try:
        pixels, missing = reader.read(frame, frame + 1)
    except OSError:
        return None
    if missing:
        return None
    kind = f"{shape.height} {shape.width} {shape.dtype.name}".encode()
    return hashlib.sha256(kind + pixels.tobytes()).hexdigest()
