"""All that a parent can ask of a worker: one struct a request, which names the type of its reply.

A request is sent with its class name as tag, an answer as Done, Refused or Line. Folders and
files are absolute paths as text.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args

import msgspec

from ..artefacts.manifest import Signature
from ..lookup.workloads import Axis, Reference, Returns
from ..machine.telemetry import Span, Window
from ..terms.case import Case
from ..terms.contract import Overhead, Schedule
from ..terms.reasons import Reason
from ..terms.result import Placement
from ..terms.work import Subject, TaskMetric
from .timing import Turn, WarmUp

Reply = TypeVar("Reply")


class Request(msgspec.Struct, Generic[Reply], frozen=True, tag=True):
    """What a worker is asked to do."""

    @property
    def name(self) -> str:
        """The request in words that stand in a message: `warm up`."""
        letters = type(self).__name__
        return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in letters).strip()

    @classmethod
    def reply(cls) -> Any:
        """The type that the reply is decoded to."""
        return get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]  # typing sets it


class Imported(msgspec.Struct, frozen=True):
    """peak_bytes: of the process after its imports. threads: how many it has then."""

    peak_bytes: int
    threads: int


class LoadedCase(msgspec.Struct, frozen=True):
    """A case that was loaded and called once."""

    load_s: float
    first_call_s: float
    # Peak resident memory while loading, and during the first call.
    load_peak_bytes: int
    first_call_peak_bytes: int
    # Whether loading asked for the module's source.
    needs_source: bool
    # Whether the scheduler prefers this worker, and if not why.
    priority: str
    # Why there is no energy counter; None where there is one.
    no_meter: Reason | None


class Built(msgspec.Struct, frozen=True):
    """What a build left in its folder."""

    signature: Signature
    # Library -> version in the building process.
    libraries: dict[str, str]
    # Phase -> seconds; empty where a case was proven, whose ladder has them.
    ledger: dict[str, float] = {}
    artefact_bytes: int = 0


class Referred(msgspec.Struct, frozen=True):
    """What the referee knows of the workload, and inputs and outputs as the harness feeds it."""

    subject: Subject
    signature: Signature
    # What dimension 0 of the inputs is.
    axis: Axis
    # Whether forward returns what has to be taken apart.
    returns: Returns
    # Kinds of inputs that outputs are compared on.
    kinds: tuple[str, ...]
    # The inputs and what was left out, a line each.
    notes: tuple[str, ...]
    # Precisions in which eager does not run, or not alike each time.
    refused: dict[str, Reason]


class Array(msgspec.Struct, frozen=True):
    """An array. dtype: as numpy spells it."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes


class Sampled(msgspec.Struct, frozen=True):
    """One turn."""

    turn: Turn
    # J a call; None without a counter.
    joules: float | None
    # The outputs of its last call, whose number nothing told beforehand, and which of the rotating
    # inputs that call had; empty where nothing is compared.
    outputs: list[Array]
    inputs: int
    # What the worker's clock shows at the end.
    clock_s: float


class Audited(msgspec.Struct, frozen=True):
    """Single calls, timed as those of a turn are, with inputs that were kept back until now."""

    # Seconds of each call with such inputs, and of the call with rotating ones after it.
    fresh_s: list[float]
    seen_s: list[float]
    # Seconds of placing the inputs of each such call, and of fetching its outputs at once.
    place_s: list[float]
    fetch_s: list[float]
    # Seconds of copying as many bytes as one has in inputs and outputs.
    copy_s: float
    # The outputs of one of them, and which of the inputs it had.
    outputs: list[Array]
    inputs: int


class Weighed(msgspec.Struct, frozen=True):
    """The energy of a window of calls, or why there is none."""

    window: Window | None
    reason: Reason | None = None


class Finished(msgspec.Struct, frozen=True):
    """The end of a block."""

    run_peak_bytes: int
    # Source -> bytes of the GPU's memory that are this process's.
    gpu: dict[str, int]
    # The GPU before and after the block, or why it is not known.
    device: Span | None
    no_device: Reason | None


class LoadedSource(msgspec.Struct, frozen=True):
    """Where loaded code came from.

    inside: file in the worktree -> SHA-256 of what was loaded. outside: files that came from the
    repository's working copy instead.
    """

    inside: dict[str, str]
    outside: list[str]


class Fork(Request[int], frozen=True):
    """Starts a worker whose channel and log follow as descriptors. Replies its process id."""


class Reap(Request[int], frozen=True):
    """Waits for a forked worker. Replies its exit status, or minus the number of its signal."""

    pid: int


class Preload(Request[Imported], frozen=True):
    """Imports modules."""

    names: list[str]


class Prefer(Request[str], frozen=True):
    """Asks the scheduler to prefer this worker. Replies whether it does, and if not why."""


class TraceSource(Request[LoadedSource], frozen=True):
    """Tells what of a repository this worker has loaded."""

    repository: str
    worktree: str


class MakeReady(Request[None], frozen=True):
    """Trains the workload if it has to be trained."""

    reference: Reference


