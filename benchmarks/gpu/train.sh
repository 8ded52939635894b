#!/bin/sh
# Train one of the networks that a GPU is to bring: under ten minutes a call, and the next call goes on.
#
#   benchmarks/gpu/train.sh NETWORK DATA OUT
#
#   NETWORK  photo, mdsr-baseline, edsr-x2, edsr-x3, edsr-x4 (the baselines), mdsr-80 or edsr
#   DATA     folder that holds train/ and valid/
#   OUT      gets NETWORK.tar.aa and so on, pieces of 15 MB: the run's folder; where they are, the run goes on
#
#   PYTHON           the Python to run; default: python3
#   SECONDS_IN_ALL   after which the run saves and stops; default: 540
#   TRY              not empty: three updates of a tiny network on the CPU, to see that the command is right
#
# Run from the repository's root; nothing is installed. It needs PyTorch and tensorboard beside the packages that srcli
# itself needs. The rate falls in the last fifth of a run's updates.
set -u
[ $# -eq 3 ] || { sed -n '4,8s/^# *//p' "$0" >&2; exit 2; }
network=$1 data=$2 out=$3
python=${PYTHON:-python3} limit=${SECONDS_IN_ALL:-540}
export PYTHONPATH="$PWD:$PWD/train:$PWD/export${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
case $network in
    photo)
        set -- --model mdsr-baseline --init mdsr-photo --recipe photo --set network.name=mdsr-photo \
            --set muon_centred=true --set drawings=0.05 --lr 4e-4 --muon-lr 0.002 --patch 48 --updates 100000 ;;
    mdsr-baseline)
        set -- --model mdsr-baseline --init mdsr-baseline --recipe modern --set ema=0 --set candidates=2 \
            --lr 4e-4 --muon-lr 0.003 --patch 64 --updates 214000 ;;
    edsr-x[234])
        set -- --model edsr-baseline -s "${network#edsr-x}" --init edsr-baseline --recipe modern --set ema=0 \
            --set candidates=2 --lr 4e-4 --muon-lr 0.003 --patch 64 --updates 150000 ;;
    mdsr-80)
        set -- --model mdsr-80 --init mdsr-baseline --recipe modern --set ema=0 --set candidates=2 \
            --lr 4e-4 --muon-lr 0.002 --patch 64 --updates 60000 ;;
    edsr)
        set -- --model edsr -s 2 --recipe modern --set ema=0 --set candidates=2 --lr 3e-4 --muon-lr 0.003 \
            --patch 48 --updates 20000 ;;
    *) echo "No network $network to train." >&2; exit 2 ;;
esac
set -- "$@" --set schedule=trapezoid --device cuda --validate-every 5000
if [ -n "${TRY:-}" ]; then # as small as what it starts from allows
    set -- "$@" --device cpu --updates 3 --batch 2 --patch 16 --validate-every 3
    case $network in
        mdsr-80) set -- "$@" --set network.blocks=18 ;; # grows from 16, as 80 do
        edsr) set -- "$@" --set network.blocks=1 --set network.features=8 ;;
    esac
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat "$out/$network".tar.?? 2> "$work/none" | tar -xf - -C "$work" 2> "$work/none"
[ ! -f "$work/$network/last.pt" ] || set -- "$@" --resume
timeout -s INT -k 20 "$limit" "$python" -m srcli train "$data/train" --valid "$data/valid" --cache "$work/cache" \
    --data-name '1,323 crops of freely licensed photographs, 311 megapixels' -o "$work/$network" "$@"
code=$?
[ -f "$work/$network/last.pt" ] || { echo "$network: nothing was trained" >&2; exit 1; }
rm -f "$work/$network/previous.pt" "$work/$network/before-fall.pt" "$work/$network"/events*
tar -cf - -C "$work" "$network" | split -b 15m - "$work/$network.tar."
rm -f "$out/$network".tar.??
mv "$work/$network".tar.?? "$out/"
case $code in 0 | 124 | 130) ;; *) exit "$code" ;; esac
ls -l "$out/$network".tar.??
