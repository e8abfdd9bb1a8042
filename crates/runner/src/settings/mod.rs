//! The settings of a method as data: its keys, their kinds and their meanings.
//!
//! A method's settings are a plain struct, declared by [`crate::settings!`] with the default and the meaning
//! of each key. The config uses it to read text, to write errors, to explain keys in
//! `invaspread config show`, and to compute the hash that names a run.

mod checks;
mod kind;
mod read;

pub use checks::{above_zero, at_least_one, share, temperature};
pub use kind::{Kind, SettingType};
pub use read::Refusal;
pub(crate) use read::{found_and_expected, read};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A key of a method's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key's name, as typed after `method.`.
    pub name: &'static str,
    /// The kind of its values.
    pub kind: Kind,
    /// Whether the key may be left out.
    pub optional: bool,
    /// The meaning of the key, with its range: a sentence or two.
    pub meaning: String,
}

impl Key {
    /// Returns the key of a field of type `T`, whose documentation is `meaning`.
    pub fn of<T: SettingType>(name: &'static str, meaning: &[&str]) -> Self {
        let lines: Vec<&str> = meaning.iter().map(|line| line.trim()).collect();
        Self { name, kind: T::kind(), optional: T::OPTIONAL, meaning: lines.join(" ") }
    }
}

/// A struct whose fields are keys. [`crate::settings!`] implements it.
pub trait Settings:
    std::fmt::Debug + Clone + PartialEq + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Returns the keys in the order of the fields.
    fn keys() -> Vec<Key>;
}

/// Declares a struct of settings: each field with its documentation, which is the key's meaning, its type and
/// its default.
///
/// The types are those that implement [`SettingType`]: numbers, switches, words, paths, lists of them, and
/// `Option` of them for keys that may be left out. The crate that uses this macro depends on `serde` with its
/// feature `derive`.
///
/// ```
/// use invaspread_runner::settings::Settings;
///
/// invaspread_runner::settings! {
///     /// The settings of a method.
///     pub struct MySettings {
///         /// Temperature of the softmax, at least 0.01.
///         temperature: f64 = 0.1,
///         /// Instances that each image is compared with.
///         noise: usize = 4096,
///     }
/// }
///
/// assert_eq!(MySettings::default().noise, 4096);
/// assert_eq!(MySettings::keys()[0].meaning, "Temperature of the softmax, at least 0.01.");
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        $visibility:vis struct $name:ident {
            $( $(#[doc = $meaning:literal])+ $key:ident: $type:ty = $default:expr, )*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        $visibility struct $name {
            $( $(#[doc = $meaning])+ pub $key: $type, )*
        }

        #[allow(clippy::derivable_impls, reason = "the defaults of a struct without fields")]
        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )* }
            }
        }

        impl $crate::settings::Settings for $name {
            fn keys() -> Vec<$crate::settings::Key> {
                vec![$( $crate::settings::Key::of::<$type>(stringify!($key), &[$($meaning),+]), )*]
            }
        }
    };
}
