//! Convolutions by cuDNN: activations (N, H, W, C) in bf16 or f32, sums in f32. The algorithm is chosen by
//! measurement, once for each shape.
//!
//! Weights stay (K, K, C_in, C_out) in f32, as on the CPU, so that checkpoints, optimizer and weight files
//! know one layout. cuDNN's is (C_out, K, K, C_in) in the activations' precision; the optimizer's step keeps it
//! (`kept_weights`), and where there is no optimizer, kernels of ours convert weights and gradients. Channels are padded to a multiple of sixteen bytes, without which tensor cores cannot be used
//! and some gradients have no deterministic algorithm; of the usual networks only the first layer needs this.
//!
//! Only algorithms that cuDNN calls deterministic are used. Which ones a search chose can be read and set
//! (`algorithms`).

use super::algorithms::{Choice, Direction, Key, keep, known};
use super::kept_weights::{packed, takes_packed_gradients};
use super::kernel::{Argument, launch};
use super::memory::{Input, Output, cast_channels, check_type, uninitialised};
use super::peak::Searching;
use super::switches::Switches;
use super::{device_of, failed, graph};
use crate::conv2d::Geometry;
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{CudaDevice, DType, Result, Tensor};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{c_int, c_void};

/// The most bytes of scratch memory that an algorithm may use.
const LARGEST_WORKSPACE: usize = 1 << 30;

/// The most algorithms that cuDNN is asked for; more than any direction has.
const ALGORITHMS: usize = 10;

/// cuDNN's descriptors of one convolution.
struct Plan {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
}

/// cuDNN on one device, for one thread: its handles must not be shared.
struct Library {
    handle: sys::cudnnHandle_t,
    device: CudaDevice,
    plans: HashMap<Key, Plan>,
    /// All convolutions share it: they run one after the other.
    workspace: Option<CudaSlice<u8>>,
}

thread_local! {
    static LIBRARY: RefCell<Option<Library>> = const { RefCell::new(None) };
}

/// Convolves `x` with `w`: returns (N, H', W', C_out) in the type of `x`.
pub(crate) fn forward(g: &Geometry, x: &Tensor, w: &Tensor, tf32: bool) -> Result<Tensor> {
    let device = device_of(x)?;
    let key = key(g, x.dtype(), tf32)?;
    let x = with_channels(x, key.channels)?;
    let packed = pack(w, key)?;
    let y = uninitialised((g.n, g.out_h(), g.out_w(), key.out_channels), key.dtype, device)?;
    let addresses = addresses([&x, &packed, &y])?;
    with_library(device, |library| library.run(Direction::Forward, key, addresses, false))?;
    with_channels(&y, g.co)
}

/// Returns the gradients of the input (in its type) and of the weight (in f32, or as cuDNN writes it where the
/// optimizer takes that), each if needed. If the input's gradient could be added to `sum`, that was done, and there is
/// none to return.
pub(crate) fn gradients(
    g: &Geometry,
    x: &Tensor,
    w: &Tensor,
    gy: &Tensor,
    tf32: bool,
    [need_gx, need_gw]: [bool; 2],
    sum: Option<&Tensor>,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let device = device_of(x)?;
    let given_channels = x.dim(3)?;
    let key = key(g, x.dtype(), tf32)?;
    let gy = with_channels(gy, key.out_channels)?;
    let gw = if need_gw {
        let x = with_channels(x, key.channels)?;
        let packed = uninitialised((key.out_channels, g.kh, g.kw, key.channels), key.dtype, device)?;
        let addresses = addresses([&x, &packed, &gy])?;
        with_library(device, |library| library.run(Direction::Weight, key, addresses, false))?;
        Some(if takes_packed_gradients(Input::of(w)?.address) {
            packed.narrow(0, 0, g.co)?.narrow(3, 0, g.ci)?.permute((1, 2, 3, 0))?
        } else {
            unpack(&packed, key)?
        })
    } else {
        None
    };
    if !need_gx {
        return Ok((None, gw));
    }
    let packed = pack(w, key)?;
    let fits = |sum: &&Tensor| {
        sum.dims() == [g.n, g.h, g.w, key.channels]
            && given_channels == key.channels
            && sum.dtype() == key.dtype
            && sum.is_contiguous()
    };
    if let Some(sum) = sum.filter(fits)
        && Switches::taken()?.sums_in_convolution
    {
        let addresses = addresses([sum, &packed, &gy])?;
        with_library(device, |library| library.run(Direction::Input, key, addresses, true))?;
        return Ok((None, gw));
    }
    let gx = uninitialised((g.n, g.h, g.w, key.channels), key.dtype, device)?;
    let addresses = addresses([&gx, &packed, &gy])?;
    with_library(device, |library| library.run(Direction::Input, key, addresses, false))?;
    Ok((Some(with_channels(&gx, given_channels)?), gw))
}

