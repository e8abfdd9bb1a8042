//! Convolutions by cuDNN: activations (N, H, W, C) in bf16 or f32, sums in f32. The algorithm is chosen by
//! measurement, once for each shape.
//!
//! Weights stay (K, K, C_in, C_out) in f32, as on the CPU, so that checkpoints, optimizer and weight files
//! know one layout. A kernel of ours converts them to cuDNN's (C_out, K, K, C_in) in the activations'
//! precision, and their gradients back. Both conversions together move a hundredth of the bytes that the
//! activations move. In bf16, input channels are padded to a multiple of eight, without which tensor cores
//! cannot be used; only the first layer of a network needs this.
//!
//! Only algorithms that cuDNN calls deterministic are used.

use super::kernel::{Argument, launch};
use super::memory::{Input, cast_channels, check_type, uninitialised};
use super::{device_of, failed};
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

/// The key of descriptors and algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    geometry: Geometry,
    channels: usize,
    dtype: DType,
    tf32: bool,
}

/// cuDNN's descriptors of one convolution, and the algorithms found for it so far.
struct Plan {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
    forward: Option<(sys::cudnnConvolutionFwdAlgo_t, Settings)>,
    input: Option<(sys::cudnnConvolutionBwdDataAlgo_t, Settings)>,
    weight: Option<(sys::cudnnConvolutionBwdFilterAlgo_t, Settings)>,
}

/// What a call needs besides the algorithm.
#[derive(Clone, Copy)]
struct Settings {
    workspace: usize,
    math: sys::cudnnMathType_t,
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
    let x = padded_input(g, x)?;
    let key = Key { geometry: *g, channels: x.dim(3)?, dtype: x.dtype(), tf32 };
    let packed = pack(g, w, key)?;
    let y = uninitialised((g.n, g.out_h(), g.out_w(), g.co), x.dtype(), device)?;
    let (x, w, y_) = (Input::of(&x)?.address, Input::of(&packed)?.address, Input::of(&y)?.address);
    with_library(device, |library| library.forward(key, x, w, y_))?;
    Ok(y)
}

/// Returns the gradients of the input (in its type) and of the weight (in f32), each if needed.
pub(crate) fn gradients(
    g: &Geometry,
    x: &Tensor,
    w: &Tensor,
    gy: &Tensor,
    tf32: bool,
    [need_gx, need_gw]: [bool; 2],
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let device = device_of(x)?;
    let given_channels = x.dim(3)?;
    let x = padded_input(g, x)?;
    let key = Key { geometry: *g, channels: x.dim(3)?, dtype: x.dtype(), tf32 };
    let (x_, gy_) = (Input::of(&x)?.address, Input::of(gy)?.address);
    let gw = if need_gw {
        let packed = uninitialised((g.co, g.kh, g.kw, key.channels), key.dtype, device)?;
        let to = Input::of(&packed)?.address;
        with_library(device, |library| library.weight_gradient(key, x_, gy_, to))?;
        Some(unpack(g, &packed, key)?)
    } else {
        None
    };
    let gx = if need_gx {
        let packed = pack(g, w, key)?;
        let gx = uninitialised((g.n, g.h, g.w, key.channels), key.dtype, device)?;
        let (w, to) = (Input::of(&packed)?.address, Input::of(&gx)?.address);
        with_library(device, |library| library.input_gradient(key, w, gy_, to))?;
        Some(if given_channels == key.channels { gx } else { cast_channels(&gx, key.dtype, given_channels)? })
    } else {
        None
    };
    Ok((gx, gw))
}

/// Returns the input with as many channels as the hardware needs.
fn padded_input(g: &Geometry, x: &Tensor) -> Result<Tensor> {
    check_type("conv2d", x.dtype())?;
    let channels = if x.dtype() == DType::BF16 { g.ci.next_multiple_of(8) } else { g.ci };
    if x.dim(3)? == channels { x.contiguous() } else { cast_channels(x, x.dtype(), channels) }
}

const TILE: u32 = 32;

fn pack_arguments(
    g: &Geometry,
    from: &Tensor,
    to: &Tensor,
    channels: usize,
) -> Result<([u32; 3], [Argument; 6])> {
    let kernel = g.kh * g.kw;
    let grid = [(g.co as u32).div_ceil(TILE), ((kernel * channels) as u32).div_ceil(TILE), 1];
    let sizes = [kernel, g.ci, channels, g.co].map(|size| Argument::Int(size as i32));
    Ok((grid, [Argument::address(from)?, Argument::address(to)?, sizes[0], sizes[1], sizes[2], sizes[3]]))
}

/// Converts the weight to cuDNN's layout and precision.
fn pack(g: &Geometry, w: &Tensor, key: Key) -> Result<Tensor> {
    let device = device_of(w)?;
    let packed = uninitialised((g.co, g.kh, g.kw, key.channels), key.dtype, device)?;
    let (grid, arguments) = pack_arguments(g, w, &packed, key.channels)?;
    let name = format!("pack_weight_{}", check_type("conv2d", key.dtype)?);
    launch(device, "layout", &name, grid, [TILE, 8, 1], 0, &arguments)?;
    Ok(packed)
}

