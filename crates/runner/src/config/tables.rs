//! TOML tables by dotted keys (`optim.lr`).

/// Returns the dotted keys of all values that are not tables, in alphabetical order.
pub(crate) fn leaves(table: &toml::Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => {
                keys.extend(leaves(inner).into_iter().map(|rest| format!("{key}.{rest}")));
            }
            _ => keys.push(key.clone()),
        }
    }
    keys.sort();
    keys
}

/// Returns the value of a dotted key.
pub(crate) fn lookup<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (table.get(first)?, rest) {
        (value, None) => Some(value),
        (toml::Value::Table(inner), Some(rest)) => lookup(inner, rest),
        _ => None,
    }
}

/// Returns `into` with the values of `from` in place of its own. Tables that both have are merged in the same
/// way.
pub(super) fn merge(mut into: toml::Table, from: &toml::Table) -> toml::Table {
    for (key, value) in from {
        let merged = match (into.remove(key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new).into(),
            (_, value) => value.clone(),
        };
        into.insert(key.clone(), merged);
    }
    into
}

/// Removes the value of a dotted key, if there is one.
pub(super) fn remove(table: &mut toml::Table, key: &str) {
    match key.split_once('.') {
        None => drop(table.remove(key)),
        Some((first, rest)) => {
            if let Some(toml::Value::Table(inner)) = table.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

/// Returns the table in which the dotted `key` has `value` and nothing else is set.
pub(super) fn nested(key: &str, value: toml::Value) -> toml::Table {
    let (outer, last) = key.rsplit_once('.').map_or((None, key), |(outer, last)| (Some(outer), last));
    let table = toml::Table::from_iter([(last.to_owned(), value)]);
    outer.map_or(table.clone(), |outer| nested(outer, table.into()))
}
