//! Finds the tensors that the pickle of a file of `torch.save` describes. Source: PyTorch's
//! `_rebuild_tensor_v2` and similar functions and `persistent_id` (how tensors and storages are pickled), and
//! `nn.Module` (how a whole module is pickled).

use std::collections::{BTreeMap, HashSet};

use candle_core::DType;
use invaspread_pickle::{Pickle, Value};

use super::view::View;

/// The largest number of dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;
/// The deepest nesting of dicts, lists, objects and modules that is searched.
const DEEPEST: usize = 32;
/// All names and places together may be at most this many times as long as the pickle. They may be longer
/// because a name that is used often is copied often.
const MOST_NAMES: usize = 16;

/// A dict of tensors in a file.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    /// The keys that lead to the dict, joined by dots; empty for the top level.
    pub(super) place: String,
    /// Tensors by name. The last of equal names counts.
    pub(super) views: BTreeMap<String, View>,
    /// Name and kind of each entry with a tensor of a kind that cannot be read.
    pub(super) not_read: Vec<(String, String)>,
}

/// Returns each dict of tensors, in the order of the file: the top level, dicts within dicts, lists and
/// objects, and whole modules. Dicts whose keys are not strings, like those of an optimizer, do not count.
///
/// # Errors
/// Says what is wrong with the pickle and where, in words that follow "found".
pub(super) fn state_dicts(pickle: &Pickle<'_>) -> Result<Vec<Tensors>, String> {
    let mut walk = Walk {
        pickle,
        entered: HashSet::new(),
        left: pickle.length().saturating_mul(MOST_NAMES),
        found: Vec::new(),
    };
    walk.value(pickle.root(), "", 0)?;
    if walk.found.is_empty() {
        return Err("a pickle without tensors".to_owned());
    }
    Ok(walk.found)
}

struct Walk<'a> {
    pickle: &'a Pickle<'a>,
    /// The containers that were searched. Each is searched once, even if several contain it, or it contains
    /// itself.
    entered: HashSet<Value>,
    /// The number of letters of names that may still be copied.
    left: usize,
    found: Vec<Tensors>,
}

