#!/bin/sh
# Does srcli run right on this GPU? The doctor's findings, then every test that needs a GPU, a backend at a time:
# its pictures against the CPU's in fp32, engines found again, short memory, streams, training. Under ten minutes.
#
#   benchmarks/gpu/prove.sh OUT [PART ...]
#
#   OUT    gets proof.tar.gz: doctor.txt (JSON) and what pytest said in each part
#   PART   doctor, torch, onnxruntime, training or tensorrt; default: all, TensorRT last, since it is able to
#          end the process
#
# Run from the repository's root; nothing is installed. It needs Python with pytest, hypothesis, the packages that
# srcli itself needs, and those of the backends to prove. It begins with a look at what is there, and stops at once
# where something is missing, with the wheels to unpack onto PYTHONPATH.
#
# On an H200 doctor, torch and onnxruntime ran and passed, and the tests of training, which have grown since. There,
# TensorRT for RTX refuses the GPU; the full one never ran.
#
# Exits with 0 if every part passed at least one test and failed none; tests that are skipped are said.
set -u
here=$(dirname "$0")
"${PYTHON:-python3}" "$here/preflight.py" prove || exit 2
archive=proof.tar.gz
. "$here/parts.sh"

prove() {
    part "$1" "$2" "$python" -m pytest -m gpu -p no:cacheprovider -rs --durations 5 -k "$3" $4
    [ ! -f "$results/$1.txt" ] || grep -q "[0-9] passed" "$results/$1.txt" ||
        { echo "$1: nothing is proven"; failed=1; }
}

tests=$(grep -l "mark\.gpu" tests/backends/test_*.py) # -k takes those of a backend, by their names
part doctor 60 "$python" -m srcli doctor --json
failed=0 # what it finds does not count
prove torch 90 "torch and not tensorrt" "$tests"
prove onnxruntime 140 "onnxruntime and not torch and not tensorrt" "$tests"
prove training 80 "gpu" "$(grep -l "mark\.gpu" tests/train/test_*.py)"
prove tensorrt 190 "tensorrt" "$tests"
exit "$failed"
