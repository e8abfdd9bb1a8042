//! The differences of two manifests, in words.

use std::collections::BTreeMap;
use std::fmt;

use super::{File, Manifest};

/// The names of the files that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that are only in the later manifest.
    pub added: Vec<String>,
    /// Files that are only in the earlier manifest.
    pub removed: Vec<String>,
    /// Files in both, with different contents.
    pub changed: Vec<String>,
}

impl Changes {
    pub(super) fn between(earlier: &Manifest, later: &Manifest) -> Self {
        let by_name = |manifest: &'_ Manifest| -> BTreeMap<String, File> {
            manifest.files.iter().map(|file| (file.name.clone(), file.clone())).collect()
        };
        let (earlier, later) = (by_name(earlier), by_name(later));
        let alone = |one: &BTreeMap<String, File>, other: &BTreeMap<String, File>| {
            one.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
        };
        let differs = |(name, file): (&String, &File)| {
            later.get(name).filter(|other| *other != file).map(|_| name.clone())
        };
        Self {
            added: alone(&later, &earlier),
            removed: alone(&earlier, &later),
            changed: earlier.iter().filter_map(differs).collect(),
        }
    }
}

/// The number of names shown of each kind.
const SHOWN: usize = 3;

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [(&self.added, "added"), (&self.removed, "removed"), (&self.changed, "changed")];
        let told = kinds.iter().filter(|(names, _)| !names.is_empty()).map(|(names, what)| {
            let first = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if names.len() > SHOWN { ", ..." } else { "" };
            format!("{} {what} ({first}{more})", names.len())
        });
        let told: Vec<String> = told.collect();
        f.write_str(if told.is_empty() { "no file differs" } else { "" })?;
        f.write_str(&told.join(", "))
    }
}
