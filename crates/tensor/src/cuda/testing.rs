//! The device for tests that need a GPU, and what the emulated device counted.

use std::sync::{Mutex, PoisonError};

use candle_core::Device;

use crate::DeviceKind;

/// The variable that is set where there must be a device, so that no test is skipped unnoticed.
const EXPECTED: &str = "INVASPREAD_EXPECT_CUDA";

/// Returns the device, or prints why the test is skipped and returns `None`.
///
/// # Panics
/// If there is no device although `INVASPREAD_EXPECT_CUDA` is set, or if it cannot be opened.
pub fn device_or_skip() -> Option<Device> {
    if let Some(why) = DeviceKind::Cuda(0).why_not() {
        assert!(std::env::var_os(EXPECTED).is_none(), "{EXPECTED} promises a device: {why}");
        println!("skipped: {why}");
        return None;
    }
    Some(DeviceKind::Cuda(0).open().expect("a device that can be used can be opened"))
}

/// Runs a test with the device, or prints why it is skipped. One test of the program runs at a time, because
/// counts, switches and the table of algorithms are the process's. Each has a thread of its own, which ends
/// before the next test begins: a thread frees what it keeps on the device when it ends, and a step that
/// another test records at that moment would take up that free.
///
/// # Panics
/// If the test does, and where [`device_or_skip`] does.
pub fn on_device(test: impl FnOnce(&Device) + Send) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(device) = device_or_skip() else { return };
    let ended = std::thread::scope(|scope| scope.spawn(|| test(&device)).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic)
    }
}

/// The counts of what the emulated device has done since the program began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    /// Launches of our kernels and of candle's, other than by a graph.
    pub launches: u64,
    /// Calls of NVIDIA's libraries that launch something: products and convolutions; not what a graph
    /// repeats.
    pub library_calls: u64,
    /// Allocations, most of which the pool serves with memory that was freed before.
    pub allocator_calls: u64,
    /// Allocations for which the pool had to take new memory from the device.
    pub allocations: u64,
    /// Copies from the device to itself.
    pub copies_on_device: u64,
    /// Copies from the device to the host.
    pub copies_to_host: u64,
    /// Bytes of the copies to the host.
    pub bytes_to_host: u64,
    /// Copies from the host to the device.
    pub copies_to_device: u64,
    /// Bytes of the copies to the device.
    pub bytes_to_device: u64,
    /// Launches of graphs.
    pub graph_launches: u64,
    /// What graphs have run: kernels, work of libraries, copies.
    pub graph_nodes: u64,
}

impl Counts {
    /// Returns what the emulated device has done so far, or `None` where the device is a real one.
    pub fn now() -> Option<Self> {
        let count = emulator(c"emulated_counts")?;
        let mut counts = Self::default();
        // SAFETY: the emulator's function takes the address of a struct of this layout, and fills it.
        unsafe {
            let count: unsafe extern "C" fn(*mut Self) = std::mem::transmute(count);
            count(&raw mut counts);
        }
        Some(counts)
    }

    /// Returns what was done after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            launches: self.launches - before.launches,
            library_calls: self.library_calls - before.library_calls,
            allocator_calls: self.allocator_calls - before.allocator_calls,
            allocations: self.allocations - before.allocations,
            copies_on_device: self.copies_on_device - before.copies_on_device,
            copies_to_host: self.copies_to_host - before.copies_to_host,
            bytes_to_host: self.bytes_to_host - before.bytes_to_host,
            copies_to_device: self.copies_to_device - before.copies_to_device,
            bytes_to_device: self.bytes_to_device - before.bytes_to_device,
            graph_launches: self.graph_launches - before.graph_launches,
            graph_nodes: self.graph_nodes - before.graph_nodes,
        }
    }
}

/// Returns how many descriptors of cuDNN's graphs were made so far, and how many of them are there, or `None`
/// where the device is a real one.
pub fn graph_descriptors() -> Option<[u64; 2]> {
    let count = emulator(c"emulated_descriptors")?;
    let mut made_and_there = [0; 2];
    // SAFETY: the emulator's function writes two numbers.
    unsafe {
        let count: unsafe extern "C" fn(*mut [u64; 2]) = std::mem::transmute(count);
        count(&raw mut made_and_there);
    }
    Some(made_and_there)
}

/// Returns the address of a function of the emulated driver, or `None` where the driver is a real one.
fn emulator(name: &std::ffi::CStr) -> Option<*mut libc::c_void> {
    // SAFETY: the library is only found if it is already open; it is not opened again.
    let address = unsafe {
        let driver = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if driver.is_null() {
            return None;
        }
        libc::dlsym(driver, name.as_ptr())
    };
    (!address.is_null()).then_some(address)
}

/// Makes the emulated device report `count` multiprocessors. Returns whether the device is an emulated one.
pub fn set_multiprocessors(count: u32) -> bool {
    let Some(set) = emulator(c"emulated_multiprocessors") else { return false };
    // SAFETY: the emulator's function takes one unsigned int.
    unsafe {
        let set: unsafe extern "C" fn(u32) = std::mem::transmute(set);
        set(count);
    }
    true
}
