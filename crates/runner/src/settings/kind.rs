//! The kinds of values that a key can have.

use std::path::PathBuf;

/// The kind of a key's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, 0 or more.
    Whole,
    /// A number.
    Number,
    /// True or false.
    Switch,
    /// A word, often one of a few.
    Word,
    /// A path.
    Path,
    /// A list of values of one kind.
    List(Box<Kind>),
    /// A table with keys of its own.
    Table,
}

/// A type that a key of a method's settings can have.
pub trait SettingType {
    /// Whether a key of this type may be left out.
    const OPTIONAL: bool = false;

    /// Returns the kind of the type's values.
    fn kind() -> Kind;
}

macro_rules! kinds {
    ($($type:ty => $kind:ident),* $(,)?) => {
        $(impl SettingType for $type {
            fn kind() -> Kind {
                Kind::$kind
            }
        })*
    };
}

kinds![
    usize => Whole,
    u64 => Whole,
    u32 => Whole,
    f64 => Number,
    f32 => Number,
    bool => Switch,
    String => Word,
    PathBuf => Path,
];

impl<T: SettingType> SettingType for Vec<T> {
    fn kind() -> Kind {
        Kind::List(Box::new(T::kind()))
    }
}

impl<T: SettingType, const N: usize> SettingType for [T; N] {
    fn kind() -> Kind {
        Kind::List(Box::new(T::kind()))
    }
}

impl<T: SettingType> SettingType for Option<T> {
    const OPTIONAL: bool = true;

    fn kind() -> Kind {
        T::kind()
    }
}