/// Converts a weight's gradient from cuDNN's layout and precision to ours.
fn unpack(g: &Geometry, packed: &Tensor, key: Key) -> Result<Tensor> {
    let device = device_of(packed)?;
    let gw = uninitialised((g.kh, g.kw, g.ci, g.co), DType::F32, device)?;
    let (grid, arguments) = pack_arguments(g, packed, &gw, key.channels)?;
    let name = format!("unpack_weight_{}", check_type("conv2d", key.dtype)?);
    launch(device, "layout", &name, grid, [TILE, 8, 1], 0, &arguments)?;
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

/// Lets cuDNN measure the algorithms of one direction and keeps the fastest that is deterministic and needs
/// little enough memory.
macro_rules! find {
    ($library:expr, $what:literal, $performance:ty, $find:path, $($argument:expr),*) => {{
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
        .map_err(|e| failed(concat!("measure the algorithms of ", $what), e))?;
        let best = results[..found as usize].iter().find(|result| {
            result.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && result.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
                && result.memory <= LARGEST_WORKSPACE
        });
        let Some(best) = best else {
            candle_core::bail!(concat!("cuda: cuDNN has no deterministic algorithm for ", $what))
        };
        (best.algo, Settings { workspace: best.memory, math: best.mathType })
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
            self.workspace = None;
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

    /// Frees the gigabyte that a search was given.
    fn give_back(&mut self) {
        self.workspace = None;
    }

    fn forward(&mut self, key: Key, x: u64, w: u64, y: u64) -> Result<()> {
        let Plan { x: dx, w: dw, y: dy, convolution, forward, .. } = *self.plan(key)?;
        let (algorithm, settings) = match forward {
            Some(known) => known,
            None => {
                let found = find!(
                    self,
                    "a convolution",
                    sys::cudnnConvolutionFwdAlgoPerf_t,
                    sys::cudnnFindConvolutionForwardAlgorithmEx,
                    dx,
                    x as *const c_void,
                    dw,
                    w as *const c_void,
                    convolution,
                    dy,
                    y as *mut c_void
                );
                self.give_back();
                self.plan(key)?.forward = Some(found);
                found
            }
        };
        let workspace = self.workspace(settings.workspace)?;
        // SAFETY: descriptors and buffers belong together; see `find`.
        unsafe {
            result::set_convolution_math_type(convolution, settings.math)
                .map_err(|e| failed("set the math of a convolution", e))?;
            result::convolution_forward(
                self.handle,
                scalar(&ONE),
                dx,
                x as *const c_void,
                dw,
                w as *const c_void,
                convolution,
                algorithm,
                workspace as *mut c_void,
                settings.workspace,
                scalar(&ZERO),
                dy,
                y as *mut c_void,
            )
        }
        .map_err(|e| failed(format_args!("convolve {:?}", key.geometry), e))
    }

    fn input_gradient(&mut self, key: Key, w: u64, gy: u64, gx: u64) -> Result<()> {
        let Plan { x: dx, w: dw, y: dy, convolution, input, .. } = *self.plan(key)?;
        let (algorithm, settings) = match input {
            Some(known) => known,
            None => {
                let found = find!(
                    self,
                    "an input's gradient",
                    sys::cudnnConvolutionBwdDataAlgoPerf_t,
                    sys::cudnnFindConvolutionBackwardDataAlgorithmEx,
                    dw,
                    w as *const c_void,
                    dy,
                    gy as *const c_void,
                    convolution,
                    dx,
                    gx as *mut c_void
                );
                self.give_back();
                self.plan(key)?.input = Some(found);
                found
            }
        };
        let workspace = self.workspace(settings.workspace)?;
        // SAFETY: as above.
        unsafe {
            result::set_convolution_math_type(convolution, settings.math)
                .map_err(|e| failed("set the math of a convolution", e))?;
            result::convolution_backward_data(
                self.handle,
                scalar(&ONE),
                dw,
                w as *const c_void,
                dy,
                gy as *const c_void,
                convolution,
                algorithm,
                workspace as *mut c_void,
                settings.workspace,
                scalar(&ZERO),
                dx,
                gx as *mut c_void,
            )
        }
        .map_err(|e| failed(format_args!("take the input's gradient of {:?}", key.geometry), e))
    }

    fn weight_gradient(&mut self, key: Key, x: u64, gy: u64, gw: u64) -> Result<()> {
        let Plan { x: dx, w: dw, y: dy, convolution, weight, .. } = *self.plan(key)?;
        let (algorithm, settings) = match weight {
            Some(known) => known,
            None => {
                let found = find!(
                    self,
                    "a weight's gradient",
                    sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                    sys::cudnnFindConvolutionBackwardFilterAlgorithmEx,
                    dx,
                    x as *const c_void,
                    dy,
                    gy as *const c_void,
                    convolution,
                    dw,
                    gw as *mut c_void
                );
                self.give_back();
                self.plan(key)?.weight = Some(found);
                found
            }
        };
        let workspace = self.workspace(settings.workspace)?;
        // SAFETY: as above.
        unsafe {
            result::set_convolution_math_type(convolution, settings.math)
                .map_err(|e| failed("set the math of a convolution", e))?;
            result::convolution_backward_filter(
                self.handle,
                scalar(&ONE),
                dx,
                x as *const c_void,
                dy,
                gy as *const c_void,
                convolution,
                algorithm,
                workspace as *mut c_void,
                settings.workspace,
                scalar(&ZERO),
                dw,
                gw as *mut c_void,
            )
        }
        .map_err(|e| failed(format_args!("take the weight's gradient of {:?}", key.geometry), e))
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
            forward: None,
            input: None,
            weight: None,
        };
        // SAFETY: the descriptors were made right above.
        unsafe {
            result::set_tensor4d_descriptor(plan.x, layout, dtype, sizes([g.n, key.channels, g.h, g.w]))?;
            result::set_filter4d_descriptor(plan.w, dtype, layout, sizes([g.co, key.channels, g.kh, g.kw]))?;
            result::set_tensor4d_descriptor(plan.y, layout, dtype, sizes([g.n, g.co, g.out_h(), g.out_w()]))?;
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
