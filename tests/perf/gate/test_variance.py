"""The spread of a race by level, from samples whose spread is known."""

from __future__ import annotations

import random
from math import exp, sqrt
from pathlib import Path

import pytest

from hotlap.perf import cli
from hotlap.perf.gate import variance
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.result import Disturbance, Result, Results, Samples, encode

BLOCKS, ROUNDS = 60, 40


def result(backend: str, seed: int, rounds: float, workers: float, **seen: float) -> Result:
    """Blocks that share a drift of 20 %, with a worker's own effect and noise between rounds."""
    rng, drift = random.Random(seed), random.Random(0)
    values = []
    for _ in range(BLOCKS):
        centre = exp(drift.gauss(0, 0.2) + rng.gauss(0, workers))
        values.append(tuple(centre * exp(rng.gauss(0, rounds)) for _ in range(ROUNDS)))
    each = [tuple(1 for _ in block) for block in values]
    faults = tuple(tuple(seen.get("faults", 0.0) for _ in block) for block in values)
    steal = tuple(seen.get("steal", 0.0) for _ in values)
    priority = "normal (planted)" if seen.get("normal") else "raised"
    spent = tuple(seen["spent"] for _ in values) if "spent" in seen else ()
    disturbance = Disturbance((), (), (), tuple(each), tuple(each), faults, steal, (), priority, spent)
    return Result(
        Case("net", backend),
        "r",
        Plan(),
        "ok",
        metrics={"latency": Samples("s", "lower", tuple(values))},
        disturbance=disturbance,
    )


def test_each_level_is_found_as_it_was_made() -> None:
    base, head = result("eager", 1, 0.1, 0.0), result("compile", 2, 0.05, 0.03)
    spread = variance.spread(head, base)
    assert spread.rounds == pytest.approx(0.05, rel=0.05)
    assert spread.blocks == pytest.approx(sqrt(0.2**2 + 0.03**2), rel=0.25)
    expected = sqrt(0.03**2 + (0.1**2 + 0.05**2) * 1.5708 / ROUNDS)
    assert spread.ratio == pytest.approx(expected, rel=0.25)
    assert abs(spread.correlation) < 0.1
    assert variance.spread(base, base).ratio is None


def test_a_case_alone_is_compared_with_its_own_block_before() -> None:
    """Two workers differ by the square root of 2 as much as one from the middle of all; what drifts
    slowly is no part of it.
    """
    rng = random.Random(5)
    effects = [rng.gauss(0, 0.02) for _ in range(400)]
    drifting = [[number / 40 + effect] for number, effect in enumerate(effects)]
    assert variance.from_block_to_block([[effect] for effect in effects]) == pytest.approx(
        sqrt(2) * 0.02, rel=0.1
    )
    assert variance.from_block_to_block(drifting) == pytest.approx(sqrt(2 * 0.02**2 + 1 / 40**2), rel=0.1)


@pytest.mark.parametrize(
    ("backends", "alone"),
    [
        (["eager"], {"eager"}),
        (["compile"], {"compile"}),
        # The pace does work of its own: nothing to compare with.
        (["eager", "pace"], {"eager"}),
        (["compile", "openvino"], {"compile", "openvino"}),
        (["eager", "compile"], set()),
    ],
)
def test_what_ran_alone_is_seen(backends: list[str], alone: set[str]) -> None:
    results = [result(backend, seed, 0.05, 0.03) for seed, backend in enumerate(backends)]
    spreads = variance.of_run(results).spreads.values()
    names = [backend for backend in backends if backend != "pace"]
    assert {name for name, spread in zip(names, spreads, strict=True) if spread.alone} == alone
    assert [spread.ratio is None for spread in spreads] == [name == "eager" and not alone for name in names]


