//! The methods that a process knows, by name.

use std::sync::OnceLock;

use serde::{Deserialize, Deserializer};

use super::MethodSettings;
use super::chosen::{ChosenMethod, NAME};
use crate::settings::{Key, Refusal, Settings};

/// Adds the settings of every module that it is given to a registry.
macro_rules! registry_of {
    ($($module:ident),* $(,)?) => {
        Registry::default()$(.with::<super::$module::Settings>())*
    };
}

/// A method by its name, with its keys.
#[derive(Debug)]
pub struct Entry {
    name: &'static str,
    also_called: &'static [&'static str],
    keys: Vec<Key>,
    default: ChosenMethod,
    small: Vec<ChosenMethod>,
    read: fn(&toml::Table) -> Result<ChosenMethod, Refusal>,
}

impl Entry {
    fn of<S: MethodSettings>() -> Self {
        let small = S::small().into_iter().map(ChosenMethod::new).collect();
        let default = ChosenMethod::new(S::default());
        Self {
            name: S::NAME,
            also_called: S::ALSO_CALLED,
            keys: <S as Settings>::keys(),
            default,
            small,
            read: ChosenMethod::read::<S>,
        }
    }

    /// Returns the method's name, the value of `method.name`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the method's keys, in the order in which they were declared.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Returns the method's key of the given name.
    pub fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Returns the method with the default of every key.
    pub fn default_method(&self) -> &ChosenMethod {
        &self.default
    }

    /// Returns the method with settings for a few dozen images, once for each kind of state that it can have.
    pub fn small(&self) -> &[ChosenMethod] {
        &self.small
    }

    /// Returns the method with these settings.
    ///
    /// # Errors
    /// Returns an error if a required key is missing, a value is of another type, or there is a key that it
    /// does not have.
    pub fn read(&self, settings: &toml::Table) -> Result<ChosenMethod, Refusal> {
        (self.read)(settings)
    }
}

/// The methods that the program knows.
///
/// The program uses the registry that was installed. It is global to the process and not passed down, because
/// a config is read in many places (rows of suites and stored runs are two of them), and because two parts of
/// a process that know different methods would give one run two names.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

static INSTALLED: OnceLock<Registry> = OnceLock::new();

impl Registry {
    /// Returns the methods of this crate.
    pub fn built_in() -> Self {
        super::built_in!(registry_of)
    }

    /// Adds a method.
    ///
    /// # Panics
    /// Panics if there is one of that name, if the name holds anything but letters, digits, `_` and `-`, or
    /// if one of its keys is called `name`.
    #[must_use]
    pub fn with<S: MethodSettings>(mut self) -> Self {
        let entry = Entry::of::<S>();
        let name = entry.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!(!name.is_empty() && name.chars().all(plain), "{name:?} cannot be typed as a method's name");
        assert!(self.entry(name).is_none(), "there are two methods called {name}");
        assert!(entry.key(NAME).is_none(), "{name} has a key called `name`, which names the method");
        self.entries.push(entry);
        self
    }

    /// Makes this the registry of the process. Call it before anything reads a config.
    ///
    /// # Errors
    /// Returns the registry if another one has been installed or read already.
    pub fn install(self) -> Result<(), Self> {
        INSTALLED.set(self)
    }

    /// Returns the registry of the process; it is [`Registry::built_in`] if none was installed before the
    /// first call.
    pub fn installed() -> &'static Self {
        INSTALLED.get_or_init(Self::built_in)
    }

    /// Returns the methods in the order in which they were added.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the name of the method that is also called `other` ([`MethodSettings::ALSO_CALLED`]), in small
    /// or capital letters.
    pub fn name_of(&self, other: &str) -> Option<&'static str> {
        let other = other.to_ascii_lowercase();
        self.entries.iter().find(|entry| entry.also_called.contains(&other.as_str())).map(Entry::name)
    }

    /// Returns the method of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

impl<'de> Deserialize<'de> for ChosenMethod {
    /// Reads a table of the name and all keys of a method in the installed registry.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut table = toml::Table::deserialize(deserializer)?;
        let name = table.remove(NAME).ok_or_else(|| Error::missing_field(NAME))?;
        let name = name.as_str().unwrap_or_default();
        let entry = Registry::installed().entry(name);
        let entry = entry.ok_or_else(|| Error::custom(format!("no method is called {name:?}")))?;
        entry.read(&table).map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Registry;
    use crate::methods::Sizes;

    #[test]
    fn every_entry_can_be_used() {
        for entry in Registry::built_in().entries() {
            let name = entry.name();
            assert!(!entry.default_method().label().is_empty(), "{name}");
            for key in entry.keys() {
                assert!(
                    key.meaning.ends_with('.') && key.meaning.len() > 10,
                    "{name}.{}: {}",
                    key.name,
                    key.meaning
                );
                let set = entry.default_method().settings().contains_key(key.name);
                assert!(
                    set || key.optional,
                    "{name}.{} has neither a default nor may it be left out",
                    key.name
                );
            }
            assert!(!entry.small().is_empty(), "{name}");
            for method in [entry.default_method()].into_iter().chain(entry.small()) {
                assert_eq!(method.check(), Ok(()), "{method:?}");
                assert_eq!(entry.read(&method.settings()).as_ref(), Ok(method));
                let sizes = Sizes { rows: 16, batch: 8, images: 45, dim: 16 };
                assert!(method.memory(&sizes).iter().all(|need| need.numbers > 0), "{method:?}");
            }
        }
    }
}
