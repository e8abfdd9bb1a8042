//! A reader for the pickles of CIFAR-10's python batches, and for nothing else.
//!
//! A batch is one dict, written by Python 2 with protocol 2: `batch_label`, `labels` (a list of ints), `data` (a numpy array of
//! u8) and `filenames`. A pickle is a program for a stack machine that may call anything; this one knows the three callables
//! that build a numpy array, as names, and calls nothing. Every length is checked against the input before use, each
//! instruction makes at most one value, and values are numbers into one arena, so a hostile file costs no more memory than a
//! small multiple of its length and ends in an error. Source: CPython's `pickletools` (the instructions), numpy's
//! `array_reduce` (the array's state).

use std::collections::HashMap;

/// What a batch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PickledBatch {
    /// `labels`.
    pub labels: Vec<i64>,
    /// Rows and columns of `data`.
    pub shape: (usize, usize),
    /// `data`, row after row.
    pub data: Vec<u8>,
}

/// Reads a batch.
///
/// # Errors
/// What is wrong with it and where, in words that follow "found".
pub(crate) fn read_batch(pickle: &[u8]) -> Result<PickledBatch, String> {
    let mut machine =
        Machine { input: pickle, at: 0, stack: Vec::new(), objects: Vec::new(), memo: HashMap::new() };
    let root = machine.run()?;
    let labels = match machine.item(root, b"labels")? {
        Some(labels) => machine.ints(labels)?,
        None => return Err("a pickle without \"labels\"".to_owned()),
    };
    let data = machine.item(root, b"data")?.ok_or("a pickle without \"data\"")?;
    let (shape, data) = machine.matrix(data)?;
    Ok(PickledBatch { labels, shape, data })
}

/// A value on the stack: small ones themselves, others by their place in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Mark,
    None,
    Bool(bool),
    Int(i64),
    /// A string: where it lies in the input.
    Bytes {
        start: usize,
        end: usize,
    },
    Global(Global),
    Object(usize),
}

/// The callables that a numpy array is pickled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global {
    Reconstruct,
    Array,
    Dtype,
}

