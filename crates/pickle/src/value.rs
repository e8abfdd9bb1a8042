//! The values of a pickle.

use std::ops::Range;

/// A value of a pickle. Small values are held directly; for larger ones it holds their place in the
/// [`Pickle`](crate::Pickle).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Value {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A string of characters or of bytes.
    Bytes(Place),
    /// A tuple, a list, a dict, a call, or an object that is stored elsewhere.
    Object(Index),
    /// `None`, a floating-point number, or an integer of more than 64 bits.
    Other,
}

/// The place of a string in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub(crate) start: usize,
    pub(crate) length: usize,
}

impl Place {
    pub(crate) fn range(self) -> Range<usize> {
        self.start..self.start + self.length
    }
}

/// The index of an object of the pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Index(pub(crate) usize);

/// A call that the pickle describes and that was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The class or function that would be called.
    pub callable: Value,
    /// The arguments of the call; a tuple, if the pickle is valid.
    pub arguments: Value,
    /// The attributes that would be set on the result.
    pub state: Option<Value>,
}

/// What is too large to be held by a [`Value`].
#[derive(Debug, Clone)]
pub(crate) enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A class or function: the places of its module and its name in the input.
    Global(Range<usize>, Range<usize>),
    Call(Call),
    /// An object that the pickle names but does not hold.
    Stored(Value),
}
