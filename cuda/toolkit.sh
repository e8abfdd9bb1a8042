#!/usr/bin/env bash
# Assembles what a CUDA build needs from public Python wheels (about 280 MB), on a machine without a GPU and
# without CUDA.
#
#   cuda/toolkit.sh [FOLDER]        FOLDER defaults to target/cuda; running it again does nothing
#
# FOLDER/toolkit is then a CUDA_HOME. It holds nvcc 13.0 with its headers, the runtime as a static archive, and
# empty libraries in place of those that the program opens while it runs. nvcc stays at 13.0: drivers of series
# 580 refuse the PTX of a newer one.
#
# candle's kernels for quantized matrices and mixtures of experts, which nothing here calls, take twelve of its
# thirteen minutes of compile time. A wrapper around nvcc replaces them by functions that abort.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-target/cuda}")
toolkit=$folder/toolkit
[ -x "$toolkit/bin/nvcc" ] && exit 0

for tool in python3 cargo gcc g++; do
    command -v "$tool" >/dev/null || { echo "error: $tool is needed and was not found" >&2; exit 1; }
done
wheels=$folder/wheels
real=$wheels/nvidia/cu13
if [ ! -x "$real/bin/nvcc" ]; then
    python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --upgrade --target "$wheels" \
        nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
fi

cargo fetch --quiet
kernels=$(cargo metadata --format-version 1 --features cuda | python3 -c '
import json, os, sys
found = [p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "candle-kernels"]
print(os.path.dirname(found[0]))')

half=$folder/toolkit.unfinished
rm -rf "$half"
mkdir -p "$half/bin" "$half/lib64"
ln -s lib64 "$half/lib"
ln -s "$real/include" "$half/include"
ln -s "$real/nvvm" "$half/nvvm"
for file in "$real"/bin/*; do
    [ "${file##*/}" = nvcc ] || ln -s "$file" "$half/bin/"
done
# candle links the CUDA runtime; with the static one no library has to be found at run time.
ln -s "$real/lib/libcudart_static.a" "$half/lib64/libcudart.a"
for library in cuda nvrtc curand cublas cublasLt cudnn; do
    echo 'static int nothing;' | gcc -shared -fPIC -x c - -o "$half/lib64/lib$library.so"
done
{
    echo '#include <stdlib.h>'
    grep -oE 'fn [a-zA-Z0-9_]+\(' "$kernels/src/ffi.rs" | sort -u | sed -E 's/fn (.*)\(/extern "C" void \1() { abort(); }/'
} >"$half/unused.cu"
: >"$half/empty.cu"
cat >"$half/bin/nvcc" <<WRAPPER
#!/usr/bin/env bash
arguments=("\$@")
for i in "\${!arguments[@]}"; do
    case "\${arguments[\$i]}" in
    *mmq_quantize.cu) arguments[\$i]=$toolkit/unused.cu ;;
    *src/mmq_gguf/*.cu | *src/moe/*.cu | *src/mmvq_gguf.cu) arguments[\$i]=$toolkit/empty.cu ;;
    esac
done
exec $real/bin/nvcc "\${arguments[@]}"
WRAPPER
chmod +x "$half/bin/nvcc"
rm -rf "$toolkit"
mv "$half" "$toolkit"
echo "CUDA toolkit in $toolkit"
