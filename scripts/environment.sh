# Sourced by the scripts: where things are, and how they speak. Sets nothing outside the variables below.
#   BATON_CACHE  what survives a fresh checkout: packages, the lab kernel, build products of dependencies

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${BATON_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/baton}

# The toolchain is the one on PATH, else the one in /opt/swift.
if ! command -v swift >/dev/null && [[ -x /opt/swift/usr/bin/swift ]]; then
    export PATH=$PATH:/opt/swift/usr/bin
fi

self=${0##*/}
say() { printf '%s: %s\n' "$self" "$*" >&2; }
die() { printf '%s: error: %s\n' "$self" "$*" >&2; exit 1; }

# A script that stops because some command failed says which.
stopped() { say "stopped at line $2: ${1%%$'\n'*} (status $3)"; }
set -E
trap 'stopped "$BASH_COMMAND" "$LINENO" "$?"' ERR
