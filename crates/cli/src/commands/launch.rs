//! From settings to runs, for `train`, `reproduce` and `demo`.

use super::places::Places;
use super::spread::spread;
use crate::arguments::Settings;
use crate::failure::Failure;
use crate::output::note;
use crate::packing::stops_packing;
use crate::progress::{Progress, readable};
use anyhow::Context;
use invaspread_runner::config::{ConfigError, Override, Sweep};
use invaspread_runner::engine::{End, EngineError, Stop};
use invaspread_runner::launch::{
    LaunchError, Planned, RunReport, Standing, Workload, estimate_all, how_to_shorten, run_all,
};
use invaspread_runner::record::{Request, RunRecord};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Advice on shortening the runs is printed only if they take longer than this.
const LONG: Duration = Duration::from_mins(10);

/// If there are more runs than this, one line stands for all seeds of a run.
const LISTED: usize = 40;

impl Settings {
    /// Returns the settings: first the flags, then the key=value arguments, which win over flags.
    pub(crate) fn overrides(&self) -> Result<Vec<Override>, ConfigError> {
        let mut overrides = Vec::new();
        for (flag, key, text) in [("--profile", "profile", &self.profile), ("--seeds", "seed", &self.seeds)] {
            overrides.extend(text.as_ref().map(|text| Override::flag(flag, key, text)));
        }
        for (flag, key, path) in
            [("--data-root", "data.root", &self.data_root), ("--runs", "runs.root", &self.runs)]
        {
            if let Some(path) = path {
                overrides.push(Override::path(flag, key, path)?);
            }
        }
        for argument in &self.overrides {
            overrides.push(Override::parse(argument)?);
        }
        Ok(overrides)
    }

    /// Returns the settings as command-line arguments, for another process of this program.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        for (flag, text) in [("--profile", &self.profile), ("--seeds", &self.seeds)] {
            arguments.extend(text.iter().flat_map(|text| [flag.into(), text.into()]));
        }
        for (flag, path) in [("--data-root", &self.data_root), ("--runs", &self.runs)] {
            arguments.extend(path.iter().flat_map(|path| [flag.into(), path.into()]));
        }
        arguments.extend(self.overrides.iter().map(Into::into));
        arguments
    }

    /// Returns [`Settings::overrides`] for a command that takes a file of weights: the config need not name
    /// pretrained weights.
    pub(crate) fn overrides_beside_weights(&self) -> Result<Vec<Override>, ConfigError> {
        let mut overrides = vec![Override::parse("model.pretrained=false")?];
        overrides.extend(self.overrides()?);
        Ok(overrides)
    }
}

/// Notes in each run by which command it is asked for: `arguments`, the command's name first.
pub(crate) fn note_request(planned: &mut [Planned], arguments: &[OsString]) {
    let text = |argument: &OsString| argument.to_str().map(str::to_owned);
    let arguments: Option<Vec<String>> = arguments.iter().map(text).collect();
    let folder = std::env::current_dir().ok().and_then(|folder| folder.to_str().map(str::to_owned));
    // JSON holds only UTF-8. Without a request, only the same command resumes the run.
    let Some((arguments, folder)) = arguments.zip(folder) else { return };
    let request = Arc::new(Request { arguments, folder });
    for run in planned {
        run.request = Some(Arc::clone(&request));
    }
}

/// Returns the runs of a sweep, after a note that names those that were asked for more than once.
pub(crate) fn each_once(sweep: Sweep) -> Sweep {
    for line in &sweep.repeated {
        note!("{line}");
    }
    sweep
}

/// Prints what there is to do and how long it takes in this process, or in `places` if there are several.
/// A run that cannot be inspected fails when its turn comes; if no run can be inspected, nothing is begun.
pub(crate) fn announce(planned: &[Planned], root: &Path, places: &Places) -> Result<(), Failure> {
    stops_packing()?;
    let standings = standings(planned, root)?;
    if !standings.iter().any(is_left) {
        return Ok(());
    }
    let timing = || note!("timing a few steps of each ...");
    let workloads = match estimate_all(planned, &standings, root, timing) {
        // The settings do not fit the images: nothing has run yet.
        Err(LaunchError::Engine(error))
            if matches!(
                *error,
                EngineError::TooManySteps { .. }
                    | EngineError::TooFewImages { .. }
                    | EngineError::NoEffect(_)
            ) =>
        {
            return Err(Failure::Usage(error.into()));
        }
        // The error names the run and says what is wrong.
        workloads => workloads.map_err(anyhow::Error::new)?,
    };
    let total = workloads.iter().map(|w| w.left).fold(Duration::ZERO, Duration::saturating_add);
    for line in lines(planned, &workloads) {
        note!("  {line}");
    }
    match places.all().len().min(workloads.len()) {
        0 | 1 => note!("about {} in all on this machine", readable(total)),
        _ if places.are_on_the_processor() => note!(
            "about {} in all on this machine if it did one after the other; several at once take less",
            readable(total)
        ),
        processes => note!(
            "about {} in all, spread over {processes} processes: {} if they share it evenly",
            readable(total),
            readable(total / processes as u32)
        ),
    }
    if workloads.iter().any(|workload| workload.estimate.more_is_measured) {
        note!(
            "not included: the time of clustering (for NMI and AMI) and of linear classifiers in some runs"
        );
    }
    if total > LONG {
        note!("{}", how_to_shorten(planned));
    }
    Ok(())
}

