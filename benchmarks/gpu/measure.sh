#!/bin/sh
# How fast is srcli on this GPU? Under ten minutes: all engines on inputs with the pixels of 540p, 1080p and 12
# megapixels, srcli beside eager PyTorch and plain ONNX Runtime, a folder end to end, and the rate of training.
#
#   benchmarks/gpu/measure.sh OUT
#
#   OUT  gets engines.json, engines.csv, engines.md, side-by-side.json, pipeline.json and training.json
#
# Run from the repository's root, after prove.sh; nothing is installed. A part that cannot run here is said and
# left out, and the script then ends with 1.
set -u
out=$1
mkdir -p "$out"
export PYTHONPATH="$PWD:$PWD/train:$PWD/export${PYTHONPATH:+:$PYTHONPATH}"
export SRCLI_CACHE="${SRCLI_CACHE:-$out/cache}"
python=${PYTHON:-python3}
failed=0

part() {
    name=$1
    shift
    timeout 140 "$@" > "$out/$name.txt" 2>&1 || { echo "$name: failed"; failed=1; }
    tail -n 25 "$out/$name.txt"
}

# 720² has the pixels of 540p, 1440² those of 1080p, 3464² twelve megapixels
part engines "$python" -m srcli benchmark --device cuda --size 720 --size 1440 --size 3464 --repetitions 5 \
    --json "$out/engines.json" --csv "$out/engines.csv" --markdown "$out/engines.md"
part side-by-side "$python" benchmarks/side_by_side.py --device cuda --smallest 0.5 --largest 2 \
    --out "$out/side-by-side.json"
part pipeline "$python" benchmarks/pipeline.py --pictures 20 --smallest 0.5 --largest 2 --out "$out/pipeline.json"
part training "$python" benchmarks/training.py --device cuda --recipe paper --block 200 --out "$out/training.json"
rm -rf "$out/cache"
exit "$failed"
