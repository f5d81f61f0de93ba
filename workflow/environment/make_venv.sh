#!/usr/bin/env bash
# Creates or repairs the pinned environment in a folder: workflow/environment/make_venv.sh FOLDER
# Does nothing, at once, if the folder holds what requirements.lock and the files beside this script ask for. Otherwise (the
# pins changed, an installation was interrupted, the checkout moved) the folder is emptied and filled anew, so that equal pins
# always mean equal environments. Environment: PYTHON, the interpreter to use (default: the first suitable one of python3.11, ...).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lock=$(cd "$here/../.." && pwd)/requirements.lock
free_gib=11 # 7.5 for the environment, 3 for downloads while it is made

fail() {
  printf 'make_venv.sh: %s\n' "$@" >&2
  exit 1
}

[ $# -eq 1 ] && [ -n "$1" ] || fail "usage: make_venv.sh FOLDER"
[ -f "$lock" ] || fail "no $lock: run this script from a complete checkout"

# The interpreters that have wheels of every package in the lock.
fitting() { case $1 in 3.11.* | 3.12.* | 3.13.*) true ;; *) false ;; esac }

find_python() {
  local candidate version seen=() candidates=(python3.11 python3.12 python3.13 python3 python)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    version=$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
    if ! fitting "$version"; then
      seen+=("$candidate is $version")
    elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      seen+=("$candidate ($version) has no venv module: apt-get install python${version%.*}-venv")
    else
      printf '%s\n' "$candidate"
      return
    fi
  done
  [ ${#seen[@]} -gt 0 ] || seen=("there is no ${PYTHON:-python3}")
  fail "Python 3.11, 3.12 or 3.13 is needed" "${seen[@]}" \
    "install one, or name one that is not on PATH: make env PYTHON=/path/to/python3.11; for conda see environment.yml"
}

# A link to a folder on another disk (small home quotas) stays a link; Python makes environments in real folders only.
folder=$1
[ ! -L "$1" ] || folder=$(readlink -m "$1")
mkdir -p "$folder"
venv=$(cd "$folder" && pwd)
stamp="$venv/.pinned-environment"

# Two installations into one folder wait for each other; the lock goes when its holder does, however that ends.
exec 9<"$venv"
if command -v flock >/dev/null && ! flock --nonblock 9; then
  echo "waiting for another installation into $venv"
  flock 9
fi

wanted="$(cat "$lock" "$here"/*.txt "$here/install_extras.sh" | sha256sum | cut -d' ' -f1) $venv"
version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null; }
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && version=$(version_of "$venv/bin/python"); then
  if [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$version" ]; then exit 0; fi
fi

python=$(find_python)
[ -f "$stamp" ] || [ -z "$(ls -A "$venv")" ] ||
  fail "$venv is not an environment of this project: remove it, or name another folder (make env VENV=...)"
echo "interrupted" >"$stamp"
find "$venv" -mindepth 1 -maxdepth 1 ! -name "${stamp##*/}" -exec rm -rf {} +
free=$(df -Pk "$venv" | awk 'NR == 2 { print int($4 / 1048576) }')
[ "$free" -ge "$free_gib" ] || fail "the environment needs $free_gib GiB, the disk of $venv has $free GiB left: free some space, or name a folder on another disk (make env VENV=...)"

total=$(grep -c '^[A-Za-z0-9]' "$lock")
log="$venv/install.log"
echo "Making $venv with $("$python" --version): $total packages, about 7 GB, a few minutes (log: $log)"
"$python" -m venv "$venv"
# Wheels of 3 GB pass through here: the system's own temporary folder is too small on many machines.
export TMPDIR="$venv/tmp"
mkdir "$TMPDIR"

# pip's output goes to the log; a line now and then shows that it is at work.
install() {
  "$venv/bin/python" -m pip install --disable-pip-version-check --require-hashes "$@" 2>&1 | tee -a "$log" |
    awk -v total="$total" '
      /^Collecting/ { if (++seen % 50 == 0) { print "  found " seen " of " total; fflush() } }
      /^Installing collected/ { if (seen > 50) { print "  all found; unpacking"; fflush() } }' ||
    { grep -v '^ ' "$log" | tail -n 15 >&2; fail "pip failed, see above and $log; fix the cause, then run the same command again"; }
}
# The build tools first, and no others for the few packages without a wheel, so that these too build the same everywhere.
awk '/^[^ ]/ { tool = /^(setuptools|wheel|packaging)==/ } tool' "$lock" >"$TMPDIR/build-tools.txt"
[ ! -s "$TMPDIR/build-tools.txt" ] || install --requirement "$TMPDIR/build-tools.txt"
install --no-build-isolation --requirement "$lock"
bash "$here/install_extras.sh" "$venv/bin/python"
rm -rf "$TMPDIR"
echo "$wanted" >"$stamp"
