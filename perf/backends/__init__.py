"""A way to run a workload is one file here, or in a package that the entry point group
`hotlap.backends` names.

The file's name is the backend's name; a leading underscore makes it none. What it holds:

SUMMARY: str
    One line for `hotlap doctor`.
OPTIONS: dict[str, tuple[str, ...]]
    Option -> permitted values, the default first.
PRELOAD: tuple[str, ...], or (case) -> the same
    Modules that a worker imports before anything is timed.
TARGETS: tuple[str, ...] (optional)
    How the targets begin for which it is one of the default backends; without it all.
SELF_CONTAINED: bool, or (case) -> bool (optional)
    Whether `load` needs nothing but the folder, so that hotlap bench-artefact can run it without
    the module's source; without it, whether there is a `build`. The first load that is seen has
    the last word.
TAKES_FILES: bool (optional)
    Whether it runs a workload that is an ONNX file and no module of torch; without it, no.
LOCATES: bool (optional)
    Whether `load` needs nothing of the folder but its model.onnx or model.xml, so that hotlap run
    --locate can look into it; without it, no.
LOADS: tuple[str, ...], or (case) -> the same (optional)
    The options that `load` looks at and `build` does not, `threads` among them: cases that differ
    in these alone share what was built. Without it, none.
FIXED_BATCH: (case) -> bool (optional)
    Whether what `build` leaves takes the case's batch size only, whatever a file beside it takes.
SCRIPT: str, launched(case) -> dict (optional)
    Lines of a program that load the folder and define predict(*arrays), with names folder, launch
    (what launched returns, and threads, batch), cpus (to bind threads to) and the modules of
    PRELOAD. Without it hotlap optimize leaves no predict.py.
instructions(case, folder) -> tuple[str, ...] (optional)
    The instruction sets, as /proc/cpuinfo names them, that machine code for the CPU in the folder
    may use: a machine that lacks one refuses the artefact. Without it there is no such code.
available(target) -> Reason | None
    None if it can run on the target; looks, imports nothing heavy.
supports(case) -> Reason | None
    The same for precision and options.
variables(case, threads) -> dict[str, str]
    Environment of the worker: threads and binding by the library's own means.
build(workload, case, folder, phase) -> None
    Writes what `load` needs into the folder; `with phase("export"):` names the time.
load(artefact) -> Step
placement(artefact, step) -> Placement
    Where the work really ran; called once after the outputs were checked.
verify(workload, case, folder, phase) -> Iterator[Proven] (optional)
    Proves a case for a GPU that is not here, rung by rung from L0 upwards (ladder.py). Raises
    Refusal where it cannot go on; what it gave until then is kept.
profile(artefact, step, feed, schedule, path) -> list[float] (optional)
    The library's own profiler over the calls of the feed, of which the last `active` are written
    to path, JSON that `hotlap review` reads (profiling.py). Returns their seconds.

`build` and `load` raise Refusal where they cannot go on. Nothing is unpickled from a folder.
"""