impl Walk<'_> {
    fn value(&mut self, value: Value, place: &str, depth: usize) -> Result<(), String> {
        if depth == DEEPEST {
            return Ok(());
        }
        let pickle = self.pickle;
        let attributes = pickle.call(value).and_then(|call| call.state).and_then(|state| pickle.dict(state));
        if let Some(attributes) = attributes {
            if !self.entered.insert(value) {
                return Ok(());
            }
            if module(pickle, attributes).is_some() {
                let mut tensors = Tensors { place: place.to_owned(), ..Tensors::default() };
                self.module(attributes, "", 0, &mut tensors)?;
                self.found.push(tensors);
                return Ok(());
            }
            return self.dict(attributes, place, depth);
        }
        if let Some(dict) = pickle.dict(value) {
            if self.entered.insert(value) {
                self.dict(dict, place, depth)?;
            }
        } else if let Some(items) = pickle.list(value).or_else(|| pickle.tuple(value))
            && self.entered.insert(value)
        {
            for (index, item) in items.iter().enumerate() {
                if self.holds_others(*item) {
                    let place = self.join(place, &index.to_string())?;
                    self.value(*item, &place, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Adds the tensors among the values of a dict, then searches the values.
    fn dict(&mut self, dict: &[(Value, Value)], place: &str, depth: usize) -> Result<(), String> {
        let mut tensors = Tensors { place: place.to_owned(), ..Tensors::default() };
        self.entries(dict, "", &mut tensors)?;
        if !(tensors.views.is_empty() && tensors.not_read.is_empty()) {
            self.found.push(tensors);
        }
        for &(key, value) in dict {
            let Some(key) = self.pickle.bytes(key) else { continue };
            if self.holds_others(value) {
                let place = self.join(place, &String::from_utf8_lossy(key))?;
                self.value(value, &place, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Adds the parameters and buffers of a module, then those of the modules in it, under the names of its
    /// `state_dict`.
    fn module(
        &mut self,
        attributes: &[(Value, Value)],
        prefix: &str,
        depth: usize,
        tensors: &mut Tensors,
    ) -> Result<(), String> {
        let pickle = self.pickle;
        let Some([parameters, buffers, modules]) = module(pickle, attributes).filter(|_| depth < DEEPEST)
        else {
            return Ok(());
        };
        self.entries(parameters, prefix, tensors)?;
        self.entries(buffers, prefix, tensors)?;
        for &(key, value) in modules {
            let state = pickle.call(value).and_then(|call| call.state).and_then(|state| pickle.dict(state));
            let (Some(key), Some(attributes)) = (pickle.bytes(key), state) else { continue };
            let name = self.join(prefix, &String::from_utf8_lossy(key))?;
            self.module(attributes, &name, depth + 1, tensors)?;
        }
        Ok(())
    }

    /// Adds the tensors among the values of a dict.
    fn entries(
        &mut self,
        dict: &[(Value, Value)],
        prefix: &str,
        tensors: &mut Tensors,
    ) -> Result<(), String> {
        for &(name, value) in dict {
            let Some(name) = self.pickle.bytes(name) else { continue };
            let Some(found) = tensor(self.pickle, value) else { continue };
            let name = self.join(prefix, &String::from_utf8_lossy(name))?;
            let read = match found {
                Found::Tensor(arguments) => {
                    view(self.pickle, arguments).map_err(|found| format!("{found} of the tensor {name:?}"))?
                }
                Found::Other(kind) => Err(kind),
            };
            match read {
                Ok(view) => {
                    tensors.views.insert(name, view);
                }
                Err(kind) => tensors.not_read.push((name, kind)),
            }
        }
        Ok(())
    }

    /// Returns whether a value may contain dicts.
    fn holds_others(&self, value: Value) -> bool {
        matches!(value, Value::Object(_)) && tensor(self.pickle, value).is_none()
    }

    fn join(&mut self, place: &str, key: &str) -> Result<String, String> {
        let joined = if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        self.left = self
            .left
            .checked_sub(joined.len() + 1)
            .ok_or("a pickle whose names are many times as long as itself")?;
        Ok(joined)
    }
}

/// Returns the parameters, buffers and inner modules of an object, if it is a module.
fn module<'a>(pickle: &'a Pickle<'_>, attributes: &[(Value, Value)]) -> Option<[&'a [(Value, Value)]; 3]> {
    let of = |name: &str| pickle.dict(pickle.item(attributes, name)?);
    Some([of("_parameters")?, of("_buffers")?, of("_modules")?])
}

/// A value that is a tensor.
enum Found<'a> {
    /// The arguments of a tensor: `(storage, offset, shape, strides, ...)`.
    Tensor(&'a [Value]),
    /// A tensor of a kind that cannot be read.
    Other(String),
}

/// Returns the tensor that `value` describes, if it is a tensor, a parameter, or a tensor of another class.
fn tensor<'a>(pickle: &'a Pickle<'_>, mut value: Value) -> Option<Found<'a>> {
    for _ in 0..3 {
        let call = pickle.call(value)?;
        let (callable, arguments) = match (pickle.global(call.callable)?, pickle.tuple(call.arguments)?) {
            ((b"torch._tensor", b"_rebuild_from_type_v2"), [callable, _, arguments, ..]) => {
                (pickle.global(*callable)?, pickle.tuple(*arguments)?)
            }
            called => called,
        };
        match callable {
            (b"torch._utils", b"_rebuild_tensor_v2" | b"_rebuild_tensor") => {
                return Some(Found::Tensor(arguments));
            }
            (b"torch._utils", b"_rebuild_parameter" | b"_rebuild_parameter_with_state") => {
                value = *arguments.first()?;
            }
            (b"torch._utils", b"_rebuild_sparse_tensor" | b"_rebuild_sparse_csr_tensor") => {
                return Some(Found::Other("a sparse tensor".to_owned()));
            }
            (b"torch._utils", b"_rebuild_qtensor") => {
                return Some(Found::Other("a quantized tensor".to_owned()));
            }
            (b"torch._utils", kind) if kind.starts_with(b"_rebuild_") => {
                return Some(Found::Other(format!("a tensor of the kind {}", String::from_utf8_lossy(kind))));
            }
            _ => return None,
        }
    }
    None
}

/// Reads `(storage, offset, shape, strides, ...)`: returns the view, or the kind of the tensor if that cannot
/// be read.
fn view(pickle: &Pickle<'_>, arguments: &[Value]) -> Result<Result<View, String>, &'static str> {
    let [storage, offset, shape, strides, ..] = *arguments else { return Err("too few arguments") };
    let storage = pickle.stored(storage).and_then(|name| Storage::of(pickle, name)).ok_or("no storage")?;
    let Some(dtype) = dtype(storage.kind) else {
        return Ok(Err(format!("a tensor of {}", String::from_utf8_lossy(storage.kind))));
    };
    let (shape, strides) = sizes(pickle, shape).zip(sizes(pickle, strides)).ok_or("no shape and strides")?;
    if shape.len() != strides.len() {
        return Err("a shape and strides of different lengths");
    }
    let offset = size(offset).and_then(|offset| offset.checked_add(storage.first)).ok_or("no offset")?;
    Ok(Ok(View { dtype, shape, strides, offset, storage: storage.key.to_owned() }))
}

/// A storage as the pickle describes it.
pub(super) struct Storage<'a> {
    /// The name of its class, which says the type of its elements.
    pub(super) kind: &'a [u8],
    /// The key among the storages.
    pub(super) key: &'a str,
    /// The number of its elements.
    pub(super) elements: usize,
    /// The first element, for a storage that is a view of another; only the older form has such storages.
    first: usize,
}

impl<'a> Storage<'a> {
    /// Reads `("storage", type, key, device, elements)`, which in the older form ends with `None` or
    /// `(key, first element, elements)`.
    pub(super) fn of(pickle: &Pickle<'a>, name: Value) -> Option<Self> {
        let [what, kind, key, _, elements, ref view @ ..] = *pickle.tuple(name)? else { return None };
        if pickle.bytes(what)? != b"storage" {
            return None;
        }
        let key = std::str::from_utf8(pickle.bytes(key)?).ok()?;
        let first = match view.first().and_then(|view| pickle.tuple(*view)) {
            Some([_, first, _]) => size(*first)?,
            _ => 0,
        };
        Some(Self { kind: pickle.global(kind)?.1, key, elements: size(elements)?, first })
    }
}

fn sizes(pickle: &Pickle<'_>, tuple: Value) -> Option<Vec<usize>> {
    let sizes = pickle.tuple(tuple)?;
    if sizes.len() > MOST_DIMENSIONS { None } else { sizes.iter().map(|value| size(*value)).collect() }
}

/// Returns the type of the elements of a storage, if it can be read.
fn dtype(storage: &[u8]) -> Option<DType> {
    match storage {
        b"FloatStorage" => Some(DType::F32),
        b"DoubleStorage" => Some(DType::F64),
        b"HalfStorage" => Some(DType::F16),
        b"BFloat16Storage" => Some(DType::BF16),
        b"ByteStorage" => Some(DType::U8),
        b"ShortStorage" => Some(DType::I16),
        b"IntStorage" => Some(DType::I32),
        b"LongStorage" => Some(DType::I64),
        _ => None,
    }
}

/// Returns a number that is not negative.
fn size(value: Value) -> Option<usize> {
    if let Value::Int(size) = value { usize::try_from(size).ok() } else { None }
}