class Refer(Request[Referred], frozen=True):
    """Makes the reference outputs of a race; the worker stays its referee."""

    reference: Reference
    batch: int
    precisions: list[str]
    target: str
    folder: str
    threads: int


class Examine(Request[int], frozen=True):
    """Replies the batch of a workload that takes no other; 1 for one that takes any."""

    reference: Reference


class Fingerprint(Request[str], frozen=True):
    """Replies a hash of what the workload is built from. Of the referee."""


class Score(Request[dict[str, float]], frozen=True):
    """Scores outputs that another worker stored. Replies task metric -> value."""

    path: str


class MeasurePeaks(Request[dict[str, float]], frozen=True):
    """Measures what this machine can do at most. Replies name -> value in base units."""

    precision: str
    threads: int


class BuildCase(Request[Built], frozen=True):
    """Builds a case cold. fed: inputs and outputs as the harness feeds them."""

    reference: Reference
    case: Case
    folder: str
    threads: int
    fed: Signature


class ProveCase(Request[Built], frozen=True):
    """Proves a case without its device; the rungs are written into the folder as they come."""

    reference: Reference
    case: Case
    folder: str
    # The folder of the reference outputs.
    oracle: str
    # Longest sum behind any element of the outputs.
    terms: int
    task: TaskMetric | None
    threads: int
    fed: Signature


class LocateFault(Request[str], frozen=True):
    """Looks for the first wrong node of a case that was refused. Replies what to say of it."""

    reference: Reference
    case: Case
    artefact: str
    # Folders of the reference outputs and of its own, and the kinds of inputs that both have.
    oracle: str
    outputs: str
    kinds: tuple[str, ...]
    # Longest sum behind any element of the outputs.
    terms: int
    threads: int
    # Folder for the part of the file that is wrong, and what a person calls it.
    folder: str
    shown: str


class LoadCase(Request[LoadedCase], frozen=True):
    """Loads a case and calls it once. reference: its text is empty for an artefact by itself."""

    reference: Reference
    case: Case
    folder: str
    # Folder of the inputs that rotate and of those that are kept back.
    inputs: str
    # Folder of the reference outputs, for a backend that computes nothing; empty for all others.
    oracle: str
    threads: int
    # Whether the scheduler is asked to prefer this worker.
    preferred: bool = True
    # The user's function around the model, which is then what a call is; empty for the model alone.
    pipeline: str = ""


class Breakdown(msgspec.Struct, frozen=True):
    """Where one call of the function spends its time, s."""

    total_s: float
    # Inside the model, over all its calls.
    model_s: float
    # What takes longest of all that the function calls beside the model, in words, and its seconds.
    other: str
    other_s: float


class BreakDown(Request[Breakdown], frozen=True):
    """Replies where a call of the pipeline that was loaded spends its time."""

    pipeline: str


class RunStored(Request[None], frozen=True):
    """Runs stored batches (K, B, ...) and stores the outputs."""

    inputs: str
    outputs: str


class RunSplit(Request[None], frozen=True):
    """Runs a whole split (N, ...) and stores the outputs (N, ...)."""

    inputs: str
    outputs: str


class TellPlacement(Request[Placement], frozen=True):
    """Replies where the work ran, by the backend's own evidence."""


class Warm(Request[WarmUp], frozen=True):
    """Calls until the samples agree."""

    sample_s: float
    longest_s: float
    cap_s: float


class TakeTurn(Request[Sampled], frozen=True):
    """Takes one turn. compared: its last outputs are sent."""

    compared: bool


class Audit(Request[Audited | None], frozen=True):
    """Calls with inputs that were kept back. Replies None where there are none."""


class TakeTail(Request[list[float]], frozen=True):
    """Times single calls alone, for the percentiles. Replies their seconds."""

    cap_s: float


class Weigh(Request[Weighed], frozen=True):
    """Takes the energy of a window of calls on a GPU."""

    cap_s: float


class Record(Request[Overhead], frozen=True):
    """Records calls by the backend's own profiler into a file.

    about: what stands in front of the profile.
    """

    file: str
    schedule: Schedule
    about: dict[str, Any]


class Finish(Request[Finished], frozen=True):
    """Ends a block."""


AnyRequest = (
    Fork
    | Reap
    | Preload
    | Prefer
    | TraceSource
    | MakeReady
    | Refer
    | Examine
    | Fingerprint
    | Score
    | MeasurePeaks
    | BuildCase
    | ProveCase
    | LocateFault
    | LoadCase
    | BreakDown
    | RunStored
    | RunSplit
    | TellPlacement
    | Warm
    | TakeTurn
    | Audit
    | TakeTail
    | Weigh
    | Record
    | Finish
)


class Done(msgspec.Struct, frozen=True, tag=True):
    """A request that was done; its reply, encoded."""

    reply: msgspec.Raw


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A request that could not be done."""

    reason: Reason


class Line(msgspec.Struct, frozen=True, tag=True):
    """A line about a request that is still being done."""

    line: str


Answer = Done | Refused | Line
