//! With feature `cuda`: compiles every file of `kernels/` into one fatbin and writes `modules.rs`, which
//! embeds the fatbins. Each holds machine code for the cards of the last four generations and PTX for later
//! ones. It also writes what the assembler reports of each kernel (registers, shared memory, stack, spills):
//! into `modules.rs` for a test, and as a table into `kernels.txt`.
//!
//! The compiler is `$CUDA_HOME/bin/nvcc`, or the `nvcc` on the path. `INVASPREAD_CUDA_ARCHITECTURES=90`
//! (several are separated by commas) makes a small program that runs on these cards only: it holds their
//! machine code and no PTX.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Compute capabilities that get machine code: A100; RTX 30; RTX 40 and L4; H100 and H200.
const ARCHITECTURES: [&str; 4] = ["80", "86", "89", "90"];

/// The variable that names other compute capabilities to compile for.
const CHOSEN: &str = "INVASPREAD_CUDA_ARCHITECTURES";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    println!("cargo::rerun-if-env-changed={CHOSEN}");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let chosen = env::var(CHOSEN).ok().filter(|chosen| !chosen.is_empty());
    let architectures: Vec<&str> =
        chosen.as_ref().map_or(ARCHITECTURES.to_vec(), |chosen| chosen.split(',').map(str::trim).collect());
    for architecture in &architectures {
        assert!(
            ARCHITECTURES.contains(architecture),
            "{CHOSEN}: found {architecture:?}, expected some of {} by comma",
            ARCHITECTURES.join(", ")
        );
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
            // The intermediate files are kept because they state the block sizes for which the kernels were
            // compiled.
            let kept = out.join(name);
            fs::create_dir_all(&kept).expect("OUT_DIR can be written");
            let mut command = Command::new(&nvcc);
            command
                .args([
                    "-fatbin",
                    "-O3",
                    "-std=c++17",
                    "-diag-suppress=177",
                    "-Xptxas",
                    "-v",
                    "--keep",
                    "--keep-dir",
                ])
                .arg(&kept)
                .arg("-o")
                .arg(&fatbin)
                .arg(source);
            for architecture in &architectures {
                command.arg(format!("-gencode=arch=compute_{architecture},code=sm_{architecture}"));
            }
            if chosen.is_none() {
                let newest = ARCHITECTURES[ARCHITECTURES.len() - 1];
                command.arg(format!("-gencode=arch=compute_{newest},code=compute_{newest}"));
            }
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap_or_else(|e| {
                panic!("{} cannot be run: {e}; set CUDA_HOME, or run `just cuda-toolkit`", nvcc.display())
            });
            (name.to_owned(), fatbin, kept, child)
        })
        .collect();
    let mut modules = String::from("pub(super) static MODULES: &[(&str, &[u8])] = &[\n");
    let mut usages = Vec::new();
    for (name, fatbin, kept, child) in compiling {
        let output = child.wait_with_output().expect("nvcc was started");
        let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "nvcc failed on kernels/{name}.cu:\n{said}");
        let bounds = block_sizes(&kept);
        usages.extend(usages_of(&said, &bounds));
        fs::remove_dir_all(&kept).expect("OUT_DIR can be written");
        let fatbin = fatbin.display().to_string();
        writeln!(modules, "    ({name:?}, include_bytes!({fatbin:?})),").expect("a string grows");
    }
    modules.push_str("];\n");
    modules.push_str("#[cfg(test)]\nstatic USAGES: &[Usage] = &[\n");
    let mut table = format!(
        "{:<40} {:>6} {:>7} {:>9} {:>6} {:>5} {:>6}\n",
        "kernel", "card", "threads", "registers", "shared", "stack", "spills"
    );
    for usage in &usages {
        writeln!(modules, "    {usage:?},").expect("a string grows");
        let Usage { kernel, card, threads, registers, shared, stack, spills } = usage;
        writeln!(
            table,
            "{kernel:<40} {card:>6} {threads:>7} {registers:>9} {shared:>6} {stack:>5} {spills:>6}"
        )
        .expect("a string grows");
    }
    modules.push_str("];\n");
    fs::write(out.join("modules.rs"), modules).expect("OUT_DIR can be written");
    fs::write(out.join("kernels.txt"), table).expect("OUT_DIR can be written");
}

/// The resources that the assembler reports for one kernel on one card. The crate has the same struct, for
/// its test.
#[derive(Debug, Default)]
struct Usage {
    kernel: String,
    card: String,
    /// The most threads of a block that it was compiled for; 0 if nothing says so.
    threads: u32,
    /// Registers of a thread.
    registers: u32,
    /// Bytes of shared memory, without what a launch requests.
    shared: u32,
    /// Bytes of a thread's stack.
    stack: u32,
    /// Bytes of a thread's registers that are stored to memory and loaded again.
    spills: u32,
}

/// Returns the block size of each kernel's launch bounds, from the intermediate files in `kept`.
fn block_sizes(kept: &Path) -> HashMap<String, u32> {
    let mut bounds = HashMap::new();
    for entry in fs::read_dir(kept).expect("the folder was made") {
        let path = entry.expect("a folder of ours can be read").path();
        if path.extension().is_none_or(|extension| extension != "ptx") {
            continue;
        }
        let mut kernel = String::new();
        for line in fs::read_to_string(&path).expect("nvcc keeps text").lines() {
            if let Some((_, rest)) = line.split_once(".entry ") {
                kernel = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            } else if let Some(sizes) = line.trim().strip_prefix(".maxntid ") {
                let threads = sizes.split(',').filter_map(|size| size.trim().parse::<u32>().ok()).product();
                bounds.insert(std::mem::take(&mut kernel), threads);
            }
        }
    }
    bounds
}

/// Reads what `ptxas -v` prints.
fn usages_of(said: &str, bounds: &HashMap<String, u32>) -> Vec<Usage> {
    let number_before = |line: &str, what: &str| -> u32 {
        let before = line.split(what).next().filter(|before| before.len() < line.len());
        before.and_then(|before| before.split_whitespace().last()?.parse().ok()).unwrap_or(0)
    };
    let mut usages: Vec<Usage> = Vec::new();
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let mut names = rest.split('\'');
            let kernel = names.next().unwrap_or_default().to_owned();
            let card = names.nth(1).unwrap_or_default().to_owned();
            let threads = bounds.get(&kernel).copied().unwrap_or(0);
            usages.push(Usage { kernel, card, threads, ..Usage::default() });
        } else if let Some(usage) = usages.last_mut() {
            if line.contains("bytes stack frame") {
                // Functions that were not inlined have lines of their own.
                usage.stack += number_before(line, " bytes stack frame");
                usage.spills +=
                    number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
            } else if line.contains(" registers") {
                usage.registers = number_before(line, " registers");
                usage.shared = number_before(line, " bytes smem");
            } else if !line.trim_start().starts_with("ptxas info") {
                println!("cargo::warning={line}");
            }
        }
    }
    usages
}
