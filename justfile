# invaspread: the commands of every day. `just` lists them.

set positional-arguments

[private]
default:
    @just --list --unsorted

# Train InvaSpread, a triplet loss and a random network on generated images; a table, curves and a picture in under 4 minutes
demo *arguments:
    cargo run --release -- demo "$@"

# Table 1 and Figure 3 on CIFAR-10 (profile=paper: 200 epochs; `just reproduce-cifar10 --profile quick` for a CPU)
reproduce-cifar10 *arguments:
    cargo run --release -- reproduce table1 "$@"
    cargo run --release -- reproduce figure3 "$@"

# Table 7: InvaSpread without each of its augmentations (`--profile quick` for a CPU)
ablation-augment *arguments:
    cargo run --release -- reproduce table7 "$@"

# Table 8: no augmentation, the hardest and the easiest half of the negatives
ablation-negatives *arguments:
    cargo run --release -- reproduce table8 "$@"

# Table 2: STL-10, linear and kNN accuracy
reproduce-stl10 *arguments:
    cargo run --release -- reproduce table2 "$@"

# Table 3 and Figure 4: CUB-200-2011, from Inception-v1's weights: `just reproduce-cub200 model.weights=FILE`
reproduce-cub200 *arguments:
    cargo run --release -- reproduce table3 "$@"
    cargo run --release -- reproduce figure4 "$@"

# Tables 4 and 6: Stanford Online Products, from Inception-v1's weights (the first argument) and from scratch
reproduce-products weights *arguments:
    weights="$1"; shift; cargo run --release -- reproduce table4 "model.weights=$weights" "$@"
    shift; cargo run --release -- reproduce table6 "$@"

# Table 5: Cars196, from Inception-v1's weights: `just reproduce-cars196 model.weights=FILE`
reproduce-cars196 *arguments:
    cargo run --release -- reproduce table5 "$@"

# Every table and figure whose data is there, and results/index.md, which sets them beside the paper's
reproduce-all *arguments:
    cargo run --release -- reproduce all "$@"

# Download CIFAR-10, check it and say what is there
fetch-cifar10:
    cargo run --release -- data fetch cifar10
    cargo run --release -- data verify cifar10

# One run: `just train dataset=cifar10 method=nce profile=quick seed=1`
train *arguments:
    cargo run --release -- train "$@"

# The tests that the README names
test:
    cargo test --workspace

# Formatting, tests, lints and docs, as CI runs them
ci:
    ./.ci/run

# Only the tests that compare with the authors' PyTorch code; `just golden FOLDER` for another folder of goldens
golden folder="tests/goldens":
    INVASPREAD_GOLDENS="$(realpath "{{folder}}")" cargo test --workspace golden

# What a run survives, in the long form: hundreds of kills, full disks, failing calls, damaged files, hostile archives (tests/faults)
faults:
    INVASPREAD_FAULTS=long cargo test --release -p invaspread --test faults -- --nocapture

# Look for bytes that a parser stumbles over: `just fuzz matlab 600`; needs a nightly compiler and cargo-fuzz (fuzz/README.md)
fuzz target seconds="60":
    mkdir -p "fuzz/target/inputs/{{target}}"
    cargo +nightly fuzz run "{{target}}" "fuzz/target/inputs/{{target}}" "fuzz/corpus/{{target}}" -- -max_total_time="{{seconds}}" -timeout=10 -rss_limit_mb=2048

# Criterion benches of the kernels, the training step and augmentation
bench *arguments:
    cargo bench --workspace "$@"

# What a CUDA build needs, from public Python wheels, into target/cuda (no GPU and no CUDA needed)
cuda-toolkit:
    ./cuda/toolkit.sh

# One binary for machines with and without a GPU: target/<this machine's triple>/release/invaspread
build-cuda *arguments:
    ./cuda/cargo.sh build --release -p invaspread --features cuda "$@"

# The Python wheel with the program in it, in target/wheels; MATURIN is its program (`pip install maturin`)
build-wheel maturin="maturin":
    cargo build --release -p invaspread -p invaspread-python
    python/build_wheel.sh "{{maturin}}" target/release/invaspread --release --out target/wheels

# The wheel, built quickly, in a clean environment: the program, the module, its tests, and the example if PYTHONPATH has PyTorch
check-wheel maturin="maturin":
    cargo test --workspace --no-run
    python/check_wheel.sh "{{maturin}}"

# The tests of the Python module, beside what PYTHON has of torch, torchvision, scikit-learn, pytorch-metric-learning and lightly
test-python python="python3":
    INVASPREAD_PYTHON="{{python}}" cargo test -p invaspread -p invaspread-python --test module -- --nocapture

# The tests of the CUDA side; without a GPU, on an emulated one (crates/tensor/emulator)
test-cuda:
    ./cuda/test.sh

# Both stays of cuda/visit.py, start to end, on an emulated device
test-visit:
    INVASPREAD_EMULATE=1 ./cuda/test.sh --no-run --test cuda_ops --test cuda_spread
    python3 cuda/test_visit.py

# On a GPU machine, `just gpu-session [MINUTES] --data FOLDER`: doctor, the benches beside PyTorch, then the paper's tables, each run continued where it stopped
gpu-session *arguments:
    ./cuda/session.sh "$@"

# A GPU machine for a few minutes (cuda/README.md): `just gpu-visit pack FOLDER` makes the files to take there, `cut`, `unpack` what goes and comes in pieces
gpu-visit *arguments:
    python3 cuda/visit.py "$@"

# Every network as an ONNX model, in onnxruntime and in tract, beside our own embedding; PYTHON has numpy, onnx, onnxruntime and pyarrow. Builds tract without optimization, three CPU minutes, in which ResNet-50 runs for a minute
check-onnx python:
    mkdir -p target/onnx
    INVASPREAD_PYTHON="{{python}}" INVASPREAD_ONNX_CASES="$(realpath target/onnx)" cargo test -p invaspread --test onnx --test embed -- --nocapture
    CARGO_TARGET_DIR=target/tract cargo run --manifest-path tests/tract/Cargo.toml -- target/onnx

# The machine, the device, the data that is there, and a check of every op
doctor:
    cargo run --release -- doctor

# Ours beside the strongest of PyTorch, albumentations, faiss, scikit-learn and lightly, five pairs of each; PYTHON has them installed. Goes on where it stopped; writes benches/README.md
bench-compare python *arguments:
    cargo build --release
    python3 benches/compare.py --python "$@"
