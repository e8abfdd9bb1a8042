//! Reads `.caffemodel` files: the weights of a Caffe network, in both forms that Caffe has written.
//!
//! A file is a `NetParameter` message: layers with a name and blobs of numbers. Newer files have
//! `LayerParameter`s as field 100, older ones (such as BVLC GoogLeNet) `V1LayerParameter`s as field 2. The
//! shape of a blob is a list, or the four numbers num, channels, height and width. Numbers are floats or
//! doubles, packed or one by one. The blobs of a convolution are the weight (C_out, C_in, K, K) and the bias,
//! whose shape in four numbers is (1, 1, 1, C_out). Source of the numbers of the fields: `caffe.proto`.
//!
//! Files of weights are not trusted: memory is limited to a small multiple of the length of the file,
//! whatever lengths the file states.

mod protobuf;

use crate::weights::format::element_count;
use candle_core::{Device, Tensor};
use protobuf::{Fields, Value, varint};

/// The largest numbers of axes of a blob (as in Caffe), of blobs of a layer, and of letters of the name of a
/// layer.
const MOST_AXES: usize = 32;
const MOST_BLOBS: usize = 16;
const LONGEST_NAME: usize = 256;

/// Reads all blobs of a file, in its order. Caffe does not name blobs. Here the first of layer `conv1/7x7_s2`
/// is called `conv1/7x7_s2.weight`, the second `conv1/7x7_s2.bias`, and the next `conv1/7x7_s2.2` and so on.
///
/// # Errors
/// Says what is wrong with the file, in words that follow "found".
pub(crate) fn read(file: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let mut tensors = Vec::new();
    for field in Fields::of(file) {
        match field? {
            (2, Value::Bytes(message)) => layer(message, &V1_LAYER, &mut tensors)?,
            (100, Value::Bytes(message)) => layer(message, &LAYER, &mut tensors)?,
            _ => {}
        }
    }
    if tensors.is_empty() {
        return Err("a message without layers that have weights".to_owned());
    }
    Ok(tensors)
}

/// The numbers of the fields of a layer.
struct LayerFields {
    name: u64,
    blobs: u64,
}

const LAYER: LayerFields = LayerFields { name: 1, blobs: 7 };
const V1_LAYER: LayerFields = LayerFields { name: 4, blobs: 6 };

fn layer(message: &[u8], fields: &LayerFields, tensors: &mut Vec<(String, Tensor)>) -> Result<(), String> {
    let mut layer: &[u8] = &[];
    let mut blobs = Vec::new();
    for field in Fields::of(message) {
        match field? {
            (number, Value::Bytes(bytes)) if number == fields.name => layer = bytes,
            (number, Value::Bytes(bytes)) if number == fields.blobs => blobs.push(bytes),
            _ => {}
        }
        if blobs.len() > MOST_BLOBS {
            return Err(format!("a layer of more than {MOST_BLOBS} blobs"));
        }
    }
    if blobs.is_empty() {
        return Ok(());
    }
    let layer = std::str::from_utf8(layer).ok().filter(|name| (1..=LONGEST_NAME).contains(&name.len()));
    let layer =
        layer.ok_or_else(|| format!("a layer with weights whose name is not 1 to {LONGEST_NAME} letters"))?;
    for (place, message) in blobs.into_iter().enumerate() {
        let name = match place {
            0 => format!("{layer}.weight"),
            1 => format!("{layer}.bias"),
            _ => format!("{layer}.{place}"),
        };
        let tensor = blob(message).map_err(|found| format!("the blob {name:?} with {found}"))?;
        tensors.push((name, tensor));
    }
    Ok(())
}

fn blob(message: &[u8]) -> Result<Tensor, String> {
    let (mut floats, mut doubles) = (Vec::new(), Vec::new());
    // If one of the four numbers is missing, it is 0, as always in Protocol Buffers.
    let mut four: Option<[u64; 4]> = None;
    let mut list: Option<Vec<usize>> = None;
    for field in Fields::of(message) {
        match field? {
            (axis @ 1..=4, Value::Varint(len)) => four.get_or_insert_default()[axis as usize - 1] = len,
            (5, Value::Four(number)) => floats.push(f32::from_le_bytes(number)),
            (5, Value::Bytes(packed)) => {
                floats.extend(numbers(packed)?.iter().copied().map(f32::from_le_bytes));
            }
            (7, Value::Bytes(message)) => list = Some(dimensions(message)?),
            (8, Value::Eight(number)) => doubles.push(f64::from_le_bytes(number)),
            (8, Value::Bytes(packed)) => {
                doubles.extend(numbers(packed)?.iter().copied().map(f64::from_le_bytes));
            }
            _ => {}
        }
    }
    let shape: Vec<usize> = match (four, list) {
        (Some(four), _) => four.into_iter().map(size).collect::<Result<_, _>>()?,
        (None, list) => list.unwrap_or_default(),
    };
    let held = if doubles.is_empty() { floats.len() } else { doubles.len() };
    if element_count(&shape) != Some(held) {
        return Err(format!("the shape {shape:?} and {held} numbers"));
    }
    let tensor = if doubles.is_empty() {
        Tensor::from_vec(floats, shape, &Device::Cpu)
    } else {
        Tensor::from_vec(doubles, shape, &Device::Cpu)
    };
    tensor.map_err(|error| format!("numbers that make no tensor ({error})"))
}

/// Reads a `BlobShape`.
fn dimensions(message: &[u8]) -> Result<Vec<usize>, String> {
    let mut shape = Vec::new();
    let mut push = |len| {
        shape.push(size(len)?);
        if shape.len() > MOST_AXES { Err(format!("more than {MOST_AXES} axes")) } else { Ok(()) }
    };
    for field in Fields::of(message) {
        match field? {
            (1, Value::Varint(len)) => push(len)?,
            (1, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    push(varint(&mut packed)?)?;
                }
            }
            _ => {}
        }
    }
    Ok(shape)
}

fn size(len: u64) -> Result<usize, String> {
    usize::try_from(len).map_err(|_| format!("an axis of {len}"))
}

/// Reads packed numbers of N bytes each.
fn numbers<const N: usize>(packed: &[u8]) -> Result<&[[u8; N]], String> {
    match packed.as_chunks() {
        (numbers, []) => Ok(numbers),
        _ => Err(format!("{} bytes of numbers of {N} bytes each", packed.len())),
    }
}

#[cfg(test)]
pub(crate) mod tests;
