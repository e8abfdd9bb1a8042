#!/usr/bin/env bash
# Builds the emulated device into a folder: every kernel of ../kernels, and the libraries that stand in for
# NVIDIA's.
#
#   build.sh FOLDER        then run programs with LD_LIBRARY_PATH=FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/objects"
folder=$(cd "$1" && pwd)
flags=(-g -fPIC -std=c++17 -fno-strict-aliasing -ffp-contract=off -Wall -Wno-unused-function -Wno-unknown-pragmas
    -I "$here" -I "$here/../kernels")
running=()
objects=()
for source in "$here"/../kernels/*.cu "$here/candle.cu" "$here"/{driver,kernels,graph,clock,libraries,backend}.cpp; do
    name=${source##*/}
    object=$folder/objects/${name%.*}.o
    objects+=("$object")
    # Compile only what has changed since the last build.
    newest=$(ls -t "$source" "$here"/*.hpp "$here"/../kernels/*.cuh "$0" | head -n 1)
    if [ ! "$object" -nt "$newest" ]; then
        # The loops of convolutions take most of a test's time.
        [ "${source##*/}" = libraries.cpp ] && optimize=-O3 || optimize=-O1
        g++ "${flags[@]}" "$optimize" -x c++ -c "$source" -o "$object" &
        running+=($!)
    fi
done
for compiler in "${running[@]}"; do wait "$compiler"; done
kernels=()
libraries=()
for object in "${objects[@]}"; do
    case "${object##*/}" in
    libraries.o | backend.o) libraries+=("$object") ;;
    *) kernels+=("$object") ;;
    esac
done
g++ -shared -Wl,-soname,libcuda.so.1 -o "$folder/libcuda.so.1" "${kernels[@]}"
# The libraries are linked with the driver, because they tell it what they would launch.
for library in libcublas.so.13 libcublasLt.so.13 libcudnn.so.9 libcurand.so.10; do
    g++ -shared "-Wl,-soname,$library" -o "$folder/$library" "${libraries[@]}" "$folder/libcuda.so.1"
done
