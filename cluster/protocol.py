"""Every message on the wire, and nothing else. Unknown fields are refused.

Requests and replies of the public REST interface come first, then the workers' own protocol. Bulk data (frames,
results) travel as binary bodies: see `cluster.arrays`. Times are seconds; wall-clock times are Unix seconds (UTC).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.unseen import Name

PROTOCOL_VERSION = 1
SERVICE_TYPE = "_clusterofone._tcp.local."
DEFAULT_PORTS = {"scheduler": 15400, "dataserver": 15440, "web": 15480}

JobState = Literal["waiting", "queued", "running", "done", "done_with_errors", "cancelled", "failed"]
Role = Literal["viewer", "submitter", "worker", "owner"]
JobKind = Literal["localise", "preview"]
CalibrationKind = Literal["psf", "shifts", "camera_maps", "drift"]
DriftMethod = Literal["markers", "correlation"]
CalibrationState = Literal["queued", "running", "done", "failed", "cancelled"]

Text = Annotated[str, Field(max_length=1024)]
Frame = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Message(BaseModel):
    """A value on the wire: frozen, and strict about what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- who is there -----------------------------------------------------------------------------------------------


class DataServerInfo(Message):
    """Where a data server can be reached; a client tries the addresses in order. `certificate`: the fingerprint of what it shows."""

    id: Text
    machine: Text
    host: Text
    port: int = Field(ge=1, le=65535)
    addresses: list[Text] = Field(max_length=32)
    tls: bool = False
    certificate: Text | None = None


class Identity(Message):
    """What anyone may know of a cluster."""

    service: Literal["clusterofone"] = "clusterofone"
    role: Literal["scheduler", "dataserver"]
    cluster_id: Text
    name: Text
    machine: Text
    protocol: int = PROTOCOL_VERSION
    version: Text
    join: Literal["approve", "open", "token"] = "token"
    dataservers: list[DataServerInfo] = []
    web: str | None = None


class PageRegistration(Message):
    """The page says where browsers find it."""

    url: Annotated[str, Field(pattern="^https?://", max_length=1024)]


class DataServerRegistration(Message):
    """A data server says where it is."""

    info: DataServerInfo
    protocol: int
    version: Text


class DataServerRegistered(Message):
    """The reply: how to recognise the cluster's tokens without holding its secret."""

    cluster_id: Text
    name: Text
    verifiers: dict[Role, Text]
    refresh_s: float


# --- series -----------------------------------------------------------------------------------------------------


class MetadataValue(Message):
    """A value and where it came from: "file", "sidecar NAME", "job", "profile: NAME.toml", "estimated …"."""

    value: Any
    source: Text


class Growing(Message):
    """How the end of a series will show that another program writes.

    `promised` is how many frames its files say there will be; `torn`: something of a further frame is there, or room for it; `marked`:
    the end will be said, by the number promised or by a mark. Without one the series ends when it comes to rest.
    """

    promised: int | None = Field(default=None, ge=0)
    torn: bool = False
    marked: bool = False


class SeriesFacts(Message):
    """What a series is, without its frames.

    `frames` counts what the file says it holds; `missing` lists the half-open ranges of these that cannot be read. One
    that was asked for as `growing` counts those that are there for good.
    """

    path: Text
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    dtype: Literal["uint8", "uint16", "float32"]
    frames: int = Field(ge=0)
    missing: list[tuple[Frame, Frame]] = []
    complete: bool = True
    fingerprint: Text
    bytes: int = Field(ge=0)
    format: Text
    metadata: dict[str, MetadataValue] = {}
    events: int = Field(default=0, ge=0)
    growing: Growing | None = None


class FrameRun(Message):
    """Frames [frame, frame + count) of a series lie in one file, each `stride` bytes after the one before."""

    frame: Frame
    count: int = Field(ge=1)
    file: int = Field(ge=0)
    offset: int = Field(ge=0)
    stride: int = Field(ge=1)


class SeriesPlace(Message):
    """Where the frames of a series lie, as they are served, for a worker that can open the files itself.

    `files` are the data server's own paths, those that hold frames first; the fingerprint is over all of them. Frames
    that no run names are missing.
    """

    fingerprint: Text
    files: list[Annotated[str, Field(max_length=4096)]] = Field(max_length=4096)
    stamps: list[tuple[int, int]] = Field(max_length=4096)
    runs: list[FrameRun] = Field(max_length=4096)


