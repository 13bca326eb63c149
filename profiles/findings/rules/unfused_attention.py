"""Attention written out: a product, a softmax, a product, whose scores go through memory twice."""

import re

import numpy as np

from ...facts.facts import Facts
from ...tables.trace import NONE
from ..fix import Fix

PRODUCT = re.compile(r"^aten::(?:bmm|baddbmm)$")
SOFTMAX = re.compile(r"^aten::_(?:safe_)?softmax$")
# Operators that may stand between them: scaling, masking, dropout, copies.
BETWEEN = re.compile(
    r"^aten::(?:mul|div|add|sub|masked_fill|where|copy|dropout|native_dropout|_to_copy|to|clone)_?(?:\.\w+)?$"
)
# So many of these between two of the three.
MOST_BETWEEN = 4


def look(facts: Facts) -> Fix | None:
    line, trace = facts.line, facts.trace
    known = facts.behind != NONE
    order = np.argsort(line.gpu.start[known], kind="stable")
    name = trace.operators.name[facts.behind[known]][order]
    dur = line.gpu.dur[known][order]
    product, softmax, between = (trace.named(pattern)[name] for pattern in (PRODUCT, SOFTMAX, BETWEEN))
    lost = count = 0
    for middle in np.flatnonzero(softmax).tolist():
        first, last = (partner(product, between, middle, step) for step in (-1, 1))
        if first is not None and last is not None:
            # What is left are the two products, whose work fused attention has as well.
            lost += int(np.sum(dur[first : last + 1][~product[first : last + 1]]))
            count += 1
    if not count:
        return None
    return Fix(
        "unfused_attention",
        "Fuse attention",
        lost,
        (
            (
                f"{count:,} times bmm, softmax, bmm: what stands between the products takes"
                f" {lost / 1e6:.2f} ms, and writes and reads all scores"
            ),
        ),
        "torch.nn.functional.scaled_dot_product_attention (is_causal, or a mask that a fused kernel takes)",
        ("aten::bmm, aten::_softmax, aten::bmm",),
    )


def partner(product: np.ndarray, between: np.ndarray, middle: int, step: int) -> int | None:
    """Returns the product before or after a softmax with little between; None where there is
    none.
    """
    for place in range(1, MOST_BETWEEN + 2):
        row = middle + step * place
        if not 0 <= row < len(product):
            return None
        if product[row]:
            return row
        if not between[row]:
            return None
    return None
