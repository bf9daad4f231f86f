# Sourced by scripts that do something long after scripts/environment.sh: progress, and the output of what failed.

# watched WHAT PROGRESS COMMAND…: runs COMMAND and prints a line every ten seconds, with what PROGRESS prints. Its output goes to
# $work/log, and to $store/failed.log when it fails, which ends the script.
watched() {
    local what=$1 progress=$2 log=$work/log started=$SECONDS
    shift 2
    "$@" >"$log" 2>&1 </dev/null &
    local job=$!
    while kill -0 $job 2>/dev/null; do
        sleep 0.5
        (((SECONDS - started) % 10 == 9)) && { say "$what: $((SECONDS - started)) s$($progress)"; sleep 0.6; }
    done
    if ! wait $job; then
        grep -nE 'error|Error' "$log" | tail -n 10 >&2 || true
        tail -n 20 "$log" >&2
        cp "$log" "$store/failed.log"
        die "$what failed; the whole output is in $store/failed.log"
    fi
    say "$what: done in $((SECONDS - started)) s"
}
nothing() { :; }
