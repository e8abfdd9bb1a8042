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
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use candle_core::Tensor;
    use invaspread_losses::KeySide;
    use invaspread_models::{Network, NetworkConfig, ResNetConfig};
    use invaspread_tensor::DeviceKind;

    use super::{Entry, Registry};
    use crate::methods::{RunFacts, Sizes};

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
                let sizes = Sizes {
                    rows: 16,
                    batch: 8,
                    images: 45,
                    dim: 16,
                    pooled: 32,
                    parameters: 1000,
                    copies: 1,
                };
                assert!(method.memory(&sizes).iter().all(|need| need.numbers > 0), "{method:?}");
            }
        }
    }

    /// The memory of heads and copies is that of what is built: every weight, but no biases, gains and
    /// statistics, so that it is a lower bound.
    #[test]
    fn the_memory_of_heads_and_copies_is_theirs() {
        let network = ResNetConfig { width: 8, embedding: 16, pool: 0, ..ResNetConfig::default() };
        let size = NetworkConfig::from(network.clone()).size(32);
        let sizes = Sizes {
            rows: 16,
            batch: 8,
            images: 45,
            dim: 16,
            pooled: size.pooled,
            parameters: size.parameters,
            copies: 1,
        };
        let facts = RunFacts {
            images: 45,
            dim: 16,
            pooled: size.pooled as usize,
            seed: 0,
            epochs: 3,
            batch_size: 8,
            weight_decay: 0.0,
            device: DeviceKind::Cpu,
            key_side: KeySide::Detached,
        };
        let mut copies = 0;
        for method in Registry::built_in().entries().iter().flat_map(Entry::small) {
            let memory = method.memory(&sizes);
            let of = |names: &[&str]| -> u128 {
                memory.iter().filter(|need| names.contains(&need.what)).map(|need| need.numbers).sum()
            };
            let heads = of(&["a projector", "a predictor", "prototypes"]);
            if heads == 0 {
                continue;
            }
            let mut built = method.build(facts).unwrap();
            built.set_up(&Network::new(network.clone(), 0).unwrap()).unwrap();
            let weights = |tensors: &mut dyn Iterator<Item = Tensor>| -> u128 {
                tensors.filter(|one| one.rank() > 1).map(|one| one.elem_count() as u128).sum()
            };
            let parameters = built.parameters();
            let trained = weights(&mut parameters.iter().map(|(_, one)| one.as_tensor().clone()));
            assert_eq!(heads, sizes.of_trained() * trained, "{method:?}");
            let state = built.state().unwrap();
            let of_copies = state.iter().filter(|(name, _)| name.starts_with("momentum_"));
            let kept = weights(&mut of_copies.map(|(_, one)| one.clone()));
            let found = of(&["a momentum encoder", "the teacher's last layer"]);
            // The network's own size counts gains and biases too.
            let whole = sizes.of_kept() * (kept + size.parameters / 10);
            assert!(found >= sizes.of_kept() * kept && found <= whole, "{method:?}: {found}, {kept}");
            copies += usize::from(found > 0);
        }
        assert!(copies >= 4, "BYOL, MoCo v2 and both of DINO have copies: {copies}");
    }
}
