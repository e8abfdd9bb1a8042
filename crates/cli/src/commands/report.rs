//! `invaspread report SUITE`: tables and figures from the runs that exist. `report all`: one page of every
//! table and figure.

use super::print_json;
use crate::arguments::ReportArguments;
use crate::failure::Failure;
use crate::neighbors::draw_neighbors;
use crate::output::{note, print_block, print_line};
use anyhow::{Context, anyhow};
use invaspread_report::index::{Entry, INDEX_PAGE, write_index, write_index_page};
use invaspread_report::records::Loaded;
use invaspread_report::{
    PAGE, ReportError, gallery, is_foreign_page, is_of_full_runs, paper, records, write_report,
    write_report_with_page,
};
use invaspread_runner::config::{Beside, Suite};
use invaspread_runner::launch::{Planned, damaged_results};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The word that stands for every table and figure of the paper.
pub(crate) const ALL: &str = "all";

/// The folder of the reports of all suites.
const RESULTS: &str = "results";

pub(crate) fn report(arguments: &ReportArguments) -> Result<(), Failure> {
    if arguments.suite == ALL {
        let results = match &arguments.out {
            Some(out) => out.clone(),
            None => default_results(&arguments.runs)?,
        };
        for page in write_all(&arguments.runs, &results, Pages::of(arguments.html))? {
            print_line!("{}", page.display());
        }
        return Ok(());
    }
    let suite = Suite::open(&arguments.suite)?;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => default_folder(&suite, &arguments.runs)?,
    };
    let print = if arguments.json { Print::Json } else { Print::Text };
    write(&suite, &arguments.runs, &out, Pages::of(arguments.html), print)
}

/// Which pages (`report.html`, `index.html`) are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Those that are already there, which would otherwise show older numbers than the report beside them.
    Renewed,
    /// All of them.
    All,
}

impl Pages {
    fn of(asked: bool) -> Self {
        if asked { Self::All } else { Self::Renewed }
    }

    /// Returns whether the page at `path` is written.
    ///
    /// # Errors
    /// Returns an error of usage if a page is asked for where a file of somebody else is.
    fn includes(self, path: &Path) -> Result<bool, Failure> {
        match (self, is_foreign_page(path)) {
            (Self::All, true) => Err(Failure::Usage(anyhow!(
                "failed to write {}: there is something of that name which this command did not write; move it away, or name another \
                 folder with --out",
                path.display()
            ))),
            (Self::All, false) => Ok(true),
            (Self::Renewed, foreign) => Ok(path.is_file() && !foreign),
        }
    }
}

/// Returns the folder of a suite's report if none is given: `results/SUITE`, or `RUNS/SUITE-report` if the
/// report [`belongs_aside`].
pub(crate) fn default_folder(suite: &Suite, root: &Path) -> Result<PathBuf, Failure> {
    let usual = PathBuf::from(RESULTS).join(&suite.name);
    if !belongs_aside(suite, root)? {
        return Ok(usual);
    }
    Ok(aside(root, &suite.name, &usual))
}

/// Returns the folder of the page of all suites if none is given, by the same rule.
pub(crate) fn default_results(root: &Path) -> Result<PathBuf, Failure> {
    let usual = PathBuf::from(RESULTS);
    for name in Suite::names() {
        if belongs_aside(&Suite::open(&name)?, root)? {
            return Ok(aside(root, ALL, &usual));
        }
    }
    Ok(usual)
}

/// Returns whether a report must not be written into `results`. This holds for a report of profile smoke,
/// whose numbers mean nothing, and for a report of reduced runs if it would replace one of full runs.
fn belongs_aside(suite: &Suite, root: &Path) -> Result<bool, Failure> {
    let runs = finished(suite, root)?;
    let all = |is: fn(&invaspread_report::Run) -> bool| !runs.is_empty() && runs.iter().all(is);
    let is_smoke = |run: &invaspread_report::Run| {
        let rest = run.record.profile.strip_prefix("smoke");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let is_reduced = |run: &invaspread_report::Run| run.record.reduced;
    Ok(all(is_smoke) || all(is_reduced) && is_of_full_runs(&Path::new(RESULTS).join(&suite.name)))
}

fn aside(root: &Path, name: &str, usual: &Path) -> PathBuf {
    let aside = root.join(format!("{name}-report"));
    note!("the runs are reduced: the report is written into {}, not {}", aside.display(), usual.display());
    aside
}

/// What is printed after a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Print {
    /// The table and the paths of the files.
    Text,
    /// The table as JSON.
    Json,
    /// Nothing, because something else was printed already.
    Nothing,
}

