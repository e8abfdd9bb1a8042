//! What the pickle of a `.pth` file says of where its tensors lie. Source: PyTorch's `_rebuild_tensor_v2` and `persistent_id` (what
//! tensors and storages are pickled as).

use std::collections::BTreeMap;

use candle_core::DType;
use invaspread_pickle::{Pickle, Value};

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
    let saved = Saved(Pickle::read(pickle)?);
    let root = saved.0.dict(saved.0.root()).ok_or("a pickle of something else than a dict")?;
    let nested = KEYS.iter().filter_map(|key| saved.0.dict(saved.0.item(root, key)?));
    for dict in std::iter::once(root).chain(nested) {
        let views = saved.views(dict)?;
        if !views.is_empty() {
            return Ok(views);
        }
    }
    Err("a pickle without tensors".to_owned())
}

/// What `torch.save` wrote.
struct Saved<'a>(Pickle<'a>);

impl<'a> Saved<'a> {
    /// The tensors among the values of a dict.
    fn views(&self, dict: &[(Value, Value)]) -> Result<BTreeMap<String, View>, String> {
        let mut views = BTreeMap::new();
        for &(name, value) in dict {
            let Some(name) = self.0.bytes(name) else { continue };
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
            let call = self.0.call(value)?;
            let (callable, arguments) = match (self.0.global(call.callable)?, self.0.tuple(call.arguments)?) {
                ((b"torch._tensor", b"_rebuild_from_type_v2"), [callable, _, arguments, ..]) => {
                    (self.0.global(*callable)?, self.0.tuple(*arguments)?)
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
        let [_, kind, key, ..] = *self.0.tuple(self.0.stored(value)?)? else { return None };
        Some((self.0.global(kind)?.1, std::str::from_utf8(self.0.bytes(key)?).ok()?))
    }

    fn sizes(&self, tuple: Value) -> Option<Vec<usize>> {
        let sizes = self.0.tuple(tuple)?;
        if sizes.len() > MOST_DIMENSIONS { None } else { sizes.iter().map(|value| size(*value)).collect() }
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
