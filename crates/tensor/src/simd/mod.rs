//! Vectors of f32 behind one small trait, and the choice of the instruction set at run time.
//!
//! A kernel is written once, generic over [`Vector`], and compiled three times: for AVX-512, for AVX2 with
//! FMA, and for the target's baseline (SSE2, NEON). Kernels of bf16 are compiled a fourth time, for AVX-512
//! with its instructions for bf16; elsewhere the same methods are made of other instructions, so the tests of
//! these kernels run on every machine. [`dispatch`] runs the version with the widest vectors that this
//! processor has, so no build with `target-cpu=native` is needed. Everything a kernel calls must be
//! `#[inline(always)]`: a function that is not inlined is compiled without the wide instructions.
//!
//! A kernel gives the same bits on any number of threads, since no sum is split by thread. Between
//! instruction sets the last bits differ (fused multiply-add, blocking).

#![expect(
    unsafe_code,
    reason = "loads and stores go through pointers, and wide instructions must be known to exist"
)]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
pub(crate) mod functions;
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::bf16;
#[cfg(test)]
pub(crate) use portable::Lanes8;
use std::sync::OnceLock;

/// A vector of f32 lanes that are added, multiplied and compared at once.
pub(crate) trait Vector: Copy {
    /// Number of lanes: 8 or 16.
    const LANES: usize;
    /// Returns a vector of zeros.
    fn zero() -> Self;
    /// Returns a vector whose lanes are all `x`.
    fn splat(x: f32) -> Self;
    /// Reads the lanes at `p`.
    ///
    /// # Safety
    /// `p` must be valid for reading `LANES` values.
    unsafe fn load(p: *const f32) -> Self;
    /// Writes the lanes to `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing `LANES` values.
    unsafe fn store(self, p: *mut f32);
    /// Reads lanes that are stored as bf16, exactly.
    ///
    /// # Safety
    /// `p` must be valid for reading `LANES` values.
    unsafe fn load_bf16(p: *const bf16) -> Self;
    /// Writes the lanes as bf16, rounded to the nearest, ties to even; a NaN stays a NaN. The instruction for
    /// it (AVX512-BF16) takes numbers below f32's smallest normal number as zero; the others round them too.
    ///
    /// # Safety
    /// `p` must be valid for writing `LANES` values.
    unsafe fn store_bf16(self, p: *mut bf16);
    /// Returns words of 32 bits of two numbers in bf16: those of `first` in the lower halves, those of
    /// `second` in the upper ones, rounded as by [`Vector::store_bf16`].
    fn pair(first: Self, second: Self) -> Self;
    /// Returns `self` plus the products of the upper and then of the lower halves of two vectors of pairs;
    /// the products are exact, and each sum is rounded to f32. The instruction for it, `vdpbf16ps`, takes
    /// factors and sums below f32's smallest normal number as zero; the versions made of other instructions
    /// keep them.
    fn dot_pairs(self, a: Self, b: Self) -> Self;
    /// Returns `self + b` for each lane.
    fn add(self, b: Self) -> Self;
    /// Returns `self - b` for each lane.
    fn sub(self, b: Self) -> Self;
    /// Returns `self * b` for each lane.
    fn mul(self, b: Self) -> Self;
    /// Returns `self * b + c` for each lane, as one fused operation if the machine has it.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// Returns `if self > b { self } else { b }` for each lane: the larger of the two, and `b` where either
    /// is a NaN. So `floor.max(x)` keeps the NaNs of `x`, and `x.max(largest)` skips them. It is one
    /// instruction on every machine; the order of its operands matters.
    fn max(self, b: Self) -> Self;
    /// Returns the sum of all lanes.
    fn sum(self) -> f32;
    /// Returns a bit for each lane, from the lowest on: whether it is greater than the same lane of `floor`.
    fn above(self, floor: Self) -> u32;
    /// Passes the gradient `self` through a ReLU whose result is `output`: zero where the output is at most
    /// zero, else unchanged. The ReLU passes a NaN on, so the gradient of a NaN passes too, as in PyTorch.
    fn through_relu(self, output: Self) -> Self;
}

/// Work that is compiled for each instruction set.
pub(crate) trait Kernel {
    /// Whether the work is also compiled with the instructions for bf16.
    const BF16: bool = false;
    /// Does the work with vectors of type `V`.
    fn run<V: Vector>(self);
}

/// The instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// [`InstructionSet::Avx512Bf16`], and tiles of AMX with products of bf16.
    Amx,
    /// 512-bit vectors with products of bf16.
    Avx512Bf16,
    /// 512-bit vectors with fused multiply-add.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// The target's baseline: SSE2 on x86-64, NEON on 64-bit Arm.
    Baseline,
}

