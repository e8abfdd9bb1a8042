#!/usr/bin/env bash
# Uses an hour on a GPU machine in order of importance: checks that the results are right, then measures the
# speed, then runs the paper's tables for the rest of the time.
#
#   cuda/session.sh [MINUTES] [--data FOLDER] [--state FOLDER] [--binary FILE] [--python PYTHON]
#
# MINUTES   when to stop; 55 if not given. Stopped runs resume from their checkpoint in the next session
# --data    holds cifar-10-batches-bin or the archive; $INVASPREAD_DATA if not given
# --state   keeps runs, reports and logs from session to session; gpu-session if not given
# --binary  the program from `just build-cuda`; found under target/ if not given
# --python  an interpreter with torch, which is timed beside ours; it often has the CUDA libraries too;
#           python3 if not given
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=55 data=${INVASPREAD_DATA:-} state=gpu-session python=python3
binary=$(ls target/*/release/invaspread 2>/dev/null | head -1 || true)
case "${1:-}" in [0-9]*) minutes=$1; shift ;; esac
while [ $# -gt 0 ]; do
    case "$1" in
    --data) data=$2 ;; --state) state=$2 ;; --binary) binary=$2 ;; --python) python=$2 ;;
    *) echo "error: $1: expected --data, --state, --binary or --python" >&2; exit 2 ;;
    esac
    shift 2
done
[ -x "$binary" ] || { echo "error: no program at '$binary'; \`just build-cuda\` makes one, or name it with --binary" >&2; exit 2; }
[ -d "$data" ] || { echo "error: no folder '$data'; name the one that holds CIFAR-10 with --data" >&2; exit 2; }
mkdir -p "$state"
began=$SECONDS
left() { echo $((minutes * 60 - (SECONDS - began))); }
say() { echo "== $((SECONDS - began)) s: $*" | tee -a "$state/session.log"; }

# PyTorch's wheels bring the CUDA libraries that the program opens.
if [ -z "${INVASPREAD_CUDA_LIBRARIES:-}" ]; then
    found=$("$python" -c 'import nvidia; print(":".join(nvidia.__path__))' 2>/dev/null || true)
    [ -z "$found" ] || export INVASPREAD_CUDA_LIBRARIES=$found
fi

say "doctor"
if ! "$binary" doctor | tee "$state/doctor.txt"; then
    say "doctor found something wrong, see above: nothing else is worth running"
    exit 1
fi
grep -q "^gpu:" "$state/doctor.txt" || { say "no GPU here"; exit 1; }

# The benches must not take the whole session: they get a third of it.
if [ ! -s "$state/GPU.md" ]; then
    say "benches beside PyTorch"
    timeout --kill-after=30 $((minutes * 20)) "$python" benches/compare.py --device cuda --ours "$binary" --python "$python" \
        --record "$state/gpu.json" --out "$state/GPU.md" || say "the benches did not finish; what was measured is in gpu.json"
fi

# InvaSpread's three seeds, the other rows of Table 1, Tables 7 and 8.
reproduce() {
    local seconds
    seconds=$(($(left) - 60))
    [ "$seconds" -gt 60 ] || { say "no time left for $1 ${*:2}"; return 0; }
    say "reproduce $*"
    # An interrupt stops a run at its next step and saves a checkpoint of that step.
    timeout --signal=INT --kill-after=50 "$seconds" "$binary" reproduce "$@" --profile paper --data-root "$data" --runs "$state/runs" \
        --out "$state/results/$1" device=cuda precision=bf16 2>&1 | tee -a "$state/$1.log" || say "$1 stopped; it goes on next time"
}
reproduce invaspread
reproduce table1 --seeds 0
for suite in table7 table8; do
    reproduce "$suite" --seeds 0
done
reproduce table1 --seeds 0,1,2
say "done; $(left) s left"
