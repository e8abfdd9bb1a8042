//! cuDNN on one device: chooses what computes a product, and runs it.

use super::super::algorithms::{
    Algorithm, Choice, Direction, Engine, Key, LARGEST_WORKSPACE, Product, forget, keep, known, note,
};
use super::super::failed;
use super::super::memory::Output;
use super::super::peak::Searching;
use super::super::switches::{ConvolutionApi, Switches};
use super::clock::Clock;
use super::legacy::Descriptors;
use super::plan::{Plan, plans, remake};
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{CudaDevice, Error, Result};
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// cuDNN on one device, for one thread: its handles must not be shared.
struct Library {
    handle: sys::cudnnHandle_t,
    device: CudaDevice,
    descriptors: HashMap<Key, Descriptors>,
    plans: HashMap<Product, (Engine, Plan)>,
    /// Products that the graph API does not compute.
    without_plan: HashSet<Product>,
    workspace: Workspace,
}

thread_local! {
    static LIBRARY: RefCell<Option<Library>> = const { RefCell::new(None) };
}

/// Computes a product on the addresses of input, weight and output (or of their gradients).
pub(super) fn run(device: &CudaDevice, product: Product, addresses: [u64; 3]) -> Result<()> {
    device.cuda_stream().context().bind_to_thread().map_err(|e| failed("bind to the thread", e))?;
    LIBRARY.with(|library| {
        let mut library = library.borrow_mut();
        if library.as_ref().is_none_or(|library| library.device.id() != device.id()) {
            *library = Some(Library::new(device)?);
        }
        library.as_mut().expect("it was made right above").run(product, addresses)
    })
}

/// Scratch memory that all convolutions share: they run one after the other.
#[derive(Default)]
struct Workspace {
    /// The last is in use. The others were too small, and are kept: a CUDA graph may hold their addresses.
    all: Vec<CudaSlice<u8>>,
}

impl Workspace {
    /// Returns the address of at least `bytes`.
    fn of(&mut self, device: &CudaDevice, bytes: usize) -> Result<u64> {
        if self.all.last().is_none_or(|have| have.len() < bytes) {
            // Powers of two, so that all that is kept is less than four times the need.
            let bytes = bytes.max(256).next_power_of_two();
            // SAFETY: cuDNN writes this memory before it reads it.
            self.all.push(unsafe { device.alloc::<u8>(bytes)? });
        }
        Ok(address(self.all.last().expect("it was made right above")))
    }
}

fn address(slice: &CudaSlice<u8>) -> u64 {
    let (address, _guard) = slice.device_ptr(slice.stream());
    address
}

/// Something that may compute a product.
enum Candidate {
    Legacy(Algorithm),
    Backend(Engine, Plan),
}

impl Library {
    fn new(device: &CudaDevice) -> Result<Self> {
        let handle = result::create_handle().map_err(|e| failed("open cuDNN", e))?;
        let stream = device.cuda_stream();
        // SAFETY: both are alive; the stream lives as long as the device, which is kept below.
        unsafe { result::set_stream(handle, stream.cu_stream().cast()) }
            .map_err(|e| failed("give cuDNN the stream", e))?;
        Ok(Self {
            handle,
            device: device.clone(),
            descriptors: HashMap::new(),
            plans: HashMap::new(),
            without_plan: HashSet::new(),
            workspace: Workspace::default(),
        })
    }

