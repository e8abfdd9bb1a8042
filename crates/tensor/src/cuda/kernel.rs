//! Finds our kernels in the embedded modules, and launches them.

use super::failed;
use super::memory::Input;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::{CudaDevice, Result, Tensor, bail};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    /// The address of values on the device; 0 for none.
    Address(u64),
    /// An `int`.
    Int(i32),
    /// A `long long`.
    Long(i64),
    /// A `float`.
    Float(f32),
    /// A `double`.
    Double(f64),
}

impl Argument {
    /// Returns the address of a contiguous tensor's values.
    pub(crate) fn address(tensor: &Tensor) -> Result<Self> {
        Ok(Self::Address(Input::of(tensor)?.address))
    }
}

/// The loaded modules and functions of each device.
#[derive(Default)]
struct Loaded {
    modules: HashMap<(usize, &'static str), Arc<CudaModule>>,
    functions: HashMap<(usize, String), CudaFunction>,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Returns the kernel `name` of `kernels/<module>.cu`, loaded once.
fn function(device: &CudaDevice, module: &str, name: &str) -> Result<CudaFunction> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let ordinal = context.ordinal();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let Loaded { modules, functions } = loaded.get_or_insert_default();
    if let Some(function) = functions.get(&(ordinal, name.to_owned())) {
        return Ok(function.clone());
    }
    let Some(&(key, code)) = MODULES.iter().find(|(stem, _)| *stem == module) else {
        bail!("cuda: no module {module} was compiled in")
    };
    let module = match modules.get(&(ordinal, key)) {
        Some(module) => Arc::clone(module),
        None => {
            let module = context
                .load_module(Ptx::from_binary(code.to_vec()))
                .map_err(|e| failed(format_args!("load the kernels of {key}.cu"), e))?;
            modules.insert((ordinal, key), Arc::clone(&module));
            module
        }
    };
    let function =
        module.load_function(name).map_err(|e| failed(format_args!("find the kernel {name}"), e))?;
    functions.insert((ordinal, name.to_owned()), function.clone());
    Ok(function)
}

/// Queues a kernel on the device's stream.
pub(crate) fn launch(
    device: &CudaDevice,
    module: &str,
    name: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: usize,
    arguments: &[Argument],
) -> Result<()> {
    launch_with::<u32>(device, module, name, grid, block, shared_bytes, arguments, None)
}

/// Does the same as [`launch`], with a struct passed by value as the last argument.
#[allow(clippy::too_many_arguments, reason = "a launch has that many parts")]
pub(crate) fn launch_with<S: DeviceRepr>(
    device: &CudaDevice,
    module: &str,
    name: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: usize,
    arguments: &[Argument],
    last: Option<&S>,
) -> Result<()> {
    if grid.contains(&0) {
        return Ok(());
    }
    let function = function(device, module, name)?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    for argument in arguments {
        match argument {
            Argument::Address(value) => builder.arg(value),
            Argument::Int(value) => builder.arg(value),
            Argument::Long(value) => builder.arg(value),
            Argument::Float(value) => builder.arg(value),
            Argument::Double(value) => builder.arg(value),
        };
    }
    if let Some(last) = last {
        builder.arg(last);
    }
    let config = LaunchConfig {
        grid_dim: grid.into(),
        block_dim: block.into(),
        shared_mem_bytes: u32::try_from(shared_bytes).map_err(candle_core::Error::wrap)?,
    };
    // SAFETY: each caller passes what its kernel's signature says; in the tests, the emulated device checks
    // the number of arguments, and every address.
    unsafe { builder.launch(config) }.map_err(|e| failed(format_args!("launch {name}"), e))?;
    Ok(())
}
