"""The models through every backend.

    pytest bench --benchmark-json=out.json

The default grid is what CI can afford (under 8 minutes on 2 cores); `--hotlap-grid=full` is every
model, precision and batch size.
"""

import pytest

import hotlap

# Name, as --hotlap-grid takes it -> the cases, expanded only when they are asked for.
GRIDS = {
    "default": lambda: hotlap.cases("mlp", "resnet"),
    "full": lambda: hotlap.cases(
        "mlp", "resnet", "vit", "gpt", precisions=("fp32", "bf16", "fp16"), batches=(1, 8)
    ),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Without the option where pytest was not started on this folder (conftest.py).
    metafunc.parametrize("case", GRIDS[metafunc.config.getoption("hotlap_grid", "default")]())


def test_models(lap, case):
    lap(case)
