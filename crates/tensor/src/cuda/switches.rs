//! Choices between two ways of computing the same, which only measurements on a GPU can settle.
//!
//! `INVASPREAD_CUDA_SWITCHES` sets them for a process, as a list:
//! `convolution=legacy,norm=apart,sums=kernel,step=graph`. ARCHITECTURE.md lists what is undecided.

use std::sync::{Mutex, PoisonError};

/// The variable that sets them.
const VARIABLE: &str = "INVASPREAD_CUDA_SWITCHES";

/// What computes convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvolutionApi {
    /// Whatever is faster for a product: an algorithm of cuDNN's older API or a plan of its graph API.
    Both,
    /// Algorithms of cuDNN's older API.
    Legacy,
    /// Plans of cuDNN's graph API, and the older API for what has no plan.
    Backend,
}

/// The ways that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Switches {
    /// The interface of cuDNN that computes convolutions (`convolution=both`, `legacy` or `backend`).
    pub convolution: ConvolutionApi,
    /// A batch norm is one cooperative launch in each direction, whose blocks wait for the sums of all
    /// (`norm=together`), or two launches (`norm=apart`).
    pub norm_together: bool,
    /// A second gradient of a map is added by the convolution that computes it (`sums=convolution`), or by a
    /// kernel of its own (`sums=kernel`).
    pub sums_in_convolution: bool,
    /// The optimizer's step also writes the weights as cuDNN takes them, and takes their gradients as cuDNN
    /// writes them (`weights=kept`), or both are converted at each use (`weights=packed`).
    pub weights_kept: bool,
    /// A training step is recorded once and then launched as one CUDA graph (`step=graph`), or its operations
    /// are launched one by one (`step=launches`).
    pub step_as_graph: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            convolution: ConvolutionApi::Both,
            norm_together: true,
            sums_in_convolution: true,
            weights_kept: true,
            step_as_graph: false,
        }
    }
}

impl std::fmt::Display for Switches {
    /// Writes all settings as [`Switches::parse`] reads them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = |first: bool, [one, other]: [&'static str; 2]| if first { one } else { other };
        write!(
            f,
            "convolution={},norm={},sums={},weights={},step={}",
            match self.convolution {
                ConvolutionApi::Both => "both",
                ConvolutionApi::Legacy => "legacy",
                ConvolutionApi::Backend => "backend",
            },
            way(self.norm_together, ["together", "apart"]),
            way(self.sums_in_convolution, ["convolution", "kernel"]),
            way(self.weights_kept, ["kept", "packed"]),
            way(self.step_as_graph, ["graph", "launches"])
        )
    }
}

static TAKEN: Mutex<Option<Switches>> = Mutex::new(None);

impl Switches {
    /// Reads a list of settings; what it does not name stays as it is by default.
    ///
    /// # Errors
    /// Returns what was found and what is expected, if a setting is not known.
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut switches = Self::default();
        for setting in list.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            match setting {
                "convolution=both" => switches.convolution = ConvolutionApi::Both,
                "convolution=legacy" => switches.convolution = ConvolutionApi::Legacy,
                "convolution=backend" => switches.convolution = ConvolutionApi::Backend,
                "norm=together" => switches.norm_together = true,
                "norm=apart" => switches.norm_together = false,
                "sums=convolution" => switches.sums_in_convolution = true,
                "sums=kernel" => switches.sums_in_convolution = false,
                "weights=kept" => switches.weights_kept = true,
                "weights=packed" => switches.weights_kept = false,
                "step=graph" => switches.step_as_graph = true,
                "step=launches" => switches.step_as_graph = false,
                other => {
                    return Err(format!(
                        "{VARIABLE}: found {other:?}, expected convolution=both|legacy|backend, norm=together|apart, \
                         sums=convolution|kernel, weights=kept|packed or step=graph|launches, with commas between \
                         them"
                    ));
                }
            }
        }
        Ok(switches)
    }

    /// Returns the ways that this process takes.
    ///
    /// # Errors
    /// If the environment names a setting that is not known.
    pub fn taken() -> candle_core::Result<Self> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(switches) = *taken {
            return Ok(switches);
        }
        let switches = match std::env::var(VARIABLE) {
            Ok(list) => Self::parse(&list).map_err(candle_core::Error::Msg)?,
            Err(_) => Self::default(),
        };
        *taken = Some(switches);
        Ok(switches)
    }

    /// Makes this process take these ways from now on, whatever the environment says.
    pub fn take(self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(self);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{ConvolutionApi, Switches};

    #[test]
    fn settings_are_read_and_what_is_unknown_is_named() {
        assert_eq!(Switches::parse(""), Ok(Switches::default()));
        let some = Switches { norm_together: false, weights_kept: false, ..Switches::default() };
        assert_eq!(Switches::parse("norm=apart, weights=packed"), Ok(some));
        let backend = Switches { convolution: ConvolutionApi::Backend, ..Switches::default() };
        assert_eq!(Switches::parse("convolution=backend"), Ok(backend));
        let graph = Switches { step_as_graph: true, ..Switches::default() };
        assert_eq!(Switches::parse("step=launches,step=graph"), Ok(graph));
        for switches in [some, graph, backend, Switches { sums_in_convolution: false, ..graph }] {
            assert_eq!(Switches::parse(&switches.to_string()), Ok(switches));
        }
        let error = Switches::parse("norm=both").unwrap_err();
        assert!(error.contains("norm=both") && error.contains("norm=together|apart"), "{error}");
    }
}