/// Returns the key of a convolution: with as many channels as the hardware needs.
pub(super) fn key(g: &Geometry, dtype: DType, tf32: bool) -> Result<Key> {
    check_type("conv2d", dtype)?;
    // Sixteen bytes of channels. With fewer, tensor cores cannot be used in bf16, and for some gradients cuDNN has no
    // deterministic algorithm in either type.
    let pack = 16 / dtype.size_in_bytes();
    let [channels, out_channels] = [g.ci, g.co].map(|channels| channels.next_multiple_of(pack));
    // A flag that makes no difference to the type would give two convolutions one entry in a checkpoint.
    Ok(Key { geometry: *g, channels, out_channels, dtype, tf32: tf32 && dtype == DType::F32 })
}

/// Returns a contiguous map with so many channels: the last ones are cut, or zeros are added.
fn with_channels(x: &Tensor, channels: usize) -> Result<Tensor> {
    if x.dim(3)? == channels { x.contiguous() } else { cast_channels(x, x.dtype(), channels) }
}

fn addresses(tensors: [&Tensor; 3]) -> Result<[u64; 3]> {
    let [x, w, y] = tensors.map(|tensor| Input::of(tensor).map(|input| input.address));
    Ok([x?, w?, y?])
}

const TILE: u32 = 32;

/// Runs a kernel that converts a weight's layout.
fn convert(name: &str, from: &Tensor, to: &Tensor, key: Key) -> Result<()> {
    let Key { geometry: g, channels, out_channels, dtype, .. } = key;
    let kernel = g.kh * g.kw;
    let grid = [(out_channels as u32).div_ceil(TILE), ((kernel * channels) as u32).div_ceil(TILE), 1];
    let mut arguments = vec![Argument::address(from)?, Argument::address(to)?];
    arguments.extend([kernel, g.ci, channels, g.co, out_channels].map(|size| Argument::Int(size as i32)));
    let name = format!("{name}_{}", check_type("conv2d", dtype)?);
    launch(device_of(from)?, "layout", &name, grid, [TILE, 8, 1], 0, &arguments)
}

/// Returns the weight in cuDNN's layout and precision: as it is kept, or converted.
fn pack(w: &Tensor, key: Key) -> Result<Tensor> {
    match packed(Input::of(w)?.address, key, || convert_weight(w, key))? {
        Some(kept) => Ok(kept),
        None => convert_weight(w, key),
    }
}

fn convert_weight(w: &Tensor, key: Key) -> Result<Tensor> {
    let Key { geometry: g, channels, out_channels, dtype, .. } = key;
    let packed = uninitialised((out_channels, g.kh, g.kw, channels), dtype, device_of(w)?)?;
    convert("pack_weight", w, &packed, key)?;
    Ok(packed)
}

/// Converts a weight's gradient from cuDNN's layout and precision to ours.
fn unpack(packed: &Tensor, key: Key) -> Result<Tensor> {
    let g = key.geometry;
    let gw = uninitialised((g.kh, g.kw, g.ci, g.co), DType::F32, device_of(packed)?)?;
    convert("unpack_weight", packed, &gw, key)?;
    Ok(gw)
}

