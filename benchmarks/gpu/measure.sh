#!/bin/sh
# How fast is srcli on this GPU? Under ten minutes: all engines in fp16 on inputs with the pixels of 540p, 1080p and
# 12 megapixels (720², 1440², 3464²), through tiles as `srcli upscale` runs them; the large EDSR and MDSR, untrained;
# a folder end to end; srcli beside eager PyTorch and plain ONNX Runtime; the rate of training.
#
#   benchmarks/gpu/measure.sh OUT [PART ...]
#
#   OUT    gets results.tar.gz: what each part printed, and its figures as JSON, CSV and Markdown
#   PART   untrained, engines-BACKEND, large-BACKEND (after untrained, in the same call), pipeline-BACKEND,
#          side-by-side or training; BACKEND is torch, onnxruntime or tensorrt; default: all, TensorRT last, since
#          it is able to end the process
#
# Run from the repository's root, after prove.sh; nothing is installed. It needs Python with matplotlib, PyTorch,
# the packages that srcli itself needs (simplejpeg and OpenCV 4.12 among them) and onnxruntime-gpu. It begins with a
# look at what is there, and stops at once where something is missing, with the wheels to unpack onto PYTHONPATH.
#
# The whole of it has not run on hardware yet: so far its parts ran with a stand-in of Python, on a machine without a
# GPU, and the commands of some by hand on an H200; the time limits are estimates.
#
# Every part has its own time limit; what one had measured until then is kept. A part that cannot run here is said
# and left out, and the script then exits with 1.
set -u
here=$(dirname "$0")
"${PYTHON:-python3}" "$here/preflight.py" measure || exit 2
archive=results.tar.gz
. "$here/parts.sh"

engines() {
    name=$1 limit=$2 backend=$3
    shift 3
    part "$name" "$limit" "$python" -m srcli benchmark --backend "$backend" --device cuda --precision fp16 -s 2 \
        --tile 384 --size 384 --size 720 --size 1440 --repetitions 3 --starts 1 \
        --json "$results/$name.json" --csv "$results/$name.csv" --markdown "$results/$name.md" "$@"
}

shipped() { engines "engines-$1" "$2" "$1" --model mdsr-baseline --model edsr-baseline --size 3464; }

large() {
    edsr=$scratch/edsr-untrained-x2.onnx mdsr=$scratch/mdsr-80-untrained-x2.onnx
    [ ! -f "$mdsr" ] || engines "large-$1" "$2" "$1" --model "$edsr" --model "$mdsr"
}

pipeline() {
    part "pipeline-$1" "$2" "$python" benchmarks/pipeline.py --device cuda --backend "$1" --scale 2 --pictures 12 \
        --smallest 0.5 --largest 2 --repetitions 2 --out "$results/pipeline-$1.json"
}

part untrained 50 "$python" "$here/untrained.py" "$scratch"
shipped torch 55
large torch 60
shipped onnxruntime 60
large onnxruntime 65
pipeline onnxruntime 40
part side-by-side 45 "$python" benchmarks/side_by_side.py --device cuda --backend onnxruntime --pictures 4 \
    --smallest 0.5 --largest 2 --repetitions 2 --out "$results/side-by-side.json"
part training 75 "$python" benchmarks/training.py --device cuda --recipe paper --block 1000 --repetitions 2 \
    --out "$results/training.json"
shipped tensorrt 55
large tensorrt 55
pipeline tensorrt 40
exit "$failed"
