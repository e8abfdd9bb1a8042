//! Writes a suite's report. Each file is written to a temporary name, flushed and renamed, so that a reader
//! never sees half a file.

use std::path::{Path, PathBuf};

use fs_err as fs;
use invaspread_record::write_atomically;

use crate::bars;
use crate::curves;
use crate::error::ReportError;
use crate::figure::Figure;
use crate::gallery;
use crate::html;
use crate::latex;
use crate::markdown::{self, Pictures};
use crate::records::Run;
use crate::section::Section;
use crate::separation;
use crate::setting::Setting;
use crate::suite::Suite;
use crate::table::Table;
use crate::terminal::terminal_table;

/// The file name of a report as a page.
pub const PAGE: &str = "report.html";

/// A written report.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The path of `report.md`.
    pub report: PathBuf,
    /// The paths of all files, `report.md` first.
    pub files: Vec<PathBuf>,
    /// The aggregated numbers.
    pub table: Table,
    /// The [`terminal_table`] of the same runs.
    pub terminal: String,
}

/// Writes `report.md`, `table.csv`, `table.parquet`, `table.tex` and the figures `curves.{svg,png}`,
/// `<suite>.{svg,png}` and, for each of `groupings`, `similarity-<grouping>.{svg,png}` into `folder`, which
/// is created if it does not exist. With several settings (profiles, devices, data sets), the figures of the
/// first setting have these names, and those of the others have a suffix. The same runs give the same bytes.
/// The picture of retrieved neighbors is drawn by other code, from images; the report shows it if the suite
/// has one and the file is in `folder`.
///
/// # Errors
/// If there is no run, a figure cannot be drawn, or a file cannot be written.
pub fn write_report(
    suite: impl Into<Suite>,
    runs: &[Run],
    groupings: &[String],
    folder: &Path,
) -> Result<Written, ReportError> {
    write(Table::new(suite, runs)?, runs, groupings, folder, None)
}

/// Writes what [`write_report`] writes, and `report.html`: the report as one page that needs nothing beside it, with charts
/// in place of pictures. `runs_root` is the folder of the runs (`runs.root`): rows lead to the records that exist there.
///
/// # Errors
/// As [`write_report`], and if the picture of retrieved neighbors cannot be read.
pub fn write_report_with_page(
    suite: impl Into<Suite>,
    runs: &[Run],
    groupings: &[String],
    folder: &Path,
    runs_root: &Path,
) -> Result<Written, ReportError> {
    write(Table::new(suite, runs)?, runs, groupings, folder, Some(runs_root))
}

fn write(
    table: Table,
    runs: &[Run],
    groupings: &[String],
    folder: &Path,
    page_of: Option<&Path>,
) -> Result<Written, ReportError> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut sections = Vec::new();
    for (place, section) in table.sections(runs).into_iter().enumerate() {
        let suffix = if place == 0 { String::new() } else { suffix(section.setting) };
        let mut keep = |stem: &str, figure: Option<Figure>| {
            let name = format!("{stem}{suffix}");
            figure.map(|figure| {
                files.push((format!("{name}.svg"), figure.svg.into_bytes()));
                files.push((format!("{name}.png"), figure.png));
                name
            })
        };
        let mut pictures = Pictures {
            curves: keep("curves", curves::figure(&section)?),
            rank: keep("rank", curves::rank_figure(&section)?),
            chart: keep(&table.suite.name, bars::figure(&section)?),
            neighbors: (place == 0 && table.suite.gallery && folder.join(gallery::FILE).is_file())
                .then(|| gallery::FILE.to_owned()),
            separations: Vec::new(),
        };
        for grouping in groupings {
            let name = keep(&format!("similarity-{grouping}"), separation::figure(&section, grouping)?);
            pictures.separations.extend(name.map(|name| (grouping.clone(), name)));
        }
        sections.push((section, pictures));
    }
    fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    let parts = markdown::report(&table, &sections);
    let page = page_of
        .map(|runs| html::report(&parts, &sections, html::Places { page: folder, runs }))
        .transpose()?;
    let sections: Vec<Section<'_>> = sections.into_iter().map(|(section, _)| section).collect();
    files.insert(0, ("report.md".into(), parts.text().into_bytes()));
    files.insert(1, ("table.csv".into(), table.csv()?));
    files.insert(2, ("table.parquet".into(), table.parquet()?));
    files.insert(3, ("table.tex".into(), latex::tables(&sections).into_bytes()));

    if let Some(page) = page {
        files.insert(1, (PAGE.into(), page.into_bytes()));
    }

    let mut written = Vec::new();
    for (name, bytes) in files {
        let path = folder.join(name);
        write_atomically(&path, &bytes).map_err(|source| failed(&path, source))?;
        written.push(path);
    }
    let terminal = terminal_table(&sections);
    Ok(Written { report: written[0].clone(), files: written, table, terminal })
}

