//! What a run takes, known before it begins: memory by the network's own shapes, and the number of its steps. Each is a lower bound, so that
//! nothing is refused that could run.

use super::{Config, ConfigError, MethodName, Precision, Room};
use crate::memory::{Need, check};
use crate::methods::Layer;

/// Numbers up to here are whole in f64, in which times and shares of a run are computed.
const MOST: u64 = 1 << 53;

/// Bytes of a number in f32.
const FLOAT: u128 = 4;

/// Images that are embedded together when a network is measured.
const EMBEDDED_TOGETHER: u128 = 250;

/// What is done with a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It is trained, and measured.
    Train,
    /// It is measured.
    Measure,
    /// Its weights are read and written.
    Convert,
}

impl Config {
    /// Checks that a run of this config fits into the memory of its device.
    ///
    /// # Errors
    /// If it does not: how much it would take at least, by which settings, and how much there is.
    pub fn fits(&self, room: Room<'_>) -> Result<(), ConfigError> {
        self.fits_for(Work::Train, room)
    }

    /// Checks that `work` fits into the memory of the config's device. Where the amount of memory is not known, everything does.
    ///
    /// # Errors
    /// As [`Config::fits`].
    pub fn fits_for(&self, work: Work, room: Room<'_>) -> Result<(), ConfigError> {
        match room(self.device.resolve()) {
            Some(memory) => Ok(check(self.needs(work), memory)?),
            None => Ok(()),
        }
    }

    /// What `work` holds in memory at one time, at least.
    fn needs(&self, work: Work) -> Vec<Need> {
        let network = self.recipe().network;
        let size = network.size(self.augment.size);
        let (trains, images) = (work == Work::Train && self.method.name != MethodName::Random, self.images());
        let dim = self.model.embedding as u128;
        let batch = self.optim.batch_size as u128;
        let rows = batch.saturating_mul(self.views());
        let model = self.named(&["model.width", "model.embedding", "model.depth"]);
        let batches = self.named(&["optim.batch_size", "model.width", "augment.size"]);
        let mut needs = Vec::new();
        let mut need = |what: String, factors: &[u128]| {
            let bytes = factors.iter().fold(1, |bytes: u128, factor| bytes.saturating_mul(*factor));
            needs.push(Need { what, bytes });
        };
        if trains {
            need(
                format!("weights, gradients and momentum of the network ({model})"),
                &[3, size.parameters, FLOAT],
            );
            let number = if self.precision == Precision::Bf16 { 2 } else { FLOAT };
            need(format!("activations of a batch ({batches})"), &[rows, size.activations, number]);
        } else {
            need(format!("weights of the network ({model})"), &[size.parameters, FLOAT]);
        }
        if trains {
            self.method_needs([rows, batch, images, dim], &mut need);
        }
        if work != Work::Convert {
            let together = images.min(EMBEDDED_TOGETHER);
            let length = if self.eval.layer == Some(Layer::Pooled) { size.pooled } else { dim };
            let of_images = self.named(&["model.embedding", "data.synthetic.train", "data.synthetic.test"]);
            need(format!("embeddings that are measured ({of_images})"), &[images, length, FLOAT]);
            let of_batch = self.named(&["model.width", "augment.size"]);
            if !trains {
                need(
                    format!("activations of {together} images ({of_batch})"),
                    &[together, size.largest, FLOAT],
                );
            }
            if self.data.name == "synthetic" {
                let side = self.data.synthetic.image_size as u128;
                let keys = ["data.synthetic.train", "data.synthetic.test", "data.synthetic.image_size"];
                need(format!("generated images ({})", self.named(&keys)), &[images, side, side, 3]);
            }
        }
        needs
    }

