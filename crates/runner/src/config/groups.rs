//! The files of the groups: built into the binary, or under `./experiments`, which win.

use std::collections::BTreeMap;
use std::path::Path;

use super::ConfigError;

/// The groups, in the order in which their files are merged.
pub const GROUPS: [&str; 7] = ["dataset", "model", "method", "augment", "optim", "protocol", "profile"];

/// The group of methods, which is also the section of the chosen method's keys.
pub(super) const METHOD: &str = "method";

/// Folder whose files win over the built-in ones, relative to where the program runs.
const FOLDER: &str = "experiments";

// Path below `experiments/` and text of every built-in file: `BUILT_IN`, which the build script writes from what lies there.
include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// A file's text, and what to call it in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFile {
    /// The file's path, as a message names it.
    pub origin: String,
    /// TOML.
    pub text: String,
}

/// Whose files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// Those under `./experiments`, and the built-in ones that have no namesake there.
    Own,
    /// The built-in ones, and those under `./experiments` that have no built-in namesake.
    BuiltIn,
}

/// Reads `name` (`method/nce.toml`), from `./experiments` or built in; `None` if there is none.
///
/// # Errors
/// If the file is there but cannot be read.
pub(super) fn read(name: &str, files: Files) -> Result<Option<GroupFile>, ConfigError> {
    let built_in = BUILT_IN.iter().find(|(built_in, _)| *built_in == name).map(|(_, text)| GroupFile {
        origin: format!("{FOLDER}/{name} (built in)"),
        text: (*text).to_owned(),
    });
    let path = Path::new(FOLDER).join(name);
    if (files == Files::BuiltIn && built_in.is_some()) || !path.is_file() {
        return Ok(built_in);
    }
    let file = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(GroupFile { origin: file, text })),
        Err(error) => Err(ConfigError::File { file, reason: error.to_string() }),
    }
}

/// The texts of the built-in files of `group`.
pub(super) fn built_in(group: &str) -> impl Iterator<Item = &'static str> {
    let prefix = format!("{group}/");
    BUILT_IN.iter().filter(move |(name, _)| name.starts_with(&prefix)).map(|(_, text)| *text)
}

/// Names of the files of `group` (or of `suite`), without their ending, in alphabetical order.
pub fn available(group: &str) -> Vec<String> {
    let prefix = format!("{group}/");
    let built_in = BUILT_IN.iter().filter_map(|(name, _)| name.strip_prefix(&prefix)).map(str::to_owned);
    let own = std::fs::read_dir(Path::new(FOLDER).join(group)).into_iter().flatten().flatten();
    let own = own.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        built_in.chain(own).filter_map(|name| name.strip_suffix(".toml").map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    names
}

/// The file that `group=name` picks.
///
/// # Errors
/// If there is none: names what there is.
pub(super) fn choose(group: &str, name: &str, files: Files) -> Result<GroupFile, ConfigError> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let file = if plain { read(&format!("{group}/{name}.toml"), files)? } else { None };
    file.ok_or_else(|| {
        let known = available(group);
        let nearest = nearest(name, known.iter().map(String::as_str));
        ConfigError::UnknownChoice { group: group.to_owned(), found: name.to_owned(), known, nearest }
    })
}

/// Parses the text of a file.
///
/// # Errors
/// If it is not TOML: names the file and the line.
pub(super) fn parse(file: &GroupFile) -> Result<toml::Table, ConfigError> {
    file.text.parse().map_err(|error: toml::de::Error| ConfigError::File {
        file: file.origin.clone(),
        reason: super::toml_error::reason(&error, &file.text),
    })
}

/// The choice of each group, and who made it, from a list like `["dataset/cifar10", ...]`.
pub(super) fn default_choices(
    origin: &str,
    defaults: Option<toml::Value>,
) -> Result<BTreeMap<String, (String, String)>, ConfigError> {
    let wrong = |found: String| ConfigError::Value {
        key: "defaults".into(),
        origin: origin.into(),
        found,
        expected: format!("a list of group/name, with the groups {}", GROUPS.join(", ")),
    };
    let list = match defaults {
        Some(toml::Value::Array(list)) => list,
        other => return Err(wrong(other.map_or_else(|| "nothing".into(), |v| v.to_string()))),
    };
    list.iter()
        .map(|item| {
            let choice = item.as_str().and_then(|text| text.split_once('/'));
            match choice {
                Some((group, name)) if GROUPS.contains(&group) => {
                    Ok((group.to_owned(), (name.to_owned(), origin.to_owned())))
                }
                _ => Err(wrong(item.to_string())),
            }
        })
        .collect()
}

/// The candidate most like `name`, if any is like it at all.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}
