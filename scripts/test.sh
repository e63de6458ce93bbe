#!/bin/sh
# Test: sh scripts/test.sh DATA SHOTS GPUS LAYERS FOLD [--visualize] [--head NAME] [--config NAME] [key=value ...]
#   sh scripts/test.sh shapes 1 [0] 50 0 --visualize
set -eu
if [ $# -lt 5 ]; then
    sed -n '2,3s/^# *//p' "$0" >&2
    exit 2
fi
data=$1 shots=$2 gpus=$3 layers=$4 fold=$5
shift 5
. "$(dirname -- "$0")/env.sh"
find_python ""
exec "$FSS_PYTHON" -m fss test --data "$data" --shots "$shots" --gpus "$gpus" --layers "$layers" --fold "$fold" "$@"
