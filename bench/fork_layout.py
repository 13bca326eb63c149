"""Does it matter from which fork server a worker comes?

It must not: blocks of one job would share what they owe to it, and the gate would not see it.

    python bench/fork_layout.py [--servers 8]        about 8 s each

A network of 62 small convolutions against one of 60, in 6 blocks of forked workers, again and again
with new fork servers. By the work HEAD takes 1.033 of BASE's time.
"""

from __future__ import annotations

import argparse

from bench.gate_live import raced

# As many as the gate has at its first look.
BLOCKS = 6


def main() -> None:
    from hotlap.perf.stats import estimates

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", type=int, default=8)
    for number in range(parser.parse_args().servers):
        ratio = estimates.ratio(*raced("conv", 2, BLOCKS))
        print(f"servers {number + 1}: {ratio.centre:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]", flush=True)


if __name__ == "__main__":
    main()