def test_the_command_says_what_is_found_for_one_backend_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With blocks of 10 s hotlap ab does 16 in 10 minutes, and what it finds follows from the
    planted spread of workers; the same run has nothing to say where it has too few blocks.
    """
    alone = result("eager", 1, 0.001, 0.02, spent=10.0)
    path = tmp_path / "results.json"
    path.write_bytes(encode(Results("r", "test", {}, results=(alone,))))
    assert cli.status(["noise", str(path), "--listen", "0"]) == 0
    output = capsys.readouterr().out
    (row,) = (line for line in output.splitlines() if line.startswith("net/eager"))
    spread = variance.spread(alone, None)
    assert spread.ratio is not None and f"{spread.ratio:.1%} to itself" in row
    finding = variance.detectable(spread.ratio, 16, 0.03)
    assert finding is not None and row.count(f"{finding:.1%}") == 2
    assert "In 10m hotlap ab does 16 blocks of this case." in " ".join(output.split())


def test_more_blocks_find_less() -> None:
    """At 16 blocks and a standard deviation of 1.4 % a tolerance of 1.3 % can pass, so 4.3 % is
    found at a tolerance of 3 %.
    """
    assert variance.detectable(0.014, 16, 0.03) == pytest.approx(0.043, abs=0.001)
    assert variance.detectable(0.014, 6, 0.03) > variance.detectable(0.014, 16, 0.03) > 0.03


def test_what_a_budget_finds() -> None:
    """Two sides of 5 s each:

    10 s a block, so 16 blocks of one case in 160 s, 6 of two cases in 120 s, and nothing of three
    in that time.
    """
    spread = variance.Spread(0.01, 0.01, 0.014, 0, 0, 0, 0, 0, block_s=5.0)
    assert [
        variance.affordable([spread] * cases, budget)
        for cases, budget in ((1, 160), (1, 159), (2, 120), (3, 120))
    ] == [16, 12, 6, 0]
    assert variance.affordable([spread, spread._replace(block_s=0.0)], 1e9) == 0
    alone, among = variance.detectable(0.014, 16, 0.03), variance.detectable(0.014, 16, 0.03, cases=10)
    assert alone is not None and among is not None and 0.03 < alone < among
    # 2**-6 is above alpha / 10 of a look: the sign-flip test cannot decide
    assert variance.detectable(0.014, 6, 0.03, cases=10) is None


def test_advice_names_what_was_seen_and_nothing_else() -> None:
    quiet = variance.Spread(0.01, 0.01, 0.01, 0, 0, 0, 0, 0)
    assert variance.advice([quiet], ["raised"]) == ["nothing that stands out"]
    loud = quiet._replace(steal=0.1, faults=6000, switches=3, migrations=1, blocks=0.3)
    advice = " ".join(variance.advice([quiet, loud], ["normal (planted)"]))
    for words in ("planted", "steal up to 10.0%", "page faults", "bind", "involuntary", "side by side"):
        assert words in advice


def test_the_command_shows_options_and_skips_what_is_too_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = result("eager", 1, 0.1, 0.0, faults=900), result("compile", 2, 0.05, 0.03)
    import msgspec

    renamed = msgspec.structs.replace(head, case=Case("net", "compile", options=(("mode", "default"),)))
    short = msgspec.structs.replace(
        head, case=Case("net", "openvino"), metrics={"latency": Samples("s", "lower", ((1.0, 1.0, 1.0),))}
    )
    path = tmp_path / "results.json"
    path.write_bytes(encode(Results("r", "test", {}, results=(base, renamed, short))))
    assert cli.status(["noise", str(path), "--listen", "0"]) == 0
    output = capsys.readouterr().out
    assert "What hotlap ab finds in 10m is not known" in output and "This machine now" not in output
    assert "net/compile/fp32/b1/cpu/inference[mode:default]" in output
    assert "net/openvino/fp32/b1/cpu/inference: 1 blocks, 3 are needed" in output
    assert "page faults" in output
    assert cli.status(["noise", str(tmp_path / "absent.json")]) == 2
    timed = [
        msgspec.structs.replace(
            raced, disturbance=msgspec.structs.replace(raced.disturbance, spent_s=(10.0,) * BLOCKS)
        )
        for raced in (base, renamed)
    ]
    path.write_bytes(encode(Results("r", "test", {}, results=tuple(timed))))
    for budget, words in (
        ("4m", "In 4m hotlap ab does 12 blocks of this case."),
        ("1m", "To call it a regression takes 6 blocks, about 2 min: choose a larger --budget."),
    ):
        assert cli.status(["noise", str(path), "--listen", "0", "--budget", budget]) == 0
        assert words in " ".join(capsys.readouterr().out.split())
