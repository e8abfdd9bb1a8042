//! Finds our kernels in the embedded modules, and launches them.

use super::failed;
use super::input::Input;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, DeviceRepr, LaunchConfig, PushKernelArg, sys,
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
    launch_as(Start::Apart, device, module, name, grid, block, shared_bytes, arguments, last)
}

/// The way in which the blocks of a launch start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// A block starts as soon as there is room for it.
    Apart,
    /// All blocks run at the same time, so that they may wait for one another. The driver refuses the launch
    /// if they do not fit onto the device together.
    Together,
}

/// Shared memory that a block has without asking for more.
const SHARED_BYTES: usize = 48 << 10;

/// Does the same as [`launch_with`], with the blocks started as stated.
#[allow(clippy::too_many_arguments, reason = "a launch has that many parts")]
pub(crate) fn launch_as<S: DeviceRepr>(
    start: Start,
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
    if shared_bytes > SHARED_BYTES {
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let most =
            stream.context().attribute(attribute).map_err(|e| failed("ask for the shared memory", e))?;
        if shared_bytes > most as usize {
            bail!(
                "cuda: {name} needs {shared_bytes} bytes of shared memory, this device has {most} for a block"
            )
        }
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function
            .set_attribute(attribute, shared_bytes as i32)
            .map_err(|e| failed(format_args!("give {name} {shared_bytes} bytes of shared memory"), e))?;
    }
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
    unsafe {
        match start {
            Start::Apart => builder.launch(config),
            Start::Together => builder.launch_cooperative(config),
        }
    }
    .map_err(|e| failed(format_args!("launch {name}"), e))?;
    Ok(())
}

/// The resources that the assembler reports for one kernel on one card, as `build.rs` reads them.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
struct Usage {
    kernel: &'static str,
    card: &'static str,
    threads: u32,
    registers: u32,
    shared: u32,
    stack: u32,
    spills: u32,
}

#[cfg(test)]
mod tests {
    use super::{USAGES, Usage};

    /// Registers of a multiprocessor that one block may hold, on every card so far.
    const REGISTERS: u32 = 65_536;
    /// Registers are given out to a warp by this many.
    const GRAIN: u32 = 256;
    /// Shared memory that a block has without asking for more.
    const SHARED: u32 = 48 << 10;

    /// Returns what is wrong with a kernel, in words.
    fn fault(usage: &Usage) -> Option<String> {
        let Usage { kernel, card, threads, registers, shared, stack, spills } = *usage;
        let held = (registers * 32).next_multiple_of(GRAIN) * threads.div_ceil(32);
        let what = match () {
            () if threads == 0 => "has no launch bounds: begin it with KERNEL(threads, name)".to_owned(),
            () if registers == 0 => "has no line of the assembler".to_owned(),
            () if stack > 0 => format!("keeps {stack} bytes of each thread on a stack, in memory"),
            () if spills > 0 => format!("spills {spills} bytes of each thread's registers into memory"),
            () if held > REGISTERS => {
                format!("needs {held} registers for {threads} threads, a block has {REGISTERS}")
            }
            () if shared > SHARED => format!("needs {shared} bytes of shared memory, a block has {SHARED}"),
            () => return None,
        };
        Some(format!("{kernel} on {card} {what}"))
    }

    #[test]
    fn every_kernel_fits_into_the_registers_of_the_blocks_that_launch_it() {
        // There are at least 70 kernels and 4 cards. Without this check the test would pass if no line of the
        // assembler were understood.
        assert!(USAGES.len() >= 4 * 70, "{}", USAGES.len());
        let faults: Vec<String> = USAGES.iter().filter_map(fault).collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn what_does_not_fit_is_found() {
        let good = Usage {
            kernel: "k",
            card: "sm_90",
            threads: 1024,
            registers: 64,
            shared: 0,
            stack: 0,
            spills: 0,
        };
        assert_eq!(fault(&good), None);
        for (bad, what) in [
            (Usage { registers: 65, ..good }, "registers for 1024 threads"),
            (Usage { stack: 8, ..good }, "on a stack"),
            (Usage { spills: 8, ..good }, "spills"),
            (Usage { threads: 0, ..good }, "launch bounds"),
            (Usage { registers: 0, ..good }, "assembler"),
            (Usage { shared: 50 << 10, ..good }, "shared memory"),
        ] {
            let said = fault(&bad).unwrap_or_default();
            assert!(said.contains(what), "{said}");
        }
    }
}
