//! The files of the groups. They are built into the binary; files under `./experiments` win over them.

use std::collections::BTreeMap;
use std::path::Path;

use super::ConfigError;
use crate::methods::Registry;

/// The groups, in the order in which their files are merged.
pub const GROUPS: [&str; 7] = ["dataset", "model", "method", "augment", "optim", "protocol", "profile"];

/// The group of methods, which is also the section of the chosen method's keys.
pub(super) const METHOD: &str = "method";

/// Folder whose files win over the built-in ones, relative to the working directory.
const FOLDER: &str = "experiments";

// `BUILT_IN`: path below `experiments/` and text of every built-in file. The build script writes it.
include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// A file's text, and its name in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFile {
    /// The file's path, as a message names it.
    pub origin: String,
    /// TOML.
    pub text: String,
}

/// Which files win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// Those under `./experiments`, then the built-in ones.
    Own,
    /// The built-in ones, then those under `./experiments`.
    BuiltIn,
}

/// Reads `name` (`method/nce.toml`), from `./experiments` or built in; `None` if there is none.
///
/// # Errors
/// Returns an error if the file exists but cannot be read.
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

/// Returns the texts of the built-in files of `group`.
pub(super) fn built_in(group: &str) -> impl Iterator<Item = &'static str> {
    let prefix = format!("{group}/");
    BUILT_IN.iter().filter(move |(name, _)| name.starts_with(&prefix)).map(|(_, text)| *text)
}

/// Returns a file for a method of the registry that has none: the text chooses the method and sets nothing. A
/// method from another crate therefore needs no file of its own.
fn without_file(group: &str, name: &str) -> Option<GroupFile> {
    if group != METHOD {
        return None;
    }
    let name = Registry::installed().entry(name)?.name();
    let text = format!("[{METHOD}]\nname = \"{name}\"\n");
    Some(GroupFile { origin: format!("method {name} (built in, without a file)"), text })
}

/// Returns the names of the files of `group` (or of `suite`), without their ending, and those of methods
/// without a file, in alphabetical order.
pub fn available(group: &str) -> Vec<String> {
    let prefix = format!("{group}/");
    let built_in = BUILT_IN.iter().filter_map(|(name, _)| name.strip_prefix(&prefix)).map(str::to_owned);
    let own = std::fs::read_dir(Path::new(FOLDER).join(group)).into_iter().flatten().flatten();
    let own = own.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        built_in.chain(own).filter_map(|name| name.strip_suffix(".toml").map(str::to_owned)).collect();
    if group == METHOD {
        names.extend(Registry::installed().entries().iter().map(|entry| entry.name().to_owned()));
    }
    names.sort();
    names.dedup();
    names
}

/// Returns the file that `group=name` picks.
///
/// # Errors
/// Returns an error if there is none; the error names those that exist.
pub(super) fn choose(group: &str, name: &str, files: Files) -> Result<GroupFile, ConfigError> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let file = if plain { read(&format!("{group}/{name}.toml"), files)? } else { None };
    file.or_else(|| without_file(group, name)).ok_or_else(|| {
        let known = available(group);
        let meant = if group == METHOD { Registry::installed().name_of(name) } else { None };
        let nearest = meant.map(str::to_owned).or_else(|| nearest(name, known.iter().map(String::as_str)));
        ConfigError::UnknownChoice { group: group.to_owned(), found: name.to_owned(), known, nearest }
    })
}

/// Parses the text of a file.
///
/// # Errors
/// Returns an error if it is not TOML; the error names the file and the line.
pub(super) fn parse(file: &GroupFile) -> Result<toml::Table, ConfigError> {
    file.text.parse().map_err(|error: toml::de::Error| ConfigError::File {
        file: file.origin.clone(),
        reason: super::toml_error::reason(&error, &file.text),
    })
}

/// Reads the choice of each group, and who made it, from a list like `["dataset/cifar10", ...]`.
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

/// Returns the candidate that is most similar to `name`, if one is similar.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}
