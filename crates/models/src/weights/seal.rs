//! The seal of safetensors files that this program writes. It is a digest, so that damage is an error and
//! never silently gives another network.
//!
//! safetensors has no checksum. A sealed file has one metadata entry, `invaspread`: JSON with the number of
//! the format, a description of the file (`content`, itself JSON), and a BLAKE3 digest of that text and of
//! every tensor.

use std::collections::HashMap;
use std::io::{self, Write};

use ::safetensors::SafeTensors;
use ::safetensors::tensor::{Dtype, SafeTensorError, TensorView, serialize};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The metadata entry that holds the seal, as JSON.
const KEY: &str = "invaspread";
/// The number of the format. It is increased when older versions of the program cannot read the files of this
/// one.
const FORMAT: u32 = 1;

/// The content of the seal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    format: u32,
    /// JSON as text, so that the digest covers the bytes that were written.
    content: String,
    digest: String,
}

/// Makes a safetensors file of `tensors`, in the order of their names, with a seal over them and `content`.
/// Equal contents give equal bytes. (There is only one metadata entry, since several would be written in the
/// random order of a hash map.)
///
/// # Errors
/// Returns the error of the library, for example for too large a header.
pub fn write_sealed(mut tensors: Vec<(&str, TensorView<'_>)>, content: String) -> Result<Vec<u8>, String> {
    tensors.sort_by_key(|&(name, _)| name);
    let digest = digest(&content, tensors.iter().map(|(name, view)| (*name, view)));
    let seal = Seal { format: FORMAT, content, digest };
    let seal = serde_json::to_string(&seal).map_err(|error| error.to_string())?;
    serialize(tensors, Some(HashMap::from([(KEY.to_owned(), seal)])))
        .map_err(|error: SafeTensorError| error.to_string())
}

/// A tensor whose bytes are given piece by piece.
pub struct SealedTensor<'a> {
    /// The name.
    pub name: &'a str,
    /// The type of the elements: of 1, 2, 4 or 8 bytes.
    pub dtype: Dtype,
    /// The shape.
    pub shape: Vec<usize>,
    /// Calls the function that it is given with the little-endian bytes of all elements, piece by piece; the same bytes each time.
    pub bytes: &'a BytesOf<'a>,
}

/// Gives bytes to a function, piece by piece.
pub type BytesOf<'a> = dyn Fn(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> + 'a;

impl SealedTensor<'_> {
    fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }

    /// Calls `take` with all bytes, which must be as many as the shape says.
    fn each(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut given = 0;
        (self.bytes)(&mut |bytes| {
            given += bytes.len();
            take(bytes)
        })?;
        if given == self.len() {
            return Ok(());
        }
        Err(io::Error::other(format!("the tensor {} has {given} bytes, expected {}", self.name, self.len())))
    }
}

/// Does the same as [`write_sealed`] for tensors that need not fit in memory: each one's bytes are read twice, for the digest and for the
/// file.
///
/// # Errors
/// Returns the errors of `out` and of the tensors, and one if a tensor has another number of bytes than its shape says.
pub fn write_sealed_to(
    out: &mut dyn Write,
    mut tensors: Vec<SealedTensor<'_>>,
    content: String,
) -> io::Result<()> {
    tensors.sort_by_key(|tensor| tensor.name);
    let mut hasher = blake3::Hasher::new();
    add_part(&mut hasher, content.as_bytes());
    for tensor in &tensors {
        add_part(&mut hasher, tensor.name.as_bytes());
        add_part(&mut hasher, described(tensor.dtype, &tensor.shape).as_bytes());
        hasher.update(&(tensor.len() as u64).to_le_bytes());
        tensor.each(&mut |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
    }
    let digest = hasher.finalize().to_hex().to_string();
    let seal = serde_json::to_string(&Seal { format: FORMAT, content, digest })?;
    // As safetensors orders them, so that every element lies at a multiple of its size.
    tensors.sort_by_key(|tensor| (std::cmp::Reverse(tensor.dtype.bitsize()), tensor.name));
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), json!({ KEY: seal }))]);
    let mut start = 0;
    for tensor in &tensors {
        let end = start + tensor.len();
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.to_owned(), entry);
        start = end;
    }
    let header = serde_json::to_string(&header)?;
    let padded = header.len().next_multiple_of(8);
    out.write_all(&(padded as u64).to_le_bytes())?;
    write!(out, "{header:<padded$}")?;
    tensors.iter().try_for_each(|tensor| tensor.each(&mut |bytes| out.write_all(bytes)))
}

