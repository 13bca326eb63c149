"""Libraries of the extra `data` are asked for where they are needed."""

from __future__ import annotations

import pytest

from hotlap.models.data.libraries import library
from hotlap.perf.terms.reasons import Misuse


def test_a_library_that_is_not_here_is_named_with_its_extra() -> None:
    assert library("json", "json").dumps([]) == "[]"
    with pytest.raises(Misuse) as error:
        library("hotlap_has_no_such.part", "no-such")
    assert str(error.value) == ("these data need no-such, which is not installed: pip install 'hotlap[data]'")


def test_what_a_library_itself_lacks_is_not_taken_for_the_library(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("site")
    (folder / "lap_lacking.py").write_text("import lap_not_there\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ModuleNotFoundError, match="lap_not_there"):
        library("lap_lacking", "lacking")