#[derive(Debug, Clone)]
enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// `numpy.dtype('u1')`.
    Bytes8,
    /// An array and, once built, its state: shape, whether columns come first, where its bytes lie.
    Array(Option<([usize; 2], bool, (usize, usize))>),
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    objects: Vec<Object>,
    memo: HashMap<u32, Value>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value, String> {
        loop {
            let at = self.at;
            let [instruction] = self.take::<1>()?;
            let wrong = |what: &str| format!("{what} at byte {at} of the pickle");
            match instruction {
                b'.' => return self.pop(),
                0x80 => match self.take::<1>()? {
                    [2] => {}
                    [other] => return Err(wrong(&format!("pickle protocol {other} instead of 2"))),
                },
                b'(' => self.stack.push(Value::Mark),
                b'N' => self.stack.push(Value::None),
                0x88 | 0x89 => self.stack.push(Value::Bool(instruction == 0x88)),
                b'K' => {
                    let [byte] = self.take()?;
                    self.stack.push(Value::Int(byte.into()));
                }
                b'M' => {
                    let bytes = self.take()?;
                    self.stack.push(Value::Int(u16::from_le_bytes(bytes).into()));
                }
                b'J' => {
                    let bytes = self.take()?;
                    self.stack.push(Value::Int(i32::from_le_bytes(bytes).into()));
                }
                b'U' => {
                    let [length] = self.take()?;
                    self.string(length.into())?;
                }
                b'T' => {
                    let length = i32::from_le_bytes(self.take()?);
                    self.string(usize::try_from(length).map_err(|_| wrong("a string of negative length"))?)?;
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.take()?);
                    self.string(length as usize)?;
                }
                b'q' | b'h' => {
                    let [key] = self.take()?;
                    self.remember(key.into(), instruction == b'q')?;
                }
                b'r' | b'j' => {
                    let key = u32::from_le_bytes(self.take()?);
                    self.remember(key, instruction == b'r')?;
                }
                b'}' => self.make(Object::Dict(Vec::new())),
                b']' => self.make(Object::List(Vec::new())),
                b')' => self.make(Object::Tuple(Vec::new())),
                0x85..=0x87 => {
                    let from = self.stack.len().checked_sub((instruction - 0x84).into());
                    let items = self.stack.split_off(from.ok_or_else(|| wrong("too few values"))?);
                    self.make(Object::Tuple(items));
                }
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.make(Object::Tuple(items));
                }
                b'e' | b'a' => {
                    let items = if instruction == b'e' { self.pop_to_mark()? } else { vec![self.pop()?] };
                    match self.top_object() {
                        Some(Object::List(list)) => list.extend(items),
                        _ => return Err(wrong("items without a list")),
                    }
                }
                b'u' | b's' => {
                    let items = if instruction == b'u' {
                        self.pop_to_mark()?
                    } else {
                        let value = self.pop()?;
                        vec![self.pop()?, value]
                    };
                    let (pairs, []) = items.as_chunks::<2>() else {
                        return Err(wrong("a key without a value"));
                    };
                    match self.top_object() {
                        Some(Object::Dict(dict)) => {
                            dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                        }
                        _ => return Err(wrong("items without a dict")),
                    }
                }
                b'c' => {
                    let global = self.global()?;
                    self.stack.push(Value::Global(global));
                }
                b'R' => {
                    let arguments = self.pop()?;
                    let callable = self.pop()?;
                    let made = self.construct(callable, arguments).map_err(|what| wrong(&what))?;
                    self.make(made);
                }
                b'b' => {
                    let state = self.pop()?;
                    self.build(state).map_err(|what| wrong(&what))?;
                }
                other => {
                    return Err(wrong(&format!("instruction 0x{other:02x}, which no CIFAR-10 batch holds,")));
                }
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let ends =
            || format!("a pickle that ends after {} bytes, in the middle of a batch", self.input.len());
        let (bytes, _) = self.input[self.at..].split_first_chunk::<N>().ok_or_else(ends)?;
        self.at += N;
        Ok(*bytes)
    }

    fn string(&mut self, length: usize) -> Result<(), String> {
        let left = self.input.len() - self.at;
        if length > left {
            return Err(format!(
                "a pickle that ends after {} bytes, {} short of its {length}-byte string",
                self.input.len(),
                length - left
            ));
        }
        self.stack.push(Value::Bytes { start: self.at, end: self.at + length });
        self.at += length;
        Ok(())
    }

    fn remember(&mut self, key: u32, put: bool) -> Result<(), String> {
        if put {
            let value = *self.stack.last().ok_or("a memo of nothing")?;
            self.memo.insert(key, value);
        } else {
            let value = self.memo.get(&key).ok_or_else(|| format!("memo {key}, which was never put"))?;
            self.stack.push(*value);
        }
        Ok(())
    }

    fn make(&mut self, object: Object) {
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(object);
    }

    fn pop(&mut self) -> Result<Value, String> {
        match self.stack.pop() {
            Some(value) if value != Value::Mark => Ok(value),
            _ => Err("a pickle that takes from an empty stack".to_owned()),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.stack.iter().rposition(|value| *value == Value::Mark);
        let mark = mark.ok_or("a pickle that closes what it never opened")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn top_object(&mut self) -> Option<&mut Object> {
        match self.stack.last() {
            Some(Value::Object(index)) => self.objects.get_mut(*index),
            _ => None,
        }
    }

    fn global(&mut self) -> Result<Global, String> {
        let mut line = || {
            let rest = &self.input[self.at..];
            let end =
                rest.iter().take(100).position(|byte| *byte == b'\n').ok_or("a global without a name")?;
            self.at += end + 1;
            Ok::<_, String>(&rest[..end])
        };
        let name = (line()?, line()?);
        match name {
            // numpy 2 writes `numpy._core`.
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => {
                Ok(Global::Reconstruct)
            }
            (b"numpy", b"ndarray") => Ok(Global::Array),
            (b"numpy", b"dtype") => Ok(Global::Dtype),
            (module, name) => {
                Err(format!("a call of {}.{}, which is not made", module.escape_ascii(), name.escape_ascii()))
            }
        }
    }

    fn construct(&self, callable: Value, arguments: Value) -> Result<Object, String> {
        let arguments = self.tuple(arguments).ok_or("a call without arguments")?;
        match (callable, arguments) {
            (Value::Global(Global::Reconstruct), [Value::Global(Global::Array), ..]) => {
                Ok(Object::Array(None))
            }
            (Value::Global(Global::Dtype), [kind @ Value::Bytes { .. }, ..]) => match self.bytes(*kind) {
                Some(b"u1" | b"|u1") => Ok(Object::Bytes8),
                kind => Err(format!("numbers of type {}", kind.unwrap_or_default().escape_ascii())),
            },
            _ => Err("a call that builds no numpy array".to_owned()),
        }
    }

    fn build(&mut self, state: Value) -> Result<(), String> {
        let built = match self.top_object() {
            Some(Object::Bytes8) => return Ok(()), // byte order and alignment: one byte has neither
            Some(Object::Array(None)) => {
                self.array_state(state).ok_or("an array that is not a matrix of bytes")?
            }
            _ => return Err("state for no array".to_owned()),
        };
        if let Some(Object::Array(array)) = self.top_object() {
            *array = Some(built);
        }
        Ok(())
    }

    /// `(version, shape, dtype, columns first, bytes)`.
    fn array_state(&self, state: Value) -> Option<([usize; 2], bool, (usize, usize))> {
        let [
            Value::Int(_),
            shape,
            Value::Object(dtype),
            Value::Bool(columns_first),
            Value::Bytes { start, end },
        ] = self.tuple(state)?
        else {
            return None;
        };
        let [Value::Int(rows), Value::Int(columns)] = self.tuple(*shape)? else { return None };
        let shape = [usize::try_from(*rows).ok()?, usize::try_from(*columns).ok()?];
        let bytes8 = matches!(self.objects.get(*dtype)?, Object::Bytes8);
        let whole = shape[0].checked_mul(shape[1])? == end - start;
        (bytes8 && whole).then_some((shape, *columns_first, (*start, *end)))
    }

    fn tuple(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Object(index) => match self.objects.get(index)? {
                Object::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    fn bytes(&self, value: Value) -> Option<&[u8]> {
        match value {
            Value::Bytes { start, end } => self.input.get(start..end),
            _ => None,
        }
    }

    fn item(&self, dict: Value, name: &[u8]) -> Result<Option<Value>, String> {
        let Value::Object(index) = dict else {
            return Err("a pickle of something else than a dict".to_owned());
        };
        let Some(Object::Dict(pairs)) = self.objects.get(index) else {
            return Err("a pickle of something else than a dict".to_owned());
        };
        Ok(pairs.iter().rev().find(|(key, _)| self.bytes(*key) == Some(name)).map(|(_, value)| *value))
    }

    fn ints(&self, list: Value) -> Result<Vec<i64>, String> {
        let wrong = || "\"labels\" that are not a list of integers".to_owned();
        let Value::Object(index) = list else { return Err(wrong()) };
        let Some(Object::List(items)) = self.objects.get(index) else { return Err(wrong()) };
        let int = |item: &Value| if let Value::Int(value) = item { Ok(*value) } else { Err(wrong()) };
        items.iter().map(int).collect()
    }

    fn matrix(&self, array: Value) -> Result<((usize, usize), Vec<u8>), String> {
        let Value::Object(index) = array else { return Err("\"data\" that is no array".to_owned()) };
        let Some(Object::Array(Some(([rows, columns], columns_first, (start, end))))) =
            self.objects.get(index)
        else {
            return Err("\"data\" that is no array".to_owned());
        };
        let (rows, columns, stored) = (*rows, *columns, &self.input[*start..*end]);
        let data = if *columns_first {
            (0..rows * columns).map(|at| stored[at % columns * rows + at / columns]).collect()
        } else {
            stored.to_vec()
        };
        Ok(((rows, columns), data))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;
    use crate::sample::pickled;

    /// Two rows of three columns, written by hand.
    fn small(columns_first: bool, data: &[u8]) -> Vec<u8> {
        pickled(&[7, 300], (2, 3), data, columns_first)
    }

    #[test]
    fn a_batch_of_python_2_is_read_in_either_order() {
        let expected = PickledBatch { labels: vec![7, 300], shape: (2, 3), data: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(read_batch(&small(false, &[1, 2, 3, 4, 5, 6])).unwrap(), expected);
        assert_eq!(read_batch(&small(true, &[1, 4, 2, 5, 3, 6])).unwrap(), expected);
    }

    #[test]
    fn nothing_is_called() {
        let message = read_batch(b"\x80\x02cos\nsystem\nU\x02ls\x85R.").unwrap_err();
        assert_eq!(message, "a call of os.system, which is not made");
        assert!(read_batch(b"\x80\x02cnumpy\ndtype\nU\x02f4\x85R.").unwrap_err().contains("type f4"));
    }

    #[test]
    fn lengths_are_not_trusted() {
        let message = read_batch(b"\x80\x02T\xff\xff\xff\x7fabc").unwrap_err();
        assert!(message.contains("short of its 2147483647-byte string"), "{message}");
        assert!(read_batch(b"\x80\x02T\xff\xff\xff\xff").unwrap_err().contains("negative length"));
        assert!(read_batch(&small(false, &[1, 2, 3, 4, 5])).unwrap_err().contains("not a matrix of bytes"));
        assert!(read_batch(b"\x80\x04.").unwrap_err().contains("protocol 4"));
        assert!(read_batch(b"\x80\x02}.").unwrap_err().contains("without \"labels\""));
        assert!(read_batch(b"\x80\x02K\x01.").unwrap_err().contains("something else than a dict"));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = small(false, &[1, 2, 3, 4, 5, 6]);
        for held in 0..whole.len() {
            read_batch(&whole[..held]).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(start in 0usize..200, noise in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = small(false, &[1, 2, 3, 4, 5, 6]);
            let start = start.min(bytes.len());
            let end = (start + noise.len()).min(bytes.len());
            bytes.splice(start..end, noise);
            let _ = read_batch(&bytes);
        }
    }
}
