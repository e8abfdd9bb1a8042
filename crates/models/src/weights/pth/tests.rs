//! Tests files in the exact form that `torch.save` writes, and damaged or hostile files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::DType;

use super::*;
use crate::fuzzing::archive;

/// A tensor to pickle. All of them are views of one storage, `0`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved<'a> {
    pub name: &'a str,
    pub kind: &'a str,
    pub shape: &'a [u8],
    pub strides: &'a [u8],
    pub offset: u8,
    /// Whether it is saved as an `nn.Parameter`.
    pub parameter: bool,
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn tuple(sizes: &[u8]) -> Vec<u8> {
    let numbers = sizes.iter().flat_map(|size| [b'K', *size]);
    [b'('].into_iter().chain(numbers).chain([b't']).collect()
}

/// Returns the pickle of an `OrderedDict` of tensors, in protocol 2.
pub(crate) fn state_dict(tensors: &[Saved<'_>]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for tensor in tensors {
        out.extend(text(tensor.name));
        if tensor.parameter {
            out.extend(b"ctorch._utils\n_rebuild_parameter\n(");
        }
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        out.extend(text("storage"));
        out.extend(format!("ctorch\n{}\n", tensor.kind).into_bytes());
        out.extend([text("0"), text("cpu"), b"K\x10tQ".to_vec(), vec![b'K', tensor.offset]].concat());
        out.extend([tuple(tensor.shape), tuple(tensor.strides), b"\x89h\x00)RtR".to_vec()].concat());
        if tensor.parameter {
            out.extend(b"\x88h\x00)RtR");
        }
    }
    // These are the attributes of a module's state dict.
    out.extend(b"u}");
    out.extend([text("_metadata"), b"h\x00)Rsb.".to_vec()].concat());
    out
}

/// Returns the pickle of a dict that holds the pickled `inner` under `key`, and a number.
pub(crate) fn under(key: &str, inner: &[u8]) -> Vec<u8> {
    let inner = &inner[2..inner.len() - 1];
    [b"\x80\x02}(", &text("acc")[..], b"G?\xe0\0\0\0\0\0\0", &text(key), inner, b"u."].concat()
}

fn file(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    archive(&[("set/data.pkl", pickle), ("set/byteorder", b"little"), ("set/data/0", storage)])
}

/// Returns the tensors of the only state dict.
fn read_bytes(file: &[u8]) -> Result<HashMap<String, Tensor>, String> {
    let [state_dict] = &read(file)?[..] else { panic!("one state dict") };
    Ok(state_dict.tensors.clone())
}

fn floats(count: u8) -> Vec<u8> {
    (0..count).flat_map(|number| f32::from(number).to_le_bytes()).collect()
}

const WEIGHT: Saved<'_> = Saved {
    name: "weight",
    kind: "FloatStorage",
    shape: &[2, 3],
    strides: &[3, 1],
    offset: 0,
    parameter: false,
};

