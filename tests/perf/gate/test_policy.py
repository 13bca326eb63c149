"""gate.toml: what it may say, how parts of it combine, and that a typing mistake is never a rule
that does not apply.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hotlap.perf.gate import policy
from hotlap.perf.terms.reasons import Misuse

CASE = "resnet/compile/fp32/b1/cpu/inference[mode:max-autotune]"


def written(tmp_path: Path, text: str) -> policy.Policy:
    path = tmp_path / "gate.toml"
    path.write_text(text)
    return policy.read(path)


def test_the_default_gates_latency_and_memory() -> None:
    rules = policy.read(None).of(CASE)
    assert rules.tolerance == {"latency": 0.03, "memory": 0.02}
    assert rules.asked == frozenset()
    assert not rules.ignored


def test_the_last_matching_part_wins_key_by_key(tmp_path: Path) -> None:
    file_policy = written(
        tmp_path,
        """
        alpha = 0.01
        inconclusive = "pass"
        [tolerance]
        latency = 0.05
        cold_start = 0.2
        [limits]
        latency = 0.01
        [[case]]
        match = "resnet/*"
        tolerance = { latency = 0.1 }
        slack = { graph_breaks = 2 }
        [[case]]
        match = "resnet/compile/*[mode:max-autotune]"
        tolerance = { latency = 0.2 }
        limits = { memory = 1e9 }
        [[case]]
        match = "vit/*"
        ignore = true
        [[case]]
        match = "vit/*"
        tolerance = { memory = 0.5 }
        """,
    )
    rules = file_policy.of(CASE)
    assert rules.tolerance == {"latency": 0.2, "memory": 0.02, "cold_start": 0.2}
    assert rules.asked == {"latency", "cold_start"}
    assert rules.slack == {"artefact_bytes": "2%", "graph_breaks": 2}
    assert rules.limits == {"latency": 0.01, "memory": 1e9}
    assert file_policy.of("vit/eager/fp32/b1/cpu/inference").ignored
    assert file_policy.of("mlp/eager/fp32/b1/cpu/inference").tolerance["latency"] == 0.05
    assert (file_policy.alpha, file_policy.inconclusive) == (0.01, "pass")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alhpa = 0.05", "alhpa"),
        ("alpha = 0", "alpha"),
        ("alpha = 'often'", "alpha"),
        ("inconclusive = 'green'", "inconclusive"),
        ("[tolerance]\nlatencies = 0.1", "did you mean latency"),
        ("[tolerance]\nlatency = -0.1", "tolerance"),
        ("[limits]\nspeed = 1", "unknown metric 'speed'"),
        ("[limits]\nlatency = nan", "finite"),
        ("[slack]\ngraph_break = 1", "did you mean graph_breaks"),
        ("[slack]\ngraph_breaks = 'many'", "expected a number or a share"),
        ("[slack]\ngraph_breaks = -1", "at least 0"),
        ("[[case]]\ntolerance = { latency = 0.1 }", "match"),
        ("[[case]]\nmatch = '*'\ntolerances = { latency = 0.1 }", "tolerances"),
        ("not toml", "gate.toml"),
        ("\x00", "gate.toml"),
    ],
)
def test_what_it_does_not_know_is_one_line_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(Misuse, match=r"gate\.toml") as caught:
        written(tmp_path, text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_no_such_file() -> None:
    with pytest.raises(Misuse, match="no such policy file"):
        policy.read(Path("nowhere.toml"))


@pytest.mark.parametrize(
    ("slack", "base", "allowed"), [(0, 100, 0), (3, 100, 3), ("2%", 100, 2), ("0.5 %", 1000, 5)]
)
def test_slack(slack: float | str, base: int, allowed: float) -> None:
    assert policy.allowance(slack, base) == allowed


def test_a_policy_that_stands_here_and_cannot_be_read_is_no_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken link or a folder: without its tolerances more would pass."""
    monkeypatch.chdir(tmp_path)
    assert policy.chosen(None) == policy.Policy()
    Path("gate.toml").symlink_to("moved.toml")
    with pytest.raises(Misuse, match=r"gate\.toml: there is no such policy file"):
        policy.chosen(None)
    Path("moved.toml").mkdir()
    with pytest.raises(Misuse, match=r"gate\.toml: "):
        policy.chosen(None)
