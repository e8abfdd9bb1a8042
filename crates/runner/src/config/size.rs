//! What a run needs, computed before it begins: its memory, from the shapes of the network, and the number of
//! its steps. Each is a lower bound, so that a run that would fit is never refused.

use super::sections::Architecture;
use super::tables::lookup;
use super::{Config, ConfigError, Room};
use crate::memory::{Need, check};
use crate::methods::{Layer, Sizes};
use invaspread_tensor::Precision;

/// Up to this number every whole number has an exact f64, in which times and shares of a run are computed.
const MOST: u64 = 1 << 53;

/// Bytes of a number in f32.
const FLOAT: u128 = 4;

/// Number of images that are embedded together when a network is measured.
const EMBEDDED_TOGETHER: u128 = 250;

/// What a command does with a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The network is trained and measured.
    Train,
    /// The network is measured.
    Measure,
    /// The network's weights are read and written.
    Convert,
}

impl Config {
    /// Checks that a run of this config fits into the memory of its device.
    ///
    /// # Errors
    /// Returns an error if it does not; the error says how much it needs at least, because of which settings,
    /// and how much there is.
    pub fn fits(&self, room: Room<'_>) -> Result<(), ConfigError> {
        self.fits_for(Work::Train, room)
    }

    /// Checks that `work` fits into the memory of the config's device, that the network's pool fits its last
    /// map, that a vision transformer's patches fit the views, and that the settings of a run that is to be
    /// trained have an effect. If the amount of memory is unknown, everything fits.
    ///
    /// # Errors
    /// Returns the errors of [`Config::fits`], one for a pool that does not leave one value for each channel,
    /// one for patches that do not divide a view, and one for settings without effect.
    pub fn fits_for(&self, work: Work, room: Room<'_>) -> Result<(), ConfigError> {
        if work == Work::Train {
            self.has_effect()?;
        }
        self.patches_fit_views_of(self.augment.size)?;
        if work != Work::Convert {
            self.views_fit()?;
        }
        match room(self.device.resolve()) {
            Some(memory) => Ok(check(self.needs(work)?, memory)?),
            None => Ok(()),
        }
    }

    /// Checks that the network fits the views of all sizes. The files of the model and of the augmentation
    /// resolve without each other, so only a run can be checked.
    fn views_fit(&self) -> Result<(), ConfigError> {
        let further = self.method.more_views(&self.augment);
        let mut sizes =
            std::iter::once(self.augment.size).chain(further.iter().map(|group| group.augment.size));
        sizes.try_for_each(|size| {
            self.patches_fit_views_of(size)?;
            self.pool_fits_views_of(size)
        })
    }

    /// Checks that a vision transformer's patches divide views of this size.
    fn patches_fit_views_of(&self, size: usize) -> Result<(), ConfigError> {
        let patch = self.model.patch();
        if !self.model.is_vit() || (size > 0 && size.is_multiple_of(patch)) {
            return Ok(());
        }
        let smaller = size / patch * patch;
        let sizes =
            if smaller == 0 { patch.to_string() } else { format!("{smaller} or {}", smaller + patch) };
        Err(ConfigError::Value {
            key: "model.patch".to_owned(),
            origin: "the config".to_owned(),
            found: patch.to_string(),
            expected: format!(
                "a divisor of {size}, the side of the views (augment.size, or the method's own); with patches of {patch}, views of {sizes} pixels fit"
            ),
        })
    }

    /// Checks that the average pool leaves one value for each channel of the last map.
    fn pool_fits_views_of(&self, size: usize) -> Result<(), ConfigError> {
        let pool = self.model.pool as u128;
        let map = self.recipe().network.size(size).map;
        // Inception-v1 pools its whole map, and a vision transformer has no pool.
        let pools = self.model.architecture.unwrap_or_default() == Architecture::Resnet && pool != 0;
        if !pools || (pool <= map && map / 2 < pool) {
            return Ok(());
        }
        Err(ConfigError::Value {
            key: "model.pool".to_owned(),
            origin: "the config".to_owned(),
            found: pool.to_string(),
            expected: format!(
                "{map}, which is the side of the last map for views of {size} x {size} pixels (augment.size, or the method's own), a smaller pool above half of it, or 0 for the whole map"
            ),
        })
    }

