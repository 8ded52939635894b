# Sourced by prove.sh and measure.sh: parts with a time limit each, and all they write in one archive.
#
# The script that sources it has set `archive`, a file name, and was called with OUT [PART ...]. Sets `results`, the
# folder that goes into the archive, `scratch`, one that does not, `python` and `failed`. The archive is written anew after every part, so that it holds what there is when the script is stopped.
#
#   PYTHON           the Python to run; default: python3
#   SECONDS_IN_ALL   when they are over, no part is begun any more; default: 570

out=$1
shift
wanted=$*
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
results=$work/results scratch=$work/scratch
mkdir -p "$results" "$scratch" "$out"
out=$(cd "$out" && pwd)
deadline=$(($(date +%s) + ${SECONDS_IN_ALL:-570}))
export PYTHONPATH="$PWD:$PWD/train:$PWD/export${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
export SRCLI_CACHE="${SRCLI_CACHE:-$scratch/cache}"
python=${PYTHON:-python3}
failed=0

# part NAME SECONDS COMMAND...: what it prints is kept as NAME.txt; one that fails does not stop the others
part() {
    name=$1 limit=$2
    shift 2
    case " ${wanted:-$name} " in *" $name "*) ;; *) return ;; esac
    left=$((deadline - $(date +%s)))
    [ "$left" -ge "$limit" ] || limit=$left
    if [ "$limit" -lt 5 ]; then
        echo "$name: left out, for the time is over"
        failed=1
        return
    fi
    echo "== $name, at most $limit s"
    timeout -k 5 "$limit" "$@" > "$results/$name.txt" 2>&1
    code=$?
    tail -n 25 "$results/$name.txt"
    case $code in
        0) ;;
        124 | 137) echo "$name: stopped after $limit s" ;;
        *) echo "$name: failed with $code" ;;
    esac
    [ "$code" -eq 0 ] || failed=1
    tar -czf "$out/unfinished" -C "$results" . && mv "$out/unfinished" "$out/$archive"
}
