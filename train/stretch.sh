#!/bin/sh
# One stretch of a long training, on a machine that is there for minutes, keeps nothing, has no package index and
# takes and gives only so many bytes a transfer.
#
#   train/stretch.sh IN OUT MINUTES RUN [options of srcli train]
#
#   IN       pieces that were brought: IN/data (folder of training pictures), IN/valid (of validation pictures, if
#            wanted) and, from the second stretch on, IN/run
#   OUT      gets the first pieces of the run, to be brought back
#   MINUTES  wall clock after which the run saves and stops, 0.5 is half a minute; its schedule (--updates,
#            --minutes) is untouched. Leave two minutes for all that comes before and after.
#   RUN      name of the run
#
#   PIECE=15     MiB, largest piece
#   COUNT=4      pieces in one transfer back
#   TRANSFERS=1  transfers back that there will be; a run that needs more is refused before anything is done
#   PYTHON=python3
#
# Run from the repository's root. Nothing has to be installed, but numpy, cv2, simplejpeg, torch, tensorboard, typer
# and rich have to be there: that is looked at first. Those that are missing can be brought as wheels, unpacked into
# a folder that is put on PYTHONPATH.
#
# The whole of it, with an MDSR, whose checkpoint and optimizer state take seven pieces. Here, once, as many pieces a
# folder as one transfer takes; each says what is left:
#   python -m srcli_train.parcels split data/valid stretch/valid-1
#   python -m srcli_train.parcels split data/train stretch/data-1 --count 2
#   python -m srcli_train.parcels split data/train stretch/data-2 --from 2 --count 2
# There, after each transfer, while the machine is still there:
#   mkdir -p stretch/in/valid stretch/in/data
#   cp stretch/valid-1/* stretch/in/valid; cp stretch/data-1/* stretch/in/data
# There, when all of them have arrived:
#   TRANSFERS=2 sh train/stretch.sh stretch/in OUT 8 mdsr --model mdsr --device cuda
# There, for the second transfer back:
#   python3 -m srcli_train.parcels split stretch/mdsr OUT --from 4 --count 4     (PYTHONPATH=.:train)
# Here: put what came back with both into one folder, then
#   python -m srcli_train.parcels join FOLDER runs
# and next time, with data and valid, bring FOLDER's pieces as stretch/in/run, and repeat the same command.
#
# Ends with 0 if the run has saved, and with 124 if the time was up before it could.
set -eu
in=$1 out=$2 minutes=$3 name=$4
shift 4
export PYTHONPATH="$PWD:$PWD/train:$PWD/export${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3} piece=${PIECE:-15} count=${COUNT:-4}

bring() { # IN/$1 as stretch/$2, whatever the folder was called where it came from
    rm -rf stretch/joined "stretch/$2"
    "$python" -m srcli_train.parcels join "$in/$1" stretch/joined
    mv stretch/joined/* "stretch/$2"
}

holds_run() { # the rule of srcli_train.runfolder
    [ -f "stretch/$name/last.pt" ] || [ -f "stretch/$name/new.pt" ] || [ -f "stretch/$name/previous.pt" ]
}

saved() { # in this stretch
    [ -n "$(find "stretch/$name" -name last.pt -newer stretch/started)" ]
}

"$python" -m srcli_train.stretch "$piece" "$count" "${TRANSFERS:-1}" "$@"

[ -d stretch/data ] || bring data data
valid=
if [ -d "$in/valid" ]; then
    [ -d stretch/valid ] || bring valid valid
    valid="--valid stretch/valid"
fi
if ! holds_run && [ -d "$in/run" ]; then bring run "$name"; fi
resume=
if holds_run; then resume=--resume; fi

code=0
touch stretch/started
# shellcheck disable=SC2086 # $valid is two words or none
timeout -s TERM -k 60 "${minutes}m" \
    "$python" -m srcli train stretch/data $valid -o "stretch/$name" --cache stretch/cache $resume "$@" || code=$?

if ! holds_run; then
    echo "error: the stretch ended before its first checkpoint; there is nothing to bring back." >&2
    exit "$code"
fi
if [ "$code" -eq 124 ]; then
    if saved; then code=0; else echo "error: the time was up before anything new was saved." >&2; fi
fi
# too much to carry: a second copy, TensorBoard's pictures (log.csv has the numbers), a save that was killed
if [ -f "stretch/$name/last.pt" ]; then rm -f "stretch/$name/previous.pt"; fi
rm -f "stretch/$name"/events.out.* "stretch/$name"/.new.pt.*
"$python" -m srcli_train.parcels split "stretch/$name" "$out" --mib "$piece" --count "$count"
exit "$code"
