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
exec ./cuda/cargo.sh test -p invaspread-tensor -p invaspread-losses -p invaspread-metrics -p invaspread-models -p invaspread-runner \
    --features invaspread-runner/cuda "$@"
