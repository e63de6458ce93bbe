#!/bin/sh
# All checks: sh scripts/check.sh [pytest's own arguments ...]
# Lints, checks the types, and runs the tests, in an environment of its own where there is none.
set -eu
. "$(dirname -- "$0")/env.sh"
find_python "[dev]" ruff mypy pytest xdist hypothesis scipy pycocotools gradio playwright onnxruntime onnxscript
cd "$here"
"$FSS_PYTHON" -m ruff check .
"$FSS_PYTHON" -m ruff format --check .
"$FSS_PYTHON" -m mypy
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # one process a core, one thread each
exec "$FSS_PYTHON" -m pytest -n auto --dist worksteal "$@"
