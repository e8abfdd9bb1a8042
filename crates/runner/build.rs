//! Lists the built-in config files and embeds them, and embeds the compiler's version, which run records
//! name.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The folder of config files: a link to the repository's own, and a plain folder in the packaged crate. It
/// is not called `experiments`, because a program that is started in the crate's folder, as tests are, would
/// take it for the user's own files.
const EXPERIMENTS: &str = "built-in";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={EXPERIMENTS}");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo::rustc-env=INVASPREAD_RUSTC={version}");

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("built_in.rs"), built_in()).expect("OUT_DIR can be written");
}

/// Returns the Rust source of `BUILT_IN`: the path below `experiments/` and the text of every TOML file
/// there, in alphabetical order.
fn built_in() -> String {
    let root = Path::new(EXPERIMENTS);
    assert!(
        root.is_dir(),
        "crates/runner/{EXPERIMENTS} is not a folder: it is a link to the repository's experiments/, which git makes \
         where `git config core.symlinks` is true"
    );
    let mut names = Vec::new();
    list(root, "", &mut names);
    names.sort();
    let mut source = String::from("const BUILT_IN: &[(&str, &str)] = &[\n");
    for name in names {
        // The crate's folder is named by `env!`, so that a moved checkout needs no new list.
        writeln!(
            source,
            "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{EXPERIMENTS}/\", {name:?}))),"
        )
        .expect("a string grows");
    }
    source.push_str("];\n");
    source
}

/// Adds the TOML files below `folder` to `names`, each with `prefix` before its path.
fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|e| panic!("{} cannot be listed: {e}", folder.display()));
    for entry in entries {
        let path = entry.unwrap_or_else(|e| panic!("{} cannot be listed: {e}", folder.display())).path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("our file names are ASCII");
        if path.is_dir() {
            list(&path, &format!("{prefix}{name}/"), names);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            names.push(format!("{prefix}{name}"));
        }
    }
}
