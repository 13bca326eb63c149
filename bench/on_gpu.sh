#!/usr/bin/env bash
# Runs every check that needs a GPU, in the order of what it would cost to find out later.
# `bench/on_gpu.sh [OUT]` writes OUT/on_gpu.json (default OUT: runs/on_gpu) and the logs beside it, and
# says L7 for what ran. Without a GPU it says so and ends with 0, everything not run: a machine without
# one is no failure.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/on_gpu}
mkdir -p "$out"
exec "${PYTHON:-python}" bench/on_gpu.py "$out"
