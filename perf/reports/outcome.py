"""What came of a run, for the person who typed it: a sentence for each question that was asked,
then the artefact that is worth loading, and what to type next.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..artefacts import opening
from ..artefacts.manifest import Manifest
from ..lookup.cases import LIBRARY_DEFAULTS
from ..stats import estimates
from ..terms.case import Case, is_file
from ..terms.reasons import Misuse, Refusal
from ..terms.result import Result
from ..terms.units import scaled, significant
from .report import baseline, deviation, shown, standing, way

# As many causes as a sentence bears.
MOST_CAUSES = 3


def sentences(results: Sequence[Result]) -> list[str]:
    """Returns what came out, a sentence for each workload, batch size and target."""
    return [f"{question(members[0].case)}: {sentence(members)}" for members in asked(results)]


def asked(results: Sequence[Result]) -> list[list[Result]]:
    """Returns the results of each question that a person asked."""
    groups: dict[str, list[Result]] = {}
    for result in shown(results):
        groups.setdefault(result.case.group, []).append(result)
    return list(groups.values())


def question(case: Case) -> str:
    """Returns what all entrants of a race share, in words."""
    size = "" if case.batch == 1 else f" b{case.batch}"
    return f"{case.workload}{size}" + ("" if case.target == "cpu" or case.built_only else f" {case.target}")


def sentence(results: Sequence[Result]) -> str:
    """Returns what came out of one race."""
    timed = contenders(results)
    if not timed:
        return untimed(results)
    eager = baseline(results, timed[0])
    others = [result for result in timed if result is not eager]
    if eager is None or not others:
        return alone(results, timed)
    if winners := faster(results):
        best = winners[0]
        gain = over(eager, best)
        return (
            f"{way(best.case)} is {significant(gain.centre, 2)} times as fast as {way(eager.case)}"
            f" ({width(gain)}){rightness(best)}"
        )
    nearest = max(others, key=lambda result: over(eager, result).centre)
    gain = over(eager, nearest)
    times = f"{way(nearest.case)} is {significant(gain.centre, 2)} times as fast"
    if not math.isfinite(gain.half_width):
        return f"too few blocks to tell what is faster ({times} so far); raise --budget"
    return f"nothing is known to be faster than {way(eager.case)}; {times} ({width(gain)})"


def contenders(results: Sequence[Result]) -> list[Result]:
    """Returns the sound results with a time, but for eager under library defaults, a second
    yardstick.
    """
    return [
        result
        for result in results
        if result.status in ("ok", "noisy")
        and "latency" in result.metrics
        and result.case.options != LIBRARY_DEFAULTS
    ]


def faster(results: Sequence[Result]) -> list[Result]:
    """Returns what is faster than the baseline by its whole interval, the fastest first."""
    timed = contenders(results)
    eager = baseline(results, timed[0]) if timed else None
    if eager is None:
        return []
    gains = [(over(eager, result), result) for result in timed if result is not eager]
    gains = [(gain, result) for gain, result in gains if gain.low > 1]
    return [result for _, result in sorted(gains, key=lambda pair: -pair[0].centre)]


def over(eager: Result, result: Result) -> estimates.Estimate:
    """Returns the speed-up over the baseline."""
    return estimates.inverse(
        estimates.ratio(eager.metrics["latency"].values, result.metrics["latency"].values)
    )


def width(gain: estimates.Estimate) -> str:
    return f"±{math.expm1(gain.half_width):.1%}"


def rightness(result: Result) -> str:
    """Returns, behind a comma, how right the outputs of a result with a time are."""
    task = result.deviation.task if result.deviation is not None else None
    if result.case.precision == "int8":
        if task is None:
            return f", outputs near fp64's ({text})" if (text := deviation(result)) else ""
        return f", {task.metric} {task.value:.4f} where fp32 has {task.reference:.4f}"
    share = deviation(result).removesuffix(" of allowed")
    return f", outputs within tolerance ({share} of what is allowed)" if share else ""


def alone(results: Sequence[Result], timed: Sequence[Result]) -> str:
    """Returns what is known where there is nothing to compare: times, and why the others have
    none.
    """
    times = ", ".join(
        f"{way(result.case)} takes {scaled(result.metrics['latency'].centre, 's')} a call" for result in timed
    )
    why = causes([result for result in results if result.status not in ("ok", "noisy")])
    return f"nothing to compare: {times}" + (f"; {why}" if why else "")


def untimed(results: Sequence[Result]) -> str:
    """Returns what is known where nothing has a time."""
    proven = [result for result in results if result.status == "verified"]
    rungs = ", ".join(
        f"{way(result.case)} for {result.case.target} to {result.verified_to}" for result in proven
    )
    why = causes([result for result in results if result.status != "verified"])
    if proven:
        return f"proven without the device, so without a time: {rungs}" + (f"; {why}" if why else "")
    return f"nothing was measured: {why}"


def causes(results: Sequence[Result]) -> str:
    """Returns why results have no time: the reasons' codes, of a single cause the whole reason."""
    reasons = {str(result.reason) for result in results}
    if len(reasons) == 1 and results[0].reason is not None:
        which = way(results[0].case) if len(results) == 1 else "all"
        return f"{which} {results[0].status}: {results[0].reason}"
    listed = [f"{way(result.case)} {standing(result)}" for result in results[:MOST_CAUSES]]
    more = len(results) - MOST_CAUSES
    return ", ".join(listed) + (f" and {more} more" if more > 0 else "")


def follow_up(results: Sequence[Result], folder: Path, checkpoints: Mapping[str, str]) -> Iterator[str]:
    """Yields how to load the fastest artefact that opens by itself, where there is one, and the
    next command. folder: of the run. checkpoints: workload -> the one it was asked for with.
    """
    for result in [result for members in asked(results) for result in faster(members)]:
        artefact = folder / result.artefact
        if (manifest := opened(result, artefact)) is not None:
            yield f"load {question(result.case)} as {way(result.case)}:"
            yield "    import hotlap"
            yield f"    model = hotlap.open_artefact({json.dumps(str(artefact), ensure_ascii=False)})"
            yield f"    outputs = model(*arrays)  # numpy: {shapes(manifest)}"
            yield f"next: {shlex.join(['hotlap', 'bench-artefact', str(artefact)])}"
            return
    timed = [result for members in asked(results) for result in contenders(members)]
    if timed:
        case = timed[0].case
        checkpoint = checkpoints.get(case.workload, "")
        source = [checkpoint] if is_file(case.workload) else [case.workload]
        words = ["hotlap", "profile", *source, "--batch", str(case.batch), "--device", case.target]
        words += ["--checkpoint", checkpoint] if checkpoint and not is_file(case.workload) else []
        yield f"next: {shlex.join(words)}"
    elif any(result.status == "verified" for result in results):
        yield f"next: {shlex.join(['hotlap', 'report', str(folder / 'results.json'), '--matrix', '-'])}"
    else:
        yield "next: hotlap doctor"


def opened(result: Result, folder: Path) -> Manifest | None:
    """Returns the manifest of an artefact that can be loaded and checked here; None where there is
    none such.
    """
    if not result.artefact:
        return None
    try:
        manifest = opening.checked(folder)
        opening.here(manifest)
    except (Misuse, Refusal):
        return None
    return manifest


def shapes(manifest: Manifest) -> str:
    return ", ".join(f"{tensor.dtype}{list(tensor.shape)}" for tensor in manifest.inputs)
