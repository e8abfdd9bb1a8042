//! What a Python pickle of protocol 2 to 5 describes, as values to look at: CIFAR-10's python batches and the files of `torch.save`.
//!
//! A pickle is a program for a stack machine that may call anything; this machine calls nothing and notes down calls as what they are.
//! Every length is compared with the input before use, each instruction makes at most one value, and values are numbers into one
//! arena, never copied, so a hostile file costs no more than a small multiple of its length and ends in an error. Source: CPython's
//! `pickletools` (the instructions).
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod machine;

use std::ops::Range;

use machine::Machine;

/// A pickle's values.
#[derive(Debug, Clone)]
pub struct Pickle<'a> {
    input: &'a [u8],
    objects: Vec<Object>,
    root: Value,
    length: usize,
}

/// A value: small ones themselves, others by their place in their [`Pickle`], which tells what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A string of either kind.
    Bytes(Place),
    /// A tuple, list, dict, call, or what is stored elsewhere.
    Object(Index),
    /// `None`, a number with a fraction, or one beyond 64 bits.
    Other,
}

/// Where a string lies in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    start: usize,
    length: usize,
}

impl Place {
    fn range(self) -> Range<usize> {
        self.start..self.start + self.length
    }
}

/// Which of the pickle's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Index(usize);

/// A call that was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What was to be called.
    pub callable: Value,
    /// A tuple, if the pickle is in order.
    pub arguments: Value,
    /// What the object that the call was to give was then told of its attributes.
    pub state: Option<Value>,
}

#[derive(Debug, Clone)]
enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A class or function: where its module and its name lie in the input.
    Global(Range<usize>, Range<usize>),
    Call(Call),
    /// What the pickle names and does not hold.
    Stored(Value),
}

impl<'a> Pickle<'a> {
    /// Reads a pickle; what follows it in the input is left alone.
    ///
    /// # Errors
    /// What is wrong with it and where, in words that follow "found".
    pub fn read(input: &'a [u8]) -> Result<Self, String> {
        let (root, objects, length) = Machine::new(input).run()?;
        Ok(Self { input, objects, root, length })
    }

    /// How many bytes of the input the pickle took.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// What was pickled.
    #[must_use]
    pub fn root(&self) -> Value {
        self.root
    }

    /// The bytes of a string.
    #[must_use]
    pub fn bytes(&self, value: Value) -> Option<&'a [u8]> {
        let Value::Bytes(Place { start, length }) = value else { return None };
        self.input.get(start..)?.get(..length)
    }

    /// The items of a tuple.
    #[must_use]
    pub fn tuple(&self, value: Value) -> Option<&[Value]> {
        if let Object::Tuple(items) = self.object(value)? { Some(items) } else { None }
    }

    /// The items of a list or set.
    #[must_use]
    pub fn list(&self, value: Value) -> Option<&[Value]> {
        if let Object::List(items) = self.object(value)? { Some(items) } else { None }
    }

    /// The keys and values of a dict, ordered or not, as they were set: of a key that is there twice, the last counts.
    #[must_use]
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        if let Object::Dict(pairs) = self.object(value)? { Some(pairs) } else { None }
    }

    /// What the dict with `pairs` holds under a string.
    #[must_use]
    pub fn item(&self, pairs: &[(Value, Value)], key: &str) -> Option<Value> {
        let (_, value) = pairs.iter().rev().find(|(name, _)| self.bytes(*name) == Some(key.as_bytes()))?;
        Some(*value)
    }

    /// Module and name of a class or function.
    #[must_use]
    pub fn global(&self, value: Value) -> Option<(&'a [u8], &'a [u8])> {
        let Object::Global(module, name) = self.object(value)? else { return None };
        Some((&self.input[module.clone()], &self.input[name.clone()]))
    }

    /// A call.
    #[must_use]
    pub fn call(&self, value: Value) -> Option<Call> {
        if let Object::Call(call) = self.object(value)? { Some(*call) } else { None }
    }

    /// The name of what is stored elsewhere (Python's `persistent_id`).
    #[must_use]
    pub fn stored(&self, value: Value) -> Option<Value> {
        if let Object::Stored(name) = self.object(value)? { Some(*name) } else { None }
    }

    /// The names of all that is stored elsewhere, in the pickle's order.
    pub fn all_stored(&self) -> impl Iterator<Item = Value> {
        self.objects
            .iter()
            .filter_map(|object| if let Object::Stored(name) = object { Some(*name) } else { None })
    }

    fn object(&self, value: Value) -> Option<&Object> {
        if let Value::Object(Index(index)) = value { self.objects.get(index) } else { None }
    }
}

#[cfg(test)]
mod tests;
