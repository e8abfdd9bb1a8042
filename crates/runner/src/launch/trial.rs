//! Trains a method for a few seconds, twice, to check that it trains on this machine and gives the same
//! losses both times.

use std::path::Path;

use invaspread_tensor::DeviceKind;

use super::run_all;
use crate::config::{ConfigError, Override, plan_runs};
use crate::engine::{End, Observer, StepTaken, Stop};
use crate::methods::ChosenMethod;

/// A few dozen generated images of the smallest size, a network of four channels, one epoch.
const SETTINGS: [&str; 15] = [
    "dataset=synthetic",
    "profile=smoke",
    "seed=0",
    "model.width=4",
    "model.embedding=8",
    "model.pool=2",
    "augment.size=16",
    "data.synthetic.image_size=16",
    "data.synthetic.train=64",
    "data.synthetic.test=16",
    "data.subset=64",
    "data.test_subset=16",
    "optim.epochs=1",
    "optim.batch_size=16",
    "eval.k=5",
];

/// The outcome of trying a method.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The loss of each step.
    pub losses: Vec<f64>,
    /// Whether the losses of a second run are equal bit for bit. On a GPU, sums may be taken in another
    /// order.
    pub is_same_twice: bool,
}

/// Trains `method` for four steps on `device`, twice, each time in a folder that is removed afterwards.
///
/// # Errors
/// Returns a text that says why it cannot be trained.
pub fn try_out(method: &ChosenMethod, device: DeviceKind) -> Result<Trial, String> {
    let losses = once(method, device)?;
    let is_same_twice = bits(&once(method, device)?) == bits(&losses);
    Ok(Trial { losses, is_same_twice })
}

fn bits(losses: &[f64]) -> Vec<u64> {
    losses.iter().map(|loss| loss.to_bits()).collect()
}

/// Returns the losses of one run.
fn once(method: &ChosenMethod, device: DeviceKind) -> Result<Vec<f64>, String> {
    let folder =
        tempfile::tempdir().map_err(|error| format!("failed to make a folder for the run: {error}"))?;
    let overrides = overrides(method, device, folder.path()).map_err(|error| error.to_string())?;
    let sweep = plan_runs(&overrides, false, &|_| None).map_err(|error| error.to_string())?;
    let mut losses = Losses::default();
    let reports = run_all(&sweep.planned, folder.path(), &mut losses, &Stop::new());
    match reports.into_iter().map(|report| report.end).next() {
        Some(End::Failed { message }) => Err(message),
        _ => Ok(losses.0),
    }
}

fn overrides(method: &ChosenMethod, device: DeviceKind, root: &Path) -> Result<Vec<Override>, ConfigError> {
    let settings = method.settings();
    let of_method = settings.iter().map(|(key, value)| format!("method.{key}={value}"));
    let named = [format!("method.name={}", method.name()), format!("device={device}")];
    let all = SETTINGS.iter().map(|&text| text.to_owned()).chain(named).chain(of_method);
    let mut overrides = all.map(|text| Override::parse(&text)).collect::<Result<Vec<_>, _>>()?;
    overrides.push(Override::path("the folder of a trial", "runs.root", root)?);
    Ok(overrides)
}

/// Keeps the losses of the steps.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn step(&mut self, event: &StepTaken) {
        self.0.push(event.loss);
    }
}

#[cfg(test)]
mod tests {
    use super::try_out;
    use crate::methods::Registry;
    use invaspread_tensor::DeviceKind;

    #[test]
    fn every_method_of_the_registry_can_be_tried_out() {
        for entry in Registry::installed().entries() {
            let method = &entry.small()[0];
            let trial =
                try_out(method, DeviceKind::Cpu).unwrap_or_else(|why| panic!("{}: {why}", entry.name()));
            assert_eq!(trial.losses.len(), if method.trains() { 4 } else { 0 }, "{method:?}");
            assert!(trial.is_same_twice && trial.losses.iter().all(|loss| loss.is_finite()), "{method:?}");
        }
    }
}
