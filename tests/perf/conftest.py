"""Stored results for the tests of the history; CPUs given back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.environment import Environment
from hotlap.perf.terms.result import Placement, Result, Results, Samples, encode

HERE = Environment(
    "Xeon", 2, 2**30, (), "Linux 6", "3.11.7", {"torch": "2.14.1"}, (), "", 2, "keep", "madvise", "", "one"
)


class Stored:
    """Writes results files as hotlap run does: run number N was measured on day N, at commit
    `sha(N)`.
    """

    @staticmethod
    def sha(number: int) -> str:
        return f"{number:04x}" * 10

    def run(
        self,
        path: Path,
        number: int,
        latencies: Mapping[str, float],
        operators: int = 30,
        commit: str | None = None,
        **environment: object,
    ) -> Path:
        """One result of three blocks a workload. environment: fields that differ from HERE."""
        fields = {name: getattr(HERE, name) for name in HERE.__struct_fields__}
        where = Environment(
            **{**fields, "commit": self.sha(number) if commit is None else commit, **environment}
        )  # type: ignore[arg-type]
        results = [
            Result(
                Case(name, "eager"),
                "race",
                Plan(),
                "ok",
                environment=where.key,
                placement=Placement("cpu", {"cpu": 9}, {"operators": operators}),
                metrics={"latency": Samples("s", "lower", ((latency,) * 3,) * 3)},
            )
            for name, latency in latencies.items()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        started = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T10:00:00Z"
        path.write_bytes(
            encode(
                Results(f"run-{number}", "test", {where.key: where}, results=tuple(results), started=started)
            )
        )
        return path

    def runs(self, folder: Path, latencies: Mapping[str, Sequence[float]]) -> list[Path]:
        """As many runs as there are latencies."""
        days = range(len(next(iter(latencies.values()))))
        return [
            self.run(
                folder / f"{day:04}.json", day, {name: values[day] for name, values in latencies.items()}
            )
            for day in days
        ]


@pytest.fixture
def stored() -> Stored:
    return Stored()


# The CPUs that this process may use before any test.
CPUS = os.sched_getaffinity(0)


@pytest.fixture(autouse=True)
def unbound() -> Iterator[None]:
    """Gives the thread its CPUs back: loading a case binds the one that calls it."""
    yield
    os.sched_setaffinity(0, CPUS)
