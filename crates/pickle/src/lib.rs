//! Reads the content of a Python pickle of protocol 2 to 5 as values. CIFAR-10's Python batches are pickles,
//! and the files of `torch.save` contain pickles.
//!
//! A pickle is a program for a stack machine that may call anything. This machine calls nothing and keeps
//! each call as a value. Every length is compared with the input before it is used. Each instruction makes at
//! most one value, and values are indices into one arena that are never copied. So a hostile file needs no
//! more memory than a small multiple of its own length, and ends in an error. Source of the instructions:
//! CPython's `pickletools`.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod machine;
mod value;

pub use value::{Call, Index, Place, Value};

use machine::Machine;
use value::Object;

/// The values of a pickle.
///
/// ```
/// use invaspread_pickle::Pickle;
///
/// // pickle.dumps(("a", 1), protocol=2)
/// let pickle = Pickle::read(b"\x80\x02X\x01\x00\x00\x00aK\x01\x86.")?;
/// let items = pickle.tuple(pickle.root()).ok_or("a tuple was pickled")?;
/// assert_eq!(pickle.bytes(items[0]), Some(&b"a"[..]));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pickle<'a> {
    input: &'a [u8],
    objects: Vec<Object>,
    root: Value,
    length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle. What follows it in the input is ignored.
    ///
    /// # Errors
    /// If the pickle is not valid. The error says what is wrong and where, in words that follow "found".
    pub fn read(input: &'a [u8]) -> Result<Self, String> {
        let (root, objects, length) = Machine::new(input).run()?;
        Ok(Self { input, objects, root, length })
    }

    /// Returns the length of the pickle in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns the value that was pickled.
    #[must_use]
    pub fn root(&self) -> Value {
        self.root
    }

    /// Returns the bytes of a string.
    #[must_use]
    pub fn bytes(&self, value: Value) -> Option<&'a [u8]> {
        let Value::Bytes(Place { start, length }) = value else { return None };
        self.input.get(start..)?.get(..length)
    }

    /// Returns the items of a tuple.
    #[must_use]
    pub fn tuple(&self, value: Value) -> Option<&[Value]> {
        if let Object::Tuple(items) = self.object(value)? { Some(items) } else { None }
    }

    /// Returns the items of a list or set.
    #[must_use]
    pub fn list(&self, value: Value) -> Option<&[Value]> {
        if let Object::List(items) = self.object(value)? { Some(items) } else { None }
    }

    /// Returns the keys and values of a dict or an `OrderedDict`, in the order in which they were set. The
    /// last of equal keys counts.
    #[must_use]
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        if let Object::Dict(pairs) = self.object(value)? { Some(pairs) } else { None }
    }

    /// Returns the value of a string key in the `pairs` of a dict.
    #[must_use]
    pub fn item(&self, pairs: &[(Value, Value)], key: &str) -> Option<Value> {
        let (_, value) = pairs.iter().rev().find(|(name, _)| self.bytes(*name) == Some(key.as_bytes()))?;
        Some(*value)
    }

    /// Returns the module and the name of a class or function.
    #[must_use]
    pub fn global(&self, value: Value) -> Option<(&'a [u8], &'a [u8])> {
        let Object::Global(module, name) = self.object(value)? else { return None };
        Some((&self.input[module.clone()], &self.input[name.clone()]))
    }

    /// Returns a call.
    #[must_use]
    pub fn call(&self, value: Value) -> Option<Call> {
        if let Object::Call(call) = self.object(value)? { Some(*call) } else { None }
    }

    /// Returns the name of an object that is stored elsewhere (Python's `persistent_id`).
    #[must_use]
    pub fn stored(&self, value: Value) -> Option<Value> {
        if let Object::Stored(name) = self.object(value)? { Some(*name) } else { None }
    }

    /// Returns the names of all objects that are stored elsewhere, in the order of the pickle.
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
