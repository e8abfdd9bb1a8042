#!/usr/bin/env bash
# Puts the module and the program into a wheel. pip installs the program beside the interpreter as it is, so that it starts without
# Python.
#
#   python/build_wheel.sh MATURIN PROGRAM [arguments of maturin build]
set -euo pipefail
maturin=$1 program=$2
shift 2
folder=$(dirname "$0")
scripts=$folder/invaspread.data/scripts
mkdir -p "$scripts"
strip -o "$scripts/invaspread" "$program"
exec "$maturin" build --manifest-path "$folder/Cargo.toml" "$@"