/// How far a run has come, or why that cannot be said.
pub(crate) type Found = Result<Standing, LaunchError>;

/// Returns whether a run that was looked at is still to be trained.
fn is_left(found: &Found) -> bool {
    !matches!(found, Ok(Standing::Done | Standing::Incomplete { .. }))
}

/// Returns how far each run has come, and prints how many are finished. A run that cannot be inspected is an
/// error only if no run can be.
pub(crate) fn standings(planned: &[Planned], root: &Path) -> Result<Vec<Found>, Failure> {
    let mut standings: Vec<_> = planned.iter().map(|run| run.standing(root)).collect();
    if standings.iter().all(Result::is_err)
        && let Some(Err(error)) = standings.pop()
    {
        return Err(anyhow::Error::new(error).context("failed to look at the runs that are there").into());
    }
    let count = |is: fn(&Standing) -> bool| standings.iter().flatten().filter(|&found| is(found)).count();
    let done = count(|found| matches!(found, Standing::Done));
    let incomplete = count(|found| matches!(found, Standing::Incomplete { .. }));
    let left = planned.len() - done - incomplete;
    let runs = if planned.len() == 1 { "run" } else { "runs" };
    let missing = match incomplete {
        0 => String::new(),
        _ => format!(", {incomplete} finished with files missing or damaged"),
    };
    note!("{} {runs} in {}: {done} finished{missing}, {left} to do", planned.len(), root.display());
    Ok(standings)
}

/// Returns a line for each remaining run; if there are many, one line for all seeds of a run.
fn lines(planned: &[Planned], workloads: &[Workload]) -> Vec<String> {
    if workloads.len() <= LISTED {
        let line = |workload: &Workload| {
            format!("{:<28} about {}", planned[workload.index].title(), readable(workload.left))
        };
        return workloads.iter().map(line).collect();
    }
    // The groups are in the order of their first runs.
    let mut groups: Vec<(String, usize, Duration)> = Vec::new();
    let mut places = HashMap::new();
    for workload in workloads {
        let title = planned[workload.index].title_of_all_seeds();
        let place = *places.entry(title.clone()).or_insert(groups.len());
        if place == groups.len() {
            groups.push((title, 0, Duration::ZERO));
        }
        groups[place].1 += 1;
        groups[place].2 = groups[place].2.saturating_add(workload.left);
    }
    let line = |(title, seeds, time): (String, usize, Duration)| {
        let seeds = format!("{seeds} seed{}", if seeds == 1 { "" } else { "s" });
        format!("{:<28} about {}", format!("{title} ({seeds})"), readable(time))
    };
    groups.into_iter().map(line).collect()
}

/// Works through the runs, shows the progress, and returns the records of the finished ones. If there are
/// several `places`, processes that are started with the arguments `request` work on the runs first.
pub(crate) fn work(
    planned: &[Planned],
    root: &Path,
    places: &Places,
    request: &[OsString],
) -> Result<Vec<RunRecord>, Failure> {
    let stop = Stop::on_signals().context("failed to listen for signals")?;
    spread(planned, root, places, request, &stop)?;
    if stop.is_raised() {
        return Err(Failure::Stopped);
    }
    let mut progress = if places.are_this_process() {
        Progress::new(planned.len())
    } else {
        Progress::after_others(planned.len())
    };
    let reports = run_all(planned, root, &mut progress, &stop);
    if stop.is_raised() {
        return Err(Failure::Stopped);
    }
    outcome(reports)
}

fn outcome(reports: Vec<RunReport>) -> Result<Vec<RunRecord>, Failure> {
    // The reason for each failure was printed when it happened.
    let failed: Vec<&str> =
        reports.iter().filter(|r| matches!(r.end, End::Failed { .. })).map(|r| r.row.as_str()).collect();
    if !failed.is_empty() {
        let message = format!("{} of {} runs failed: {}", failed.len(), reports.len(), failed.join(", "));
        return Err(Failure::Failed(anyhow::Error::msg(message)));
    }
    Ok(reports.into_iter().filter_map(|report| report.record).collect())
}