    fn descriptors(&mut self, key: Key) -> Result<&Descriptors> {
        match self.descriptors.entry(key) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let describe = |e| failed(format_args!("describe {:?} to cuDNN", key.geometry), e);
                Ok(place.insert(Descriptors::new(key).map_err(describe)?))
            }
        }
    }

    fn run(&mut self, product: Product, addresses: [u64; 3]) -> Result<()> {
        let engine = match self.choose(product, addresses)? {
            Choice::Legacy(algorithm) => return self.run_legacy(product, algorithm, addresses),
            Choice::Backend(engine) => engine,
        };
        if self.plans.get(&product).is_none_or(|(of, _)| *of != engine) {
            match remake(self.handle, product, &engine, LARGEST_WORKSPACE) {
                Ok(plan) => drop(self.plans.insert(product, (engine, plan))),
                Err(error) => {
                    forget(
                        product,
                        &format!(
                            "the plan that was chosen before cannot be made here ({error}): it is measured anew. From \
                             here on the run is not the same bit for bit"
                        ),
                    );
                    return self.run(product, addresses);
                }
            }
        }
        if let Err(error) = self.run_plan(product, addresses) {
            forget(
                product,
                &format!("its plan failed ({error}): cuDNN's older API computes it from here on"),
            );
            self.plans.remove(&product);
            self.without_plan.insert(product);
            return self.run(product, addresses);
        }
        Ok(())
    }

    fn run_legacy(&mut self, product: Product, algorithm: Algorithm, addresses: [u64; 3]) -> Result<()> {
        let workspace = self.workspace.of(&self.device, algorithm.workspace)?;
        let handle = self.handle;
        self.descriptors(product.key)?.run(handle, product, algorithm, addresses, workspace)
    }

    fn run_plan(&mut self, product: Product, addresses: [u64; 3]) -> Result<()> {
        let (_, plan) = self.plans.get_mut(&product).expect("it was made right before");
        let workspace = self.workspace.of(&self.device, plan.workspace)?;
        plan.run(addresses, workspace)
    }

    /// Returns what computes a product: what was chosen before, or else what a search finds.
    fn choose(&mut self, product: Product, addresses: [u64; 3]) -> Result<Choice> {
        if let Some(choice) = known(product) {
            return Ok(choice);
        }
        let searching = Searching::begin(&self.device)?;
        let found = self.search(product, addresses);
        searching.end()?;
        let choice = match found? {
            Some(Candidate::Legacy(algorithm)) => Choice::Legacy(algorithm),
            Some(Candidate::Backend(engine, plan)) => {
                self.plans.insert(product, (engine.clone(), plan));
                Choice::Backend(engine)
            }
            None => {
                let Product { direction, key, .. } = product;
                candle_core::bail!(
                    "cuda: cuDNN has no deterministic algorithm for the {direction:?} product of {:?} in {:?}{}",
                    key.geometry,
                    key.dtype,
                    if key.full_f32() { " without TF32 (precision=tf32 allows it)" } else { "" }
                )
            }
        };
        Ok(keep(product, choice))
    }

    /// Measures what may compute a product and returns the fastest. It writes into memory of its own, since
    /// the result's may hold something to add to; all of it is given back: what a choice needs is far less.
    fn search(&mut self, product: Product, mut addresses: [u64; 3]) -> Result<Option<Candidate>> {
        let Product { direction, key, .. } = product;
        let g = key.geometry;
        let (result, len) = match direction {
            Direction::Input => (0, g.n * g.h * g.w * key.channels),
            Direction::Weight => (1, g.taps() * key.channels * key.out_channels),
            Direction::Forward => (2, g.out_rows() * key.out_channels),
        };
        let to = Output::new(&self.device, key.dtype, len)?;
        addresses[result] = to.address;
        // SAFETY: cuDNN writes this memory before it reads it.
        let memory = unsafe { self.device.alloc::<u8>(LARGEST_WORKSPACE)? };
        let scratch = address(&memory);
        let api = Switches::taken()?.convolution;
        let plans = if api == ConvolutionApi::Legacy || self.without_plan.contains(&product) {
            Vec::new()
        } else {
            match plans(self.handle, product, LARGEST_WORKSPACE) {
                Ok(plans) => plans,
                Err(error) => {
                    self.leave_graphs(product, &error);
                    Vec::new()
                }
            }
        };
        let mut candidates: Vec<_> =
            plans.into_iter().map(|(engine, plan)| Candidate::Backend(engine, plan)).collect();
        if api != ConvolutionApi::Backend || candidates.is_empty() {
            let found = self.find(product, addresses, scratch)?;
            if candidates.is_empty() {
                return Ok(found);
            }
            candidates.extend(found);
        }
        match self.fastest(product, candidates, addresses, scratch)? {
            Ok(fastest) => Ok(Some(fastest)),
            Err(error) => {
                self.leave_graphs(product, &error);
                self.find(product, addresses, scratch)
            }
        }
    }

    fn find(&mut self, product: Product, addresses: [u64; 3], scratch: u64) -> Result<Option<Candidate>> {
        let handle = self.handle;
        let found = self.descriptors(product.key)?.find(handle, product, addresses, scratch)?;
        Ok(found.map(Candidate::Legacy))
    }

    /// Returns the fastest of what may compute a product, or the last error if all fail.
    fn fastest(
        &mut self,
        product: Product,
        candidates: Vec<Candidate>,
        addresses: [u64; 3],
        scratch: u64,
    ) -> Result<Result<Candidate>> {
        let clock = Clock::new(&self.device)?;
        let handle = self.handle;
        let descriptors = self.descriptors(product.key)?;
        let mut best: Option<(f32, Candidate)> = None;
        let mut failure = None;
        for mut candidate in candidates {
            let shortest = best.as_ref().map_or(f32::INFINITY, |(time, _)| *time);
            let time = clock.measure(shortest, || match &mut candidate {
                Candidate::Legacy(algorithm) => {
                    descriptors.run(handle, product, *algorithm, addresses, scratch)
                }
                Candidate::Backend(_, plan) => plan.run(addresses, scratch),
            });
            match time {
                Ok(time) if time < shortest => best = Some((time, candidate)),
                Ok(_) => {}
                // An engine may refuse what it is run on; the others are measured all the same.
                Err(error) => failure = Some(error),
            }
        }
        Ok(match (best, failure) {
            (Some((_, candidate)), _) => Ok(candidate),
            (None, Some(error)) => Err(error),
            (None, None) => candle_core::bail!("cuda: no time of a convolution is a number"),
        })
    }

    /// Notes that the graph API does not compute a product, and does not ask it again.
    fn leave_graphs(&mut self, product: Product, error: &Error) {
        note(product, &format!("cuDNN's graph API refused it ({error}): the older API computes it"));
        self.without_plan.insert(product);
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.plans.clear();
        self.descriptors.clear();
        // SAFETY: `new` made it, and nothing uses it any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
