//! Matrix products by cuBLAS, of row-major f32 matrices on the device.

use super::input::Input;

use super::memory::Output;
use super::{device_of, failed};
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::{CudaDevice, DType, Result, Tensor, bail};

/// The kinds of products, by the factor that is transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// A (m, k) times B (k, n).
    Plain,
    /// A (m, k) times the transpose of B (n, k).
    SecondTransposed,
    /// The transpose of A (k, m) times B (k, n).
    FirstTransposed,
}

/// Returns the product (m, n) of two matrices, summed in f32. With `tf32`, the factors are rounded to TF32.
///
/// # Errors
/// If they are not f32 matrices of matching sizes on one device, or cuBLAS fails.
pub fn product(a: &Tensor, b: &Tensor, kind: Product, tf32: bool) -> Result<Tensor> {
    let ((a_rows, a_columns), (b_rows, b_columns)) = (a.dims2()?, b.dims2()?);
    let ((m, k), (b_k, n)) = match kind {
        Product::Plain => ((a_rows, a_columns), (b_rows, b_columns)),
        Product::SecondTransposed => ((a_rows, a_columns), (b_columns, b_rows)),
        Product::FirstTransposed => ((a_columns, a_rows), (b_rows, b_columns)),
    };
    if k != b_k {
        bail!("cuda: a product of {:?} and {:?} as {kind:?}", a.shape(), b.shape())
    }
    let device = device_of(a)?;
    let (a, b) = (Input::of(a)?, Input::of(b)?);
    if (a.dtype, b.dtype) != (DType::F32, DType::F32) {
        bail!("cuda: a product of {:?} and {:?}, expected f32", a.dtype, b.dtype)
    }
    let c = Output::new(device, DType::F32, m * n)?;
    let (plain, transposed) = (sys::cublasOperation_t::CUBLAS_OP_N, sys::cublasOperation_t::CUBLAS_OP_T);
    // cuBLAS stores matrices by column. It therefore sees each matrix transposed, and computes the transpose
    // of the product.
    let (first, first_step) = if kind == Product::SecondTransposed { (transposed, k) } else { (plain, n) };
    let (second, second_step) = if kind == Product::FirstTransposed { (transposed, m) } else { (plain, k) };
    let compute = if tf32 {
        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
    } else {
        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
    };
    let factors = [(b.address, first, first_step), (a.address, second, second_step)];
    // The sizes for cuBLAS are those of the transposed product.
    call(device, factors, c.address, [n, m, k], sys::cudaDataType::CUDA_R_32F, compute)?;
    Ok(c.into_tensor((m, n)))
}

/// A matrix of f32 of each image: rows that begin `row` numbers after one another, images that begin `image`
/// numbers after one another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor {
    address: u64,
    row: usize,
    image: usize,
    transposed: bool,
}

impl Factor {
    /// Returns the matrices of `tensor` that begin with its number `first`.
    pub(super) fn of(tensor: &Tensor, first: usize, row: usize, image: usize) -> Result<Self> {
        let input = Input::of(tensor)?;
        if input.dtype != DType::F32 {
            bail!("cuda: a product of {:?}, expected f32", input.dtype)
        }
        let address = input.address + (first * size_of::<f32>()) as u64;
        Ok(Self { address, row, image, transposed: false })
    }

    /// Returns the same matrices, to be taken transposed.
    pub(super) fn transposed(self) -> Self {
        Self { transposed: true, ..self }
    }
}

/// Computes `c = factor a b` for each of `images` images, with `a` (m, k), `b` (k, n) and `c` (m, n), summed in
/// f32. The caller guarantees that the matrices lie within their tensors, and that `c` overlaps neither factor.
pub(super) fn product_of_each(
    device: &CudaDevice,
    [m, n, k]: [usize; 3],
    factor: f32,
    [a, b, c]: [Factor; 3],
    images: usize,
) -> Result<()> {
    if m == 0 || n == 0 || images == 0 {
        return Ok(());
    }
    let size = |len: usize| i32::try_from(len).map_err(candle_core::Error::wrap);
    let operation = |factor: Factor| {
        if factor.transposed {
            sys::cublasOperation_t::CUBLAS_OP_T
        } else {
            sys::cublasOperation_t::CUBLAS_OP_N
        }
    };
    let zero = 0.0f32;
    let f32 = sys::cudaDataType::CUDA_R_32F;
    let blas = device.cublas_handle();
    device.cuda_stream().context().bind_to_thread().map_err(|e| failed("bind to the thread", e))?;
    // cuBLAS stores matrices by column, so it sees each matrix transposed: the second factor is its first.
    // SAFETY: the caller's matrices have the sizes that it states, and the stream runs in order.
    unsafe {
        result::gemm_strided_batched_ex(
            *blas.handle(),
            operation(b),
            operation(a),
            size(n)?,
            size(m)?,
            size(k)?,
            (&raw const factor).cast(),
            b.address as *const _,
            f32,
            size(b.row)?,
            b.image as i64,
            a.address as *const _,
            f32,
            size(a.row)?,
            a.image as i64,
            (&raw const zero).cast(),
            c.address as *mut _,
            f32,
            size(c.row)?,
            c.image as i64,
            size(images)?,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .map_err(|e| failed(format_args!("multiply {images} times {m}x{k} by {k}x{n}"), e))
}

/// Computes `c = a b` for square matrices of f32 or bf16 with `side` rows, in that precision or in TF32. It
/// serves to measure speed.
pub(super) fn multiply(device: &CudaDevice, [a, b, c]: [Input; 3], side: usize, tf32: bool) -> Result<()> {
    let (dtype, compute) = match a.dtype {
        DType::BF16 => (sys::cudaDataType::CUDA_R_16BF, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F),
        _ if tf32 => (sys::cudaDataType::CUDA_R_32F, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32),
        _ => (sys::cudaDataType::CUDA_R_32F, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F),
    };
    let plain = sys::cublasOperation_t::CUBLAS_OP_N;
    call(device, [(b.address, plain, side), (a.address, plain, side)], c.address, [side; 3], dtype, compute)
}

/// Runs cuBLAS's product of column-major matrices: (rows, inner) times (inner, columns).
fn call(
    device: &CudaDevice,
    [(a, a_operation, a_step), (b, b_operation, b_step)]: [(u64, sys::cublasOperation_t, usize); 2],
    c: u64,
    [rows, columns, inner]: [usize; 3],
    dtype: sys::cudaDataType,
    compute: sys::cublasComputeType_t,
) -> Result<()> {
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    let size = |len: usize| i32::try_from(len).map_err(candle_core::Error::wrap);
    let (one, zero) = (1.0f32, 0.0f32);
    let blas = device.cublas_handle();
    device.cuda_stream().context().bind_to_thread().map_err(|e| failed("bind to the thread", e))?;
    // SAFETY: the callers' matrices have the sizes that they state, and the stream runs in order.
    unsafe {
        result::gemm_ex(
            *blas.handle(),
            a_operation,
            b_operation,
            size(rows)?,
            size(columns)?,
            size(inner)?,
            (&raw const one).cast(),
            a as *const _,
            dtype,
            size(a_step)?,
            b as *const _,
            dtype,
            size(b_step)?,
            (&raw const zero).cast(),
            c as *mut _,
            dtype,
            size(rows)?,
            compute,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .map_err(|e| failed(format_args!("multiply {columns}x{inner} by {inner}x{rows}"), e))
}