/// Writes the report of a suite's runs into `out`, and prints which runs are missing.
pub(crate) fn write(
    suite: &Suite,
    root: &Path,
    out: &Path,
    pages: Pages,
    print: Print,
) -> Result<(), Failure> {
    let written = alone_in(&root.join(suite.runs_name()), || {
        let loaded = load(suite, root)?;
        note_unfinished(suite, &loaded);
        let runs = of_suite(suite, loaded.runs);
        note_missing_rows(suite, &runs);
        let written = if pages.includes(&out.join(PAGE))? {
            write_report_with_page(named(suite), &runs, &suite.similarity, out, root)
        } else {
            write_report(named(suite), &runs, &suite.similarity, out)
        };
        Ok(written.context("failed to write the report")?)
    })?;
    match print {
        Print::Text => {
            print_block(&written.terminal);
            for file in &written.files {
                print_line!("{}", file.display());
            }
        }
        Print::Json => print_json(&written.table)?,
        Print::Nothing => {}
    }
    Ok(())
}

/// Reads the records of a suite's runs.
fn load(suite: &Suite, root: &Path) -> Result<Loaded, Failure> {
    let damaged = damaged_results(root, suite.runs_name()).context("failed to look at the runs")?;
    if damaged.is_empty() {
        return Ok(records::load(root, suite.runs_name()).context("failed to read the run records")?);
    }
    let named: Vec<String> = damaged
        .iter()
        .map(|(folder, faults)| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            format!("{}: {}", folder.display(), faults.join(", "))
        })
        .collect();
    Err(Failure::Failed(anyhow!(
        "failed to read the run records: {} files of finished runs are missing or damaged ({}). Ask for the runs again, with `invaspread \
         reproduce {}` and the arguments they were begun with: the files are made again from the runs' checkpoints",
        damaged.iter().map(|(_, faults)| faults.len()).sum::<usize>(),
        named.join("; "),
        suite.runs_name(),
    )))
}

/// The most names of a list that are printed.
const MOST_NAMES: usize = 8;

fn note_unfinished(suite: &Suite, loaded: &Loaded) {
    if !loaded.unfinished.is_empty() {
        let folders: Vec<String> = loaded.unfinished.iter().map(|path| path.display().to_string()).collect();
        let (runs, are) = if folders.len() == 1 { ("run", "is") } else { ("runs", "are") };
        note!(
            "{}: {} {runs} {are} not finished and left out: {}",
            suite.name,
            folders.len(),
            shortened(&folders)
        );
    }
}

fn note_missing_rows(suite: &Suite, runs: &[invaspread_report::Run]) {
    let is_there = |row: &&str| runs.iter().any(|run| run.record.row == **row);
    let missing: Vec<String> = suite
        .rows
        .iter()
        .map(|row| row.key.as_str())
        .filter(|row| !is_there(row))
        .map(str::to_owned)
        .collect();
    if !missing.is_empty() && !runs.is_empty() {
        note!("{}: no finished run of {}", suite.name, shortened(&missing));
    }
}

