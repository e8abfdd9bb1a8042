//! One run from its last checkpoint to its end: each epoch has steps, an evaluation and a checkpoint.
//!
//! The order of a checkpoint's writes makes a kill harmless at any point (see `checkpoint`): the best
//! weights, then the state (the commit), then the last weights, which are derived from it. A thread writes
//! them while the next epoch runs. The metrics table is written after each epoch and so may be ahead of the
//! state; a resumed run writes the table again from the state, and trains again the epochs that the state
//! lacks.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use invaspread_augment::{LoaderConfig, Pipeline};
use invaspread_models::LoadReport;
#[cfg(feature = "cuda")]
use invaspread_tensor::cuda::StepCounter;

use super::algorithms;
use super::embed::{EvaluationFeeds, Outputs, embed};
use super::feed::{EpochFeed, ImageFeed, ReadyBatch};
use super::journal::{Evaluation, Journal, Partial};
use super::keeper::{BestWeights, Keeper, NotWritten, header};
use super::learner::{Learner, learner};
use super::loss_log::LossLog;
use super::measure::Evaluated;
#[cfg(feature = "cuda")]
use super::repeated::RepeatedSteps;
use super::restore::{resume, write_weights};
use super::shape::{Shape, ShapeFeed};
use super::trained::{Best, Outcome, Trained};
use super::{
    Embeddings, EngineError, EpochFinished, Images, Measured, Observer, Recipe, RunPlace, RunStarted,
    StepTaken, Stop,
};
use crate::machine::{Spent, StepClock};
use crate::methods::{Step, visiting_order};
use crate::record::MetricRow;

/// In an epoch that takes longer than this, checkpoints are also written between steps, but never more often
/// than [`Recipe::checkpoint_every`] says.
const LONGEST_WITHOUT_CHECKPOINT: Duration = Duration::from_mins(5);

/// Trains the run at `place` from its last checkpoint to the end, or until `stop` is raised. Whenever there
/// are new measurements, `measured` is called with all rows so far. A run that resumes calls it first with
/// the rows of its checkpoint. These may lack rows that an earlier process had measured, which are measured
/// again.
///
/// # Errors
/// Returns an error if the run cannot be set up or resumed, the loss is not finite, or a file cannot be read
/// or written. An earlier checkpoint is then still whole.
pub fn train(
    recipe: &Recipe,
    place: &RunPlace,
    images: &Images,
    observer: &mut dyn Observer,
    stop: &Stop,
    measured: &mut dyn FnMut(&[MetricRow]) -> Result<(), EngineError>,
) -> Result<Outcome, EngineError> {
    let mut training = Training::new(recipe, place, images)?;
    if let Some(note) = algorithms::take_up(&training.journal, training.learner.network.device())? {
        observer.note(&format!("{}: {note}", place.title));
    }
    if let Some(path) = recipe.weights.as_ref().filter(|_| !training.journal.started) {
        let choice = training.began_with.as_ref().and_then(LoadReport::choice);
        let choice = choice.map(|choice| format!(" ({choice})")).unwrap_or_default();
        observer.note(&format!("{}: begins with the weights of {}{choice}", place.title, path.display()));
    }
    if recipe.device.is_cuda() && !recipe.method.has_cuda_loss() {
        observer.note(&format!(
            "{}: the loss of {} has no CUDA kernel: it is computed on the host, from features copied there in each step",
            place.title,
            recipe.method.name()
        ));
    }
    #[cfg(feature = "cuda")]
    if let Some(why_not) = training.why_not_repeated.filter(|_| recipe.method.trains()) {
        observer.note(&format!("{}: a step is not one CUDA graph, since {why_not}", place.title));
    }
    observer.run_started(&RunStarted {
        id: place.id.clone(),
        title: place.title.clone(),
        folder: place.folder.clone(),
        epochs: training.epochs(),
        steps: training.batches,
        resumed_at: (training.journal.epoch, training.journal.step),
    });
    match training.run(observer, stop, measured)? {
        Some((embeddings, measured)) => Ok(Outcome::Trained(Box::new(training.finish(embeddings, measured)))),
        None => Ok(Outcome::Stopped { epoch: training.journal.epoch, step: training.journal.step }),
    }
}

