#!/usr/bin/env bash
# Installs detectron2, lvis, ensemble-boxes and axe-core, which cannot be in requirements.lock because their own metadata ask
# for less than what they run with (numpy<2, another OpenCV) or for what is not used. Run it after `pip install -r requirements.lock`:
#   workflow/environment/install_extras.sh [python]        (python: the environment's interpreter; default: python)
# What is there already is left alone, an official build of detectron2 included. Files are checked against the sha256 in
# detectron2.txt and extras.txt. Without the Internet: put the four wheels into a folder and set
# PIP_NO_INDEX=1 PIP_FIND_LINKS=<folder>.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${1:-python}

fail() {
  printf 'install_extras.sh: %s\n' "$@" >&2
  exit 1
}

[ $# -le 1 ] || fail "expected one argument at most, the interpreter of the environment; got $#"
command -v "$python" >/dev/null || fail "no interpreter '$python'; usage: install_extras.sh [python]"
# -P: the folder that the script is called from must not be taken for an installed package.
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$python is $("$python" --version 2>&1); Python 3.11 or later is needed"
"$python" -P -c 'import pip' 2>/dev/null || fail "$python has no pip; run '$python -m ensurepip' first"

# Prints which detectron2 the interpreter finds: nothing, "pinned" (the one this script installs), or a description.
find_detectron2() {
  "$python" -P - <<'PYTHON'
import importlib.metadata as metadata
import importlib.util

spec = importlib.util.find_spec("detectron2")
installed = {name: d.version for d in metadata.distributions() if (name := (d.name or "").lower().replace("_", "-"))}
if spec is not None and spec.origin:
    if "sal-detectron2" in installed:
        print("pinned")
    else:
        print(f"detectron2 {installed.get('detectron2', '(version unknown)')} of {spec.origin}")
PYTHON
}

install_detectron2() {
  local wheels unpacked
  "$python" -m pip download --quiet --no-deps --python-version 3.10 --only-binary=:all: --require-hashes \
    --dest "$scratch/download" --requirement "$here/detectron2.txt" ||
    fail "detectron2 was not installed: its wheel could not be had, or its sha256 is not the one in detectron2.txt (see above)"
  "$python" -P -c 'import wheel' 2>/dev/null ||
    fail "detectron2 was not installed: $python has no 'wheel'; run '$python -m pip install -r requirements.lock' first"

  wheels=("$scratch"/download/*.whl)
  (cd "$scratch" && "$python" -m wheel unpack --dest unpacked "${wheels[0]}" >/dev/null)
  unpacked=("$scratch"/unpacked/*)
  # The compiled part fits Python 3.10 only. Without it, detectron2 lacks rotated boxes, its own CUDA deformable convolution
  # and its fast COCO evaluation; everything else comes from torchvision. What is left runs on any Python and platform.
  rm -f "${unpacked[0]}"/detectron2/_C*.so
  "$python" -P - "${unpacked[0]}"/*.dist-info/WHEEL <<'PYTHON'
import re
import sys
from pathlib import Path

path = Path(sys.argv[1])
text = re.sub(r"(?m)^Root-Is-Purelib:.*$", "Root-Is-Purelib: true", path.read_text())
path.write_text(re.sub(r"(?m)^Tag:.*$", "Tag: py3-none-any", text))
PYTHON
  mkdir "$scratch/packed"
  "$python" -m wheel pack --dest-dir "$scratch/packed" "${unpacked[0]}" >/dev/null
  "$python" -m pip install --quiet --no-deps --no-index "$scratch"/packed/*.whl
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

case $(find_detectron2) in
  "") install_detectron2 && echo "detectron2: installed" ;;
  pinned) echo "detectron2: already installed" ;;
  *) echo "detectron2: $(find_detectron2) is there already and is left alone" ;;
esac

"$python" -m pip install --quiet --no-deps --require-hashes --requirement "$here/extras.txt" ||
  fail "lvis, ensemble-boxes and axe-core were not installed: a wheel could not be had, or its sha256 is not the one in extras.txt (see above)"
echo "lvis, ensemble-boxes, axe-core: installed"
