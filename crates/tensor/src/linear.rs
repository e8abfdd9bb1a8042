//! The linear layer `y = x Wᵀ + b`, as a candle op with gradients.
//!
//! Shapes: `x` (N, C), `W` (E, C), `b` (E), `y` (N, E). Gradients: `gx = gy W`, `gW = gyᵀ x`, `gb` the sum of
//! gy's rows.

use crate::gemm::{self, Element};
use crate::storage::{Scalar, for_scalar, slice, with};
use crate::team;
use candle_core::{
    CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage, bail,
};

/// Returns `x Wᵀ + b`, in f32 or f64, differentiable in all three.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::linear;
///
/// let x = Tensor::new(&[[1f32, 2.0]], &Device::Cpu)?; // (N, C)
/// let weight = Tensor::new(&[[1f32, 0.0], [0.0, 1.0], [1.0, 1.0]], &Device::Cpu)?; // (E, C)
/// let bias = Tensor::new(&[0f32, 10.0, 20.0], &Device::Cpu)?;
/// assert_eq!(linear(&x, &weight, &bias)?.to_vec2::<f32>()?, [[1.0, 12.0, 23.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the shapes do not fit one another.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let op = Linear::new(x, weight, bias)?;
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let y = op.run(&x, &weight, &bias)?;
        let backward = move |[x, weight, _]: [&Tensor; 3], _: &Tensor, gy: &Tensor| {
            op.gradients(x, weight, gy).map(|(gx, gw, gb)| [Some(gx), Some(gw), Some(gb)])
        };
        return crate::differentiable("linear", [&x, &weight, &bias], y, backward);
    }
    x.apply_op3(&weight, &bias, op)
}

/// Rows above which the bias's gradient is summed in pieces on a GPU: those of tokens, and not those of
/// embeddings.
#[cfg(feature = "cuda")]
const MANY: usize = 1 << 13;

/// Rows of the output to which one task adds the bias, and columns of which one task takes the sum.
const ROWS: usize = 16;
const COLUMNS: usize = 64;

#[derive(Debug, Clone)]
pub(crate) struct Linear {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    pub(crate) fn new(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (rows, inputs) = x.dims2()?;
        let (outputs, columns) = weight.dims2()?;
        if columns != inputs || bias.dims() != [outputs] {
            bail!("linear: input {:?}, weight {:?}, bias {:?}", x.shape(), weight.shape(), bias.shape())
        }
        Ok(Self { rows, inputs, outputs })
    }

    fn forward<T: Element + Scalar>(&self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let mut y = vec![T::ZERO; self.rows * self.outputs];
        gemm::nt(self.rows, self.outputs, self.inputs, x, weight, &mut y);
        team::for_each_chunk(&mut y, ROWS * self.outputs, |_, y| {
            for row in y.chunks_exact_mut(self.outputs) {
                for (y, b) in row.iter_mut().zip(bias) {
                    *y += *b;
                }
            }
        });
        y
    }

    fn backward<T: Element + Scalar>(&self, x: &[T], weight: &[T], gy: &[T]) -> [Vec<T>; 3] {
        let Self { rows, inputs, outputs } = *self;
        let (mut gx, mut gw) = (vec![T::ZERO; rows * inputs], vec![T::ZERO; outputs * inputs]);
        gemm::nn(rows, inputs, outputs, gy, weight, &mut gx);
        gemm::tn(outputs, inputs, rows, gy, x, &mut gw);
        let mut gb = vec![T::ZERO; outputs];
        // A task has some of the columns, so that the rows are added in order on any number of threads.
        team::for_each_chunk(&mut gb, COLUMNS, |task, gb| {
            for row in gy.chunks_exact(outputs) {
                for (g, y) in gb.iter_mut().zip(&row[task * COLUMNS..]) {
                    *g += *y;
                }
            }
        });
        [gx, gw, gb]
    }

    /// Returns the op on contiguous tensors, outside of candle's graph.
    pub(crate) fn run(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let y = crate::cuda::product(x, weight, crate::cuda::Product::SecondTransposed, false)?;
            crate::cuda::add_bias(&y, bias)?;
            return Ok(y);
        }
        x.apply_op3_no_bwd(weight, bias, self)
    }

    /// Returns the gradients of the input, the weight and the bias.
    pub(crate) fn gradients(
        &self,
        x: &Tensor,
        weight: &Tensor,
        gy: &Tensor,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let gy = gy.contiguous()?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            use crate::cuda::{Product, product, sum_rows, transformer::sum_many_rows};
            let gx = product(&gy, weight, Product::Plain, false)?;
            let gb = if self.rows > MANY { sum_many_rows(&gy)? } else { sum_rows(&gy)? };
            return Ok((gx, product(&gy, x, Product::FirstTransposed, false)?, gb));
        }
        for_scalar!(x.dtype(), "linear", T => {
            let [gx, gw, gb] = with::<T, _>(x, |x| {
                with::<T, _>(weight, |w| with::<T, _>(&gy, |gy| self.backward(x, w, gy)))
            })???;
            let device = x.device();
            Ok((
                Tensor::from_vec(gx, x.shape(), device)?,
                Tensor::from_vec(gw, weight.shape(), device)?,
                Tensor::from_vec(gb, self.outputs, device)?,
            ))
        })
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = for_scalar!(x.dtype(), "linear", T => {
            WithDType::to_cpu_storage_owned(self.forward::<T>(slice(x, lx)?, slice(w, lw)?, slice(b, lb)?))
        });
        Ok((y, (self.rows, self.outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (gx, gw, gb) = self.gradients(x, w, gy)?;
        Ok((Some(gx), Some(gw), Some(gb)))
    }
}
