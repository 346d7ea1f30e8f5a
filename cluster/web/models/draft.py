"""A job while somebody puts it together: series, fit, settings that differ from the defaults, metadata that were typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import Invalid, NotFound
from cluster.protocol import FitInfo, JobDetail, JobRequest, PresetInfo, PreviewRequest
from cluster.web.models.setting_fields import SettingField, changed, fields_of, filled

MICROSCOPE = "microscope"
Rectangle = tuple[int, int, int, int]


@dataclass
class Draft:
    """What will be asked for. `values` are the settings by name, complete; `edits` the metadata that were typed here.

    `microscope` is a profile by name, "none" for none of them; None: those that say that they are for the series. `mistakes` are what was
    typed into the form and cannot be taken, by setting: nothing is tested or started before they are put right.
    """

    series: list[str]
    fits: list[FitInfo]
    fit: str
    values: dict[str, Any] = field(default_factory=dict)
    edits: dict[str, Any] = field(default_factory=dict)
    fields: list[SettingField] = field(default_factory=list)
    follow: bool = False
    priority: int = 0
    microscope: str | None = None
    mistakes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, series: list[str], fits: list[FitInfo], fit: str = "LatGaussFitFR") -> Draft:
        """Return a draft with every setting at its default."""
        draft = cls(series, fits, fit)
        draft.choose_fit(fit)
        return draft

    @classmethod
    def like(cls, job: JobDetail, fits: list[FitInfo], series: list[str] | None = None) -> Draft:
        """Return a draft with the settings of a job, and the metadata that were given for it."""
        draft = cls.begin(series or [job.series], fits, job.fit)
        draft.values = filled(draft.fields, job.analysis)
        draft.edits = {key: entry.value for key, entry in job.metadata.items() if entry.source == "job"}
        return draft

    def choose_fit(self, name: str) -> None:
        """Change the type of fit; settings that both know keep what was chosen.

        Raises
        ------
        NotFound
            If there is no such fit here.
        """
        info = next((one for one in self.fits if name in (one.name, *one.aliases)), None)
        if info is None:
            raise NotFound(
                f"there is no fit {name!r} here; there are {', '.join(one.name for one in self.fits)}"
            )
        kept = changed(self.fields, self.values)
        self.fit = info.name
        self.fields = fields_of(info.settings)
        self.values = filled(self.fields, kept)
        self.mistakes = {}

    def set(self, setting: SettingField, given: Any) -> bool:
        """Take what was typed or chosen for a setting, or note why it cannot be taken; return whether anything is different now."""
        try:
            value = setting.parsed(given)
        except Invalid as error:
            self.mistakes[setting.name] = error.detail
            return True
        mended = self.mistakes.pop(setting.name, None) is not None
        differs = value != self.values[setting.name]
        self.values[setting.name] = value
        return mended or differs

    def reset(self) -> None:
        """Take every setting back to its default."""
        self.values = {one.name: one.default for one in self.fields}
        self.mistakes = {}

    @property
    def mistake(self) -> str:
        """Return the first thing in the form that cannot be taken, empty if all can."""
        return next(iter(self.mistakes.values()), "")

    def choose_preset(self, preset: PresetInfo) -> None:
        """Take over the settings of a preset; the others stay. Raises `NotFound` if it wants a fit that is not here."""
        if "fit" in preset.settings:
            self.choose_fit(str(preset.settings["fit"]))
        if MICROSCOPE in preset.settings:
            self.microscope = str(preset.settings[MICROSCOPE])
        self.mistakes = {}
        said = {**preset.settings, **(preset.settings.get("options") or {})}
        self.values |= {one.name: said[one.name] for one in self.fields if one.name in said}

    @property
    def threshold(self) -> float:
        """Return the detection threshold."""
        return float(self.values.get("threshold", 1.0))

    @property
    def roi(self) -> Rectangle | None:
        """Return the part to analyse [px]."""
        value = self.values.get("roi")
        if not isinstance(value, list) or len(value) != 4:
            return None
        x0, y0, x1, y1 = (int(bound) for bound in value)
        return x0, y0, x1, y1

    @property
    def analysis(self) -> dict[str, Any]:
        """Return the settings as a job says them: the fit, and what differs from its defaults."""
        chosen = {} if self.microscope is None else {MICROSCOPE: self.microscope}
        return {"fit": self.fit, **chosen, **changed(self.fields, self.values)}

    def edit(self, key: str, value: Any) -> None:
        """Give a metadata value; None takes back what was typed."""
        if value is None:
            self.edits.pop(key, None)
        else:
            self.edits[key] = value

    def request(self, series: str, owner: str | None = None) -> JobRequest:
        """Return the job of one of the series."""
        return JobRequest(
            series=series,
            analysis=self.analysis,
            metadata=dict(self.edits),
            owner=owner,
            follow=self.follow,
            priority=self.priority,
        )

    def preview(self, frames: int | list[int]) -> PreviewRequest:
        """Return the Test of the first series."""
        return PreviewRequest(
            series=self.series[0], analysis=self.analysis, metadata=dict(self.edits), frames=frames
        )

    def saved(self) -> Mapping[str, Any]:
        """Return what `load` takes back."""
        return {"analysis": self.analysis, "metadata": dict(self.edits)}

    def load(self, saved: Any) -> None:
        """Take over what was saved; unknown settings are refused.

        Raises
        ------
        Invalid
            If this is not what `saved` gives.
        NotFound
            If there is no such fit here.
        """
        analysis = saved.get("analysis") if isinstance(saved, dict) else None
        metadata = saved.get("metadata", {}) if isinstance(saved, dict) else None
        if not isinstance(analysis, dict) or not isinstance(metadata, dict):
            raise Invalid(
                'a file of settings has "analysis" and "metadata"; save one here to see', field="analysis"
            )
        self.choose_fit(str(analysis.get("fit", self.fit)))
        known = {"fit", "options", MICROSCOPE, *(one.name for one in self.fields)}
        if unknown := [name for name in analysis if name not in known]:
            raise Invalid(f"{self.fit} has no setting {', '.join(unknown)}", field=f"analysis.{unknown[0]}")
        self.values = filled(self.fields, analysis)
        self.edits = dict(metadata)
        microscope = analysis.get(MICROSCOPE)
        self.microscope = None if microscope is None else str(microscope)


def rectangle_px(drawn: Mapping[str, float], height: int, width: int) -> Rectangle | None:
    """Return a rectangle that was drawn over a frame, as whole pixels [x0, y0, x1, y1) within it; None if it is smaller than 8 of them.

    `drawn` has x0, y0, x1, y1 as fractions of the frame, in any order.
    """
    bounds = []
    for first, second, length in (("x0", "x1", width), ("y0", "y1", height)):
        low, high = sorted((drawn[first], drawn[second]))
        bounds.append((max(0, round(low * length)), min(length, round(high * length))))
    (x0, x1), (y0, y1) = bounds
    return (x0, y0, x1, y1) if x1 - x0 >= 8 and y1 - y0 >= 8 else None