    /// What the method remembers and compares, of `[rows, batch, images, dim]`: views of a batch, its images, training images and the length of
    /// an embedding.
    fn method_needs(&self, [rows, batch, images, dim]: [u128; 4], need: &mut impl FnMut(String, &[u128])) {
        let bank = || {
            format!(
                "a memory of all training images ({})",
                self.named(&["model.embedding", "data.synthetic.train"])
            )
        };
        match self.method.name {
            MethodName::Random => {}
            MethodName::Invaspread | MethodName::Triplet | MethodName::TripletHard => {
                let keys = self.named(&["optim.batch_size"]);
                need(format!("similarities within a batch ({keys})"), &[batch, rows.max(batch), FLOAT]);
            }
            MethodName::Exemplar => need(bank(), &[3, images, dim, FLOAT]),
            MethodName::Npsoftmax => need(bank(), &[images, dim, FLOAT]),
            MethodName::Nce => {
                need(bank(), &[images, dim, FLOAT]);
                let keys = self.named(&["loss.noise", "optim.batch_size"]);
                need(format!("noise of a batch ({keys})"), &[batch, self.loss.noise as u128, FLOAT]);
            }
            MethodName::Deepcluster => {
                let keys = self.named(&["method.clusters", "model.embedding"]);
                let clusters = self.method.clusters as u128;
                need(
                    format!("weights, gradients and momentum of the clusters ({keys})"),
                    &[3, clusters, dim, FLOAT],
                );
            }
        }
    }

    /// `key=value` of those keys, for people to change.
    fn named(&self, keys: &[&str]) -> String {
        let value = |key: &str| match key {
            "model.width" => self.model.width,
            "model.embedding" => self.model.embedding,
            "model.depth" => self.model.depth,
            "optim.batch_size" => self.optim.batch_size,
            "augment.size" => self.augment.size,
            "loss.noise" => self.loss.noise,
            "method.clusters" => self.method.clusters,
            "data.synthetic.train" => self.data.synthetic.train,
            "data.synthetic.test" => self.data.synthetic.test,
            _ => self.data.synthetic.image_size,
        };
        let generated = self.data.name == "synthetic";
        let keys = keys.iter().filter(|key| generated || !key.starts_with("data.synthetic"));
        keys.map(|key| format!("{key}={}", value(key))).collect::<Vec<_>>().join(", ")
    }

    /// Views of each image in a batch.
    pub(super) fn views(&self) -> u128 {
        match self.method.name {
            MethodName::Invaspread | MethodName::Triplet | MethodName::TripletHard => 2,
            _ => 1,
        }
    }

    /// Images that are held and measured, at least: what is generated; of a set on disk, a whole batch of which must be there.
    fn images(&self) -> u128 {
        let kept = |all: usize, keep: Option<usize>| all.min(keep.unwrap_or(all)) as u128;
        if self.data.name == "synthetic" {
            let sizes = &self.data.synthetic;
            kept(sizes.train, self.data.subset) + kept(sizes.test, self.data.test_subset)
        } else {
            self.optim.batch_size as u128
        }
    }

    /// Checks that a run's steps can be counted: at least one an epoch, and of generated images as many as there are batches.
    pub(super) fn check_steps(&self) -> Result<(), (&'static str, String, String)> {
        let most = format!("at most {MOST} (2^53)");
        let Config { optim, eval, .. } = self;
        if optim.epochs > MOST {
            return Err(("optim.epochs", optim.epochs.to_string(), most));
        }
        let images = if self.data.name == "synthetic" {
            self.data.synthetic.train.min(self.data.subset.unwrap_or(usize::MAX))
        } else {
            0
        };
        let steps = (images / optim.batch_size.max(1)).max(1) as u128;
        if u128::from(optim.epochs).saturating_mul(steps) > MOST.into() {
            let sizes = self.named(&["data.synthetic.train", "optim.batch_size"]);
            let found = format!("{}, of {steps} steps each ({sizes})", optim.epochs);
            return Err(("optim.epochs", found, format!("{most} steps in all")));
        }
        let iterations = self.method.kmeans_iterations as u64;
        if iterations > MOST {
            return Err(("method.kmeans_iterations", iterations.to_string(), most));
        }
        let restarts = eval.retrieval.as_ref().map_or(1, |retrieval| retrieval.kmeans_restarts as u64);
        if restarts > MOST {
            return Err(("eval.retrieval.kmeans_restarts", restarts.to_string(), most));
        }
        Ok(())
    }
}
