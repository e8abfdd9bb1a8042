//! A training step as one CUDA graph: what the host launches in it is recorded once, then launched as one.
//!
//! A recorded step holds addresses. The memory that it allocates and frees belongs to the graph. All other
//! memory is read when the step runs: parameters, momentum and running statistics keep their addresses
//! ([`crate::assign`]). Code that replaces memory which a step may have recorded (scratch memory, a kept
//! weight, the draws of an epoch) calls [`forget_if`]; after that no recorded step is valid. Numbers that a
//! step counts on the host are noted in the recording ([`count_run`]) and counted at each launch.
//!
//! The code that launches a recorded step keeps the network, the optimizer and the images alive.

use super::failed;
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaStream, result, sys};
use candle_core::{CudaDevice, Device, Result, bail};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// How often recorded steps have become invalid.
static FORGOTTEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// What the step that this thread records counts at each launch; `None` while it records none.
    static COUNTED: RefCell<Option<Vec<Arc<AtomicI64>>>> = const { RefCell::new(None) };
}

/// Makes all recorded steps invalid, if `replaced` memory or what it held may be in them.
pub(super) fn forget_if(replaced: bool) {
    if replaced {
        FORGOTTEN.fetch_add(1, Relaxed);
    }
}

/// Counts a run of a module: now, or at each launch of the step that is being recorded.
pub(crate) fn count_run(runs: &Arc<AtomicI64>) {
    COUNTED.with_borrow_mut(|counted| match counted {
        Some(counted) => counted.push(Arc::clone(runs)),
        None => _ = runs.fetch_add(1, Relaxed),
    });
}

/// A recorded step.
pub struct StepGraph {
    graph: CudaGraph,
    counted: Vec<Arc<AtomicI64>>,
    forgotten: u64,
}

impl std::fmt::Debug for StepGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepGraph").field("counted", &self.counted.len()).finish_non_exhaustive()
    }
}

impl StepGraph {
    /// Records what `step` launches on `device`, without running it. `step` was run before, so that all that
    /// it makes once exists. It must end with as much memory as it began with, and must not wait for the
    /// device, nor copy to it from memory that is not page-locked. No other thread that has computed on the
    /// device may end meanwhile: it would free what it keeps there, on the stream that is recorded.
    ///
    /// # Errors
    /// If the device is the CPU, or the driver refuses to record the step, or the step fails or keeps memory.
    /// Nothing of it was run then.
    pub fn record(device: &Device, step: impl FnOnce() -> Result<()>) -> Result<Self> {
        let device = device.as_cuda_device()?;
        let stream = device.cuda_stream();
        give_back(device, &stream)?;
        let forgotten = FORGOTTEN.load(Relaxed);
        // Other threads may go on with what they do to other memory.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(|e| failed("begin to record a step", e))?;
        COUNTED.set(Some(Vec::new()));
        let recorded = step();
        let counted = COUNTED.take().unwrap_or_default();
        // The driver reports memory that could not be freed at the next call, and that call must not be the
        // one that ends the recording.
        let freed = stream.context().check_err();
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        recorded?;
        freed.map_err(|e| failed("free memory in a recorded step", e))?;
        let graph = graph.map_err(|e| failed("end the recording of a step", e))?;
        let Some(graph) = graph else { bail!("cuda: a recorded step launched nothing") };
        let kept = kept_memory(&graph)?;
        if kept != 0 {
            bail!("cuda: a recorded step keeps {kept} tensors that it made, expected none")
        }
        if forgotten != FORGOTTEN.load(Relaxed) {
            bail!("cuda: a recorded step replaced memory that all steps share")
        }
        graph.upload().map_err(|e| failed("bring a recorded step to the device", e))?;
        Ok(Self { graph, counted, forgotten })
    }

    /// Returns whether all memory that the step knows is still where it was.
    pub fn is_valid(&self) -> bool {
        self.forgotten == FORGOTTEN.load(Relaxed)
    }

    /// Runs the step. All that it reads must still be there.
    ///
    /// # Errors
    /// If it is no longer valid, or the driver refuses the launch.
    pub fn launch(&self) -> Result<()> {
        if !self.is_valid() {
            bail!("cuda: memory that a recorded step knows was replaced; record it anew")
        }
        self.graph.launch().map_err(|e| failed("launch a recorded step", e))?;
        for runs in &self.counted {
            runs.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

/// Gives the memory that the pool keeps back to the device, because a graph takes its memory from the device.
fn give_back(device: &CudaDevice, stream: &CudaStream) -> Result<()> {
    // What was freed can be given back once the device has come as far.
    stream.synchronize().map_err(|e| failed("wait for the device", e))?;
    let pool = super::peak::pool(device)?;
    // SAFETY: the pool is the device's own.
    unsafe { result::mem_pool::trim_to(pool, 0) }.map_err(|e| failed("give back the pool's memory", e))
}

/// Returns how many more allocations than frees a graph holds.
fn kept_memory(graph: &CudaGraph) -> Result<i64> {
    let ask = |e| failed("look through a recorded step", e);
    let mut count = 0;
    // SAFETY: without a list the driver writes the number of nodes, then as many nodes as there is room for.
    let nodes = unsafe {
        sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &raw mut count).result().map_err(ask)?;
        let mut nodes = vec![std::ptr::null_mut(); count];
        sys::cuGraphGetNodes(graph.cu_graph(), nodes.as_mut_ptr(), &raw mut count).result().map_err(ask)?;
        nodes
    };
    let mut kept = 0;
    for node in nodes {
        let mut kind = sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
        // SAFETY: the node is the graph's, and the driver writes one of the types.
        unsafe { sys::cuGraphNodeGetType(node, &raw mut kind) }.result().map_err(ask)?;
        kept += match kind {
            sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_ALLOC => 1,
            sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_FREE => -1,
            _ => 0,
        };
    }
    Ok(kept)
}
