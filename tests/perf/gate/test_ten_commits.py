"""Commits that a maintainer meets, of which a verdict needs no race; bench/ten_commits.py asks the
others too, and docs/gate.md has the table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import ten_commits


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, commit in ten_commits.COMMITS.items() if not commit.raced])
def test_a_commit_has_the_right_verdict_with_the_right_words(name: str, tmp_path: Path) -> None:
    outcome = ten_commits.asked(tmp_path, ten_commits.COMMITS[name], "--threads", "1", "--budget", "5s")
    assert outcome["as_expected"], outcome
