//! Compares gradients with central finite differences, in f64. Every differentiable op passes this test.

use candle_core::{DType, Result, Tensor, Var, bail};

/// Returns the largest difference between a gradient and finite differences, relative to the largest gradient
/// of that input.
///
/// `f` maps the inputs to a tensor of any shape. Its values are summed with fixed weights that all differ, so
/// that errors cannot cancel. Inputs must be f64. Every entry is checked, so keep them small.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::gradient_check::gradient_error;
///
/// let x = Tensor::new(&[0.3f64, 2.0], &Device::Cpu)?;
/// assert!(gradient_error(&[x.clone()], |inputs| inputs[0].sqr()?.sum_all())? < 1e-6);
/// // An incomplete gradient gives a large error.
/// assert!(gradient_error(&[x], |inputs| inputs[0].detach().mul(&inputs[0])?.sum_all())? > 0.1);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If `f` fails or an input is not f64.
pub fn gradient_error(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<f64> {
    const STEP: f64 = 1e-5;
    let weighted = |inputs: &[Tensor]| -> Result<Tensor> {
        let y = f(inputs)?.flatten_all()?;
        let weights: Vec<f64> = (0..y.elem_count()).map(|i| (1.0 + i as f64 * 0.37).sin() + 0.5).collect();
        let weights = Tensor::from_vec(weights, y.elem_count(), y.device())?;
        (y * weights)?.sum_all()
    };
    let variables: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let gradients = weighted(&tensors)?.backward()?;
    let mut worst = 0.0f64;
    for (i, input) in inputs.iter().enumerate() {
        if input.dtype() != DType::F64 {
            bail!("gradient_error: input {i} is {:?}, expected f64", input.dtype())
        }
        let analytic = match gradients.get(&variables[i]) {
            Some(gradient) => gradient.flatten_all()?.to_vec1::<f64>()?,
            None => vec![0.0; input.elem_count()],
        };
        let values = input.flatten_all()?.to_vec1::<f64>()?;
        let largest = analytic.iter().fold(1e-3f64, |m, g| m.max(g.abs()));
        for (j, analytic) in analytic.iter().enumerate() {
            let at = |delta: f64| -> Result<f64> {
                let mut moved = values.clone();
                moved[j] += delta;
                let mut inputs = inputs.to_vec();
                inputs[i] = Tensor::from_vec(moved, input.shape(), input.device())?;
                weighted(&inputs)?.to_scalar()
            };
            let numeric = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            let error = (numeric - analytic).abs() / largest;
            // `f64::max` would drop a NaN.
            worst = if error > worst || error.is_nan() { error } else { worst };
        }
    }
    Ok(worst)
}
