#!/bin/sh
# Train and test: sh scripts/train.sh DATA FOLD GPUS LAYERS SHOTS [--head NAME] [--config NAME] [key=value ...]
#   sh scripts/train.sh shapes 0 [0] 50 1
#   sh scripts/train.sh pascal 0 0,1 101 5 --head cwt
set -eu
if [ $# -lt 5 ]; then
    sed -n '2,4s/^# *//p' "$0" >&2
    exit 2
fi
data=$1 fold=$2 gpus=$3 layers=$4 shots=$5
shift 5
. "$(dirname -- "$0")/env.sh"
find_python ""
exec "$FSS_PYTHON" -m fss train --data "$data" --fold "$fold" --gpus "$gpus" --layers "$layers" --shots "$shots" "$@"