/// A run in progress.
struct Training<'a> {
    recipe: &'a Recipe,
    place: &'a RunPlace,
    data: Prepared,
    train_feed: ImageFeed,
    evaluation_feeds: EvaluationFeeds,
    shape_feed: ShapeFeed,
    learner: Learner,
    /// What was loaded from the file of weights that the run starts from.
    began_with: Option<LoadReport>,
    losses: LossLog,
    /// If the GPU repeats the step, and what keeps it from that although it is switched on.
    #[cfg(feature = "cuda")]
    repeated: Option<RepeatedSteps>,
    #[cfg(feature = "cuda")]
    why_not_repeated: Option<&'static str>,
    journal: Journal,
    batches: u64,
    begun: Instant,
    /// The time spent on the run by earlier processes, seconds.
    seconds_before: f64,
    keeper: Keeper,
    /// When the last checkpoint was begun.
    committed: Instant,
    /// The weights of the best epoch so far, until a checkpoint includes them.
    best: Option<BestWeights>,
    pace: Pace,
}

/// The images, and the pipeline that makes their views for evaluation.
struct Prepared {
    images: Images,
    plain: Arc<Pipeline>,
}

/// The speed of this process, from which the time left is estimated.
#[derive(Debug, Default)]
struct Pace {
    steps: u64,
    step_seconds: f64,
    evaluation_seconds: Option<f64>,
}

/// How the steps of an epoch ended.
enum Stepped {
    Through,
    Stopped,
}

