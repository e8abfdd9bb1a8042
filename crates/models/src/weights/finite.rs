//! Finds values that a network must not have: above all NaN and infinities, which some operations pass on and
//! others hide.

use std::collections::HashMap;

use candle_core::{DType, Result, Tensor};

use super::error::{BadValue, NotFinite, WeightError};

/// Returns the values of a tensor that are not finite, or `None` if all are finite, as integers always are.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_models::not_finite;
///
/// let tensor = Tensor::new(&[[1f32, 2.0], [f32::NAN, 4.0]], &Device::Cpu)?;
/// let found = not_finite(&tensor)?.expect("there is a NaN");
/// assert_eq!((found.count, found.index), (1, vec![1, 0]));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If candle fails.
pub fn not_finite(tensor: &Tensor) -> Result<Option<NotFinite>> {
    if tensor.dtype().is_int() {
        return Ok(None);
    }
    let bad = |value: f64| !value.is_finite();
    let values = values(tensor)?;
    Ok(values.iter().position(|&value| bad(value)).map(|first| NotFinite {
        count: values.iter().filter(|&&value| bad(value)).count(),
        elements: values.len(),
        index: index(first, tensor.dims()),
        value: values[first],
    }))
}

/// Checks the entries `found` for a network with the names and types of `wanted`: they must be finite, also
/// in the type of the network, and no variance or count may be below zero.
///
/// # Errors
/// Names the first wrong entry, in the order of the network.
pub(crate) fn check(
    wanted: &[(String, Tensor)],
    found: &HashMap<String, Tensor>,
) -> std::result::Result<(), WeightError> {
    for (name, like) in wanted {
        let Some(tensor) = found.get(name) else { continue };
        let wrong = |found| WeightError::Value { name: name.clone(), found };
        if let Some(found) = not_finite(tensor)? {
            return Err(wrong(BadValue::NotFinite(found)));
        }
        let first = |bad: &dyn Fn(f64) -> bool| -> Result<Option<(f64, Vec<usize>)>> {
            let values = values(tensor)?;
            let place = values.iter().position(|&value| bad(value));
            Ok(place.map(|place| (values[place], index(place, tensor.dims()))))
        };
        if tensor.dtype() == DType::F64
            && like.dtype() == DType::F32
            && let Some((value, index)) = first(&|value| (value as f32).is_infinite())?
        {
            return Err(wrong(BadValue::Range { value, index, dtype: "f32" }));
        }
        if NOT_NEGATIVE.iter().any(|ending| name.ends_with(ending))
            && let Some((value, index)) = first(&|value| value < 0.0)?
        {
            return Err(wrong(BadValue::Negative { value, index }));
        }
    }
    Ok(())
}

/// The endings of the names of entries that cannot be below zero.
const NOT_NEGATIVE: [&str; 2] = [".running_var", ".num_batches_tracked"];

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// Returns the index of an element from its place in row-major order.
fn index(mut place: usize, dims: &[usize]) -> Vec<usize> {
    let mut index = vec![0; dims.len()];
    for (axis, &length) in dims.iter().enumerate().rev() {
        index[axis] = place % length;
        place /= length;
    }
    index
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::HashMap;

    use candle_core::{DType, Device, Tensor};

    use super::{check, not_finite};

    fn tensor(values: &[f64], dtype: DType) -> Tensor {
        Tensor::from_slice(values, (values.len() / 2, 2), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    #[test]
    fn each_type_shows_its_values_that_are_no_numbers() {
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            let found =
                not_finite(&tensor(&[0.0, 1.0, 2.0, f64::NAN, 4.0, f64::NEG_INFINITY], dtype)).unwrap();
            let told = found.unwrap().to_string();
            assert_eq!(told, "2 values of 6 that are not finite, the first, NaN, at [1, 1]");
            let found = not_finite(&tensor(&[0.0, f64::INFINITY], dtype)).unwrap().unwrap();
            assert_eq!(found.to_string(), "an infinity at [0, 1], one of 2 values");
            assert_eq!(not_finite(&tensor(&[-1.0, 2.0], dtype)).unwrap(), None);
        }
        assert_eq!(not_finite(&Tensor::new(i64::MAX, &Device::Cpu).unwrap()).unwrap(), None);
        assert!(not_finite(&Tensor::new(f32::NAN, &Device::Cpu).unwrap()).unwrap().unwrap().index.is_empty());
    }

    #[test]
    fn what_a_network_cannot_have_is_named() {
        let told = |name: &str, values: &[f64], from, to| {
            let wanted = [(name.to_owned(), tensor(&vec![0.0; values.len()], to))];
            let found = HashMap::from([(name.to_owned(), tensor(values, from))]);
            check(&wanted, &found).map_err(|error| error.to_string())
        };
        let (f32, f64) = (DType::F32, DType::F64);
        assert_eq!(told("bn1.bias", &[-1.0, 2.0], f32, f32), Ok(()));
        assert_eq!(told("bn1.bias", &[1e39, 2.0], f64, f64), Ok(()));
        let error = told("bn1.bias", &[0.0, -1e39], f64, f32).unwrap_err();
        assert!(
            error.starts_with("bn1.bias holds -1e39 at [0, 1], which is outside the range of f32"),
            "{error}"
        );
        let error = told("bn1.running_var", &[0.5, -0.5], f32, f32).unwrap_err();
        assert!(
            error.starts_with("bn1.running_var holds -0.5 at [0, 1], where only values of 0 or more"),
            "{error}"
        );
        let error = told("conv1.weight", &[0.5, f64::NAN], f32, f32).unwrap_err();
        assert!(error.starts_with("conv1.weight holds NaN at [0, 1], one of 2 values;"), "{error}");
        assert!(told("bn1.num_batches_tracked", &[0.0, -1.0], f32, DType::I64).is_err());
    }
}
