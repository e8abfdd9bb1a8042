//! Settings to runs: what `train`, `reproduce` and `demo` share.

use crate::arguments::Settings;
use crate::failure::Failure;
use crate::output::note;
use crate::progress::{Progress, readable};
use anyhow::Context;
use invaspread_runner::config::{ConfigError, Override};
use invaspread_runner::engine::{End, Stop};
use invaspread_runner::launch::{HOW_TO_SHORTEN, Planned, Report, Standing, estimate_all, run_all};
use invaspread_runner::record::RunRecord;
use std::path::Path;
use std::time::Duration;

/// Runs shorter than this are begun without a word on how to shorten them.
const LONG: Duration = Duration::from_mins(10);

impl Settings {
    /// The settings in the order in which they win: flags, then key=value arguments.
    pub(crate) fn overrides(&self) -> Result<Vec<Override>, ConfigError> {
        let flags = [
            ("profile", &self.profile),
            ("seed", &self.seeds),
            ("data.root", &self.data_root),
            ("runs.root", &self.runs),
        ];
        let flags = flags.into_iter().filter_map(|(key, value)| value.as_ref().map(|value| (key, value)));
        flags
            .map(|(key, value)| Override::parse(&format!("{key}={value}")))
            .chain(self.overrides.iter().map(|text| Override::parse(text)))
            .collect()
    }

    /// [`Settings::overrides`] of a command that is given a file of weights: none has to be named for the network to begin with.
    pub(crate) fn overrides_beside_weights(&self) -> Result<Vec<Override>, ConfigError> {
        let mut overrides = vec![Override::parse("model.pretrained=false")?];
        overrides.extend(self.overrides()?);
        Ok(overrides)
    }
}

/// Says what there is to do and how long it takes here. A run that cannot be looked at fails when its turn comes; if none can be, nothing is
/// begun.
pub(crate) fn announce(planned: &[Planned], root: &Path) -> Result<(), Failure> {
    let (mut done, mut incomplete, mut unknown) = (0, 0, Vec::new());
    for run in planned {
        match run.standing(root) {
            Ok(Standing::Done) => done += 1,
            Ok(Standing::Incomplete { .. }) => incomplete += 1,
            Ok(Standing::New | Standing::Begun { .. }) => {}
            Err(error) => unknown.push(error),
        }
    }
    if unknown.len() == planned.len()
        && let Some(error) = unknown.into_iter().next()
    {
        return Err(anyhow::Error::new(error).context("failed to look at the runs that are there").into());
    }
    let left = planned.len() - done - incomplete;
    let runs = if planned.len() == 1 { "run" } else { "runs" };
    let missing = match incomplete {
        0 => String::new(),
        _ => format!(", {incomplete} finished with files missing or damaged"),
    };
    note!("{} {runs} in {}: {done} finished{missing}, {left} to do", planned.len(), root.display());
    if left == 0 {
        return Ok(());
    }
    note!("timing a few steps of each ...");
    let workloads = estimate_all(planned, root).context("failed to time the runs")?;
    let total: Duration = workloads.iter().map(|w| w.left).sum();
    for workload in &workloads {
        note!("  {:<28} about {}", planned[workload.index].title(), readable(workload.left));
    }
    note!("about {} in all on this machine", readable(total));
    if total > LONG {
        note!("{HOW_TO_SHORTEN}");
    }
    Ok(())
}

/// Works through the runs, showing progress; the records of those that are finished.
pub(crate) fn work(planned: &[Planned], root: &Path) -> Result<Vec<RunRecord>, Failure> {
    let stop = Stop::on_signals().context("failed to listen for signals")?;
    let mut progress = Progress::new(planned.len());
    let reports = run_all(planned, root, &mut progress, &stop);
    if stop.is_raised() {
        return Err(Failure::Stopped);
    }
    outcome(reports)
}

fn outcome(reports: Vec<Report>) -> Result<Vec<RunRecord>, Failure> {
    // Why each failed was said when it did.
    let failed: Vec<&str> =
        reports.iter().filter(|r| matches!(r.end, End::Failed { .. })).map(|r| r.row.as_str()).collect();
    if !failed.is_empty() {
        let message = format!("{} of {} runs failed: {}", failed.len(), reports.len(), failed.join(", "));
        return Err(Failure::Failed(anyhow::Error::msg(message)));
    }
    Ok(reports.into_iter().filter_map(|report| report.record).collect())
}