fn shortened(names: &[String]) -> String {
    let shown = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Does `work` while no other process does so for the same `folder` of runs. If several processes end a suite
/// at the same time, the last one to read the records is then the last one to write the report. If folders
/// cannot be locked, this does not wait.
fn alone_in<T>(folder: &Path, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let held = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    let done = work();
    drop(held);
    done
}

/// Returns the suites that are tables or figures of the paper, in its order.
pub(crate) fn every_suite() -> Vec<String> {
    let known = Suite::names();
    paper::tables().iter().map(|table| table.key.clone()).filter(|key| known.contains(key)).collect()
}

/// Writes the reports of all suites that have runs, and the page of all tables and figures. Returns the paths of that page,
/// `index.md` first.
pub(crate) fn write_all(root: &Path, results: &Path, pages: Pages) -> Result<Vec<PathBuf>, Failure> {
    let mut entries = Vec::new();
    for name in Suite::names() {
        let suite = Suite::open(&name)?;
        let runs = finished(&suite, root)?;
        let shown =
            !runs.is_empty() && (paper::table_of_suite(&name).is_some() || says_something(&suite, &runs));
        let folder = results.join(&name);
        if shown {
            write(&suite, root, &folder, pages, Print::Nothing)?;
        }
        entries.push(Entry {
            suite: named(&suite),
            runs: if shown { runs } else { Vec::new() },
            pictures: pictures(&suite, &folder),
            folder: name,
        });
    }
    alone_in(results, || {
        let failed = "failed to write the page of all suites";
        let mut written = vec![write_index(&entries, results).context(failed)?];
        if pages.includes(&results.join(INDEX_PAGE))? {
            written.push(write_index_page(&entries, results).context(failed)?);
        }
        Ok(written)
    })
}

/// Returns whether a report of the suite makes sense. A suite that shows another suite's runs has some as
/// soon as that suite has, but its report makes sense only with the runs of all its rows and seeds.
fn says_something(suite: &Suite, runs: &[invaspread_report::Run]) -> bool {
    let is_there = |row: &str, seed| runs.iter().any(|run| run.record.row == row && run.record.seed == seed);
    let mut rows = suite.rows.iter().map(|row| row.key.as_str());
    suite.runs_of.is_none() || rows.all(|row| suite.seeds.iter().all(|&seed| is_there(row, seed)))
}

/// Returns the pictures of a suite's report that are in `folder`: those of the paper's figure, or else the
/// learning curves.
fn pictures(suite: &Suite, folder: &Path) -> Vec<String> {
    let similarities = suite.similarity.iter().map(|grouping| format!("similarity-{grouping}.png"));
    let neighbors = suite.gallery.iter().map(|_| gallery::FILE.to_owned());
    let of_figure: Vec<String> = similarities.chain(neighbors).collect();
    let is_figure = suite.name.starts_with("figure") && !of_figure.is_empty();
    let curves = if is_figure { None } else { Some("curves.png".to_owned()) };
    curves.into_iter().chain(of_figure).filter(|file| folder.join(file).is_file()).collect()
}

/// Returns the facts about a suite that its report shows beside its runs.
fn named(suite: &Suite) -> invaspread_report::Suite {
    invaspread_report::Suite {
        name: suite.name.clone(),
        title: suite.title.clone(),
        rows: suite.rows.iter().map(|row| row.key.clone()).collect(),
        gallery: suite.gallery.is_some(),
        beside: suite.beside.iter().copied().map(beside).collect(),
    }
}

fn beside(asked: Beside) -> invaspread_report::Beside {
    match asked {
        Beside::Cost => invaspread_report::Beside::Cost,
        Beside::Shape => invaspread_report::Beside::Shape,
        Beside::Peers => invaspread_report::Beside::Peers,
    }
}

/// Returns the finished runs of a suite; none if it was never begun.
fn finished(suite: &Suite, root: &Path) -> Result<Vec<invaspread_report::Run>, Failure> {
    match records::load(root, suite.runs_name()) {
        Ok(loaded) => Ok(of_suite(suite, loaded.runs)),
        Err(ReportError::NoSuite { .. } | ReportError::NoRuns { .. }) => Ok(Vec::new()),
        // The error names the damaged file and says what to do.
        Err(_) => load(suite, root).map(|loaded| of_suite(suite, loaded.runs)),
    }
}

/// Returns those of the shared runs that are rows of this suite.
fn of_suite(suite: &Suite, runs: Vec<invaspread_report::Run>) -> Vec<invaspread_report::Run> {
    let rows: Vec<&str> = suite.rows.iter().map(|row| row.key.as_str()).collect();
    runs.into_iter().filter_map(|run| run.as_row_of(&rows)).collect()
}

/// Draws the suite's picture of retrieved neighbors into `out`, if it has one; the suite's report shows it.
pub(crate) fn draw(suite: &Suite, planned: &[Planned], root: &Path, out: &Path) -> Result<(), Failure> {
    if let Some(figure) = &suite.gallery {
        let path = out.join(gallery::FILE);
        std::fs::create_dir_all(out).context("failed to draw the retrieved neighbors")?;
        draw_neighbors(figure, planned, root, &path).context("failed to draw the retrieved neighbors")?;
        note!("{}", path.display());
    }
    Ok(())
}
