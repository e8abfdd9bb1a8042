//! A plan of cuDNN: an engine, made ready for one product, and the addresses that it has run on.
//!
//! cuDNN is told of addresses by a variant pack, which cannot be changed. A step runs most products on
//! addresses that an earlier step had, so packs are kept. To make one takes less than a microsecond of the
//! host.

use super::super::algorithms::{Engine, Product};
use super::descriptor::{Descriptor, Kind, Name};
use super::operation_graph::{Graph, IDS, may_be_taken};
use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::{Result, bail};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

/// The most plans that are measured. cuDNN lists the most promising first, about forty in all.
const PLANS: usize = 16;

/// The most variant packs that a plan keeps. A run whose addresses change in each step must not keep them
/// all.
const PACKS: usize = 64;

/// A finalized plan.
#[derive(Debug)]
pub(super) struct Plan {
    finalized: Descriptor,
    graph: Rc<Graph>,
    /// Bytes of scratch memory.
    pub(super) workspace: usize,
    /// A finalized variant pack for the addresses of input, weight, output and scratch memory.
    packs: HashMap<[u64; 4], Descriptor>,
}

impl Plan {
    /// Makes the plan of a configuration of an engine for a graph.
    fn new(graph: Rc<Graph>, config: &Descriptor) -> Result<Self> {
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
        plan.set_handle(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, graph.handle)?;
        plan.set_parts(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &[config])?;
        let plan = plan.finalize("make a plan")?;
        let bytes: i64 = plan.get_one(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)?;
        Ok(Self {
            finalized: plan,
            graph,
            workspace: usize::try_from(bytes).unwrap_or(0),
            packs: HashMap::new(),
        })
    }

    /// Runs the plan on the addresses of input, weight and output (or of their gradients), with scratch
    /// memory of the size that it needs.
    pub(super) fn run(&mut self, [x, w, y]: [u64; 3], workspace: u64) -> Result<()> {
        if self.packs.len() >= PACKS && !self.packs.contains_key(&[x, w, y, workspace]) {
            self.packs.clear();
        }
        let pack = match self.packs.entry([x, w, y, workspace]) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
                pack.set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &IDS)?;
                pack.set_addresses(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &[x, w, y])?;
                pack.set_addresses(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[workspace])?;
                place.insert(pack.finalize("name the addresses")?)
            }
        };
        self.finalized.execute(self.graph.handle, pack)
    }
}

/// Returns the plans that may be taken, the most promising first, each with the engine and the knobs that
/// make it again. None needs more than `most_workspace` bytes of scratch memory.
pub(super) fn plans(
    handle: sys::cudnnHandle_t,
    product: Product,
    most_workspace: usize,
) -> Result<Vec<(Engine, Plan)>> {
    use sys::cudnnBackendHeurMode_t::{CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    let graph = Rc::new(Graph::new(handle, product)?);
    let mut plans = Vec::new();
    for mode in [CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK] {
        for config in graph.offers(mode)? {
            if plans.len() < PLANS
                && let Some(engine) = may_be_taken(&config, graph.full_f32)?
                // An engine may refuse a shape; the heuristics do not know of every reason.
                && let Ok(plan) = Plan::new(Rc::clone(&graph), &config)
                && plan.workspace <= most_workspace
            {
                plans.push((engine, plan));
            }
        }
        if !plans.is_empty() {
            break;
        }
    }
    Ok(plans)
}

/// Makes the plan of an engine with its knobs.
pub(super) fn remake(
    handle: sys::cudnnHandle_t,
    product: Product,
    engine: &Engine,
    most_workspace: usize,
) -> Result<Plan> {
    let graph = Rc::new(Graph::new(handle, product)?);
    let config = graph.configuration(engine)?;
    if may_be_taken(&config, graph.full_f32)?.is_none() {
        bail!("cuda: cuDNN's engine {} is not deterministic or not exact enough", engine.index)
    }
    let plan = Plan::new(graph, &config)?;
    if plan.workspace > most_workspace {
        bail!("cuda: the plan needs {} bytes of scratch memory, more than {most_workspace}", plan.workspace)
    }
    Ok(plan)
}