class SeriesEntry(Message):
    """One line of a listing."""

    path: Text
    kind: Literal["folder", "series", "calibration"]
    bytes: int | None = None
    modified: float | None = None


class SeriesListing(Message):
    """What lies under a folder of the data server."""

    under: Text
    entries: list[SeriesEntry]


class RootSpace(Message):
    """A folder that a data server serves, and the room on its disk; null where the folder is not there now."""

    path: Annotated[str, Field(max_length=4096)]
    free_bytes: int | None
    total_bytes: int | None
    writable: bool


class SeriesEvent(Message):
    """One acquisition event (PYME's Events table)."""

    name: Text
    description: Text
    time: float


class NoiseStep(Message):
    """Values rounded to steps that are small beside the noise, so that frames take less room; not undone.

    The noise of a value v is sqrt(adu_per_e * (v - offset_adu) + read_noise_adu²); with an EM gain `adu_per_e` is twice
    the gain. A step is `step_sigma` of it.
    """

    adu_per_e: float = Field(gt=0, allow_inf_nan=False)
    offset_adu: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    read_noise_adu: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    step_sigma: float = Field(default=0.5, gt=0, le=2)


class NewSeries(Message):
    """A series to be acquired: `frames` is how many are expected, `chunk_frames` how many lie in one file; null: as suits."""

    height: int = Field(ge=1, le=65535)
    width: int = Field(ge=1, le=65535)
    dtype: Literal["uint8", "uint16", "float32"] = "uint16"
    frames: Frame | None = None
    metadata: dict[str, Any] = Field(default={}, max_length=4096)
    chunk_frames: int | None = Field(default=None, ge=1, le=65536)
    lossy: NoiseStep | Literal[False] = False


class Appended(Message):
    """Frames [start, stop) are on the disk: `new` of them by this append, the others were there already, the same."""

    start: Frame
    stop: Frame
    new: int


class Completion(Message):
    """No more frames come; `frames` is how many there should be, null: as many as are there."""

    frames: Frame | None = None


class UploadedFile(Message):
    """A file that was put under the roots."""

    path: Text
    bytes: int
    sha256: Text


class CalibrationFile(Message):
    """What a small calibration file under the roots holds: a shift field, a list of them, or width curves.

    `digest` identifies it, whatever the file's white space and notes.
    """

    path: Text
    value: Any
    digest: Text


# --- jobs -------------------------------------------------------------------------------------------------------


class JobRequest(Message):
    """Localise this series with these settings."""

    series: Annotated[str, Field(min_length=1, max_length=1024)]
    analysis: dict[str, Any] = Field(default={}, max_length=256)
    metadata: dict[str, Any] = Field(default={}, max_length=4096)
    output: Text | None = None
    name: Name | None = None
    owner: Name | None = None
    machine: Name | None = None
    priority: int = Field(default=0, ge=-100, le=100)
    follow: bool = False


class FrameCounts(Message):
    """The ledger: total = localised + skipped + failed + those still to do."""

    total: int
    localised: int
    skipped: int
    failed: int


class FailedFrames(Message):
    """A half-open range of failed frames, and why."""

    start: Frame
    stop: Frame
    reason: str


class Job(Message):
    """A job as everyone sees it."""

    id: Text
    name: Text
    owner: Text
    machine: Text
    kind: JobKind
    state: JobState
    series: Text
    priority: int
    fit: Text
    frames: FrameCounts
    tasks_running: int
    retries: int
    localisations: int
    rate_frames_per_s: float | None
    eta_s: float | None
    output: str | None
    error: str | None
    failed_frames: list[FailedFrames] = []
    notes: list[str] = []
    created: float
    started: float | None
    finished: float | None


class JobList(Message):
    """Jobs, newest first."""

    jobs: list[Job]


class JobDetail(Job):
    """A job with everything that decides its result."""

    analysis: dict[str, Any]
    metadata: dict[str, MetadataValue]
    facts: SeriesFacts


class JobFault(Message):
    """Why a job would be refused: in words, and the field or the metadata keys it is about."""

    detail: str
    field: Text | None = None
    keys: list[Text] = []


