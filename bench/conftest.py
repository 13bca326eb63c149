"""The option of this repository's own benchmarks."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("hotlap").addoption(
        "--hotlap-grid",
        choices=("default", "full"),
        default="default",
        help="Which cases the benchmarks under bench/ measure.",
    )
