#!/bin/sh
# One stretch of a long training, on a machine that is there for minutes and keeps nothing.
#
#   train/stretch.sh IN OUT MINUTES RUN [options of srcli train]
#
#   IN       pieces that were brought: IN/data (the folder of training pictures) and, from the second stretch on,
#            IN/run; made by `python -m srcli_train.parcels split`. Pieces of several transfers may be copied together.
#   OUT      gets the pieces of the run, at most PIECE MiB each (default 15), to be brought back as IN/run
#   MINUTES  wall clock after which the run saves and stops; its schedule (--updates, --minutes) is untouched
#   RUN      name of the run
#
# Run from the repository's root. Nothing has to be installed but the training packages themselves.
set -eu
in=$1 out=$2 minutes=$3 name=$4
shift 4
export PYTHONPATH="$PWD:$PWD/train:$PWD/export${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}

if [ ! -d stretch/data ]; then # whatever the folder was called where it came from
    rm -rf stretch/joined
    "$python" -m srcli_train.parcels join "$in/data" stretch/joined
    mv stretch/joined/* stretch/data
fi
resume=
if [ -f "stretch/$name/last.pt" ] || [ -f "stretch/$name/new.pt" ]; then
    resume=--resume
elif [ -d "$in/run" ]; then
    "$python" -m srcli_train.parcels join "$in/run" stretch
    resume=--resume
fi

code=0
timeout -s TERM -k 60 "${minutes}m" \
    "$python" -m srcli train stretch/data -o "stretch/$name" --cache stretch/cache $resume "$@" || code=$?
[ "$code" -eq 124 ] && code=0 # the time was up, and the run has saved
[ "$code" -eq 0 ] && rm -f "stretch/$name/previous.pt" # it is a copy too many to carry
"$python" -m srcli_train.parcels split "stretch/$name" "$out" --mib "${PIECE:-15}"
exit "$code"