/// Compares a safetensors file with its seal and returns the content of the seal; `None` if there is no seal,
/// as in files of other programs.
///
/// ```
/// use invaspread_models::{check_seal, write_sealed};
/// use safetensors::{Dtype, tensor::TensorView};
///
/// let values = 1f32.to_le_bytes();
/// let view = TensorView::new(Dtype::F32, vec![1], &values)?;
/// let mut bytes = write_sealed(vec![("x", view)], "content".to_owned())?;
/// assert_eq!(check_seal(&bytes)?.as_deref(), Some("content"));
/// // A changed byte is found.
/// *bytes.last_mut().unwrap() ^= 1;
/// assert!(check_seal(&bytes).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Says what was found instead, in words that follow "found".
pub fn check_seal(bytes: &[u8]) -> Result<Option<String>, String> {
    let told =
        |error: SafeTensorError| format!("{} bytes that are no safetensors file ({error})", bytes.len());
    let file = SafeTensors::deserialize(bytes).map_err(told)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(told)?;
    let Some(entries) = metadata.metadata() else { return Ok(None) };
    let text = match entries.get(KEY) {
        Some(text) => text,
        // The key itself may be damaged.
        None if entries.values().any(|text| serde_json::from_str::<Seal>(text).is_ok()) => {
            return Err(format!("a seal of this program under another name than {KEY:?}"));
        }
        None => return Ok(None),
    };
    let seal: Seal =
        serde_json::from_str(text).map_err(|error| format!("a seal that cannot be read ({error})"))?;
    if seal.format != FORMAT {
        return Err(format!(
            "the format {} of this program's files, where this version reads {FORMAT}",
            seal.format
        ));
    }
    let mut views = file.tensors();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    let found = digest(&seal.content, views.iter().map(|(name, view)| (name.as_str(), view)));
    if found == seal.digest {
        Ok(Some(seal.content))
    } else {
        Err(format!(
            "contents with the BLAKE3 digest {found}, not {} as its seal says (a program that changed tensors must not keep the metadata \
             entry {KEY:?})",
            seal.digest
        ))
    }
}

/// Returns the digest of `content` and of names, types, shapes and bytes in the given order. Each part is
/// preceded by its length.
fn digest<'a>(content: &str, tensors: impl Iterator<Item = (&'a str, &'a TensorView<'a>)>) -> String {
    let mut hasher = blake3::Hasher::new();
    add_part(&mut hasher, content.as_bytes());
    for (name, view) in tensors {
        add_part(&mut hasher, name.as_bytes());
        add_part(&mut hasher, described(view.dtype(), view.shape()).as_bytes());
        add_part(&mut hasher, view.data());
    }
    hasher.finalize().to_hex().to_string()
}

/// Adds the length of a part and the part to a digest.
fn add_part(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}

/// Returns type and shape as the digest has them.
fn described(dtype: Dtype, shape: &[usize]) -> String {
    format!("{dtype:?} {shape:?}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{SealedTensor, check_seal, write_sealed, write_sealed_to};
    use ::safetensors::tensor::{Dtype, TensorView, serialize};
    use std::collections::HashMap;

    fn view(bytes: &[u8]) -> TensorView<'_> {
        TensorView::new(Dtype::U8, vec![bytes.len()], bytes).unwrap()
    }

    #[test]
    fn a_seal_holds_until_any_bit_is_another() {
        let (weight, bias) = ([1, 2, 3, 4, 5, 6, 7], [0; 9]);
        let tensors = || vec![("b.weight", view(&weight)), ("a.bias", view(&bias))];
        let content = r#"{"run":"0123-s1"}"#;
        let sealed = write_sealed(tensors(), content.to_owned()).unwrap();
        assert_eq!(check_seal(&sealed).unwrap().as_deref(), Some(content));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[at] ^= 1 << bit;
                check_seal(&damaged).unwrap_err();
            }
            check_seal(&sealed[..at]).unwrap_err();
        }
        let mut other = tensors();
        other.reverse();
        assert_eq!(write_sealed(other, content.to_owned()).unwrap(), sealed);
    }

    #[test]
    fn piece_by_piece_the_same_tensors_have_the_same_seal() {
        let (rows, names) = ([1, 2, 3, 4, 5, 6, 7, 8], [9; 5]);
        let content = r#"{"weights":"w"}"#;
        let views = vec![
            ("embeddings", TensorView::new(Dtype::F32, vec![2, 1], &rows).unwrap()),
            ("names", view(&names)),
        ];
        let whole = write_sealed(views, content.to_owned()).unwrap();
        let pieces = |bytes: &'static [u8]| {
            move |take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>| bytes.chunks(3).try_for_each(take)
        };
        let (rows, names) = (pieces(&[1, 2, 3, 4, 5, 6, 7, 8]), pieces(&[9; 5]));
        let tensors = |length| {
            vec![
                SealedTensor { name: "names", dtype: Dtype::U8, shape: vec![length], bytes: &names },
                SealedTensor { name: "embeddings", dtype: Dtype::F32, shape: vec![2, 1], bytes: &rows },
            ]
        };
        let mut file = Vec::new();
        write_sealed_to(&mut file, tensors(5), content.to_owned()).unwrap();
        assert_eq!(check_seal(&file).unwrap().as_deref(), Some(content));
        let tensors_of = |file: &[u8]| {
            let read = ::safetensors::SafeTensors::deserialize(file).unwrap();
            let of = |name: &str| {
                let view = read.tensor(name).unwrap();
                (view.dtype(), view.shape().to_vec(), view.data().to_vec())
            };
            [of("embeddings"), of("names")]
        };
        assert_eq!(tensors_of(&file), tensors_of(&whole));
        let error = write_sealed_to(&mut Vec::new(), tensors(6), content.to_owned()).unwrap_err().to_string();
        assert!(error.contains("names has 5 bytes, expected 6"), "{error}");
    }

    #[test]
    fn files_of_other_programs_have_no_seal() {
        let bytes = [1, 2, 3];
        for metadata in [None, Some(HashMap::from([("format".to_owned(), "pt".to_owned())]))] {
            let file = serialize(vec![("weight", view(&bytes))], metadata).unwrap();
            assert_eq!(check_seal(&file), Ok(None));
        }
        let newer = r#"{"format":2,"content":"","digest":""}"#.to_owned();
        let newer = serialize(
            vec![("weight", view(&bytes))],
            Some(HashMap::from([("invaspread".to_owned(), newer)])),
        );
        assert!(check_seal(&newer.unwrap()).unwrap_err().contains("the format 2"));
    }
}
