//! The pickle of a `.pth` file, as far as it says where tensors lie.
//!
//! A pickle is a program for a stack machine that may call anything; this one calls nothing and notes down calls as what they are. It
//! knows the instructions of protocol 2, which `torch.save` writes. Every length is compared with the input before use, each
//! instruction makes at most one value, and values are places in one arena, never copied, so a hostile file costs no more than a
//! small multiple of its length. Source: CPython's `pickletools` (the instructions), PyTorch's `_rebuild_tensor_v2` and
//! `persistent_id` (what tensors and storages are pickled as).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use candle_core::DType;

/// Keys under which a dict may hold the state dict; the official code saves it as `net`.
const KEYS: [&str; 3] = ["net", "state_dict", "model"];

/// More dimensions than any weight has.
const MOST_DIMENSIONS: usize = 8;

/// A tensor, as a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Elements from one to the next along each axis; as many as there are axes.
    pub strides: Vec<usize>,
    /// The first element.
    pub offset: usize,
    /// The storage's key.
    pub storage: String,
}

/// The tensors of a state dict, or of the first of [`KEYS`] that holds some. Of a name given twice the last counts.
///
/// # Errors
/// What is wrong with it and where, in words that follow "found".
pub(super) fn views(pickle: &[u8]) -> Result<BTreeMap<String, View>, String> {
    let mut machine =
        Machine { input: pickle, at: 0, stack: Vec::new(), objects: Vec::new(), memo: HashMap::new() };
    let root = machine.run()?;
    let root = machine.dict(root).ok_or("a pickle of something else than a dict")?;
    let nested = KEYS.iter().filter_map(|key| {
        let (_, value) = root.iter().rev().find(|(name, _)| machine.text(*name) == Some(key.as_bytes()))?;
        machine.dict(*value)
    });
    for dict in std::iter::once(root).chain(nested) {
        let views = machine.views(dict)?;
        if !views.is_empty() {
            return Ok(views);
        }
    }
    Err("a pickle without tensors".to_owned())
}

/// A value on the stack: small ones themselves, others by their place in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Mark,
    Int(i64),
    /// A string: where it begins in the input, and its length.
    Text {
        start: usize,
        length: usize,
    },
    Object(usize),
    /// What tells nothing about tensors: numbers with fractions, truth values, `None`.
    Other,
}

#[derive(Debug, Clone)]
enum Object {
    Tuple(Vec<Value>),
    List,
    Dict(Vec<(Value, Value)>),
    /// Module and name of a class or function: where they lie in the input.
    Global(Range<usize>, Range<usize>),
    Call {
        callable: Value,
        arguments: Value,
    },
    /// What is kept outside the pickle: a storage.
    Stored(Value),
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    objects: Vec<Object>,
    memo: HashMap<u32, Value>,
}

impl<'a> Machine<'a> {
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
                b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
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
                b'X' => {
                    let length = u32::from_le_bytes(self.take()?);
                    let text = self.slice(length as usize)?;
                    self.stack.push(Value::Text { start: text.start, length: text.len() });
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
                b']' => self.make(Object::List),
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
                b'e' => {
                    self.pop_to_mark()?;
                }
                // An item of a list; or the attributes of an object, which for a state dict are its modules' versions.
                b'a' | b'b' => {
                    self.pop()?;
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
                    let Some(&Value::Object(top)) = self.stack.last() else {
                        return Err(wrong("items without a dict"));
                    };
                    // An object of a class of its own may take items too; none of those is a state dict.
                    if let Object::Dict(dict) = &mut self.objects[top] {
                        dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                    }
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.make(Object::Global(module, name));
                }
                b'R' | 0x81 => {
                    let arguments = self.pop()?;
                    let callable = self.pop()?;
                    self.make(match self.global(callable) {
                        Some((b"collections", b"OrderedDict" | b"defaultdict")) => Object::Dict(Vec::new()),
                        _ => Object::Call { callable, arguments },
                    });
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.make(Object::Stored(id));
                }
                other => {
                    return Err(wrong(&format!("instruction 0x{other:02x}, which no state dict holds,")));
                }
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let range = self.slice(N)?;
        let (bytes, _) = self.input[range].split_first_chunk::<N>().ok_or("a pickle that ends too soon")?;
        Ok(*bytes)
    }

    /// Where the next `length` bytes lie.
    fn slice(&mut self, length: usize) -> Result<Range<usize>, String> {
        let left = self.input.len() - self.at;
        if length > left {
            return Err(format!(
                "a pickle of {} bytes that ends {} too soon",
                self.input.len(),
                length - left
            ));
        }
        self.at += length;
        Ok(self.at - length..self.at)
    }