class JobCheck(Message):
    """What a job would be if it were submitted now: every setting and metadata value, where each is from, and what is wrong.

    `required` says what each metadata key is without which this fit does not start; `missing` are those nobody gave. [start, stop) are the frames
    that would be localised. With a `fault` the job would be refused, and `analysis` may be only what was asked for.
    """

    facts: SeriesFacts
    analysis: dict[str, Any]
    metadata: dict[str, MetadataValue]
    required: dict[str, str]
    missing: list[str]
    start: Frame | None = None
    stop: Frame | None = None
    fault: JobFault | None = None
    notes: list[str] = []


class PictureQuery(Message):
    """What of a job's localisations a picture shows and how; the same as the options of `clusterofone render`.

    `region` is "x0,y0,x1,y1" [nm]; `colour_low` and `colour_high` are frames, or nm of z; `white` localisations in a pixel are white. `filters` are ranges,
    "photons=300..5000,precision_nm=..20"; `drift` takes a drift off that was estimated from markers or by cross-correlation.
    """

    pixel_nm: float | None = Field(default=None, gt=0, le=10_000)
    style: Literal["gaussian", "histogram"] = "gaussian"
    region: Text | None = None
    colour_by: Literal["frame", "z"] | None = None
    colour_low: float | None = None
    colour_high: float | None = None
    gamma: float = Field(default=0.5, ge=0.05, le=10)
    brightest: float = Field(default=0.99, gt=0, le=1)
    white: float | None = Field(default=None, ge=1e-6, le=1e9)
    filters: Text | None = None
    drift: DriftMethod | None = None


class Histogram(Message):
    """How often a quantity has which value: counts in equal bins from `low` to `high`, of all and of those that the filters of the others choose.

    `median` is that of the chosen.
    """

    name: Text
    title: str
    unit: str
    low: float
    high: float
    all: list[int]
    chosen: list[int]
    median: float | None


class JobHistograms(Message):
    """The localisations so far, counted; of many one in `every` was looked at."""

    localisations: int
    chosen: int
    every: int
    histograms: list[Histogram]


class JobDrift(Message):
    """By how much the sample moved [nm], at some frames; between them it is interpolated, and its start is zero.

    `error_nm` is how far the estimates contradict each other, or the standard error of a marker's curve.
    """

    method: DriftMethod
    frame: list[float]
    x_nm: list[float]
    y_nm: list[float]
    error_nm: float | None
    notes: list[str] = []


class PreviewRequest(Message):
    """The Test button: localise a few frames, by number or spread through the series."""

    series: Annotated[str, Field(min_length=1, max_length=1024)]
    analysis: dict[str, Any] = Field(default={}, max_length=256)
    metadata: dict[str, Any] = Field(default={}, max_length=4096)
    frames: int | list[Frame] = 12
    owner: Name | None = None


class PreviewCandidate(Message):
    """A detection; `fitted` says whether it became a row (else a brighter one was too near)."""

    x_px: float
    y_px: float
    snr: float
    fitted: bool


class PreviewRow(Message):
    """A fitted localisation, in pixels and photons."""

    x_px: float
    y_px: float
    sigma_px: float | None
    photons: float | None
    error_x_nm: float | None
    z_nm: float | None = None
    status: int


class PreviewFrame(Message):
    """What was found in one frame."""

    frame: int
    status: Literal["localised", "skipped", "failed"]
    reason: str | None = None
    candidates: list[PreviewCandidate] = []
    rows: list[PreviewRow] = []


class ChannelBox(Message):
    """The part of a frame that a channel of a beam splitter shows, half open [px]; positions are those of the first channel."""

    top: int
    bottom: int
    left: int
    right: int
    flipped: bool


class Preview(Message):
    """The reply to a Test; `channels` is empty for a fit of one channel."""

    job_id: Text
    series: Text
    fit: Text
    analysis: dict[str, Any]
    seconds: float
    frames: list[PreviewFrame]
    channels: list[ChannelBox] = []
    notes: list[str] = []


class FitInfo(Message):
    """A fit type and the JSON schema of its settings."""

    name: Text
    aliases: list[Text]
    title: str
    description: str
    settings: dict[str, Any]


class PresetInfo(Message):
    """Settings under a name. `source` is "built-in" or the lab's file; `problem` says why it cannot be used as it is."""

    name: Text
    title: str
    settings: dict[str, Any]
    source: Text
    problem: str | None = None


