//! cuDNN's older convolution API: an algorithm for each product, which cuDNN measures itself.

use super::super::algorithms::{Algorithm, Direction, Key, LARGEST_WORKSPACE, Product};
use super::super::failed;
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::{DType, Result};
use std::ffi::{c_int, c_void};

/// The most algorithms that cuDNN is asked for; more than any direction has.
const ALGORITHMS: usize = 10;

const ONE: f32 = 1.0;
const ZERO: f32 = 0.0;

/// Returns a pointer to a scaling factor of cuDNN, which is f32 for both of our types.
fn scalar(value: &f32) -> *const c_void {
    (&raw const *value).cast()
}

/// Returns cuDNN's name of a number that a search gave or a checkpoint recorded.
macro_rules! numbered {
    ($number:expr, $kind:ident, [$($name:ident),* $(,)?]) => {
        [$(sys::$kind::$name),*].into_iter().find(|name| *name as u32 == $number).ok_or_else(|| {
            candle_core::Error::Msg(format!(
                "cuda: cuDNN has no {} of number {}; expected one that its search returned", stringify!($kind), $number
            ))
        })
    };
}

fn math(number: u32) -> Result<sys::cudnnMathType_t> {
    numbered!(
        number,
        cudnnMathType_t,
        [CUDNN_DEFAULT_MATH, CUDNN_TENSOR_OP_MATH, CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION, CUDNN_FMA_MATH]
    )
}

/// Lets cuDNN measure the algorithms of one direction and returns the fastest that is deterministic, needs
/// little enough memory and, where full f32 is asked for, computes in it.
macro_rules! find {
    ($handle:expr, $key:expr, $scratch:expr, $performance:ty, $find:path, $($argument:expr),*) => {{
        let mut found = 0;
        // SAFETY: plain numbers, for which zero is a valid value.
        let mut results: [$performance; ALGORITHMS] = unsafe { std::mem::zeroed() };
        // SAFETY: descriptors and buffers belong together, and the workspace has the stated size.
        unsafe {
            $find($handle, $($argument),*, ALGORITHMS as c_int, &raw mut found, results.as_mut_ptr(),
                $scratch as *mut c_void, LARGEST_WORKSPACE)
        }
        .result()
        .map_err(|e| failed(format_args!("measure the algorithms of {:?}", $key.geometry), e))?;
        results[..found as usize]
            .iter()
            .find(|result| {
                result.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                    && result.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
                    && result.memory <= LARGEST_WORKSPACE
                    // cuDNN's default lets f32 be rounded to TF32.
                    && (!$key.full_f32() || result.mathType == sys::cudnnMathType_t::CUDNN_FMA_MATH)
            })
            .map(|best| Algorithm {
                number: best.algo as u32,
                math: best.mathType as u32,
                workspace: best.memory,
            })
    }};
}

/// cuDNN's descriptors of one convolution.
pub(super) struct Descriptors {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
}

impl Descriptors {
    pub(super) fn new(key: Key) -> std::result::Result<Self, result::CudnnError> {
        let g = key.geometry;
        let dtype = if key.dtype == DType::BF16 {
            sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16
        } else {
            sys::cudnnDataType_t::CUDNN_DATA_FLOAT
        };
        let layout = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let sizes = |sizes: [usize; 4]| sizes.map(|size| size as c_int);
        let (padding, stride) = (g.padding as c_int, g.stride as c_int);
        let plan = Self {
            x: result::create_tensor_descriptor()?,
            w: result::create_filter_descriptor()?,
            y: result::create_tensor_descriptor()?,
            convolution: result::create_convolution_descriptor()?,
        };
        // SAFETY: the descriptors were made right above.
        unsafe {
            result::set_tensor4d_descriptor(plan.x, layout, dtype, sizes([g.n, key.channels, g.h, g.w]))?;
            result::set_filter4d_descriptor(
                plan.w,
                dtype,
                layout,
                sizes([key.out_channels, key.channels, g.kh, g.kw]),
            )?;
            result::set_tensor4d_descriptor(
                plan.y,
                layout,
                dtype,
                sizes([g.n, key.out_channels, g.out_h(), g.out_w()]),
            )?;
            result::set_convolution2d_descriptor(
                plan.convolution,
                padding,
                padding,
                stride,
                stride,
                1,
                1,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            )?;
        }
        Ok(plan)
    }

