#!/bin/sh
# Does srcli run right on this GPU? The doctor's findings, then every test that needs a GPU: backends against the
# CPU's f32 pictures, engines found again, short memory, streams, training.
#
#   benchmarks/gpu/prove.sh OUT [options of pytest]
#
#   OUT  gets doctor.json, doctor.txt and tests.txt
#
# Run from the repository's root, with pytest and the packages of the backends to prove; nothing is installed.
# Ends with 0 if nothing failed; tests of backends that are not installed are skipped, and said.
set -u
out=$1
shift
mkdir -p "$out"
export PYTHONPATH="$PWD:$PWD/train:$PWD/export${PYTHONPATH:+:$PYTHONPATH}"
export SRCLI_CACHE="${SRCLI_CACHE:-$out/cache}"
python=${PYTHON:-python3}

"$python" -m srcli doctor > "$out/doctor.txt" 2>&1
"$python" -m srcli doctor --json > "$out/doctor.json" 2> /dev/null
cat "$out/doctor.txt"
"$python" -m pytest -m gpu -p no:cacheprovider -rs "$@" tests > "$out/tests.txt" 2>&1
code=$?
tail -n 40 "$out/tests.txt"
rm -rf "$out/cache"
exit "$code"