class ProfileInfo(Message):
    """A microscope profile: for which series it is, and what it says of them.

    `matches` and `reason` are of the series that was asked about, None without one. `problem` says what is wrong with the file.
    """

    name: Text
    file: Text
    title: str = ""
    when: list[str] = []
    values: dict[str, Any] = {}
    maps: list[dict[str, Any]] = []
    matches: bool | None = None
    reason: str | None = None
    problem: str | None = None


class ProfileListing(Message):
    """The microscope profiles in the lab's folder, and what a series would get of them.

    `filled` holds what profiles and folders of camera maps say of the series, `missing` the keys that its jobs would still lack with the default
    settings; `problem` says why its jobs would be refused.
    """

    folder: str | None
    profiles: list[ProfileInfo]
    series: Text | None = None
    filled: dict[str, MetadataValue] = {}
    missing: list[str] = []
    notes: list[str] = []
    problem: str | None = None


# --- calibrations -----------------------------------------------------------------------------------------------


class CalibrationRequest(Message):
    """Make a calibration from series under one root of a data server.

    `series` are bead stacks, a series of beads, or the dark series and then the lit ones. `options` are those of the kind. `metadata`
    are PYME's keys over what the files say. `output` is relative to the root of the first series; null: beside it in `analysis/`.
    """

    kind: CalibrationKind
    series: list[Annotated[str, Field(min_length=1, max_length=1024)]] = Field(min_length=1, max_length=64)
    options: dict[str, Any] = Field(default={}, max_length=256)
    metadata: dict[str, Any] = Field(default={}, max_length=4096)
    output: Annotated[str, Field(min_length=1, max_length=1024)] | None = None


class CalibrationOrder(Message):
    """The scheduler has a data server make a calibration; the same id again is the same one."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    request: CalibrationRequest


class CalibrationFinding(Message):
    """One thing to know of a calibration: `warning` wants another recording or an option, `good` is as it should be."""

    level: Literal["warning", "note", "good"]
    text: str


class CalibrationRun(Message):
    """A calibration as everyone sees it; `output` and `files` are relative to the root of the first series.

    While it is running `doing` says what is being done, in words or by the name of the series that is read, and `fraction` how much of that is; null
    where nobody knows.
    """

    id: Text
    kind: CalibrationKind
    state: CalibrationState
    series: list[Text]
    options: dict[str, Any]
    metadata: dict[str, Any]
    output: str
    doing: str | None = None
    fraction: float | None = Field(default=None, ge=0.0, le=1.0)
    error: str | None = None
    findings: list[CalibrationFinding] = []
    numbers: dict[str, Any] = {}
    files: dict[str, str] = {}
    created: float
    started: float | None = None
    finished: float | None = None


class CalibrationRuns(Message):
    """Calibrations, newest first."""

    calibrations: list[CalibrationRun]


class CalibrationKindInfo(Message):
    """A kind of calibration and the JSON schema of its options."""

    name: CalibrationKind
    title: str
    description: str
    most_series: int
    options: dict[str, Any]


# --- workers ----------------------------------------------------------------------------------------------------


class Versions(Message):
    """What must match for two machines to give the same numbers."""

    clusterofone: Text
    numpy: Text
    numba: Text
    python: Text


class FitDeclaration(Message):
    """A fit of another package, as a worker that has it declares it: plain values by which its settings are validated (`fitting.foreign`).

    `identity` is one of the `fits` of the worker: name, package and version.
    """

    identity: Text
    facts: dict[str, Any] = Field(max_length=64)


class WorkerRegistration(Message):
    """A worker process says hello; `declared` are its fits of other packages, which the scheduler may lack."""

    machine: Name
    host: Name
    pid: int = Field(ge=0)
    cores: int = Field(ge=1)
    protocol: int
    versions: Versions
    cpu: Text
    fits: list[Text] = Field(max_length=256)
    declared: list[FitDeclaration] = Field(default=[], max_length=64)


class WorkerRegistered(Message):
    """The reply: the worker's name for all further requests."""

    worker_id: Text
    cluster_id: Text
    epoch: int
    lease_s: float
    keep_alive_s: float