    /// Where the next line lies, without its end.
    fn line(&mut self) -> Result<Range<usize>, String> {
        let rest = &self.input[self.at..];
        let end = rest.iter().take(1000).position(|byte| *byte == b'\n').ok_or("a global without a name")?;
        let line = self.slice(end)?;
        self.at += 1;
        Ok(line)
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

    /// The tensors among the values of a dict.
    fn views(&self, dict: &[(Value, Value)]) -> Result<BTreeMap<String, View>, String> {
        let mut views = BTreeMap::new();
        for &(name, value) in dict {
            let Some(name) = self.text(name) else { continue };
            let name = String::from_utf8_lossy(name).into_owned();
            let Some(arguments) = self.tensor(value) else { continue };
            let view = self.view(arguments).map_err(|found| format!("{found} of the tensor {name:?}"))?;
            // A tensor of a type that no network here has is none.
            if let Some(view) = view {
                views.insert(name, view);
            }
        }
        Ok(views)
    }

    /// What the tensor `value` is rebuilt from, if it is one: itself, a parameter of it, or one of another class.
    fn tensor(&self, mut value: Value) -> Option<&[Value]> {
        for _ in 0..3 {
            let &Object::Call { callable, arguments } = self.object(value)? else { return None };
            let arguments = self.tuple(arguments)?;
            let (callable, arguments) = match (self.global(callable)?, arguments) {
                ((b"torch._tensor", b"_rebuild_from_type_v2"), [callable, _, arguments, ..]) => {
                    (self.global(*callable)?, self.tuple(*arguments)?)
                }
                called => called,
            };
            match (callable, arguments) {
                ((b"torch._utils", b"_rebuild_tensor_v2"), arguments) => return Some(arguments),
                ((b"torch._utils", b"_rebuild_parameter"), [inner, ..]) => value = *inner,
                _ => return None,
            }
        }
        None
    }

    /// Of `(storage, offset, shape, strides, ...)`; `None` for a tensor of another type.
    fn view(&self, arguments: &[Value]) -> Result<Option<View>, &'static str> {
        let [storage, offset, shape, strides, ..] = *arguments else { return Err("too few arguments") };
        let (kind, storage) = self.storage(storage).ok_or("no storage")?;
        let Some(dtype) = dtype(kind) else { return Ok(None) };
        let (shape, strides) = self.sizes(shape).zip(self.sizes(strides)).ok_or("no shape and strides")?;
        if shape.len() != strides.len() {
            return Err("a shape and strides of different lengths");
        }
        let offset = size(offset).ok_or("no offset")?;
        Ok(Some(View { dtype, shape, strides, offset, storage: storage.to_owned() }))
    }

    /// Type and key of `("storage", type, key, device, elements)`.
    fn storage(&self, value: Value) -> Option<(&'a [u8], &'a str)> {
        let Object::Stored(id) = *self.object(value)? else { return None };
        let [_, kind, key, ..] = *self.tuple(id)? else { return None };
        Some((self.global(kind)?.1, std::str::from_utf8(self.text(key)?).ok()?))
    }

    fn sizes(&self, tuple: Value) -> Option<Vec<usize>> {
        let size =
            |value: &Value| if let Value::Int(size) = value { usize::try_from(*size).ok() } else { None };
        let sizes = self.tuple(tuple)?;
        if sizes.len() > MOST_DIMENSIONS { None } else { sizes.iter().map(size).collect() }
    }

    fn object(&self, value: Value) -> Option<&Object> {
        if let Value::Object(index) = value { self.objects.get(index) } else { None }
    }

    fn tuple(&self, value: Value) -> Option<&[Value]> {
        if let Object::Tuple(items) = self.object(value)? { Some(items) } else { None }
    }

    fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        if let Object::Dict(pairs) = self.object(value)? { Some(pairs) } else { None }
    }

    /// Module and name.
    fn global(&self, value: Value) -> Option<(&'a [u8], &'a [u8])> {
        let Object::Global(module, name) = self.object(value)? else { return None };
        Some((&self.input[module.clone()], &self.input[name.clone()]))
    }

    fn text(&self, value: Value) -> Option<&'a [u8]> {
        if let Value::Text { start, length } = value { self.input.get(start..start + length) } else { None }
    }
}

/// The type of a storage's elements, if a network here may have it.
fn dtype(storage: &[u8]) -> Option<DType> {
    match storage {
        b"FloatStorage" => Some(DType::F32),
        b"DoubleStorage" => Some(DType::F64),
        b"HalfStorage" => Some(DType::F16),
        b"BFloat16Storage" => Some(DType::BF16),
        b"ByteStorage" => Some(DType::U8),
        b"LongStorage" => Some(DType::I64),
        _ => None,
    }
}

/// A number that is not negative.
fn size(value: Value) -> Option<usize> {
    if let Value::Int(size) = value { usize::try_from(size).ok() } else { None }
}

/// An integer of any number of bytes, as two's complement; one beyond 64 bits is no size of anything.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Other;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}