impl InstructionSet {
    /// Returns whether there is an instruction for products of pairs of bf16.
    pub fn has_bf16(self) -> bool {
        matches!(self, Self::Amx | Self::Avx512Bf16)
    }
}

/// Returns the instruction set that kernels run with on this machine.
///
/// The environment variable `INVASPREAD_SIMD` (`avx512bf16`, `avx512`, `avx2`, `baseline`) lowers it, for tests
/// and for comparing machines; a set that the processor lacks is never chosen.
pub fn instruction_set() -> InstructionSet {
    static CHOSEN: OnceLock<InstructionSet> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let available = detect();
        match std::env::var("INVASPREAD_SIMD").as_deref() {
            Ok("baseline") => InstructionSet::Baseline,
            Ok("avx2") if available != InstructionSet::Baseline => InstructionSet::Avx2,
            Ok("avx512") if available.has_bf16() => InstructionSet::Avx512,
            Ok("avx512bf16") if available == InstructionSet::Amx => InstructionSet::Avx512Bf16,
            _ => available,
        }
    })
}

#[cfg(target_arch = "x86_64")]
fn detect() -> InstructionSet {
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
    {
        #[cfg(target_os = "linux")]
        if amx::is_permitted() {
            return InstructionSet::Amx;
        }
        InstructionSet::Avx512Bf16
    } else if is_x86_feature_detected!("avx512f") {
        InstructionSet::Avx512
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        InstructionSet::Avx2
    } else {
        InstructionSet::Baseline
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> InstructionSet {
    InstructionSet::Baseline
}

/// Runs `kernel` with the widest vectors that this machine has.
pub(crate) fn dispatch<K: Kernel>(kernel: K) {
    match instruction_set() {
        // SAFETY: `instruction_set` returns these only if the processor reports the features.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Amx | InstructionSet::Avx512Bf16 if K::BF16 => unsafe {
            x86::run_avx512_bf16(kernel);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Amx | InstructionSet::Avx512Bf16 | InstructionSet::Avx512 => unsafe {
            x86::run_avx512(kernel);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => unsafe { x86::run_avx2(kernel) },
        _ => kernel.run::<portable::Lanes8>(),
    }
}

/// The numbers that activations are stored in. Kernels compute with them in f32.
pub(crate) trait Number: Copy + Send + Sync + 'static {
    const ZERO: Self;
    /// Whether the numbers are bf16.
    const HALF: bool;
    /// Reads a vector of numbers, exactly.
    ///
    /// # Safety
    /// `p` must be valid for reading `V::LANES` numbers.
    unsafe fn load<V: Vector>(p: *const Self) -> V;
    /// Writes the nearest numbers.
    ///
    /// # Safety
    /// `p` must be valid for writing `V::LANES` numbers.
    unsafe fn store<V: Vector>(values: V, p: *mut Self);
}

impl Number for f32 {
    const ZERO: Self = 0.0;
    const HALF: bool = false;
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self) -> V {
        // SAFETY: the caller guarantees it.
        unsafe { V::load(p) }
    }
    #[inline(always)]
    unsafe fn store<V: Vector>(values: V, p: *mut Self) {
        // SAFETY: the caller guarantees it.
        unsafe { values.store(p) }
    }
}

impl Number for bf16 {
    const ZERO: Self = Self::ZERO;
    const HALF: bool = true;
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self) -> V {
        // SAFETY: the caller guarantees it.
        unsafe { V::load_bf16(p) }
    }
    #[inline(always)]
    unsafe fn store<V: Vector>(values: V, p: *mut Self) {
        // SAFETY: the caller guarantees it.
        unsafe { values.store_bf16(p) }
    }
}

/// A pointer that parallel tasks share; each writes its own part.
pub(crate) struct SharedMut<T = f32>(*mut T);

impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<T> {}

// SAFETY: every use hands disjoint ranges to the tasks; the type only carries the address across threads.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    /// Shares the memory of `slice`. The borrow must outlive all tasks, which rayon's scoped loops ensure.
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// Shares the memory behind an address that [`SharedMut::at`] returned.
    #[inline(always)]
    pub(crate) fn from(address: *mut T) -> Self {
        Self(address)
    }

    /// Returns the address of the first element.
    #[inline(always)]
    pub(crate) fn pointer(self) -> *mut T {
        self.0
    }

    /// Returns the address of element `offset`.
    ///
    /// # Safety
    /// `offset` must lie within the slice, and no other task may use the part that the caller writes.
    #[inline(always)]
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller stays within the slice.
        unsafe { self.0.add(offset) }
    }
}