fn with_library<R>(device: &CudaDevice, work: impl FnOnce(&mut Library) -> Result<R>) -> Result<R> {
    device.cuda_stream().context().bind_to_thread().map_err(|e| failed("bind to the thread", e))?;
    LIBRARY.with(|library| {
        let mut library = library.borrow_mut();
        if library.as_ref().is_none_or(|library| library.device.id() != device.id()) {
            *library = Some(Library::new(device)?);
        }
        work(library.as_mut().expect("it was made right above"))
    })
}

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
    ($library:expr, $key:expr, $performance:ty, $find:path, $($argument:expr),*) => {{
        let mut found = 0;
        // SAFETY: plain numbers, for which zero is a valid value.
        let mut results: [$performance; ALGORITHMS] = unsafe { std::mem::zeroed() };
        let workspace = $library.workspace(LARGEST_WORKSPACE)?;
        // SAFETY: descriptors and buffers belong together, and the workspace has the stated size.
        unsafe {
            $find($library.handle, $($argument),*, ALGORITHMS as c_int, &raw mut found, results.as_mut_ptr(),
                workspace as *mut c_void, LARGEST_WORKSPACE)
        }
        .result()
        .map_err(|e| failed(format_args!("measure the algorithms of {:?}", $key.geometry), e))?;
        let strict = $key.dtype == DType::F32 && !$key.tf32;
        results[..found as usize]
            .iter()
            .find(|result| {
                result.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                    && result.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
                    && result.memory <= LARGEST_WORKSPACE
                    // cuDNN's default lets f32 be rounded to TF32.
                    && (!strict || result.mathType == sys::cudnnMathType_t::CUDNN_FMA_MATH)
            })
            .map(|best| Choice {
                algorithm: best.algo as u32,
                math: best.mathType as u32,
                workspace: best.memory,
            })
    }};
}

impl Library {
    fn new(device: &CudaDevice) -> Result<Self> {
        let handle = result::create_handle().map_err(|e| failed("open cuDNN", e))?;
        let stream = device.cuda_stream();
        // SAFETY: both are alive; the stream lives as long as the device, which is kept below.
        unsafe { result::set_stream(handle, stream.cu_stream().cast()) }
            .map_err(|e| failed("give cuDNN the stream", e))?;
        Ok(Self { handle, device: device.clone(), plans: HashMap::new(), workspace: None })
    }

    /// Returns the address of at least `bytes` of scratch memory.
    fn workspace(&mut self, bytes: usize) -> Result<u64> {
        if self.workspace.as_ref().is_none_or(|have| have.len() < bytes) {
            graph::forget_if(self.workspace.take().is_some());
            // SAFETY: cuDNN writes this memory before it reads it.
            self.workspace = Some(unsafe { self.device.alloc::<u8>(bytes.max(256))? });
        }
        let slice = self.workspace.as_ref().expect("it was made right above");
        let (address, _guard) = slice.device_ptr(slice.stream());
        Ok(address)
    }

