#!/usr/bin/env bash
# Runs the tests of the CUDA side: kernels, launches and training on a GPU. Without a GPU they run on an emulated
# device, whose libraries stand in for the driver, cuBLAS, cuDNN and cuRAND and run our kernels on the CPU
# (crates/tensor/emulator).
#
#   cuda/test.sh [arguments of cargo test]
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -e /dev/nvidiactl ] && [ -z "${INVASPREAD_EMULATE:-}" ]; then
    echo "== on the GPU of this machine (INVASPREAD_EMULATE=1 for the emulated one)"
else
    echo "== on two emulated devices"
    emulator=$PWD/target/cuda/emulator
    crates/tensor/emulator/build.sh "$emulator"
    export LD_LIBRARY_PATH="$emulator${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export INVASPREAD_EMULATOR_DEVICES=2
    unset INVASPREAD_CUDA_LIBRARIES
fi
# By default a test that finds no device is skipped and passes; here that is an error.
export INVASPREAD_EXPECT_CUDA=1
./cuda/cargo.sh test -p invaspread-tensor -p invaspread-losses -p invaspread-metrics -p invaspread-models -p invaspread-runner \
    -p invaspread --no-default-features --features invaspread/cuda "$@"

# What the assembler says of every kernel on every card, for the log. A test compares it with what the cards have.
table=$(ls -t target/*/*/build/invaspread-tensor-*/out/kernels.txt 2>/dev/null | head -n 1)
if [ -n "$table" ]; then
    echo "== every kernel on the card where it needs the most registers"
    head -n 1 "$table"
    tail -n +2 "$table" | sort -k1,1 -k4,4nr | awk '!seen[$1]++'
fi
