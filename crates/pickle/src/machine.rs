//! The stack machine: runs one instruction after the other until the pickle ends.

use std::collections::HashMap;
use std::ops::Range;

use crate::value::{Call, Index, Object, Place, Value};

/// The longest name of a module, class or function, in bytes.
const LONGEST_NAME: usize = 1000;

pub(crate) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// The height of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    objects: Vec<Object>,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), objects: Vec::new() }
    }

    /// Returns the value that was pickled, the objects that it consists of, and the length of the pickle in
    /// bytes.
    pub(crate) fn run(mut self) -> Result<(Value, Vec<Object>, usize), String> {
        loop {
            let at = self.at;
            let [instruction] = self.take()?;
            if instruction == b'.' {
                return Ok((self.pop()?, self.objects, self.at));
            }
            self.step(instruction, &|what| format!("{what} at byte {at} of the pickle"))?;
        }
    }

    fn step(&mut self, instruction: u8, wrong: &dyn Fn(&str) -> String) -> Result<(), String> {
        match instruction {
            0x80 => match self.take()? {
                [2..=5] => {}
                [other] => return Err(wrong(&format!("pickle protocol {other} instead of 2 to 5"))),
            },
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::Other),
            0x88 | 0x89 => self.stack.push(Value::Bool(instruction == 0x88)),
            b'G' => {
                self.take::<8>()?;
                self.stack.push(Value::Other);
            }
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
            0x8a => {
                let [length] = self.take()?;
                let number = self.slice(length.into())?;
                self.stack.push(long(&self.input[number]));
            }
            0x8b => {
                let length = usize::try_from(i32::from_le_bytes(self.take()?));
                let number = self.slice(length.map_err(|_| wrong("a number of negative length"))?)?;
                self.stack.push(long(&self.input[number]));
            }
            b'U' | b'C' | 0x8c => {
                let [length] = self.take()?;
                self.string(length.into())?;
            }
            b'T' => {
                let length = usize::try_from(i32::from_le_bytes(self.take()?));
                self.string(length.map_err(|_| wrong("a string of negative length"))?)?;
            }
            b'X' | b'B' => {
                let length = u32::from_le_bytes(self.take()?);
                self.string(length as usize)?;
            }
            0x8d | 0x8e | 0x96 => {
                let length = usize::try_from(u64::from_le_bytes(self.take()?));
                self.string(length.map_err(|_| wrong("a string past all memory"))?)?;
            }
            // A frame only states how far a reader may read ahead.
            0x95 => {
                self.take::<8>()?;
            }
            b'0' => {
                if self.pop().is_err() {
                    self.pop_to_mark()?;
                }
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let value = *self.stack.last().ok_or_else(|| wrong("a copy of nothing"))?;
                self.stack.push(value);
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| wrong("too large a memo"))?;
                self.remember(key, true)?;
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
            // A set is kept as a list.
            b']' | 0x8f => self.make(Object::List(Vec::new())),
            b')' => self.make(Object::Tuple(Vec::new())),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..instruction {
                    items.insert(0, self.pop()?);
                }
                self.make(Object::Tuple(items));
            }
            b't' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.make(Object::Tuple(items));
            }
            b'e' | b'a' | 0x90 => {
                let items = if instruction == b'a' { vec![self.pop()?] } else { self.pop_to_mark()? };
                match self.top() {
                    Some(Object::List(list)) => list.extend(items),
                    // An object of a class may get items too.
                    Some(Object::Call(_)) => {}
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
                match self.top() {
                    Some(Object::Dict(dict)) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
                    Some(Object::Call(_)) => {}
                    _ => return Err(wrong("items without a dict")),
                }
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.make(Object::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Bytes(module), Value::Bytes(name)) = (module, name) else {
                    return Err(wrong("a class whose name is no string"));
                };
                self.make(Object::Global(module.range(), name.range()));
            }
            b'R' | 0x81 | 0x92 => {
                if instruction == 0x92 {
                    // These are named arguments. The pickles that this crate is used for have none.
                    self.pop()?;
                }
                let arguments = self.pop()?;
                let callable = self.pop()?;
                let made = if self.is_dict(callable) {
                    Object::Dict(self.pairs_of(arguments))
                } else {
                    Object::Call(Call { callable, arguments, state: None })
                };
                self.make(made);
            }
            b'b' => {
                let state = self.pop()?;
                match self.top() {
                    Some(Object::Call(call)) => call.state = Some(state),
                    // Only the items of the dict are kept.
                    Some(Object::Dict(_)) => {}
                    _ => return Err(wrong("attributes without an object")),
                }
            }
            b'Q' => {
                let name = self.pop()?;
                self.make(Object::Stored(name));
            }
            other => return Err(wrong(&format!("instruction 0x{other:02x}, which is not known here,"))),
        }
        Ok(())
    }

    /// Takes the next `length` bytes and returns where they lie.
    fn slice(&mut self, length: usize) -> Result<Range<usize>, String> {
        let left = self.input.len() - self.at;
        if length > left {
            let (held, short) = (self.input.len(), length - left);
            return Err(format!("a pickle of {held} bytes that ends {short} too soon"));
        }
        self.at += length;
        Ok(self.at - length..self.at)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let place = self.slice(N)?;
        Ok(std::array::from_fn(|byte| self.input[place.start + byte]))
    }

    /// Takes the next line and returns where it lies, without its end.
    fn line(&mut self) -> Result<Range<usize>, String> {
        let rest = self.input[self.at..].iter().take(LONGEST_NAME);
        let length = rest.take_while(|byte| **byte != b'\n').count();
        let line = self.slice(length)?;
        if self.take()? != [b'\n'] {
            return Err(format!("a name of more than {LONGEST_NAME} bytes"));
        }
        Ok(line)
    }

    fn string(&mut self, length: usize) -> Result<(), String> {
        let start = self.slice(length)?.start;
        self.stack.push(Value::Bytes(Place { start, length }));
        Ok(())
    }

    fn remember(&mut self, key: u32, put: bool) -> Result<(), String> {
        if put {
            let value = self.stack.last().ok_or("a memo of nothing")?;
            self.memo.insert(key, *value);
        } else {
            let value = self.memo.get(&key).ok_or_else(|| format!("memo {key}, which was never put"))?;
            self.stack.push(*value);
        }
        Ok(())
    }

    fn make(&mut self, object: Object) {
        self.stack.push(Value::Object(Index(self.objects.len())));
        self.objects.push(object);
    }

    fn pop(&mut self) -> Result<Value, String> {
        let open = self.marks.last().copied().unwrap_or(0);
        let above = self.stack.len() > open;
        let value = if above { self.stack.pop() } else { None };
        value.ok_or_else(|| "a pickle that takes from an empty stack".to_owned())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or("a pickle that closes what it never opened")?;
        Ok(self.stack.split_off(mark))
    }

    /// Returns the object that an instruction changes.
    fn top(&mut self) -> Option<&mut Object> {
        if let Some(Value::Object(Index(index))) = self.stack.last() {
            self.objects.get_mut(*index)
        } else {
            None
        }
    }

    /// Returns the keys and values of a dict that is made by a call with a list of pairs, as Python 2 saves
    /// an `OrderedDict`. The pairs are moved out of the list, so that many dicts made from one list do not
    /// need more memory.
    fn pairs_of(&mut self, arguments: Value) -> Vec<(Value, Value)> {
        let Value::Object(Index(index)) = arguments else { return Vec::new() };
        let Some(Object::Tuple(arguments)) = self.objects.get(index) else { return Vec::new() };
        let Some(Value::Object(Index(list))) = arguments.first().copied() else { return Vec::new() };
        let Some(Object::List(list)) = self.objects.get_mut(list) else { return Vec::new() };
        let pairs = std::mem::take(list);
        let pair = |pair: Value| {
            let Value::Object(Index(index)) = pair else { return None };
            match self.objects.get(index)? {
                Object::List(pair) | Object::Tuple(pair) => match pair[..] {
                    [key, value] => Some((key, value)),
                    _ => None,
                },
                _ => None,
            }
        };
        pairs.into_iter().filter_map(pair).collect()
    }

    /// Returns whether a call of `callable` gives a dict of the standard library.
    fn is_dict(&self, callable: Value) -> bool {
        let Value::Object(Index(index)) = callable else { return false };
        let Some(Object::Global(module, name)) = self.objects.get(index) else { return false };
        let name = (&self.input[module.clone()], &self.input[name.clone()]);
        matches!(name, (b"collections", b"OrderedDict" | b"defaultdict"))
    }
}

/// Reads an integer of any number of bytes, in two's complement.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Other;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}