    /// Returns a lower bound of what `work` holds in memory at one time.
    fn needs(&self, work: Work) -> Result<Vec<Need>, ConfigError> {
        let values = self.table()?;
        let named = |keys: &[&str]| self.named(&values, keys);
        let network = self.recipe().network;
        let size = network.size(self.augment.size);
        let (trains, images) = (work == Work::Train && self.method.trains(), self.images());
        let dim = self.model.embedding as u128;
        let batch = self.optim.batch_size as u128;
        let rows = batch.saturating_mul(self.method.views() as u128);
        // A vision transformer has its width and depth from its architecture.
        let is_vit = self.model.is_vit();
        let [first, second] =
            if is_vit { ["model.architecture", "model.patch"] } else { ["model.width", "model.depth"] };
        let of_maps = if is_vit { second } else { first };
        let model = named(&[first, "model.embedding", second]);
        let batches = named(&["optim.batch_size", of_maps, "augment.size"]);
        let mut needs = Vec::new();
        let mut need = |what: String, factors: &[u128]| {
            let bytes = factors.iter().fold(1, |bytes: u128, factor| bytes.saturating_mul(*factor));
            needs.push(Need { what, bytes });
        };
        // On a GPU, the copy of the weights of the best epoch so far. On the CPU, the copy of weights and
        // momentum from which a checkpoint is written, with that of the method's state.
        let copies = if self.device.is_cuda() { 1 } else { 2 };
        let sizes = Sizes {
            rows,
            batch,
            images,
            dim,
            pooled: size.pooled,
            parameters: size.parameters,
            copies: copies - 1,
        };
        // Of a map; sums and all that follows the pool have f32.
        let number = if self.precision == Precision::Bf16 { 2 } else { FLOAT };
        if trains {
            need(
                format!("weights, gradients and momentum of the network ({model})"),
                &[3, size.parameters, FLOAT],
            );
            need(format!("copies for checkpoints ({model})"), &[copies, size.parameters, FLOAT]);
            let further: u128 = self.method.more_views(&self.augment).iter().fold(0, |sum, group| {
                let of_view = network.size(group.augment.size).activations;
                sum.saturating_add(of_view.saturating_mul(batch).saturating_mul(group.views as u128))
            });
            let activations = rows.saturating_mul(size.activations).saturating_add(further);
            need(format!("activations of a batch ({batches})"), &[activations, number]);
        } else {
            need(format!("weights of the network ({model})"), &[size.parameters, FLOAT]);
        }
        if trains {
            for of_method in self.method.memory(&sizes) {
                need(format!("{} ({})", of_method.what, named(&of_method.keys)), &[of_method.numbers, FLOAT]);
            }
        }
        if work != Work::Convert {
            let together = images.min(EMBEDDED_TOGETHER);
            let length = if self.eval.layer == Some(Layer::Pooled) { size.pooled } else { dim };
            let of_images = named(&["model.embedding", "data.synthetic.train", "data.synthetic.test"]);
            need(format!("embeddings that are measured ({of_images})"), &[images, length, FLOAT]);
            let of_batch = named(&[of_maps, "augment.size"]);
            if !trains {
                need(
                    format!("activations of {together} images ({of_batch})"),
                    &[together, size.largest, number],
                );
            }
            if self.data.name == "synthetic" {
                let side = self.data.synthetic.image_size as u128;
                let keys = ["data.synthetic.train", "data.synthetic.test", "data.synthetic.image_size"];
                need(format!("generated images ({})", named(&keys)), &[images, side, side, 3]);
            }
        }
        Ok(needs)
    }

    /// Returns `key=value` of `keys`, which a user can change. Keys of generated images are left out for
    /// other data sets.
    fn named(&self, values: &toml::Table, keys: &[&str]) -> String {
        let generated = self.data.name == "synthetic";
        let keys = keys.iter().filter(|key| generated || !key.starts_with("data.synthetic"));
        let value = |key: &str| lookup(values, key).map_or_else(|| "null".to_owned(), ToString::to_string);
        keys.map(|key| format!("{key}={}", value(key))).collect::<Vec<_>>().join(", ")
    }