#[test]
fn tensors_are_read_in_any_order_of_their_elements() {
    let pickle = state_dict(&[
        WEIGHT,
        Saved { name: "turned", strides: &[1, 2], parameter: true, ..WEIGHT },
        Saved { name: "late", shape: &[2], strides: &[2], offset: 3, ..WEIGHT },
        Saved { name: "one", shape: &[], strides: &[], offset: 5, ..WEIGHT },
        Saved { name: "none", shape: &[0, 3], ..WEIGHT },
        Saved { name: "mask", kind: "BoolStorage", ..WEIGHT },
    ]);
    for pickle in
        [pickle.clone(), under("net", &pickle), under("state_dict", &pickle), under("model", &pickle)]
    {
        let tensors = read_bytes(&file(&pickle, &floats(6))).unwrap();
        assert_eq!(tensors.len(), 5, "booleans are passed over");
        let held = |name: &str| {
            let tensor = &tensors[name];
            (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        assert_eq!(held("weight"), (vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        assert_eq!(held("turned"), (vec![2, 3], vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0]));
        assert_eq!(held("late"), (vec![2], vec![3.0, 5.0]));
        assert_eq!(held("one"), (vec![], vec![5.0]));
        assert_eq!(held("none"), (vec![0, 3], vec![]));
    }
    let found = read(&file(&under("weights", &under("best", &pickle)), &floats(6))).unwrap();
    assert_eq!((found.len(), &found[0].place[..]), (1, "weights.best"));
    assert_eq!(found[0].not_read, [("mask".to_owned(), "a tensor of BoolStorage".to_owned())]);
}

#[test]
fn whole_numbers_keep_all_their_digits() {
    let read = |kind, storage: &[u8]| {
        let tensors = read_bytes(&file(&state_dict(&[Saved { kind, ..WEIGHT }]), storage)).unwrap();
        tensors["weight"].flatten_all().unwrap()
    };
    // 2^24 + 1 is not a float32.
    let ints = [16_777_217, -1, 0, 7, i32::MAX, i32::MIN];
    let found = read("IntStorage", &ints.map(i32::to_le_bytes).concat());
    assert_eq!(found.to_vec1::<i32>().unwrap(), ints);
    let shorts = [1, -1, 0, 7, i16::MAX, i16::MIN];
    let found = read("ShortStorage", &shorts.map(i16::to_le_bytes).concat());
    assert_eq!(found.to_vec1::<i16>().unwrap(), shorts);
}

#[test]
fn types_are_read_as_candle_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.pth");
    for kind in
        ["FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage", "ByteStorage", "LongStorage"]
    {
        let file = file(&state_dict(&[Saved { kind, ..WEIGHT }]), &floats(12));
        std::fs::write(&path, &file).unwrap();
        let (ours, candles) = (read_bytes(&file).unwrap(), candle_core::pickle::read_all(&path).unwrap());
        let ((_, ours), (_, candles)) = (ours.iter().next().unwrap(), &candles[0]);
        assert_eq!((ours.dtype(), ours.dims()), (candles.dtype(), candles.dims()));
        let values = |tensor: &Tensor| {
            let values = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
            values.to_vec1::<f64>().unwrap()
        };
        assert_eq!(values(ours), values(candles), "{kind}");
    }
}

#[test]
fn views_outside_their_storage_are_errors() {
    let wrong = |saved: Saved<'_>| read_bytes(&file(&state_dict(&[saved]), &floats(6))).unwrap_err();
    let message = wrong(Saved { shape: &[2, 4], strides: &[4, 1], ..WEIGHT });
    assert_eq!(message, "the tensor \"weight\" with the shape [2, 4] in a storage of 6");
    for saved in [
        Saved { offset: 1, ..WEIGHT },
        Saved { strides: &[4, 1], ..WEIGHT },
        Saved { shape: &[200, 1], strides: &[0, 0], ..WEIGHT },
        Saved { shape: &[255; 8], strides: &[0; 8], ..WEIGHT },
    ] {
        let message = wrong(saved);
        assert!(
            message.starts_with("the tensor \"weight\" with the shape") && message.contains("of 6"),
            "{message}"
        );
    }
    let message = wrong(Saved { strides: &[1], ..WEIGHT });
    assert_eq!(message, "a shape and strides of different lengths of the tensor \"weight\"");
}

#[test]
fn a_storage_is_not_multiplied() {
    let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let all: Vec<Saved<'_>> =
        names.iter().map(|name| Saved { name, shape: &[250, 250], strides: &[250, 1], ..WEIGHT }).collect();
    let storage = vec![0; 250_000];
    assert_eq!(read_bytes(&file(&state_dict(&all[..8]), &storage)).unwrap().len(), 8);
    let message = read_bytes(&file(&state_dict(&all), &storage)).unwrap_err();
    assert_eq!(message, "tensors of more than 8 times the file's length");
}

#[test]
fn lengths_in_the_pickle_are_not_trusted() {
    let wrong = |pickle: &[u8]| read_bytes(&file(pickle, &[])).unwrap_err();
    assert_eq!(wrong(b"\x80\x02X\xff\xff\xff\xff"), "a pickle of 7 bytes that ends 4294967295 too soon");
    assert_eq!(wrong(b"\x80\x02\x8a\xff\x01"), "a pickle of 5 bytes that ends 254 too soon");
    assert_eq!(wrong(b"\x80\x06."), "pickle protocol 6 instead of 2 to 5 at byte 0 of the pickle");
    assert_eq!(wrong(b"\x80\x02]."), "a pickle without tensors");
    // Each value would be twice as long as the one before if values were copied.
    let doubled: Vec<u8> = (0..100_u8).flat_map(|key| [b'q', key, b'h', key, b'h', key, 0x86]).collect();
    assert_eq!(wrong(&[b"\x80\x02)", &doubled[..], b"."].concat()), "a pickle without tensors");
    // The nesting is deeper than a recursion could go.
    let deep = vec![0x85; 1 << 20];
    assert_eq!(wrong(&[b"\x80\x02)", &deep[..], b"."].concat()), "a pickle without tensors");
}

#[test]
fn archives_of_another_kind_are_errors() {
    let pickle = state_dict(&[WEIGHT]);
    assert_eq!(read_bytes(&archive(&[("set/data", &pickle)])).unwrap_err(), "an archive without data.pkl");
    let message = read_bytes(&archive(&[("set/data.pkl", &pickle)])).unwrap_err();
    assert!(message.starts_with("an archive whose set/data/0 fails to unpack"), "{message}");
    let numpy = archive(&[("embeddings.npy", b""), ("labels.npy", b"")]);
    assert_eq!(read_bytes(&numpy).unwrap_err(), "an archive without data.pkl (but numpy's arrays)");
    let compiled = archive(&[("set/data.pkl", &pickle), ("set/constants.pkl", b"\x80\x02).")]);
    assert!(read_bytes(&compiled).unwrap_err().starts_with("a compiled module of torch.jit.save"));
    let whole = file(&pickle, &floats(6));
    for held in 0..whole.len() {
        read_bytes(&whole[..held]).unwrap_err();
    }
}

#[test]
fn nothing_is_called() {
    let pickle = [b"\x80\x02}", &text("weight")[..], b"cos\nsystem\n", &text("ls"), b"\x85Rs."].concat();
    assert_eq!(read_bytes(&file(&pickle, &[])).unwrap_err(), "a pickle without tensors");
}

/// A file from a big-endian machine says so, and its storages are in that order.
#[test]
fn storages_of_big_endian_machines_are_turned() {
    let big: Vec<u8> = (0..6_u8).flat_map(|number| f32::from(number).to_be_bytes()).collect();
    let pickle = state_dict(&[WEIGHT]);
    let file = archive(&[("set/data.pkl", &pickle), ("set/byteorder", b"big"), ("set/data/0", &big)]);
    let read = read_bytes(&file).unwrap()["weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(read, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

/// ZIP's checksum reveals a flipped bit of a storage.
#[test]
fn a_flipped_bit_in_an_archive_is_an_error() {
    let mut file = file(&state_dict(&[WEIGHT]), &floats(6));
    let place = file.windows(8).position(|bytes| bytes == [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]).unwrap();
    file[place + 3] ^= 1;
    assert!(read_bytes(&file).unwrap_err().contains("set/data/0 fails to unpack"));
}

/// A name that a pickle mentions many times is not copied without limit.
#[test]
fn names_are_not_multiplied() {
    let name = text(&"n".repeat(1000));
    let tensor = state_dict(&[WEIGHT]);
    let tensor = &tensor[tensor.windows(7).position(|bytes| bytes == b"ctorch.").unwrap()..];
    let end = tensor.windows(2).position(|bytes| bytes == b"u}").unwrap();
    let pickle = [
        b"\x80\x02ccollections\nOrderedDict\nq\x00)R0}q\x01",
        &name[..],
        b"q\x02",
        &tensor[..end],
        b"q\x03s",
    ]
    .concat();
    let many = b"h\x01h\x02h\x03s0".repeat(20_000);
    let file = file(&[&pickle[..], &many, b"h\x01."].concat(), &floats(6));
    assert!(read(&file).unwrap_err().contains("names are many times as long"));
}

mod samples;
