//! Finds NVIDIA's libraries and opens the device.
//!
//! The driver comes with the system. cuBLAS, cuDNN and cuRAND are searched where the dynamic loader searches,
//! and in the folders that `INVASPREAD_CUDA_LIBRARIES` names (colon-separated), such as those of PyTorch's
//! wheels; their subfolders `*/lib` count too. Once a library is opened from there by its full path,
//! everything later finds it by its name.

use super::failed;
use candle_core::cuda_backend::cudarc::{self, cublas, cudnn, curand, driver};
use candle_core::{Device, Result, bail};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Names the folders to search before those of the system.
const FOLDERS: &str = "INVASPREAD_CUDA_LIBRARIES";

/// The libraries, in the order in which they need one another.
const NAMES: [&str; 5] =
    ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9", "libnvrtc.so.13"];

/// Facts about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Number of multiprocessors.
    pub multiprocessors: i32,
    /// Bytes of memory.
    pub memory: usize,
    /// Bytes of memory that are free.
    pub free: usize,
    /// The driver's CUDA version, as 13000 for 13.0.
    pub driver: i32,
    /// cuDNN's version, as 91900 for 9.19.0.
    pub cudnn: usize,
}

/// Opens device number `ordinal`. Its pool keeps freed memory, and events are not tracked (one stream needs
/// none).
///
/// # Errors
/// If there is no driver, no such device, or a library is missing. The message says which, and what to do.
pub fn device(ordinal: usize) -> Result<Device> {
    if let Some(why) = why_not() {
        bail!("{why}")
    }
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: all work of this process goes to this device's one stream, in order.
    unsafe { cuda.disable_event_tracking() };
    keep_memory(cuda)?;
    Ok(device)
}

/// Returns the number of devices that the driver knows.
///
/// # Errors
/// If the driver does not answer.
///
/// # Panics
/// If there is no driver; [`why_not`] says so.
pub fn device_count() -> Result<usize> {
    let count = driver::CudaContext::device_count().map_err(|e| failed("count the devices", e))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Returns the facts about a device that [`device`] opened.
///
/// # Errors
/// If it is the CPU, or the driver does not answer.
pub fn facts(device: &Device) -> Result<Facts> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let context = stream.context();
    let ask = |error| failed("ask the device", error);
    let attribute = driver::sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let (free, memory) = context.mem_get_info().map_err(ask)?;
    let mut version = 0;
    // SAFETY: the driver writes one int.
    unsafe { driver::sys::cuDriverGetVersion(&raw mut version) }.result().map_err(ask)?;
    Ok(Facts {
        name: context.name().map_err(ask)?,
        capability: context.compute_capability().map_err(ask)?,
        multiprocessors: context.attribute(attribute).map_err(ask)?,
        memory,
        free,
        driver: version,
        cudnn: cudnn::result::get_version(),
    })
}

/// Returns the reason why no device can be used here, or `None` if one can. Opens the libraries once; later
/// calls repeat the first answer.
pub fn why_not() -> Option<String> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    ANSWER
        .get_or_init(|| {
            preload();
            missing()
        })
        .clone()
}

/// Returns what cannot be found, in words. The presence of a library must be checked first: the use of a
/// missing one would panic.
fn missing() -> Option<String> {
    // SAFETY: opening a library runs its initializers; these are NVIDIA's.
    unsafe {
        if !driver::sys::is_culib_present() {
            return Some("cuda: no driver (libcuda.so.1) on this machine".to_owned());
        }
        let libraries = [
            ("cuBLAS 13 (libcublas.so.13)", cublas::sys::is_culib_present()),
            ("cuRAND 10 (libcurand.so.10)", curand::sys::is_culib_present()),
            ("cuDNN 9 (libcudnn.so.9)", cudnn::sys::is_culib_present()),
        ];
        let missing: Vec<_> =
            libraries.iter().filter(|(_, present)| !present).map(|(name, _)| *name).collect();
        if !missing.is_empty() {
            return Some(format!(
                "cuda: there is a driver, but not {}. `pip install nvidia-cublas nvidia-cudnn-cu13 nvidia-curand` brings them, as \
                 PyTorch for CUDA 13 does; name their folder (site-packages/nvidia) in {FOLDERS} or LD_LIBRARY_PATH",
                missing.join(" nor ")
            ));
        }
        // SAFETY: the library is present.
        if driver::sys::cuInit(0) != driver::sys::CUresult::CUDA_SUCCESS {
            return Some("cuda: the driver finds no device it can use".to_owned());
        }
    }
    None
}

/// Opens the libraries in the folders that the environment names.
fn preload() {
    let Some(folders) = std::env::var_os(FOLDERS) else { return };
    let folders: Vec<PathBuf> =
        std::env::split_paths(&folders).flat_map(|folder| with_subfolders(&folder)).collect();
    for name in NAMES {
        if let Some(path) = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()) {
            open_for_all(path.as_os_str());
        }
    }
}

/// Lists a folder, and the `lib` folders of its subfolders.
fn with_subfolders(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned(), folder.join("lib")];
    if let Ok(entries) = std::fs::read_dir(folder) {
        all.extend(entries.flatten().map(|entry| entry.path().join("lib")));
    }
    all
}

/// Opens a library and leaves it open. A library that cannot be opened is reported missing later, by name.
fn open_for_all(path: &OsStr) {
    if let Ok(path) = CString::new(path.as_bytes()) {
        // SAFETY: as above; the handle is never closed.
        unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    }
}

/// Tells the driver's pool to keep freed memory; by default it returns the memory at every synchronization.
fn keep_memory(device: &candle_core::CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let threshold = driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let mut all = u64::MAX;
    // SAFETY: the attribute is a u64, which lives through the call.
    unsafe {
        let pool = cudarc::driver::result::device::get_default_mem_pool(stream.context().cu_device())
            .map_err(|e| failed("find the memory pool", e))?;
        cudarc::driver::result::mem_pool::set_attribute(pool, threshold, (&raw mut all).cast())
            .map_err(|e| failed("keep the memory pool", e))
    }
}