    /// Returns a lower bound of the number of images that are held and measured: the generated ones, or one
    /// batch of a set on disk.
    fn images(&self) -> u128 {
        let kept = |all: usize, keep: Option<usize>| all.min(keep.unwrap_or(all)) as u128;
        if self.data.name == "synthetic" {
            let sizes = &self.data.synthetic;
            // Held-out images are training images.
            let is_held_out = self.data.held_out == Some(true);
            let test = kept(if is_held_out { sizes.train } else { sizes.test }, self.data.test_subset);
            let left = if is_held_out { sizes.train.saturating_sub(test as usize) } else { sizes.train };
            kept(left, self.data.subset) + test
        } else {
            self.optim.batch_size as u128
        }
    }

    /// Checks that the steps of a run can be counted: at least one for each epoch, and for generated images
    /// the number of batches.
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
            let sizes = format!(
                "data.synthetic.train={}, optim.batch_size={}",
                self.data.synthetic.train, optim.batch_size
            );
            let found = format!("{}, of {steps} steps each ({sizes})", optim.epochs);
            return Err(("optim.epochs", found, format!("{most} steps in all")));
        }
        let of_kmeans = eval.retrieval.iter().flat_map(|retrieval| {
            [
                ("eval.retrieval.kmeans_restarts", retrieval.kmeans_restarts as u64),
                ("eval.retrieval.kmeans_iterations", retrieval.iterations() as u64),
            ]
        });
        for (key, count) in of_kmeans {
            if count > MOST {
                return Err((key, count.to_string(), most));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Work;
    use crate::config::{Override, resolve};

    /// Returns the bytes that `work` needs for what begins with `what`.
    fn needed(work: Work, arguments: &[&str], what: &str) -> u128 {
        let overrides: Vec<Override> = arguments.iter().map(|one| Override::parse(one).unwrap()).collect();
        let needs = resolve(&overrides).unwrap().config.needs(work).unwrap();
        needs.iter().filter(|need| need.what.starts_with(what)).map(|need| need.bytes).sum()
    }

    #[test]
    fn maps_in_bf16_take_half_the_memory_in_training_and_in_measuring() {
        for (work, what) in
            [(Work::Train, "activations of a batch"), (Work::Measure, "activations of 250 images")]
        {
            let bytes = |precision| needed(work, &["device=cpu", precision], what);
            let (single, half) = (bytes("precision=f32"), bytes("precision=bf16"));
            assert!(half > 0 && single == 2 * half, "{what}: {single} and {half}");
        }
    }

    #[test]
    fn settings_without_effect_are_refused_in_training_alone() {
        for arguments in [
            &["method=swav", "method.queue=160", "optim.epochs=2"][..],
            &["method=swav", "method.small_views=2", "model.pool=0", "augment=none"],
        ] {
            let overrides: Vec<Override> =
                arguments.iter().map(|one| Override::parse(one).unwrap()).collect();
            let config = resolve(&overrides).unwrap().config;
            config.fits_for(Work::Measure, &|_| None).unwrap();
            config.fits_for(Work::Convert, &|_| None).unwrap();
            assert!(config.fits_for(Work::Train, &|_| None).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn held_out_images_are_counted_once() {
        let images = |arguments: &[&str]| {
            let overrides: Vec<Override> =
                arguments.iter().map(|one| Override::parse(one).unwrap()).collect();
            resolve(&overrides).unwrap().config.images()
        };
        let sizes = ["data.synthetic.train=1000", "data.synthetic.test=300", "data.test_subset=400"];
        let [train, test, subset] = sizes;
        assert_eq!(images(&sizes), 1300);
        assert_eq!(images(&[train, test, subset, "data.held_out=true"]), 1000);
        assert_eq!(images(&[train, test, subset, "data.held_out=true", "data.subset=100"]), 500);
    }

    #[test]
    fn a_methods_own_networks_are_counted() {
        let of = |method, what| needed(Work::Train, &["device=cpu", method], what);
        // BYOL's projector: 512 x 4,096 and 4,096 x 256 weights, each with gradient, momentum and two copies.
        let projector = (512 + 256) * 4096;
        assert_eq!(of("method=byol", "a projector"), projector * 5 * 4);
        let network = of("method=byol", "weights, gradients and momentum of the network") / (3 * 4);
        assert_eq!(of("method=byol", "a momentum encoder"), (network + projector) * 2 * 4);
        assert_eq!(of("method=simsiam", "a momentum encoder"), 0);
        for (method, what) in
            [("method=simsiam", "a predictor"), ("method=swav", "prototypes"), ("method=moco_v2", "a queue")]
        {
            assert!(of(method, what) > 0, "{method}: {what}");
        }
    }
}
