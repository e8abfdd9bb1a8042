//! DeepCluster: in each epoch the network's own features are clustered, and a new classifier learns the
//! clusters.
//!
//! Before each epoch, the projections of the whole training set are computed in evaluation mode, PCA-whitened
//! to at most 256 dimensions, scaled to length 1 and clustered by k-means. A new linear head on the
//! projection is drawn from N(0, 0.01²). The images of the epoch are then drawn uniformly over the clusters.
//! The head has an optimizer of its own, without momentum, with the learning rate of the network. This is the
//! procedure of the released code, which used `AlexNet` or VGG on Sobel-filtered images and put the head on a
//! `ReLU` layer; here the network is the paper's.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, Var, bail};
use invaspread_losses::{balanced_order, cluster_cross_entropy};
use invaspread_metrics::{KMeans, MetricError, Rows, Seeding, Whitening, l2_normalize_rows};
use invaspread_models::Output;
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::{Sgd, SgdConfig, assign};

use super::state::{nothing_left, take};
use super::{
    Features, Layer, Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step, TakenStep,
};
use crate::checkpoint::NamedTensors;
use crate::settings::Refusal;

const ASSIGNMENTS: &str = "assignments";
const WEIGHT: &str = "head.weight";
const BIAS: &str = "head.bias";
/// Dimensions after PCA in the released code.
const COMPONENTS: usize = 256;
const HEAD_DEVIATION: f64 = 0.01;

/// Largest number of iterations of k-means: f64, in which the times of a run are computed, counts exactly up
/// to here.
const MOST_ITERATIONS: usize = 1 << 53;

crate::settings! {
    /// Settings of DeepCluster.
    pub struct Settings {
        /// Number of clusters, from 2 to the number of images.
        clusters: usize = 1000,
        /// Iterations of k-means in each epoch, at least 1.
        kmeans_iterations: usize = 20,
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "deepcluster";
    const LABEL: &'static str = "DeepCluster";

    fn needs_features(&self) -> bool {
        true
    }

    fn check(&self) -> std::result::Result<(), Refusal> {
        Refusal::unless(self.clusters >= 2, "clusters", self.clusters, "at least 2")?;
        let iterations = self.kmeans_iterations;
        let expected = format!("from 1 to {MOST_ITERATIONS} (2^53)");
        Refusal::unless(
            (1..=MOST_ITERATIONS).contains(&iterations),
            "kmeans_iterations",
            iterations,
            &expected,
        )
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let keys = ["method.clusters", "model.embedding"];
        let what = "weights, gradients and momentum of the clusters";
        vec![MethodMemory::new(what, &keys, &[3, self.clusters as u128, sizes.dim])]
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        Ok(Box::new(DeepClusterMethod::new(facts, self.clone())?))
    }

    fn small() -> Vec<Self> {
        [4, 20].map(|clusters| Self { clusters, ..Self::default() }).to_vec()
    }
}

/// The method: it clusters the features and learns the clusters, in turn.
struct DeepClusterMethod {
    facts: RunFacts,
    settings: Settings,
    /// Cluster of each image; empty before the first epoch.
    assignments: Vec<u32>,
    weight: Var,
    bias: Var,
    optimizer: Sgd,
}

impl DeepClusterMethod {
    fn new(facts: RunFacts, settings: Settings) -> Result<Self> {
        if settings.clusters > facts.images {
            bail!(
                "deepcluster: found {} clusters for {} images; set method.clusters to at most the number of images, or raise data.subset",
                settings.clusters,
                facts.images
            )
        }
        let device = facts.device.open()?;
        let zeros = vec![0.0_f32; settings.clusters * facts.dim];
        let weight = Var::from_vec(zeros, (settings.clusters, facts.dim), &device)?;
        let bias = Var::from_vec(vec![0.0_f32; settings.clusters], settings.clusters, &device)?;
        let config = SgdConfig { momentum: 0.0, weight_decay: facts.weight_decay };
        let optimizer =
            Sgd::new(vec![(WEIGHT.to_owned(), weight.clone()), (BIAS.to_owned(), bias.clone())], config)?;
        Ok(Self { facts, settings, assignments: Vec::new(), weight, bias, optimizer })
    }

    fn cluster(&self, epoch: u64, features: &Features) -> std::result::Result<Vec<u32>, MetricError> {
        let rows = Rows::new(&features.values, features.dim);
        let whitening = Whitening::fit(rows, COMPONENTS.min(features.dim))?;
        let mut values = whitening.transform(rows);
        l2_normalize_rows(&mut values, whitening.components());
        let kmeans = KMeans {
            clusters: self.settings.clusters,
            iterations: self.settings.kmeans_iterations,
            tolerance: 0.0,
            restarts: 1,
            seeding: Seeding::Random,
            seed: self.facts.seed,
            epoch,
            device: self.facts.device,
        };
        Ok(kmeans.fit(Rows::new(&values, whitening.components()))?.assignments)
    }
}

impl Method for DeepClusterMethod {
    fn begin_epoch(&mut self, epoch: u64, features: &mut dyn FnMut(Layer) -> Result<Features>) -> Result<()> {
        let features = features(Layer::Projection)?;
        self.assignments = self.cluster(epoch, &features).map_err(candle_core::Error::wrap)?;
        let mut stream = Stream::new(self.facts.seed, Purpose::ClassifierHead, epoch, 0);
        let shape = self.weight.dims().to_vec();
        let fresh: Vec<f32> =
            (0..self.weight.elem_count()).map(|_| (HEAD_DEVIATION * stream.normal()) as f32).collect();
        assign(&self.weight, &Tensor::from_vec(fresh, shape, self.weight.device())?)?;
        assign(&self.bias, &self.bias.zeros_like()?)
    }

    fn order(&self, epoch: u64) -> Result<Option<Vec<u32>>> {
        balanced_order(&self.assignments, self.settings.clusters, self.facts.seed, epoch).map(Some)
    }

    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor> {
        let logits = output.projection.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?;
        let labels: Vec<u32> = step.index.iter().map(|&i| self.assignments[i as usize]).collect();
        cluster_cross_entropy(&logits, &labels)
    }

    fn after_step(&mut self, taken: &TakenStep<'_>) -> Result<()> {
        self.optimizer.step(taken.gradients, taken.lr)
    }

    fn state(&self) -> Result<NamedTensors> {
        let mut state = vec![
            (WEIGHT.to_owned(), self.weight.as_detached_tensor().to_device(&Device::Cpu)?),
            (BIAS.to_owned(), self.bias.as_detached_tensor().to_device(&Device::Cpu)?),
        ];
        if !self.assignments.is_empty() {
            state.push((ASSIGNMENTS.to_owned(), Tensor::new(self.assignments.as_slice(), &Device::Cpu)?));
        }
        Ok(state)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        let device = self.weight.device().clone();
        let weight = take(&mut state, WEIGHT, &[self.settings.clusters, self.facts.dim])?;
        assign(&self.weight, &weight.to_device(&device)?)?;
        assign(&self.bias, &take(&mut state, BIAS, &[self.settings.clusters])?.to_device(&device)?)?;
        // Before the first epoch nothing has been clustered yet.
        self.assignments = if state.contains_key(ASSIGNMENTS) {
            take(&mut state, ASSIGNMENTS, &[self.facts.images])?.to_vec1::<u32>()?
        } else {
            Vec::new()
        };
        nothing_left(&state)
    }
}
