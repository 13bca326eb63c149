"""On a CPU: convolutions that torch does itself, by unfolding, because one small image seems not
worth oneDNN (use_mkldnn in aten/src/ATen/native/Convolution.cpp).
"""

from ...facts.facts import Facts
from ..fix import Fix

ON_CPU = True
UNFOLDED = "aten::_slow_conv2d_forward"


def look(facts: Facts) -> Fix | None:
    rows = [row for row in facts.attained if row.name == UNFOLDED]
    if not rows:
        return None
    lost = sum(int(row.length * (1 - (row.share or 0.0))) for row in rows)
    total, known = sum(row.length for row in rows), [row for row in rows if row.share is not None]
    near = ""
    if known:
        attained = sum((row.share or 0.0) * row.length for row in known)
        near = f", at {attained / sum(row.length for row in known):.0%} of the roofline"
    return Fix(
        "slow_convolution",
        "Take another path for small convolutions",
        lost,
        (
            (
                f"{sum(row.calls for row in rows):,} convolutions are unfolded and multiplied by torch"
                f" itself: {total / 1e6:.2f} ms{near}"
            ),
        ),
        "channels-last (--backends 'eager[layout:channels-last]'), compile[freezing:on], a batch above 1, or"
        " a runtime that owns the graph",
        tuple(row.dims for row in rows[:3]),
    )
