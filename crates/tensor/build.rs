//! With feature `cuda`: compiles every file of `kernels/` into one fatbin and writes `modules.rs`, which
//! embeds the fatbins. Each holds machine code for the cards of the last four generations and PTX for later
//! ones.
//!
//! The compiler is `$CUDA_HOME/bin/nvcc`, or the `nvcc` on the path.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Compute capabilities that get machine code: A100; RTX 30; RTX 40 and L4; H100 and H200.
const ARCHITECTURES: [&str; 4] = ["80", "86", "89", "90"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let nvcc =
        env::var_os("CUDA_HOME").map_or_else(|| "nvcc".into(), |home| Path::new(&home).join("bin/nvcc"));
    let mut sources: Vec<PathBuf> = fs::read_dir("kernels")
        .expect("the kernels are beside this file")
        .map(|entry| entry.expect("a folder of ours can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    sources.sort();
    let compiling: Vec<_> = sources
        .iter()
        .map(|source| {
            let name =
                source.file_stem().expect("it has an extension").to_str().expect("our names are ASCII");
            let fatbin = out.join(format!("{name}.fatbin"));
            let mut command = Command::new(&nvcc);
            command
                .args(["-fatbin", "-O3", "-std=c++17", "-diag-suppress=177", "-o"])
                .arg(&fatbin)
                .arg(source);
            for architecture in ARCHITECTURES {
                command.arg(format!("-gencode=arch=compute_{architecture},code=sm_{architecture}"));
            }
            let newest = ARCHITECTURES[ARCHITECTURES.len() - 1];
            command.arg(format!("-gencode=arch=compute_{newest},code=compute_{newest}"));
            let child = command.spawn().unwrap_or_else(|e| {
                panic!("{} cannot be run: {e}; set CUDA_HOME, or run `just cuda-toolkit`", nvcc.display())
            });
            (name.to_owned(), fatbin, child)
        })
        .collect();
    let mut modules = String::from("pub(super) static MODULES: &[(&str, &[u8])] = &[\n");
    for (name, fatbin, mut child) in compiling {
        let status = child.wait().expect("nvcc was started");
        assert!(status.success(), "nvcc failed on kernels/{name}.cu");
        let fatbin = fatbin.display().to_string();
        writeln!(modules, "    ({name:?}, include_bytes!({fatbin:?})),").expect("a string grows");
    }
    modules.push_str("];\n");
    fs::write(out.join("modules.rs"), modules).expect("OUT_DIR can be written");
}
