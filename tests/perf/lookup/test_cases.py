"""From what is typed to cases, and from cases to races."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotlap.perf.lookup import cases
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Misuse

BACKENDS = Path(cases.__file__).parents[1] / "backends"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("eager", ()),
        (" eager ", ()),
        ("eager[layout:channels-last]", (("layout", "channels-last"),)),
        ("eager[layout:contiguous]", ()),
        ("eager[allocator:default][binding:none]", cases.LIBRARY_DEFAULTS),
        ("eager[allocator:keep][layout:channels-last]", (("layout", "channels-last"),)),
    ],
)
def test_a_backend_keeps_the_options_that_are_not_defaults(
    text: str, options: tuple[tuple[str, str], ...]
) -> None:
    assert cases.parse_backend(text) == ("eager", options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eagr", "unknown backend 'eagr': did you mean eager"),
        ("eager[layuot:contiguous]", r"unknown option of eager 'layuot': did you mean layout"),
        (
            "eager[layout:channelslast]",
            r"unknown value of eager\[layout\] 'channelslast': did you mean channels-last",
        ),
        ("eager[layout]", r"expected name or name\[option:value\]"),
        ("eager[]", r"expected name or name\[option:value\]"),
        ("eager[layout:contiguous", r"expected name or name\[option:value\]"),
        ("", r"expected name or name\[option:value\]"),
    ],
)
def test_a_backend_that_is_not_there_is_refused_with_the_nearest_names(text: str, message: str) -> None:
    with pytest.raises(Misuse, match=message):
        cases.parse_backend(text)


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(Misuse, match="layout"):
        cases.parse_backend("eager[layout:channels-last][layout:contiguous]")


def test_the_default_backends_are_the_baseline_its_library_defaults_and_every_other_file() -> None:
    first, second, *others = cases.default_backends()
    assert (first, second) == ("eager", "eager[allocator:default][binding:none]")
    files = {path.stem for path in BACKENDS.glob("*.py") if not path.stem.startswith("_")}
    assert set(others) >= files - {"eager", "pace", "null", "triton", "tensorrt"}
    assert {"eager", "pace", "null", "triton", "tensorrt"}.isdisjoint(others)
    assert {"triton", "tensorrt"} <= set(cases.default_backends("cuda:0")), "for GPUs only"


def test_expand_gives_all_combinations_and_one_pace_for_the_precisions_of_a_race() -> None:
    expanded = cases.expand(
        ["b", "a"],
        ["eager", "eager[allocator:default][binding:none]", "null[takes:1ms]"],
        ["fp32", "bf16"],
        [1, 8],
    )
    assert len(expanded) == len(set(expanded)) == 2 * 2 * (4 + 2)
    races = cases.races(expanded)
    assert [name for name, _ in races] == [f"{w}/b{n}/cpu/inference" for w in "ba" for n in (1, 8)]
    for _, members in races:
        others = [(case.backend, case.precision, case.options) for case in members[2:]]
        assert [(case.backend, case.precision, case.options) for case in members[:2]] == [
            ("eager", "fp32", ()),
            ("eager", "bf16", ()),
        ]
        assert others == [
            ("eager", "fp32", cases.LIBRARY_DEFAULTS),
            ("null", "fp32", (("takes", "1ms"),)),
            ("pace", "fp32", ()),
            ("null", "bf16", (("takes", "1ms"),)),
        ]


def test_the_baseline_is_eager_in_the_finest_precision() -> None:
    members = [Case("w", "eager", "bf16"), Case("w", "compile", "int8"), Case("w", "eager", "fp32")]
    assert cases.races(members)[0][1][0] == Case("w", "eager", "fp32")


def test_expand_asks_for_nothing_twice() -> None:
    assert (
        len(cases.expand(["a", "a"], ["eager", "eager[layout:contiguous]", "pace"], ["fp32", "fp32"], [1, 1]))
        == 2
    )
    assert cases.expand(["a"], ["eager"], pace=False) == [Case("a", "eager")]


def test_an_unknown_precision_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(Misuse, match="unknown precision 'bf61': did you mean bf16"):
        cases.expand(["a"], ["eager"], ["bf61"])


def test_a_race_starts_with_its_baseline_and_keeps_the_order_of_the_rest() -> None:
    plain, tuned = Case("a", "eager"), Case("a", "eager", options=(("layout", "channels-last"),))
    other, null, pace = Case("b", "eager"), Case("a", "null"), Case("a", "pace")
    assert cases.races([null, other, tuned, pace, plain, null]) == [
        (null.group, [plain, null, tuned, pace]),
        (other.group, [other]),
    ]
