//! The meanings of keys, for people. `meanings.toml` holds those of the keys that every config has; the keys
//! of a method are documented where they are declared.

use std::sync::LazyLock;

use super::schema::of_method;
use super::tables::lookup;
use crate::methods::{ChosenMethod, Registry};

/// The meanings by key.
static MEANINGS: LazyLock<toml::Table> =
    LazyLock::new(|| include_str!("meanings.toml").parse().expect("meanings.toml is TOML"));

/// Returns the meaning of `key` if `method` is chosen; `None` if there is no such key.
pub(super) fn meaning(key: &str, method: &ChosenMethod) -> Option<String> {
    let of_method = || {
        let entry = Registry::installed().entry(method.name())?;
        Some(entry.key(of_method(key)?)?.meaning.clone())
    };
    of_method().or_else(|| lookup(&MEANINGS, key)?.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::MEANINGS;
    use crate::config::schema::Schema;
    use crate::config::tables::leaves;
    use crate::settings::Kind;

    #[test]
    fn every_key_has_a_meaning_and_no_other_has() {
        let keys = Schema::without_method().keys().into_iter();
        let keys: BTreeSet<String> =
            keys.filter(|(_, kind)| *kind != Kind::Table).map(|(key, _)| key).collect();
        let explained: BTreeSet<String> =
            leaves(&MEANINGS).into_iter().filter(|key| !key.starts_with("groups.")).collect();
        let unlike: Vec<&String> = keys.symmetric_difference(&explained).collect();
        assert!(unlike.is_empty(), "meanings.toml and the keys that there are differ in {unlike:?}");
    }
}