/// Returns whether `folder` holds a report with a run that is not reduced. A report of reduced runs should
/// not replace it.
pub fn is_of_full_runs(folder: &Path) -> bool {
    let report = fs::read_to_string(folder.join("report.md")).unwrap_or_default();
    report.lines().next().is_some_and(|title| !title.ends_with(markdown::REDUCED))
}

fn suffix(setting: &Setting) -> String {
    let text = format!("-{}-{}-{}-{}", setting.profile, setting.device, setting.dataset, setting.data_state);
    let reduced = if setting.reduced { "" } else { "-full" };
    let held_out = if setting.held_out { "-held-out" } else { "" };
    // The names come from a config, so only characters that every file system and Markdown link allows are
    // kept.
    let safe = |letter: char| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' };
    let precision = setting.precision.as_ref().map(|precision| format!("-{precision}")).unwrap_or_default();
    let more = format!("{precision}{reduced}{held_out}");
    text.chars().chain(more.chars()).map(safe).collect()
}

fn failed(path: &Path, source: std::io::Error) -> ReportError {
    ReportError::File { action: "write", path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::{fake, records};

    #[test]
    fn from_records_to_files_and_twice_the_same_bytes() {
        let root = tempfile::tempdir().unwrap();
        fake::write_suite(&root.path().join("runs"), &fake::quick_runs(&[0, 1]));
        let write = |name: &str, reverse: bool| {
            let mut runs = records::load(&root.path().join("runs"), "table1").unwrap().runs;
            if reverse {
                runs.reverse();
            }
            write_report("table1", &runs, &[], &root.path().join(name)).unwrap()
        };
        let first = write("first", false);
        let names: Vec<String> =
            first.files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        let expected = [
            "report.md",
            "table.csv",
            "table.parquet",
            "table.tex",
            "curves.svg",
            "curves.png",
            "table1.svg",
            "table1.png",
        ];
        assert_eq!(names, expected);
        // Nothing else is left in the folder, and no temporary file.
        assert_eq!(fs::read_dir(root.path().join("first")).unwrap().count(), expected.len());
        write("first", false);
        let second = write("second", true);
        for (a, b) in first.files.iter().zip(&second.files) {
            assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "{}", a.display());
        }
    }

    #[test]
    fn a_second_setting_gets_pictures_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let mut runs = fake::quick_runs(&[0]);
        runs.extend(fake::full_runs(&[0]));
        let written = write_report("table1", &runs, &[], root.path()).unwrap();
        assert_eq!(written.table.settings.len(), 2);
        for name in
            ["curves.png", "curves-quick-cpu-cifar10-verified.png", "table1-quick-cpu-cifar10-verified.svg"]
        {
            assert!(root.path().join(name).is_file(), "{name}");
        }
        let report = fs::read_to_string(written.report).unwrap();
        assert!(
            report.contains("(curves-quick-cpu-cifar10-verified.png)") && report.contains("(curves.png)")
        );
    }

    #[test]
    fn retrieved_neighbors_are_shown_where_they_were_drawn() {
        let root = tempfile::tempdir().unwrap();
        let report = |gallery| {
            let suite = Suite { gallery, ..Suite::from("table3") };
            let written = write_report(suite, &fake::retrieval_runs(), &[], root.path()).unwrap();
            fs::read_to_string(written.report).unwrap().contains("](neighbours.png)")
        };
        assert!(!report(true), "nothing was drawn");
        fs::write(root.path().join(gallery::FILE), "a picture").unwrap();
        assert!(report(true));
        assert!(!report(false), "it is another suite's");
    }

    #[test]
    fn what_was_asked_for_is_part_of_the_command() {
        let root = tempfile::tempdir().unwrap();
        let mut runs = fake::quick_runs(&[0]);
        for run in &mut runs {
            run.record.arguments = vec!["dataset=folder".into(), "data.folder.path=my images".into()];
        }
        runs[0].record.arguments.push("optim.lr=0.01".into());
        let written = write_report("table1", &runs, &[], root.path()).unwrap();
        let report = fs::read_to_string(written.report).unwrap();
        let command =
            "reproduce table1 --profile quick device=cpu dataset=folder 'data.folder.path=my images'\n";
        assert!(report.contains(command), "{report}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let root = tempfile::tempdir().unwrap();
        let blocked = root.path().join("results");
        fs::write(&blocked, "a file where the folder should be").unwrap();
        let error =
            write_report("table1", &fake::quick_runs(&[0]), &[], &blocked.join("table1")).unwrap_err();
        assert!(error.to_string().contains("results"), "{error}");
    }
}
