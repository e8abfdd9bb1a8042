//! Steps that a GPU repeats without the host: the first two are launched operation by operation, then the
//! step is recorded and launched as one CUDA graph.
//!
//! The device counts the steps ([`StepCounter`]) and looks up by that number what changes from step to step.
//! So all steps are the same work: the first, the recorded ones, and those after a recording that failed.

use candle_core::{Device, Result, Tensor, bail};
use invaspread_tensor::cuda::{HostLog, StepCounter, StepGraph, Switches};

use super::feed::ImageFeed;
use super::learner::Learner;
use crate::methods::Step;

/// The repeated steps of a run.
pub(crate) struct RepeatedSteps {
    counter: StepCounter,
    way: Way,
    /// Steps of this epoch that are still to come.
    left: usize,
    said: Option<String>,
}

/// How the next step is launched.
enum Way {
    /// Operation by operation; the number counts the steps that were launched in this way.
    First(usize),
    /// As a graph, while it is valid.
    Recorded(StepGraph),
    /// Operation by operation, to the end.
    OneByOne,
}

impl RepeatedSteps {
    /// The number of steps before the recording. The first step makes what is made once, such as scratch
    /// memory and cuDNN's choice of algorithms; the second finds all of it.
    pub(crate) const FIRST_STEPS: usize = 2;

    /// Prepares the repeated steps of `learner` on the views of `feed`, for epochs of at most `steps` steps.
    /// Returns no steps if the switch is off, the learner is on the CPU, or its steps cannot be repeated; in
    /// the last case, the second value is the reason.
    ///
    /// # Errors
    /// Returns an error if the environment names an unknown switch, or the device has too little memory.
    pub(crate) fn of_feed(
        learner: &Learner,
        feed: &mut ImageFeed,
        steps: u64,
    ) -> Result<(Option<Self>, Option<&'static str>)> {
        if !learner.network.device().is_cuda() || !Switches::taken()?.step_as_graph {
            return Ok((None, None));
        }
        if let Some(why_not) = learner.why_not_repeated() {
            return Ok((None, Some(why_not)));
        }
        if !feed.keep_place() {
            return Ok((None, Some("the views are made on the host")));
        }
        Ok((Some(Self::new(learner.network.device(), steps)?), None))
    }

    /// Prepares repeated steps on `device`, for epochs of at most `steps` steps.
    ///
    /// # Errors
    /// Returns an error if the device is the CPU, or has too little memory.
    pub(crate) fn new(device: &Device, steps: u64) -> Result<Self> {
        let counter = StepCounter::new(device, steps as usize)?;
        Ok(Self { counter, way: Way::First(0), left: 0, said: None })
    }

    /// Begins an epoch, or what is left of one, whose steps have these learning rates.
    ///
    /// # Errors
    /// Returns an error if there are more than this was made for, or the device fails.
    pub(crate) fn begin(&mut self, rates: &[f64]) -> Result<()> {
        self.left = rates.len();
        self.counter.begin(rates)
    }

    /// Takes the next step of `learner` on the images `index`, whose views `views` makes by the number of the
    /// step. The loss goes to its place in `log`.
    ///
    /// # Errors
    /// Returns an error if the epoch has no more steps, or the device fails.
    pub(crate) fn step(
        &mut self,
        learner: &mut Learner,
        index: &[u32],
        views: &dyn Fn(&StepCounter) -> Result<Vec<Tensor>>,
        log: &HostLog,
    ) -> Result<()> {
        let Some(left) = self.left.checked_sub(1) else {
            bail!("found a step after the last that has a learning rate, expected the end of the epoch")
        };
        self.left = left;
        if let Way::Recorded(graph) = &self.way {
            if graph.is_valid() {
                return graph.launch();
            }
            // Evaluation took more scratch memory than any step, for instance.
            self.way = Way::First(Self::FIRST_STEPS - 1);
        }
        let counter = &self.counter;
        let device = learner.network.device().clone();
        let mut run = || {
            let step = Step { epoch: 1, step: 0, index };
            learner.counted_step(&views(counter)?, &step, counter, log)
        };
        run()?;
        if let Way::First(before) = self.way {
            self.way = if before + 1 < Self::FIRST_STEPS {
                Way::First(before + 1)
            } else {
                match StepGraph::record(&device, run) {
                    Ok(graph) => Way::Recorded(graph),
                    Err(error) => {
                        self.said = Some(format!(
                            "a step could not be recorded as a CUDA graph ({error}): its operations are launched one by one"
                        ));
                        Way::OneByOne
                    }
                }
            };
        }
        Ok(())
    }

    /// Returns a note for the user about the last step, once.
    pub(crate) fn said(&mut self) -> Option<String> {
        self.said.take()
    }
}
