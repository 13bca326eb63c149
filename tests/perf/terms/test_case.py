"""Cases: the id is a key that reads back, and what cannot be a case is refused."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotlap.perf.terms.case import MODES, PRECISIONS, Case, Workload
from hotlap.perf.terms.reasons import Misuse


def meaningful(word: str) -> bool:
    return word.strip(".") != ""


LETTERS = string.ascii_letters + string.digits + "._-+"
word = st.text(LETTERS, min_size=1).filter(meaningful)
name = st.text(LETTERS + ":", min_size=1).filter(meaningful)
cases = st.builds(
    Case,
    name,
    name,
    st.sampled_from(PRECISIONS),
    st.integers(1, 10**6),
    st.sampled_from(["cpu", "cuda:0", "cuda:12", "sm_89", "gfx90a"]),
    st.sampled_from(MODES),
    st.dictionaries(word, word, max_size=3).map(lambda options: tuple(options.items())),
)


@given(cases)
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_the_id_reads_back(case: Case) -> None:
    assert Case.parse(case.id) == case
    assert re.fullmatch(r"[A-Za-z0-9._\-+:/\[\]]+", case.id)


def test_an_id_is_written_as_documented() -> None:
    case = Case(
        "pkg.mod:make",
        "compile",
        "bf16",
        8,
        "cuda:0",
        "train",
        (("mode", "max-autotune"), ("layout", "channels-last")),
    )
    assert case.id == "pkg.mod:make/compile/bf16/b8/cuda:0/train[layout:channels-last][mode:max-autotune]"
    assert case.group == "pkg.mod:make/b8/cuda:0/train"


def test_the_order_in_which_options_were_given_does_not_matter() -> None:
    options = (("b", "1"), ("a", "2"))
    assert Case("w", "x", options=options) == Case("w", "x", options=options[::-1])


def test_an_option_that_is_not_set_has_its_default() -> None:
    case = Case("w", "x", options=(("layout", "channels-last"),))
    assert case.option("layout", "contiguous") == "channels-last"
    assert case.option("mode", "default") == "default"


def test_a_group_does_not_depend_on_backend_and_options() -> None:
    assert Case("w", "x", options=(("a", "1"),)).group == Case("w", "y").group
    assert len({Case("w", "x", precision).group for precision in PRECISIONS}) == 1
    assert (
        Case("w", "x", target="sm_80").group
        == Case("w", "x", target="sm_89").group
        != Case("w", "x", target="cuda:0").group
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"workload": ""}, "'' cannot be part of a case"),
        ({"workload": "a b"}, "'a b' cannot be part"),
        ({"workload": "a/b"}, "'a/b' cannot be part"),
        ({"workload": ".."}, "'..' cannot be part"),
        ({"workload": "a\n"}, "cannot be part"),
        ({"backend": "x[y]"}, "cannot be part"),
        ({"options": (("a", "b=c"),)}, "'b=c' cannot be part"),
        ({"options": (("a:b", "c"),)}, "colon"),
        ({"options": (("a", "b:c"),)}, "colon"),
        ({"precision": "fp64"}, "none of fp32, tf32"),
        ({"mode": "training"}, "none of inference, train"),
        ({"batch": 0}, "at least 1, not 0"),
        ({"target": "gpu"}, "neither cpu, cuda:N"),
        ({"target": "cuda"}, "neither cpu, cuda:N"),
    ],
)
def test_what_cannot_be_a_case_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(Misuse, match=re.escape(message)):
        Case(**{"workload": "w", "backend": "x", **wrong})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "w",
        "w/x/fp32/1/cpu/train",
        "w/x/fp32/b1/cpu",
        *(f"w/x/fp32/b1/cpu/train{end}" for end in ("[a]", "[a:b", "/y")),
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match=r"is no case; expected|is written \[name:value\]"):
        Case.parse(text)


def test_a_workload_of_one_input_and_one_item_is_enough() -> None:
    assert Workload("w", None, (None,), items=1).item == "sample"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"), [({"inputs": ()}, "inputs is empty"), ({"items": 0}, "items must be at least 1")]
)
def test_a_workload_without_inputs_or_items_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(Misuse, match=f"workload w: {message}"):
        Workload(**{"name": "w", "module": None, "inputs": (None,), **wrong})
