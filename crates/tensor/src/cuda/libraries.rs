//! Finds NVIDIA's libraries and opens the device.
//!
//! The driver comes with the system. cuBLAS, cuDNN and cuRAND are searched where the dynamic loader searches,
//! and in the folders that `INVASPREAD_CUDA_LIBRARIES` names (colon-separated), such as those of PyTorch's
//! wheels; their subfolders `*/lib` count too. Once a library is opened from there by its full path,
//! everything later finds it by its versioned name (`libcublas.so.13`).
//!
//! cudarc first asks for the unversioned name (`libcublas.so`), which the loader finds if a toolkit's folder
//! is on its path. Then everything uses that library: it is opened first, no second copy is opened beside it,
//! and it must have the version that this program is made for.

use super::failed;
use candle_core::cuda_backend::cudarc::{self, cublas, cudnn, curand, driver};
use candle_core::{Device, Result, bail};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The variable that names the folders to search before those of the system.
const FOLDERS: &str = "INVASPREAD_CUDA_LIBRARIES";

/// The libraries and their versions, in the order in which they need one another.
const LIBRARIES: [(&str, &str); 5] = [
    ("libcublasLt.so", "13"),
    ("libcublas.so", "13"),
    ("libcurand.so", "10"),
    ("libcudnn.so", "9"),
    ("libnvrtc.so", "13"),
];

/// The variable that names the folder in which the driver keeps what it compiles.
const COMPILED: &str = "CUDA_CACHE_PATH";

/// Facts about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Name of the device.
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
    ANSWER.get_or_init(|| preload().or_else(missing)).clone()
}

/// Returns in words what cannot be found. The presence of a library must be checked before it is used,
/// because the use of a missing one would panic.
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

/// Opens each library that the loader finds by its unversioned name, or else the one in the folders that the
/// environment names. Returns in words what is wrong with a library, if anything is.
fn preload() -> Option<String> {
    let folders = std::env::var_os(FOLDERS).unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&folders).flat_map(|folder| with_subfolders(&folder)).collect();
    for (name, version) in LIBRARIES {
        if let Some(handle) = open_for_all(OsStr::new(name)) {
            if let Some(wrong) = path_of(handle).and_then(|path| wrong_version(&path, name, version)) {
                return Some(wrong);
            }
            continue;
        }
        let mut paths = folders.iter().map(|folder| folder.join(format!("{name}.{version}")));
        if let Some(path) = paths.find(|path| path.is_file()) {
            open_for_all(path.as_os_str());
        }
    }
    None
}

/// Returns why the library at `path`, which was found as `name`, cannot be used; `None` if it has the
/// `version` that this program is made for, or its file does not say its version.
fn wrong_version(path: &Path, name: &str, version: &str) -> Option<String> {
    let whole = path.canonicalize().ok()?;
    let found = whole.file_name()?.to_str()?.strip_prefix(name)?.strip_prefix('.')?.to_owned();
    if found.split('.').next() == Some(version) {
        return None;
    }
    Some(format!(
        "cuda: {name} is found first at {} and has version {found}, expected {version}; take its folder off \
         LD_LIBRARY_PATH, or put a folder with a link {name} to version {version} in front of it",
        path.display()
    ))
}

/// Returns the file that an open library was loaded from.
fn path_of(handle: *mut libc::c_void) -> Option<PathBuf> {
    // The first fields of `struct link_map` in glibc and musl.
    #[repr(C)]
    struct LinkMap {
        address: usize,
        name: *const libc::c_char,
    }
    let mut map: *const LinkMap = std::ptr::null();
    // SAFETY: the handle is open and stays so; on success `map` points to the loader's own entry of it, whose
    // name is a C string.
    unsafe {
        if libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut map).cast()) != 0 || map.is_null() {
            return None;
        }
        let name = CStr::from_ptr((*map).name);
        Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
    }
}

/// Makes the driver keep what it compiles in the user's cache folder, unless the environment names another:
/// candle's kernels are PTX, and compiling them takes seconds. The driver's own folder is `~/.nv`, which is
/// lost on machines that are rented by the minute. Must be called before any thread is started.
pub(crate) fn keep_compiled_kernels() {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if set(COMPILED).is_some() {
        return;
    }
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let Some(folder) = caches.map(|caches| caches.join("invaspread").join("cuda")) else { return };
    if std::fs::create_dir_all(&folder).is_ok() {
        // SAFETY: the caller has started no thread yet, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(COMPILED, folder) };
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

/// Opens a library and leaves it open; returns its handle. A library that cannot be opened is reported
/// missing later, by name.
fn open_for_all(path: &OsStr) -> Option<*mut libc::c_void> {
    let path = CString::new(path.as_bytes()).ok()?;
    // SAFETY: as above; the handle is never closed.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    (!handle.is_null()).then_some(handle)
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
