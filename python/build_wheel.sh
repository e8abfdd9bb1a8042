#!/usr/bin/env bash
# Puts the module and the program into a wheel. pip installs the program beside the interpreter as it is, so that it starts without
# Python. Without this script, as by `pip install ./python`, the wheel has the module alone.
#
#   python/build_wheel.sh MATURIN PROGRAM [arguments of maturin build]
set -euo pipefail
maturin=$1 program=$2
shift 2
folder=$(dirname "$0")
# maturin takes what lies in a folder of the module's name, if there is one. It is removed afterwards, so that no later wheel gets an
# old program.
data=$folder/invaspread._native.data
trap 'rm -rf "$data"' EXIT
mkdir -p "$data/scripts"
strip -o "$data/scripts/invaspread" "$program"
"$maturin" build --manifest-path "$folder/Cargo.toml" "$@"
