"""The table of what int8 costs: every cell says what it lost, or why there is nothing."""

from __future__ import annotations

from bench import trained_int8

TASK = {"metric": "accuracy", "value": 0.98, "reference": 0.99, "loss": 0.01, "budget": 0.02}
STORED = {
    "models": {
        "mlp": {
            "setting": ["a CPU"],
            "answers": {
                "eager fp32": {"status": "ok", "task": TASK, "latency_s": 1e-3},
                "onnxruntime fp32": {"status": "ok", "bytes": 4000},
                "onnxruntime int8": {
                    "status": "ok", "task": TASK, "bytes": 1000, "speed_up": [2.0, 1.9, 2.1],
                },
                "openvino int8": {"status": "failed", "code": "build_failed", "detail": "failed: it | broke"},
            },
        },
        "vit": {"failed": "no such model"},
    }
}  # fmt: skip


def test_a_cell_has_loss_size_and_speed_or_a_reason() -> None:
    text = trained_int8.table(STORED)
    row = next(line for line in text.splitlines() if line.startswith("| mlp"))
    assert "accuracy 0.9900; 1.00 ms" in row
    assert "lost 0.0100 of 0.02; 1000 B (0.25 of fp32); 2.00x ±5.1%" in row
    assert "failed: build_failed (1)" in row and "not run" in row
    assert "1. failed: it \\| broke" in text
    assert "- vit: no such model" in text
