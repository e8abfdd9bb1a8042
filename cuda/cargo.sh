#!/usr/bin/env bash
# Runs cargo so that feature `cuda` builds and links on a machine without CUDA. The program opens CUDA's
# libraries only when it runs.
#
#   cuda/cargo.sh build --release -p invaspread --features cuda
#   cuda/cargo.sh test -p invaspread-tensor --features cuda
#
# The results are in target/x86_64-unknown-linux-gnu (or this machine's own triple).
#
# cudarc has code for both kinds of loading, but its build script refuses the feature `dynamic-loading` beside
# the `dynamic-linking` that candle turns on. As a configuration flag the feature reaches only the code: with an
# explicit --target, cargo does not pass flags to build scripts. The linker then drops the libraries that
# nothing refers to.
set -euo pipefail
cd "$(dirname "$0")/.."
./cuda/toolkit.sh
triple=$(rustc -vV | sed -n 's/^host: //p')
export CUDA_HOME="$PWD/target/cuda/toolkit"
export PATH="$CUDA_HOME/bin:$PATH"
# candle's own kernels are built as PTX, which every card since the A100 accepts; ours carry machine code for each
# card (crates/tensor/build.rs).
export CUDA_COMPUTE_CAP=80
upper=$(echo "$triple" | tr 'a-z-' 'A-Z_')
declare -x "CARGO_TARGET_${upper}_RUSTFLAGS=--cfg feature=\"dynamic-loading\""
subcommand=$1
shift
exec cargo "$subcommand" --target "$triple" "$@"
