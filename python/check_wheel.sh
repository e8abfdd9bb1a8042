#!/usr/bin/env bash
# The wheel from its build to its use: built of what `cargo test --workspace` has compiled, installed by pip into a clean environment,
# and used there: the module, the program, the module's tests and the example, as far as PYTHONPATH has what these two need.
#
#   python/check_wheel.sh [MATURIN]      # maturin if not given
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
maturin=${1:-maturin}
target=${CARGO_TARGET_DIR:-$root/target}
work=$target/wheel-check
program=$target/debug/invaspread
fail() {
    echo "error: $*" >&2
    exit 1
}
[ -x "$program" ] || fail "found no $program; run cargo test --workspace --no-run first"
rm -rf "$work"
# With the features of the workspace's tests, and so of what they have compiled.
python/build_wheel.sh "$maturin" "$program" --profile dev --features workspace --strip --compression-method stored --offline --out "$work"

wheel=$(ls "$work"/invaspread-*.whl)
contents=$(python3 -m zipfile -l "$wheel")
for file in invaspread/__init__.py invaspread/_native.abi3.so invaspread/_native.pyi invaspread/py.typed .data/scripts/invaspread \
    .dist-info/licenses/LICENSE-MIT .dist-info/licenses/LICENSE-APACHE; do
    grep -qF "$file" <<<"$contents" || fail "$wheel has no $file: $contents"
done
! grep -E "tests/|examples/|\.sh|torch_without" <<<"$contents" || fail "$wheel has files that are of no use where it is installed"

python3 -m venv "$work/environment"
bin=$work/environment/bin
cd "$work" # where no folder invaspread hides the installed one
alone() { env -u PYTHONPATH "$@"; } # with nothing but what the wheel brings and depends on
alone "$bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
version=$(alone "$bin/python" -c "import invaspread; print(invaspread.__version__)")
said=$(PATH=$bin:$PATH alone invaspread --version)
[ "$said" = "invaspread $version" ] || fail "the program says $said, and the module is of version $version"
[ "$(head -c 4 "$bin/invaspread" | tail -c 3)" = ELF ] || fail "$bin/invaspread is no program of its own"
echo "installed $(basename "$wheel") of $(stat -c %s "$wheel") bytes: $said"

INVASPREAD_PROGRAM=$bin/invaspread "$bin/python" -m pytest -q -rs -p no:cacheprovider "$root/python/tests"
if "$bin/python" -c "import torch, torchvision" 2>/dev/null; then
    "$bin/python" "$root/python/examples/train.py"
else
    echo "skipped: python/examples/train.py: PYTHONPATH has no torch and torchvision"
fi
