//! Reads the pickles of CIFAR-10's Python batches.
//!
//! A batch is a dict, written by Python 2: `batch_label`, `labels` (a list of ints), `data` (a numpy array of
//! u8) and `filenames`. Source: numpy's `array_reduce` (the array's state).

use invaspread_pickle::{Call, Pickle, Value};

/// The content of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PickledBatch {
    /// The list `labels`.
    pub labels: Vec<i64>,
    /// Rows and columns of `data`.
    pub shape: (usize, usize),
    /// The bytes of `data`, row after row.
    pub data: Vec<u8>,
}

/// Reads a batch.
///
/// # Errors
/// If the pickle is not such a batch. The error says what is wrong and where, in words that follow
/// "found".
pub(crate) fn read_batch(pickle: &[u8]) -> Result<PickledBatch, String> {
    let batch = Pickle::read(pickle)?;
    let root = batch.dict(batch.root()).ok_or("a pickle of something else than a dict")?;
    let labels = batch.item(root, "labels").ok_or("a pickle without \"labels\"")?;
    let labels = ints(&batch, labels).ok_or("\"labels\" that are not a list of integers")?;
    let data = batch.item(root, "data").ok_or("a pickle without \"data\"")?;
    let Array { shape: (rows, columns), columns_first, stored } =
        array(&batch, data).map_err(|what| format!("\"data\" that {what}"))?;
    let data = if columns_first {
        (0..rows * columns).map(|at| stored[at % columns * rows + at / columns]).collect()
    } else {
        stored.to_vec()
    };
    Ok(PickledBatch { labels, shape: (rows, columns), data })
}

fn ints(batch: &Pickle<'_>, list: Value) -> Option<Vec<i64>> {
    let int = |item: &Value| if let Value::Int(value) = item { Some(*value) } else { None };
    batch.list(list)?.iter().map(int).collect()
}

/// A matrix of bytes.
struct Array<'a> {
    /// Rows and columns.
    shape: (usize, usize),
    columns_first: bool,
    /// The bytes, as many as the shape says.
    stored: &'a [u8],
}

/// Returns the array that `value` describes, or says what it is instead.
fn array<'a>(batch: &Pickle<'a>, value: Value) -> Result<Array<'a>, String> {
    let Call { callable, state, .. } = batch.call(value).ok_or("is no array")?;
    match batch.global(callable) {
        // numpy 2 writes `numpy._core`.
        Some((b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct")) => {}
        Some((module, name)) => {
            let (module, name) = (module.escape_ascii(), name.escape_ascii());
            return Err(format!("asks for a call of {module}.{name}, which is not made"));
        }
        None => return Err("is no array".to_owned()),
    }
    // Version, shape, type, whether columns come first, bytes.
    let matrix = "is not a matrix of bytes";
    let [Value::Int(_), shape, kind, Value::Bool(columns_first), stored] =
        *state.and_then(|state| batch.tuple(state)).ok_or(matrix)?
    else {
        return Err(matrix.to_owned());
    };
    match number_type(batch, kind).ok_or(matrix)? {
        b"u1" | b"|u1" => {}
        other => return Err(format!("holds numbers of type {}", other.escape_ascii())),
    }
    let stored = batch.bytes(stored).ok_or(matrix)?;
    let Some([Value::Int(rows), Value::Int(columns)]) = batch.tuple(shape) else {
        return Err(matrix.to_owned());
    };
    let size = |length: &i64| usize::try_from(*length).map_err(|_| matrix);
    let shape = (size(rows)?, size(columns)?);
    if shape.0.checked_mul(shape.1) != Some(stored.len()) {
        return Err(matrix.to_owned());
    }
    Ok(Array { shape, columns_first, stored })
}

/// Returns the first argument of a call of `numpy.dtype`.
fn number_type<'a>(batch: &Pickle<'a>, value: Value) -> Option<&'a [u8]> {
    let Call { callable, arguments, .. } = batch.call(value)?;
    let numpys = batch.global(callable)? == (&b"numpy"[..], &b"dtype"[..]);
    if numpys { batch.bytes(*batch.tuple(arguments)?.first()?) } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;
    use crate::sample::pickled;

    /// Returns a pickle of two rows of three columns, written by hand.
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
    fn data_that_is_no_array_of_bytes_is_told_apart() {
        let with_data = |data: &[u8]| {
            let pickle = [b"\x80\x02}(U\x06labels]U\x04data", data, b"u."].concat();
            read_batch(&pickle).unwrap_err()
        };
        assert_eq!(with_data(b"K\x01"), "\"data\" that is no array");
        assert_eq!(
            with_data(b"cos\nsystem\nU\x02ls\x85R"),
            "\"data\" that asks for a call of os.system, which is not made"
        );
        let reconstructed = b"cnumpy.core.multiarray\n_reconstruct\n)R";
        let floats = b"(K\x01K\x01K\x01\x86cnumpy\ndtype\nU\x02f4\x85R\x89U\x01atb";
        assert_eq!(
            with_data(&[&reconstructed[..], floats].concat()),
            "\"data\" that holds numbers of type f4"
        );
        assert_eq!(with_data(reconstructed), "\"data\" that is not a matrix of bytes");
        assert!(read_batch(&small(false, &[1, 2, 3, 4, 5])).unwrap_err().contains("not a matrix of bytes"));
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
