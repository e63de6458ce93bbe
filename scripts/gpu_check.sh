#!/bin/sh
# On a machine with a GPU, in under 8 minutes: sh scripts/gpu_check.sh [GPU] [--dry-run]
# Every head and backbone against the CPU, its speed and memory, as one table (results/gpu_check.json), and the
# tests that know a device. With --dry-run on the CPU, small: does the check itself work?
set -eu
. "$(dirname -- "$0")/env.sh"
gpu=0 dry=
for word in "$@"; do
    case $word in
        --dry-run) dry=--dry-run ;;
        [0-9]*) gpu=$word ;;
        *) sed -n '2,4s/^# *//p' "$0" >&2; exit 2 ;;
    esac
done
find_python "[dev]" pytest hypothesis scipy pycocotools
cd "$here"
device=cuda
if [ "$dry" ]; then
    device=cpu
else
    export CUDA_VISIBLE_DEVICES="$gpu"
    if ! "$FSS_PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        echo "no CUDA here: this check needs a GPU (GPU $gpu was asked for); --dry-run runs it on the CPU" >&2
        exit 2
    fi
fi
"$FSS_PYTHON" studies/check_gpu.py results/gpu_check.json $dry
exec "$FSS_PYTHON" -m pytest tests/testing/test_devices.py tests/bench -k "$device"
