#!/usr/bin/env bash
# Pins everything that requirements.in needs, with the sha256 of every file of each release: writes requirements.lock.
#   workflow/environment/lock.sh [options of "uv pip compile", for example --upgrade-package torch]
# Pins that are in the lock stay as they are unless requirements.in or an option asks for something else. The lock is made
# for Linux on x86_64 with any Python 3.11 (hence --python-version 3.11, not that of the interpreter at hand).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet uv==0.13.8

cd "$project"
[ ! -f requirements.lock ] || cp requirements.lock "$scratch/requirements.lock"
UV_CUSTOM_COMPILE_COMMAND="make lock" "$scratch/venv/bin/uv" pip compile --quiet --no-config \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
  --generate-hashes --no-emit-index-url --no-annotate "$@" \
  --output-file "$scratch/requirements.lock" workflow/environment/requirements.in >/dev/null
mv "$scratch/requirements.lock" requirements.lock
echo "requirements.lock: $(grep -c '^[a-z0-9]' requirements.lock) packages pinned"