    /// Lets cuDNN measure the algorithms of one product. It reads two of input, weight and output, and writes
    /// into the third; `scratch` is the address of [`LARGEST_WORKSPACE`] bytes.
    pub(super) fn find(
        &self,
        handle: sys::cudnnHandle_t,
        product: Product,
        [x, w, y]: [u64; 3],
        scratch: u64,
    ) -> Result<Option<Algorithm>> {
        let Product { direction, key, .. } = product;
        let &Self { x: dx, w: dw, y: dy, convolution } = self;
        // A run may have set what another product computes in. Full f32 must be requested: cuDNN's default
        // allows TF32.
        let wanted = match key.dtype {
            DType::BF16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            _ if key.tf32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            _ => sys::cudnnMathType_t::CUDNN_FMA_MATH,
        };
        // SAFETY: the descriptor is alive.
        unsafe { result::set_convolution_math_type(convolution, wanted) }
            .map_err(|e| failed("set the math of a convolution", e))?;
        let [to_x, to_w, to_y] = [x, w, y].map(|address| address as *mut c_void);
        let [x, w, y] = [x, w, y].map(|address| address as *const c_void);
        Ok(match direction {
            Direction::Forward => find!(
                handle,
                key,
                scratch,
                sys::cudnnConvolutionFwdAlgoPerf_t,
                sys::cudnnFindConvolutionForwardAlgorithmEx,
                dx,
                x,
                dw,
                w,
                convolution,
                dy,
                to_y
            ),
            Direction::Input => find!(
                handle,
                key,
                scratch,
                sys::cudnnConvolutionBwdDataAlgoPerf_t,
                sys::cudnnFindConvolutionBackwardDataAlgorithmEx,
                dw,
                w,
                dy,
                y,
                convolution,
                dx,
                to_x
            ),
            Direction::Weight => find!(
                handle,
                key,
                scratch,
                sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                sys::cudnnFindConvolutionBackwardFilterAlgorithmEx,
                dx,
                x,
                dy,
                y,
                convolution,
                dw,
                to_w
            ),
        })
    }

    /// Runs an algorithm on the addresses of input, weight and output (or of their gradients), with scratch
    /// memory of the size that it needs.
    pub(super) fn run(
        &self,
        handle: sys::cudnnHandle_t,
        product: Product,
        algorithm: Algorithm,
        addresses: [u64; 3],
        workspace: u64,
    ) -> Result<()> {
        let Product { direction, key, add } = product;
        let &Self { x: dx, w: dw, y: dy, convolution } = self;
        let (alpha, beta) = (scalar(&ONE), scalar(if add { &ONE } else { &ZERO }));
        let Algorithm { number, math: in_math, workspace: bytes } = algorithm;
        let [x, w, y] = addresses.map(|address| address as *mut c_void);
        let workspace = workspace as *mut c_void;
        // SAFETY: descriptors and buffers belong together, and the workspace has the size that the algorithm
        // asked for.
        unsafe {
            result::set_convolution_math_type(convolution, math(in_math)?)
                .map_err(|e| failed("set the math of a convolution", e))?;
            match direction {
                Direction::Forward => {
                    let algorithm = numbered!(
                        number,
                        cudnnConvolutionFwdAlgo_t,
                        [
                            CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
                            CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                            CUDNN_CONVOLUTION_FWD_ALGO_GEMM,
                            CUDNN_CONVOLUTION_FWD_ALGO_DIRECT,
                            CUDNN_CONVOLUTION_FWD_ALGO_FFT,
                            CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING,
                            CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD,
                            CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED,
                        ]
                    )?;
                    let from = convolution;
                    result::convolution_forward(
                        handle, alpha, dx, x, dw, w, from, algorithm, workspace, bytes, beta, dy, y,
                    )
                }
                Direction::Input => {
                    let algorithm = numbered!(
                        number,
                        cudnnConvolutionBwdDataAlgo_t,
                        [
                            CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
                            CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
                            CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT,
                            CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING,
                            CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD,
                            CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED,
                        ]
                    )?;
                    let from = convolution;
                    result::convolution_backward_data(
                        handle, alpha, dw, w, dy, y, from, algorithm, workspace, bytes, beta, dx, x,
                    )
                }
                Direction::Weight => {
                    let algorithm = numbered!(
                        number,
                        cudnnConvolutionBwdFilterAlgo_t,
                        [
                            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
                            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
                            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT,
                            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
                            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD,
                            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
                            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING,
                        ]
                    )?;
                    let from = convolution;
                    result::convolution_backward_filter(
                        handle, alpha, dx, x, dy, y, from, algorithm, workspace, bytes, beta, dw, w,
                    )
                }
            }
        }
        .map_err(|e| failed(format_args!("compute the {direction:?} product of {:?}", key.geometry), e))
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: `new` made them, and nothing uses them any more.
        unsafe {
            let _ = result::destroy_tensor_descriptor(self.x);
            let _ = result::destroy_filter_descriptor(self.w);
            let _ = result::destroy_tensor_descriptor(self.y);
            let _ = result::destroy_convolution_descriptor(self.convolution);
        }
    }
}