    fn plan(&mut self, key: Key) -> Result<&mut Plan> {
        match self.plans.entry(key) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let describe = |e| failed(format_args!("describe {:?} to cuDNN", key.geometry), e);
                Ok(place.insert(Plan::new(key).map_err(describe)?))
            }
        }
    }

    /// Returns the algorithm of one direction, measured if nothing is known of it. The search writes into memory
    /// of its own, since the result's may hold something to add to.
    fn choose(&mut self, direction: Direction, key: Key, [x, w, y]: [u64; 3]) -> Result<Choice> {
        if let Some(choice) = known(direction, key) {
            return Ok(choice);
        }
        let g = key.geometry;
        let (in_len, out_len) = (g.n * g.h * g.w * key.channels, g.out_rows() * key.out_channels);
        let weight_len = g.taps() * key.channels * key.out_channels;
        let searching = Searching::begin(&self.device)?;
        let result_len = match direction {
            Direction::Forward => out_len,
            Direction::Input => in_len,
            Direction::Weight => weight_len,
        };
        let scratch = Output::new(&self.device, key.dtype, result_len)?;
        let to = scratch.address as *mut c_void;
        let Plan { x: dx, w: dw, y: dy, convolution } = *self.plan(key)?;
        let found = match direction {
            Direction::Forward => find!(
                self,
                key,
                sys::cudnnConvolutionFwdAlgoPerf_t,
                sys::cudnnFindConvolutionForwardAlgorithmEx,
                dx,
                x as *const c_void,
                dw,
                w as *const c_void,
                convolution,
                dy,
                to
            ),
            Direction::Input => find!(
                self,
                key,
                sys::cudnnConvolutionBwdDataAlgoPerf_t,
                sys::cudnnFindConvolutionBackwardDataAlgorithmEx,
                dw,
                w as *const c_void,
                dy,
                y as *const c_void,
                convolution,
                dx,
                to
            ),
            Direction::Weight => find!(
                self,
                key,
                sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                sys::cudnnFindConvolutionBackwardFilterAlgorithmEx,
                dx,
                x as *const c_void,
                dy,
                y as *const c_void,
                convolution,
                dw,
                to
            ),
        };
        // The gigabyte goes back: what the algorithms need is far less.
        graph::forget_if(self.workspace.take().is_some());
        drop(scratch);
        searching.end()?;
        let Some(choice) = found else {
            candle_core::bail!(
                "cuda: cuDNN has no deterministic algorithm for the {direction:?} product of {g:?} in {:?}{}",
                key.dtype,
                if key.dtype == DType::F32 && !key.tf32 {
                    " without TF32 (precision=tf32 allows it)"
                } else {
                    ""
                }
            )
        };
        keep(direction, key, choice);
        Ok(choice)
    }

    /// Runs one direction on the addresses of input, weight and output (or of their gradients). With `add`, the
    /// result is added to what lies in its place.
    fn run(&mut self, direction: Direction, key: Key, addresses: [u64; 3], add: bool) -> Result<()> {
        let choice = self.choose(direction, key, addresses)?;
        let workspace = self.workspace(choice.workspace)? as *mut c_void;
        let Plan { x: dx, w: dw, y: dy, convolution } = *self.plan(key)?;
        let (alpha, beta) = (scalar(&ONE), scalar(if add { &ONE } else { &ZERO }));
        let Choice { algorithm, workspace: bytes, .. } = choice;
        let [x, w, y] = addresses.map(|address| address as *mut c_void);
        // SAFETY: descriptors and buffers belong together, and the workspace has the size that the algorithm asked
        // for.
        unsafe {
            result::set_convolution_math_type(convolution, math(choice.math)?)
                .map_err(|e| failed("set the math of a convolution", e))?;
            match direction {
                Direction::Forward => {
                    let algorithm = numbered!(
                        algorithm,
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
                    let (handle, from) = (self.handle, convolution);
                    result::convolution_forward(
                        handle, alpha, dx, x, dw, w, from, algorithm, workspace, bytes, beta, dy, y,
                    )
                }
                Direction::Input => {
                    let algorithm = numbered!(
                        algorithm,
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
                    let (handle, from) = (self.handle, convolution);
                    result::convolution_backward_data(
                        handle, alpha, dw, w, dy, y, from, algorithm, workspace, bytes, beta, dx, x,
                    )
                }
                Direction::Weight => {
                    let algorithm = numbered!(
                        algorithm,
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
                    let (handle, from) = (self.handle, convolution);
                    result::convolution_backward_filter(
                        handle, alpha, dx, x, dy, y, from, algorithm, workspace, bytes, beta, dw, w,
                    )
                }
            }
        }
        .map_err(|e| failed(format_args!("compute the {direction:?} product of {:?}", key.geometry), e))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: `new` made it, and nothing uses it any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Plan {
    fn new(key: Key) -> std::result::Result<Self, result::CudnnError> {
        let g = key.geometry;
        let dtype = if key.dtype == DType::BF16 {
            sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16
        } else {
            sys::cudnnDataType_t::CUDNN_DATA_FLOAT
        };
        // Full f32 must be requested; cuDNN's default allows TF32.
        let math = match key.dtype {
            DType::BF16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            _ if key.tf32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            _ => sys::cudnnMathType_t::CUDNN_FMA_MATH,
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
            result::set_convolution_math_type(plan.convolution, math)?;
        }
        Ok(plan)
    }
}

impl Drop for Plan {
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
