#!/bin/sh
# All checks: sh scripts/check.sh [pytest's own arguments ...]
# Lints, checks the types, and runs the tests, in an environment of its own where there is none.
set -eu
. "$(dirname -- "$0")/env.sh"
find_python "[dev]" ruff mypy pytest hypothesis scipy pycocotools gradio playwright onnxruntime onnxscript
cd "$here"
"$FSS_PYTHON" -m ruff check .
"$FSS_PYTHON" -m ruff format --check .
"$FSS_PYTHON" -m mypy
exec "$FSS_PYTHON" -m pytest "$@"
