"""From what a person asked for to a job's sheet: everything is decided, or refused by name, before anything is queued."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from cluster.calibrating.kinds import SHIFT_FIT
from cluster.errors import CallerError, ClusterError, Invalid, NotFound
from cluster.job_calibrations import (
    PSF_SCALE,
    absent,
    check_kind,
    check_map,
    check_place,
    check_suffix,
    psf_scale,
)
from cluster.lab import is_of_lab
from cluster.metadata_keys import check_known
from cluster.protocol import (
    DataServerInfo,
    FitDeclaration,
    JobCheck,
    JobFault,
    JobRequest,
    MetadataValue,
    PreviewRequest,
    SeriesFacts,
)
from cluster.scheduler.dataservers import Located, SeriesSource
from cluster.scheduler.foreign_fits import ForeignFit
from cluster.scheduler.lab import LabDesk
from cluster.scheduler.offset import OFFSET_KEY, estimated_offset
from cluster.scheduler.outputs import Outputs, stem_of
from cluster.scheduler.sheets import Sheet
from cluster.unseen import seen_name
from fitting import fits
from fitting.errors import FittingError, InvalidMetadata, InvalidSettings
from fitting.geometry import chip_origin, place, rectangles
from fitting.layouts import channels_of
from fitting.settings import BY_NAME

T = TypeVar("T")

MAPS: Final = ("variance_map", "dark_map", "flatfield_map")
TABLES: Final = ("sigma_curves", "shifts")
_UNNAMED: Final = "unnamed"
_DEEPEST: Final = 32
_ENDLESS: Final = 2**31 - 1


@dataclass
class Draft:
    """What is known of a job while it is being decided."""

    located: Located
    metadata: dict[str, MetadataValue]
    analysis: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    elsewhere: Mapping[str, fits.Fit] = field(default_factory=dict)
    servers: dict[str, DataServerInfo] = field(default_factory=dict)
    declared: FitDeclaration | None = None

    @property
    def values(self) -> dict[str, Any]:
        """Return the metadata without their sources."""
        return {key: entry.value for key, entry in self.metadata.items()}


class Submissions:
    """Makes sheets out of requests. `wall` is the wall clock, in Unix seconds; `elsewhere` gives the fits that only workers have, `lab` what the lab's folders add."""

    def __init__(
        self,
        source: SeriesSource,
        outputs: Outputs,
        wall: Callable[[], float],
        elsewhere: Callable[[], Mapping[str, ForeignFit]],
        lab: LabDesk,
    ) -> None:
        self._lab = lab
        self._elsewhere = elsewhere
        self._source = source
        self._outputs = outputs
        self._wall = wall

    async def job(self, request: JobRequest, taken: Callable[[], Collection[str]]) -> Sheet:
        """Return the sheet of a job; `taken` gives the files other jobs will write, at the moment it is called.

        Raises
        ------
        Invalid
            If a setting, a metadata key, the series or the output cannot be used; `field` and `keys` name it.
        NotFound
            If no data server has the series.
        Conflict
            If the output exists.
        Unavailable
            If no data server can be asked.
        """
        draft = await self._draft(request.series, request.analysis, request.metadata, follow=request.follow)
        facts = draft.located.facts
        follow = request.follow and not facts.complete
        start, stop = _followed_range(draft) if follow else _analysed_range(draft)
        if not facts.complete and not follow:
            draft.notes.append(f"the series is still growing: these are its first {facts.frames} frames")
        events = await self._source.events(draft.located) if facts.events else []
        output = self._outputs.choose(
            facts.path, request.output, taken()
        )  # no await from here on: it stays free
        return Sheet(
            **_common(draft, self._wall()),
            events=events,
            name=request.name or seen_name(stem_of(facts.path)),
            owner=request.owner or _UNNAMED,
            machine=request.machine or _UNNAMED,
            kind="localise",
            priority=request.priority,
            start=start,
            stop=stop,
            frames=None,
            output=str(output),
            follow=follow,
        )

    async def check(self, request: JobRequest, taken: Callable[[], Collection[str]]) -> JobCheck:
        """Return what the job would be, and why it would be refused if it would; nothing is queued, and nothing stays written.

        Raises
        ------
        NotFound
            If no data server has the series.
        Unavailable
            If no data server can be asked.
        """
        draft = await self._begun(request.series, request.analysis, request.metadata, follow=request.follow)
        fault, bounds = None, None
        try:
            await self._settle(draft, request.analysis, follow=request.follow)
            bounds = _analysed_range(draft)
            self._outputs.check(draft.located.facts.path, request.output, taken())
        except CallerError as error:
            fault = JobFault(
                detail=error.detail, field=error.facts.get("field"), keys=error.facts.get("keys", [])
            )
        required = fits.required_metadata(draft.analysis)
        missing = fits.missing_metadata(draft.analysis, draft.values)
        return JobCheck(
            facts=draft.located.facts,
            analysis=draft.analysis,
            metadata=draft.metadata,
            required={key: fits.meaning(key) for key in dict.fromkeys((*required, *missing))},
            missing=list(missing),
            start=bounds and bounds[0],
            stop=bounds and bounds[1],
            fault=fault,
            notes=[*draft.notes, *_missing_notes(draft)],
        )

    async def preview(self, request: PreviewRequest) -> Sheet:
        """Return the sheet of a Test; raises as `job`."""
        draft = await self._draft(request.series, request.analysis, request.metadata)
        start, stop = _analysed_range(draft)
        return Sheet(
            **_common(draft, self._wall()),
            events=[],
            name=f"test of {seen_name(stem_of(draft.located.facts.path))}",
            owner=request.owner or _UNNAMED,
            machine=_UNNAMED,
            kind="preview",
            priority=0,
            start=start,
            stop=stop,
            frames=_preview_frames(request.frames, start, stop),
            output=None,
        )

    async def _draft(
        self, series: str, analysis: Mapping[str, Any], metadata: Mapping[str, Any], *, follow: bool = False
    ) -> Draft:
        draft = await self._begun(series, analysis, metadata, follow=follow)
        await self._settle(draft, analysis, follow=follow)
        return draft

    async def _begun(
        self, series: str, analysis: Mapping[str, Any], metadata: Mapping[str, Any], *, follow: bool
    ) -> Draft:
        _check_encodable("analysis", analysis)
        _check_encodable("metadata", metadata)
        located = await self._source.locate(series, follow=follow)
        given = {key: MetadataValue(value=value, source="job") for key, value in metadata.items()}
        return Draft(located, {**located.facts.metadata, **given}, analysis=dict(analysis))

    async def _settle(self, draft: Draft, analysis: Mapping[str, Any], *, follow: bool) -> None:
        """Decide everything; when it refuses, the draft holds what had been decided by then."""
        check_known(key for key, entry in draft.metadata.items() if entry.source == "job")
        facts = draft.located.facts
        if facts.frames == 0 and (facts.complete or not follow):
            raise Invalid(f"{facts.path} holds no frames", field="series")
        elsewhere = self._elsewhere()
        draft.elsewhere = {name: one.fit for name, one in elsewhere.items()}
        analysis = await self._with_the_labs(draft, analysis)
        with_settings = _named(lambda: fits.resolve(analysis, draft.values, draft.elsewhere))
        if (chosen := elsewhere.get(str(with_settings["fit"]))) is not None:
            draft.declared = chosen.declaration
        draft.analysis = with_settings
        await self._estimate_offset(draft, with_settings)
        _check_metadata(draft, with_settings)
        _check_roi(draft)
        _check_channels(draft)
        for name in MAPS:
            if with_settings[name]:
                with _saying_who_named_it(draft, name):
                    await self._pin_map(draft, name, str(with_settings[name]))
        for name in TABLES:
            if isinstance(with_settings[name], str):
                with _saying_who_named_it(draft, name):
                    await self._pin_table(draft, name, str(with_settings[name]))
        if isinstance(with_settings["psf"], str):
            with _saying_who_named_it(draft, "psf"):
                await self._pin_psf(draft, str(with_settings["psf"]))

    async def _with_the_labs(self, draft: Draft, analysis: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with those of their preset; what profiles say goes into the metadata."""
        settings, note = await self._lab.with_preset(analysis, draft.elsewhere)
        done = await self._lab.completed(draft.metadata, settings)
        draft.metadata, draft.doubts = done.metadata, done.doubts
        draft.notes += [*([note] if note else []), *done.notes]
        return done.analysis

    async def _estimate_offset(self, draft: Draft, analysis: Mapping[str, object]) -> None:
        if OFFSET_KEY not in fits.missing_metadata(analysis, draft.values):
            return
        estimate = await estimated_offset(self._source, draft.located, draft.values)
        if estimate is not None:
            value = estimate.value
            draft.metadata[OFFSET_KEY] = value
            draft.notes.append(f"{OFFSET_KEY} = {value.value:g} ADU, {value.source}")
            draft.notes += [f"{OFFSET_KEY} looks wrong: {doubt}" for doubt in estimate.doubts]

    async def _pin_map(self, draft: Draft, name: str, path: str) -> None:
        """Name a camera map by its path under the roots, and pin its bytes."""
        facts = await self._located(draft, name, path)
        frames = draft.located.facts
        draft.notes += check_map(name, facts, (frames.height, frames.width), draft.values)
        draft.analysis[name], draft.maps[name] = facts.path, facts.fingerprint

    async def _pin_table(self, draft: Draft, name: str, path: str) -> None:
        """The same for a shift field or width curves."""
        check_suffix(name, path)
        found = await self._found(draft, name, path, self._source.calibration)
        check_kind(name, found.path, found.value)
        draft.analysis[name], draft.maps[name] = found.path, found.digest
        _named(lambda: fits.resolve(draft.analysis | {name: found.value}, draft.values, draft.elsewhere))

    async def _pin_psf(self, draft: Draft, path: str) -> None:
        """The same for a PSF, with the pitches that it or the file beside it says."""
        check_suffix("psf", path)
        facts = await self._located(draft, "psf", path)
        scale = psf_scale(facts, [1000 * float(draft.values[f"voxelsize.{axis}"]) for axis in "xy"])
        _check_psf_channels(draft, facts.path, int(scale["channels"]))
        draft.analysis["psf"], draft.maps["psf"] = facts.path, facts.fingerprint
        draft.maps[PSF_SCALE] = json.dumps(scale)

    async def _located(self, draft: Draft, name: str, path: str) -> SeriesFacts:
        """Find a file that travels as frames do; a data server that has it is among the job's, after those of the series."""
        found = await self._found(draft, name, path, self._source.locate)
        draft.servers |= {server.id: server for server in found.servers}
        return found.facts

    async def _found(self, draft: Draft, name: str, path: str, ask: Callable[[str], Awaitable[T]]) -> T:
        """Ask for a file by its path under the roots; whoever describes a series may name it as beside that."""
        check_place(name, path)
        folder = draft.located.facts.path.rpartition("/")[0]
        beside = f"{folder}/{path}" if folder and not is_of_lab(_named_by(draft, name)) else path
        try:
            try:
                return await ask(beside)
            except NotFound:
                return await ask(path)
        except NotFound as error:
            raise absent(name, path, error.facts.get("roots", [])) from error
        except ClusterError as error:
            error.detail = f"{name}: {error.detail}"
            error.facts["field"] = name
            raise


@contextmanager
def _saying_who_named_it(draft: Draft, setting: str) -> Iterator[None]:
    """Add to the refusal of a file who named it, if the job did not, and what to say to go on without it."""
    try:
        yield
    except ClusterError as error:
        if said_by := _named_by(draft, setting):
            without = f"; {setting}=null goes on without" if setting in MAPS else ""
            error.detail += f" (named by {said_by}{without})"
        raise


def _named_by(draft: Draft, setting: str) -> str:
    """Return who named a file, empty if the job did."""
    key = BY_NAME[setting].pyme_key
    entry = None if key is None else draft.metadata.get(key)
    is_meant = entry is not None and draft.analysis.get(setting) == entry.value
    return entry.source if entry is not None and is_meant and entry.source != "job" else ""


def _common(draft: Draft, now: float) -> dict[str, Any]:
    facts = draft.located.facts
    return {
        "job_id": secrets.token_hex(6),
        "series": facts.path,
        "fit": draft.analysis["fit"],
        "analysis": draft.analysis,
        "metadata": draft.metadata,
        "facts": facts,
        "declared": draft.declared,
        "maps": draft.maps,
        "dataservers": list(
            ({server.id: server for server in draft.located.servers} | draft.servers).values()
        ),
        "notes": [*draft.notes, *_missing_notes(draft)],
        "created": now,
    }


def _named(check: Callable[[], T]) -> T:
    """Turn what `fitting` says into the error of the wire, with the field or keys it names."""
    try:
        return check()
    except InvalidSettings as error:
        raise Invalid(str(error), field=f"analysis.{error.field}") from error
    except InvalidMetadata as error:
        raise Invalid(str(error), field="metadata", keys=list(error.keys)) from error
    except FittingError as error:
        raise Invalid(str(error), field="analysis") from error


def _check_encodable(name: str, values: Mapping[str, Any]) -> None:
    """Refuse what could not be written down: lone surrogates, or nesting beyond all sense."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
        deepest = _depth(values)
    except (UnicodeEncodeError, RecursionError) as error:
        raise Invalid(f"{name}: holds what cannot be written down: {error}", field=name) from error
    if deepest > _DEEPEST:
        raise Invalid(f"{name}: is nested more than {_DEEPEST} deep", field=name)


def _depth(value: Any) -> int:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(_depth, inner), default=0)
    return 0


def _followed_range(draft: Draft) -> tuple[int, int]:
    """Return where to begin with a series that grows, twice: nothing can be done before it is known how far it is."""
    start, _ = _named(lambda: fits.analysed_range(draft.analysis, draft.values, _ENDLESS))
    return start, start


def _analysed_range(draft: Draft) -> tuple[int, int]:
    frames = draft.located.facts.frames
    start, stop = _named(lambda: fits.analysed_range(draft.analysis, draft.values, frames))
    if start >= stop:
        raise Invalid(
            f"start_at: frame {draft.analysis['start_at']} is not among the {frames} frames of {draft.located.facts.path}",
            field="analysis.start_at",
        )
    return start, stop


def _check_metadata(draft: Draft, settings: Mapping[str, object]) -> None:
    """Refuse metadata that are incomplete; what was doubtful about profiles may be why."""
    try:
        _named(lambda: fits.check_metadata(settings, draft.values))
    except Invalid as error:
        error.detail += "".join(f"; {doubt}" for doubt in draft.doubts)
        raise


def _check_roi(draft: Draft) -> None:
    roi, facts = draft.analysis["roi"], draft.located.facts
    if roi is not None and (roi[2] > facts.width or roi[3] > facts.height):
        raise Invalid(
            f"roi: {roi} does not lie in the frame, which is {facts.width} × {facts.height} px",
            field="analysis.roi",
        )


def _check_psf_channels(draft: Draft, path: str, channels: int) -> None:
    fit = fits.find(draft.analysis["fit"], draft.elsewhere)
    needed = fit.channels or channels_of(draft.analysis)
    if channels not in (1, needed):
        raise Invalid(
            f"psf: {path} holds {channels} channels side by side, and {fit.name} fits {needed}",
            field="analysis.psf",
        )


def _check_channels(draft: Draft) -> None:
    """Find out now whether the channels of a beam splitter lie in the frame."""
    facts, values = draft.located.facts, draft.values
    fit, shape = fits.find(draft.analysis["fit"], draft.elsewhere), (facts.height, facts.width)
    if fit.channels != 1:
        places = _named(lambda: rectangles(fit, draft.analysis, values, shape))
        _named(lambda: place(places, shape, chip_origin(values), draft.analysis["roi"]))
        draft.notes += _assumed_of_channels(fit, draft.analysis)


def _assumed_of_channels(fit: fits.Fit, analysis: Mapping[str, Any]) -> list[str]:
    """Say what nobody said: wrong channels give rows that look like results."""
    said = []
    if fit.channels == 2 and analysis["channel0_roi"] is None and analysis["channel1_roi"] is None:
        flipped = ", the lower one upside down" if analysis["flip"] else ""
        said.append(f"channel0_roi and channel1_roi are not given: the upper and the lower half{flipped}")
    if analysis["shifts"] is None and fit.name != SHIFT_FIT:  # which measures them
        said.append("shifts is not given: the channels are taken to lie exactly over each other")
    return said


def _missing_notes(draft: Draft) -> list[str]:
    missing = sum(stop - start for start, stop in draft.located.facts.missing)
    return (
        [f"{missing} of {draft.located.facts.frames} frames cannot be read from the file"] if missing else []
    )


def _preview_frames(asked: int | list[int], start: int, stop: int) -> list[int]:
    if isinstance(asked, int):
        count = min(asked, stop - start)
        if not 1 <= asked <= 1000:
            raise Invalid("frames: a test takes 1 to 1000 frames", field="frames")
        return [start + (stop - start) * index // count for index in range(count)]
    outside = [frame for frame in asked if not start <= frame < stop]
    if outside or not asked or len(asked) > 1000:
        raise Invalid(
            f"frames: {outside or asked} must lie from {start} to {stop - 1}, 1000 at most", field="frames"
        )
    return sorted(set(asked))
