"""Installs PyTorch, torchvision and pytorch-metric-learning (with faiss) from PyPI into a folder, for the CPU alone.

    python3 python/torch_without_cuda.py FOLDER      # then PYTHONPATH=FOLDER

PyPI's wheel of PyTorch for Linux is built for CUDA: its libraries want cuBLAS, cuDNN and a dozen more, which come as packages of
gigabytes. Nothing on a CPU calls them, but the loader of the system looks for each when `import torch` loads the first library.
So PyTorch is installed without them, and small libraries stand in: each has the functions that PyTorch's libraries want of it,
and every function returns cudaErrorNoDevice. `torch.cuda.is_available()` is then False, as on any machine without a GPU.

It needs pip, cc, nm and readelf. It is for tests of continuous integration, where half a gigabyte is enough to download.
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

# Pinned, so that a new release of PyTorch, which may want other libraries, breaks no test.
PACKAGES = ["torch==2.13.0", "torchvision==0.28.0", "pytorch-metric-learning==2.9.0", "faiss-cpu==1.15.1"]
# What they need beside each other and numpy.
NEEDED = ["filelock", "fsspec", "jinja2", "networkx", "packaging", "setuptools", "sympy", "tqdm", "typing-extensions"]
NO_DEVICE = 100
# The libraries of CUDA, and their functions that have no version.
OF_CUDA = re.compile(r"lib(cu|nccl|nv)")
FUNCTION = re.compile(r"(cu|nccl|nv)")


def lines(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def install(folder):
    # No bytecode is made of the thousands of files, of which a test imports a few.
    options = ["--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-compile", "--upgrade"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", folder]
    subprocess.run([*pip, "--no-deps", *PACKAGES], check=True)
    subprocess.run([*pip, *NEEDED], check=True)


def wanted(libraries):
    """Returns the names of the libraries of CUDA that `libraries` want, and the functions of each version."""
    needed = (re.search(r"NEEDED.*\[(.*)\]", line) for library in libraries for line in lines("readelf", "-d", library))
    missing = {found[1] for found in needed if found and OF_CUDA.match(found[1])}
    functions, own = defaultdict(set), set()
    for library in libraries:
        for line in lines("nm", "-D", library):
            kind, name = line.split()[-2:]
            name, _, version = name.replace("@@", "@").partition("@")
            if kind == "U":
                functions[version].add(name)
            elif kind not in "vw":
                own.add(name)
    of_no_version = {name for name in functions[""] - own if FUNCTION.match(name)}
    # A version has the name of its library, except for that of NVSHMEM.
    of_version = {version: names for version, names in functions.items() if OF_CUDA.match(version) or version == "NVSHMEM"}
    return missing, of_version, of_no_version


def stand_in(path, versions, functions):
    """Compiles a library with the functions of each version, and with further functions without one."""
    names = sorted(functions.union(*versions.values()))
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder, "stand_in.c"), Path(folder, "versions")
        source.write_text(
            f"long no_device(void) {{ return {NO_DEVICE}; }}\n"
            + "".join(f'long {name}(void) __attribute__((alias("no_device")));\n' for name in names)
        )
        script.write_text("".join(f"{version} {{ {'; '.join(sorted(names))}; }};\n" for version, names in versions.items()))
        options = [f"-Wl,--version-script={script}"] if versions else []
        command = ["cc", "-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-w", f"-Wl,-soname,{path.name}", *options]
        subprocess.run([*command, "-o", path, source], check=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    folder = Path(sys.argv[1])
    install(folder)
    libraries = folder / "torch" / "lib"
    missing, of_version, of_no_version = wanted(sorted(libraries.glob("*.so")))
    for name in sorted(missing):
        own = (name, "NVSHMEM") if name.startswith("libnvshmem") else (name,)
        versions = {version: of_version[version] for version in own if version in of_version}
        # Functions of no version are found in any library; this one is always loaded.
        stand_in(libraries / name, versions, of_no_version if name.startswith("libcudart") else set())


if __name__ == "__main__":
    main()