impl<'a> Training<'a> {
    /// Sets up network, method and optimizer, and loads the run's checkpoint if there is one.
    fn new(recipe: &'a Recipe, place: &'a RunPlace, images: &Images) -> Result<Self, EngineError> {
        let data = Prepared::new(recipe, images)?;
        let (mut learner, began_with) = learner(recipe, images)?;
        let journal = resume(place, &mut learner)?;
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "a GPU's feed is told where to lie"))]
        let mut train_feed =
            ImageFeed::of_groups(Arc::clone(&data.images.train), recipe.view_groups()?, &learner.network)?;
        let evaluation_feeds = EvaluationFeeds::new(&data.images, &data.plain, &learner.network)?;
        let shape_feed = ShapeFeed::new(recipe, &data.images, &learner.network)?;
        let batches = (images.train.len() / recipe.batch_size) as u64;
        let losses = LossLog::new(learner.network.device(), batches)
            .map_err(|source| EngineError::SetUp { what: "device", source })?;
        #[cfg(feature = "cuda")]
        let (repeated, why_not_repeated) = RepeatedSteps::of_feed(&learner, &mut train_feed, batches)
            .map_err(|source| EngineError::SetUp { what: "device", source })?;
        let now = Instant::now();
        Ok(Self {
            recipe,
            place,
            data,
            train_feed,
            evaluation_feeds,
            shape_feed,
            learner,
            began_with,
            losses,
            #[cfg(feature = "cuda")]
            repeated,
            #[cfg(feature = "cuda")]
            why_not_repeated,
            batches,
            seconds_before: journal.seconds.into(),
            journal,
            begun: now,
            keeper: Keeper::new(place.checkpoints.clone()),
            committed: now,
            best: None,
            pace: Pace::default(),
        })
    }

    /// Returns the number of epochs to train.
    fn epochs(&self) -> u64 {
        self.recipe.epochs_trained()
    }

    /// Trains to the end and returns the last embeddings with their metrics. If `stop` is raised, writes a
    /// checkpoint at once and returns `None`. After each epoch, `measured` is called with all rows so far.
    fn run(
        &mut self,
        observer: &mut dyn Observer,
        stop: &Stop,
        measured: &mut dyn FnMut(&[MetricRow]) -> Result<(), EngineError>,
    ) -> Result<Option<(Embeddings, Measured)>, EngineError> {
        // A kill may have come between the commit and these writes.
        if self.journal.started {
            self.write_weights(&self.place.checkpoints.last())?;
            measured(&self.journal.rows())?;
        }
        let mut evaluated: Option<Evaluated> = None;
        if !self.journal.started {
            if stop.is_raised() {
                return Ok(None);
            }
            let from = Instant::now();
            evaluated = self.evaluate(observer, 0)?;
            self.journal.started = true;
            let found = evaluated.as_ref().map(|evaluated| &evaluated.measured);
            self.finish_epoch(observer, 0, None, found, from.elapsed(), measured)?;
        }
        while self.journal.epoch < self.epochs() {
            let epoch = self.journal.epoch + 1;
            let from = Instant::now();
            let stepped = self.steps_of(epoch, observer, stop)?;
            self.drain_losses(epoch)?;
            if matches!(stepped, Stepped::Stopped) {
                algorithms::tell(observer, &self.place.title);
                self.commit()?;
                return Ok(None);
            }
            let loss = self.close_epoch(epoch);
            evaluated = self.evaluate(observer, epoch)?;
            let found = evaluated.as_ref().map(|evaluated| &evaluated.measured);
            self.finish_epoch(observer, epoch, Some(loss), found, from.elapsed(), measured)?;
        }
        // Without an evaluation, all epochs were trained and measured before.
        let (embeddings, measured) = match evaluated {
            Some(Evaluated { embeddings, measured }) => (embeddings, measured),
            None => (None, Measured::of_epoch(&self.journal.rows(), self.journal.epoch)),
        };
        let embeddings = embeddings.map_or_else(|| self.outputs()?.to_host(), Ok)?;
        Ok(Some((embeddings, measured)))
    }

    /// Returns the results of the run.
    fn finish(self, embeddings: Embeddings, last: Measured) -> Trained {
        let Journal { best, epoch, .. } = self.journal;
        let Evaluation { epoch: best_epoch, headline } = best.expect("a run ends with an evaluation");
        Trained {
            embeddings,
            rows: self.journal.rows(),
            epoch,
            last,
            best: Best { epoch: best_epoch, headline: headline.into() },
            began: self.journal.began.clone(),
            seconds: self.seconds(),
            images_per_second: self.journal.images_per_second(),
            training_processor_seconds: self.journal.processor_seconds(),
        }
    }

    /// Takes the remaining steps of an epoch.
    fn steps_of(
        &mut self,
        epoch: u64,
        observer: &mut dyn Observer,
        stop: &Stop,
    ) -> Result<Stepped, EngineError> {
        let failed = || EngineError::tensor("take a training step");
        if self.journal.step == 0 {
            let Self { learner: Learner { network, method, .. }, data, .. } = self;
            let mut features = |layer| {
                // The feed is made on demand, because most methods do not need features.
                ImageFeed::new(Arc::clone(&data.images.train), Arc::clone(&data.plain), network)
                    .and_then(|feed| embed(network, &feed, layer))
                    .map_err(|e| candle_core::Error::wrap(e.to_string()))
            };
            method.begin_epoch(epoch, &mut features).map_err(EngineError::tensor("begin an epoch"))?;
        }
        self.losses.begin(self.journal.step).map_err(failed())?;
        #[cfg(feature = "cuda")]
        if let Some(repeated) = &mut self.repeated {
            let rate = |step| self.recipe.schedule.at(epoch, step, self.batches);
            let rates: Vec<f64> = (self.journal.step..self.batches).map(rate).collect();
            repeated.begin(&rates).map_err(failed())?;
        }
        let size = self.recipe.batch_size;
        let images = self.data.images.train.len();
        let order = visiting_order(&*self.learner.method, self.recipe.seed, images, epoch)
            .map_err(EngineError::tensor("order the images"))?;
        let batches =
            order.chunks_exact(size).skip(self.journal.step as usize).map(<[u32]>::to_vec).collect();
        let config = LoaderConfig {
            second_images: self.learner.method.second_images().map(Into::into),
            seed: self.recipe.seed,
            epoch,
            ..LoaderConfig::new(batches)
        };
        let mut feed = self.train_feed.epoch(config)?;
        let mut waited_before = 0.0;
        loop {
            if stop.is_raised() {
                return Ok(Stepped::Stopped);
            }
            let clock = StepClock::begin();
            let Some(batch) = feed.next()? else { break };
            let known = self.take_step(epoch, batch, &feed, observer).map_err(failed())?;
            let waited = feed.waited().as_secs_f64();
            let Journal { partial, training_images, .. } = &mut self.journal;
            partial.wait = (f64::from(partial.wait) + waited - waited_before).into();
            *training_images += size as u64;
            waited_before = waited;
            self.spent(clock.spent());
            self.pace.steps += 1;
            self.record_losses(epoch, &known)?;
            self.journal.step += 1;
            if let Some(&loss) = known.last() {
                observer.step(&self.step_taken(epoch, loss));
            }
            let longest = self.recipe.checkpoint_every.max(LONGEST_WITHOUT_CHECKPOINT);
            if self.committed.elapsed() > longest && self.journal.step < self.batches {
                self.drain_losses(epoch)?;
                self.begin_commit()?;
            }
        }
        Ok(Stepped::Through)
    }

    /// Takes the next step of an epoch on `batch`, which `feed` gave last; returns the losses that became
    /// known.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "a GPU may repeat the step"))]
    fn take_step(
        &mut self,
        epoch: u64,
        batch: ReadyBatch,
        feed: &EpochFeed,
        observer: &mut dyn Observer,
    ) -> candle_core::Result<Vec<f64>> {
        #[cfg(feature = "cuda")]
        if let (Some(repeated), Some(log), ReadyBatch::OnDevice(_, index)) =
            (&mut self.repeated, self.losses.memory(), &batch)
        {
            let views = |counter: &StepCounter| feed.views_counted(index.len(), counter);
            repeated.step(&mut self.learner, index, &views, log)?;
            if let Some(said) = repeated.said() {
                observer.note(&format!("{}: {said}", self.place.title));
            }
            return Ok(self.losses.written());
        }
        let (views, index) = batch.views(&self.learner.network)?;
        let step = Step { epoch, step: self.journal.step, index: &index };
        let lr = self.recipe.schedule.at(epoch, step.step, self.batches);
        let loss = self.learner.step(&views, &step, lr)?;
        self.losses.push(loss)
    }

    /// Adds time that training steps took.
    fn spent(&mut self, time: Spent) {
        self.journal.spent(time);
        self.pace.step_seconds += time.seconds;
    }

    /// Adds losses that became known to the sum of the epoch.
    ///
    /// # Errors
    /// Returns an error if a loss is not finite.
    fn record_losses(&mut self, epoch: u64, losses: &[f64]) -> Result<(), EngineError> {
        for &loss in losses {
            if !loss.is_finite() {
                return Err(self.not_finite("the loss".to_owned(), loss, epoch, self.journal.step + 1));
            }
            let Partial { loss: sum, .. } = &mut self.journal.partial;
            *sum = (f64::from(*sum) + loss).into();
        }
        Ok(())
    }

    /// Waits for the losses of all steps and records them.
    fn drain_losses(&mut self, epoch: u64) -> Result<(), EngineError> {
        let clock = StepClock::begin();
        let losses = self.losses.drain().map_err(EngineError::tensor("take a training step"))?;
        self.spent(clock.spent());
        self.record_losses(epoch, &losses)
    }

    fn step_taken(&self, epoch: u64, loss: f64) -> StepTaken {
        let Pace { steps, step_seconds, evaluation_seconds } = self.pace;
        let per_step = step_seconds / steps as f64;
        let steps_left = (self.epochs() - self.journal.epoch) * self.batches - self.journal.step;
        let evaluations_left =
            (epoch..=self.epochs()).filter(|&epoch| self.recipe.evaluates(epoch)).count() as f64;
        let left = steps_left as f64 * per_step + evaluations_left * evaluation_seconds.unwrap_or(0.0);
        StepTaken {
            epoch,
            step: self.journal.step,
            loss,
            mean_loss: f64::from(self.journal.partial.loss) / self.losses.known() as f64,
            images_per_second: self.recipe.batch_size as f64 / per_step,
            left: Duration::try_from_secs_f64(left).ok(),
        }
    }

    /// Adds the training rows of a completed epoch and returns its mean loss.
    fn close_epoch(&mut self, epoch: u64) -> f64 {
        let Partial { loss, seconds, wait } = std::mem::take(&mut self.journal.partial);
        let steps = std::mem::take(&mut self.journal.step);
        self.journal.epoch = epoch;
        let (loss, seconds) = (f64::from(loss) / steps as f64, f64::from(seconds));
        let images = steps as f64 * self.recipe.batch_size as f64;
        self.row("train", "loss", loss);
        self.row("train", "lr", self.recipe.schedule.at(epoch, 0, self.batches));
        self.row("train", "images_per_second", images / seconds);
        self.row("train", "wait_seconds", wait.into());
        loss
    }

    /// Evaluates the network if `epoch` is due for an evaluation.
    fn evaluate(
        &mut self,
        observer: &mut dyn Observer,
        epoch: u64,
    ) -> Result<Option<Evaluated>, EngineError> {
        if !self.recipe.evaluates(epoch) {
            return Ok(None);
        }
        let from = Instant::now();
        let outputs = self.outputs()?;
        let last = epoch >= self.epochs();
        // The embeddings of the last epoch are kept, so they go to the host anyway.
        let on_device =
            if last { None } else { self.data.images.measure_on_device(self.recipe, &outputs)? };
        let (embeddings, measured) = match on_device {
            Some(measured) => (None, measured),
            None => {
                let embeddings = outputs.to_host()?;
                if let Some(found) = embeddings.not_finite() {
                    let what = "an embedding".to_owned();
                    return Err(self.not_finite(what, f64::from(found), epoch, self.batches));
                }
                let measured = self.data.images.measure(self.recipe, &embeddings, epoch, last)?.recorded();
                (Some(embeddings), measured)
            }
        };
        let Learner { network, method, .. } = &self.learner;
        let shape = self.shape_feed.measure(self.recipe, network, &**method, &outputs)?;
        for (name, value) in shape.iter().flat_map(Shape::named) {
            self.row("shape", name, value);
        }
        let rows = self.journal.rows();
        let untrained = |name: &str| Measured::untrained(&rows, name);
        if !self.journal.told_collapse
            && let Some(collapse) = shape.and_then(|shape| shape.collapse(untrained))
        {
            self.journal.told_collapse = true;
            observer.note(&format!("{}: after epoch {epoch} {collapse}", self.place.title));
        }
        self.pace.evaluation_seconds = Some(from.elapsed().as_secs_f64());
        for (name, value) in &measured.0 {
            self.row("test", name, *value);
        }
        // The untrained network counts as the best epoch only if nothing is trained.
        let counts = epoch > 0 || self.epochs() == 0;
        let (_, headline) = measured.headline().expect("a measurement has a first metric");
        if counts && self.journal.best.is_none_or(|best| headline > f64::from(best.headline)) {
            self.journal.best = Some(Evaluation { epoch, headline: headline.into() });
        }
        Ok(Some(Evaluated { embeddings, measured }))
    }

    fn outputs(&self) -> Result<Outputs, EngineError> {
        self.evaluation_feeds.forward(&self.learner.network, self.recipe.layer)
    }

    fn row(&mut self, split: &str, name: &str, value: f64) {
        let row = MetricRow {
            epoch: self.journal.epoch as i64,
            step: (self.journal.epoch * self.batches) as i64,
            split: split.to_owned(),
            name: name.to_owned(),
            value,
            seconds: self.seconds(),
        };
        self.journal.push(&row);
    }

    /// Returns the time spent on the run so far by all processes, seconds.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.begun.elapsed().as_secs_f64()
    }

    fn finish_epoch(
        &mut self,
        observer: &mut dyn Observer,
        epoch: u64,
        loss: Option<f64>,
        found: Option<&Measured>,
        took: Duration,
        measured: &mut dyn FnMut(&[MetricRow]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        algorithms::tell(observer, &self.place.title);
        if self.journal.best.is_some_and(|best| best.epoch == epoch) {
            self.best = Some(BestWeights::OfState);
        }
        if epoch >= self.epochs() || self.recipe.checkpoint_every.is_zero() {
            // The checkpoint of an epoch is then on disk before its measurements are reported.
            self.commit()?;
        } else if epoch == 0 || self.committed.elapsed() >= self.recipe.checkpoint_every {
            self.begin_commit()?;
        } else {
            if matches!(self.best, Some(BestWeights::OfState)) {
                // The next epoch changes these weights, so they are copied, on the device.
                let weights = self.learner.weights().map_err(EngineError::tensor("copy the weights"))?;
                self.best = Some(BestWeights::Kept(weights, header(&self.journal)));
            }
            let written = self.keeper.look();
            written.map_err(|error| self.not_written(error))?;
        }
        measured(&self.journal.rows())?;
        observer.epoch_finished(&EpochFinished {
            epoch,
            epochs: self.epochs(),
            loss,
            measured: found.cloned(),
            best: self.journal.best.map(|best| (f64::from(best.headline), best.epoch)),
            took,
        });
        Ok(())
    }

    /// Writes a checkpoint and waits for it.
    ///
    /// # Errors
    /// Returns the errors of [`Training::begin_commit`], and those of this write. If the state is not finite
    /// (after a NaN gradient, for instance), nothing is written: no run could resume from it.
    fn commit(&mut self) -> Result<(), EngineError> {
        self.begin_commit()?;
        let written = self.keeper.wait();
        written.map_err(|error| self.not_written(error))
    }

    /// Copies the state and lets a thread write the checkpoint.
    ///
    /// # Errors
    /// Returns the error of the write before, or an error if the state cannot be copied.
    fn begin_commit(&mut self) -> Result<(), EngineError> {
        self.journal.seconds = self.seconds().into();
        algorithms::keep(&mut self.journal, self.learner.network.device())?;
        let tensors = self.learner.tensors().map_err(EngineError::tensor("copy the run's state"))?;
        let begun = self.keeper.begin(&tensors, &self.journal, self.best.take());
        begun.map_err(|error| self.not_written(error))?;
        self.committed = Instant::now();
        Ok(())
    }

    fn not_written(&self, error: NotWritten) -> EngineError {
        match error {
            NotWritten::NotFinite { name, found, epoch, step } => {
                let (epoch, step) = if step == 0 { (epoch, self.batches) } else { (epoch + 1, step) };
                self.not_finite(name, found, epoch, step)
            }
            NotWritten::File(error) => error.into(),
        }
    }

    fn write_weights(&self, path: &Path) -> Result<(), EngineError> {
        let weights = self.learner.weights().map_err(EngineError::tensor("copy the weights"))?;
        Ok(write_weights(path, &weights, &self.place.id, self.journal.epoch, self.journal.step)?)
    }

    fn not_finite(&self, what: String, found: f64, epoch: u64, step: u64) -> EngineError {
        if epoch == 0 {
            return EngineError::NotFiniteUntrained { what, found };
        }
        let lr = self.recipe.schedule.at(epoch, step.saturating_sub(1), self.batches);
        EngineError::NotFinite { what, found, epoch, step, lr, checkpoint: self.place.checkpoints.state() }
    }
}

impl Prepared {
    fn new(recipe: &Recipe, images: &Images) -> Result<Self, EngineError> {
        images.check()?;
        Ok(Self { images: images.clone(), plain: Arc::new(Pipeline::evaluate(&recipe.augment)?) })
    }
}
