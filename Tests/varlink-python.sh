#!/bin/sh
# Prints the path of a Python that has PyPI's varlink 31.0.0: the system's if it does, else one in a virtual environment kept in the cache.
set -eu
version=31.0.0
cache=${BATON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/baton}
environment=$cache/python-varlink-$version

has_varlink() { "$1" -c 'import varlink' 2>/dev/null; }

if has_varlink python3; then
    command -v python3
    exit
fi
if ! has_varlink "$environment/bin/python"; then
    fresh=$environment.$$
    mkdir -p "$cache"
    python3 -m venv "$fresh" >&2
    "$fresh/bin/pip" install --quiet --disable-pip-version-check "varlink==$version" >&2
    # Whoever is first wins; the scripts inside are never used by path, so it can be moved.
    mv -T "$fresh" "$environment" 2>/dev/null || rm -rf "$fresh"
fi
echo "$environment/bin/python"