class WorkerLoad(Message):
    """How busy a worker's process and its machine were since it last said so.

    `cores` is how many cores the process used, `machine_cpu` and `machine_memory` are shares of the whole machine's.
    """

    cores: float = Field(ge=0, le=4096, allow_inf_nan=False)
    memory_bytes: int = Field(ge=0)
    machine_cpu: float = Field(ge=0, le=1, allow_inf_nan=False)
    machine_memory: float = Field(ge=0, le=1, allow_inf_nan=False)


class Worker(Message):
    """A worker as everyone sees it."""

    id: Text
    host: Text
    pid: int
    version: Text
    state: Literal["idle", "working", "lost", "excluded", "draining"]
    job: Text | None
    frames: int
    rate_frames_per_s: float | None
    last_seen: float
    excluded: str | None
    load: WorkerLoad | None = None


class LeaseRequest(Message):
    """A worker asks for work; the scheduler holds the request until there is some, `wait_s` at most."""

    count: int = Field(default=1, ge=1, le=1024)
    wait_s: float = Field(default=0.0, ge=0.0, le=60.0)


class Lease(Message):
    """Permission to run one attempt of one task: the frames [start, stop).

    `series_frames`: of a series that grows, how many frames it has as far as this task may know.
    """

    job_id: Text
    task_id: int
    attempt: int = Field(ge=1)
    start: Frame
    stop: Frame
    lease_s: float
    series_frames: Frame | None = None


class Leases(Message):
    """What a worker got; empty means ask again."""

    leases: list[Lease]


class JobSpec(Message):
    """All that a worker must know of a job; it never changes, so it is fetched once.

    `maps` holds the fingerprint of each camera map and calibration at the time of the submit, by the name of its setting.
    """

    job_id: Text
    kind: JobKind
    series: Text
    fingerprint: Text
    height: int
    width: int
    dtype: Text
    frames: int
    missing: list[tuple[Frame, Frame]]
    fit: Text
    analysis: dict[str, Any]
    metadata: dict[str, Any]
    maps: dict[str, Text] = {}
    dataservers: list[DataServerInfo]


class HeldTask(Message):
    """One attempt a worker still works on."""

    job_id: Text
    task_id: int
    attempt: int


class KeepAlive(Message):
    """A worker is alive and still works on these."""

    held: list[HeldTask] = Field(default=[], max_length=1024)
    load: WorkerLoad | None = None


class KeptAlive(Message):
    """The reply: leases that are no longer this worker's, and whether it should stop asking for work."""

    lost: list[HeldTask] = []
    drain: bool = False


class Committed(Message):
    """A result is durable. `next` holds the leases asked for in the same request."""

    outcome: Literal["committed", "already"]
    next: list[Lease] = []


class TaskFailure(Message):
    """An attempt came to nothing.

    "error": the fit raised; "refused": this worker cannot do it (data unreachable, fit unknown); "handed_back": a
    planned stop, which counts against nobody; "invalid": the input itself is wrong, so that no other worker need try;
    "changed": the series is not the one that the job began with, so that nothing more of the job need be tried.
    """

    kind: Literal["error", "refused", "handed_back", "invalid", "changed"]
    attempt: int = Field(ge=1)
    message: Annotated[str, Field(max_length=4096)]
    traceback: Annotated[str, Field(max_length=65536)] | None = None


class LogTail(Message):
    """The last lines that the scheduler logged, oldest first."""

    lines: list[str]


class JoinRequest(Message):
    """A machine asks to be let in; `secret` is its own, so that nobody else can collect the answer."""

    machine: Name
    host: Name
    cores: int = Field(ge=1)
    version: Name
    secret: Annotated[str, Field(min_length=32, max_length=128)]


class JoinReply(Message):
    """202 while a person has not decided; then the worker token, or a refusal."""

    state: Literal["waiting", "approved", "refused"]
    token: str | None = None
    cluster_id: Text
    name: Text


class PendingJoin(Message):
    """A machine that waits at the door."""

    id: Text
    host: Text
    address: Text
    cores: int
    version: Text
    asked: float


class PendingJoins(Message):
    """All that wait."""

    waiting: list[PendingJoin]


class JoinDecision(Message):
    """Let it in, or not."""

    approve: bool


class Problem(BaseModel):
    """An error on the wire (RFC 9457); some have more fields, such as `field` or `keys`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    code: str
    detail: str


class Health(Message):
    """`/healthz`."""

    status: Literal["ok"] = "ok"
    role: Text
