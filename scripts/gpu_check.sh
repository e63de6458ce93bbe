#!/bin/sh
# On a machine with a GPU, in under 8 minutes: sh scripts/gpu_check.sh [GPU]
# The tests that know a device, fast paths against plain ones on it, and `fss bench` in bfloat16.
set -eu
. "$(dirname -- "$0")/env.sh"
find_python "[dev]" pytest hypothesis scipy pycocotools
cd "$here"
export CUDA_VISIBLE_DEVICES="${1:-0}"
if ! "$FSS_PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "no CUDA here: this check needs a GPU (GPU $CUDA_VISIBLE_DEVICES was asked for)" >&2
    exit 2
fi
"$FSS_PYTHON" -m pytest tests/bench tests/testing/test_devices.py tests/backbones tests/heads tests/test_ops.py
exec "$FSS_PYTHON" -m fss bench --gpus 0 --precision bf16 --runs 5
