//! The text of the job scripts. They are a few lines: what a task does is in this program.

use std::path::Path;

use super::folder::{ARRAY, REPORT};
use super::quote::{sbatch_word, shell_word};
use super::{Launch, SlurmError};
use crate::config::SlurmSection;

/// Returns `array.sh` for `tasks` tasks of the launch in `folder`.
///
/// # Errors
/// Returns an error that names a path which a script cannot hold.
pub fn array_script(
    launch: &Launch,
    folder: &Path,
    slurm: &SlurmSection,
    tasks: usize,
) -> Result<String, SlurmError> {
    let at_once = slurm.at_once.map(|most| format!("%{most}")).unwrap_or_default();
    let mut lines = head(launch, folder, "%A_%a.log")?;
    lines.push(format!("--array=0-{}{at_once}", tasks.saturating_sub(1)));
    // Only the process of this script gets the signal, which `exec` makes the program.
    lines.push(format!("--signal=B:USR1@{}", slurm.signal_seconds));
    lines.push(if slurm.requeue { "--requeue" } else { "--no-requeue" }.to_owned());
    lines.extend(shared(slurm));
    lines.extend(slurm.cpus.map(|cpus| format!("--cpus-per-task={cpus}")));
    lines.extend(slurm.gpus.as_ref().map(|gpus| format!("--gpus={}", sbatch_word(gpus))));
    lines.extend(slurm.options.iter().map(|option| sbatch_word(option)));
    let about = format!(
        "The runs of runs.jsonl, one a task. By hand: sbatch {}, or one of them: sbatch --array=INDEX {0}",
        shell_word(text(&folder.join(ARRAY), "the launch")?)
    );
    script(launch, folder, slurm, &about, &lines, "task")
}

/// Returns `report.sh` of the launch in `folder`.
///
/// # Errors
/// Returns an error that names a path which a script cannot hold.
pub fn report_script(launch: &Launch, folder: &Path, slurm: &SlurmSection) -> Result<String, SlurmError> {
    let mut lines = head(launch, folder, "report_%j.log")?;
    lines.push("--requeue".to_owned());
    lines.extend(shared(slurm));
    lines.extend(slurm.options.iter().map(|option| sbatch_word(option)));
    let about = format!(
        "The report, once all tasks have ended. By hand: sbatch --dependency=afterany:ARRAY {}",
        shell_word(text(&folder.join(REPORT), "the launch")?)
    );
    script(launch, folder, slurm, &about, &lines, "report")
}

/// Returns the options that say where a job runs and where it writes.
fn head(launch: &Launch, folder: &Path, log: &str) -> Result<Vec<String>, SlurmError> {
    // Slurm replaces %A, %a and %j in this path, and %% by %.
    let folder = text(folder, "the launch")?.replace('%', "%%");
    Ok(vec![
        format!(
            "--job-name={}",
            sbatch_word(&format!("invaspread-{}", launch.suite.as_deref().unwrap_or("train")))
        ),
        format!("--chdir={}", sbatch_word(text(&launch.working_directory, "the working directory")?)),
        format!("--output={}/{log}", sbatch_word(&folder)),
        "--open-mode=append".to_owned(),
    ])
}

/// Returns the options that tasks and report share.
fn shared(slurm: &SlurmSection) -> impl Iterator<Item = String> {
    let options = [
        ("--partition", &slurm.partition),
        ("--account", &slurm.account),
        ("--qos", &slurm.qos),
        ("--time", &slurm.time),
        ("--mem", &slurm.memory),
        ("--constraint", &slurm.constraint),
    ];
    options
        .into_iter()
        .filter_map(|(option, value)| Some(format!("{option}={}", sbatch_word(value.as_ref()?))))
}

fn script(
    launch: &Launch,
    folder: &Path,
    slurm: &SlurmSection,
    about: &str,
    options: &[String],
    command: &str,
) -> Result<String, SlurmError> {
    let mut lines = vec!["#!/bin/bash".to_owned()];
    lines.extend(options.iter().map(|option| format!("#SBATCH {option}")));
    lines.push(format!("# {about}"));
    lines.push("set -e".to_owned());
    lines.extend(slurm.setup.iter().cloned());
    let [program, folder] = [(&*launch.program, "the program"), (folder, "the launch")]
        .map(|(path, what)| text(path, what).map(shell_word));
    lines.push(format!("exec {} slurm {command} {}", program?, folder?));
    Ok(lines.join("\n") + "\n")
}

/// Returns a path as text.
fn text<'a>(path: &'a Path, what: &'static str) -> Result<&'a str, SlurmError> {
    // Slurm replaces nothing in the path of a log that holds a backslash.
    let fits = |text: &&str| !text.contains(|c: char| c.is_control() || c == '\\');
    path.to_str().filter(fits).ok_or_else(|| SlurmError::Path { what, path: path.to_path_buf() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::{Path, PathBuf};

    use super::super::Launch;
    use super::{array_script, report_script};
    use crate::config::SlurmSection;

    fn launch(root: &str) -> Launch {
        Launch {
            version: "invaspread 0.1.0".into(),
            time: "2026-11-30T20:59:25Z".into(),
            suite: Some("table1".into()),
            out: None,
            request: vec!["profile=quick".into()],
            root: root.into(),
            working_directory: "/home/a b".into(),
            program: "/opt/it's/invaspread".into(),
            program_hash: None,
            requeue: true,
        }
    }

    #[test]
    fn the_scripts_with_every_key() {
        let slurm = SlurmSection {
            partition: Some("gpu".into()),
            account: Some("vision".into()),
            qos: Some("long".into()),
            time: Some("1-12".into()),
            cpus: Some(8),
            gpus: Some("a100:1".into()),
            memory: Some("16G".into()),
            constraint: Some("[rack1|rack2]&ib".into()),
            at_once: Some(4),
            setup: vec!["module load cuda".into(), "export A=\"$HOME/a\"".into()],
            options: vec!["--exclude=node7".into(), "--comment=two words".into()],
            ..SlurmSection::default()
        };
        let launch = launch("/runs");
        let folder = launch.free_folder();
        assert_eq!(folder, Path::new("/runs/launches/20261130T205925Z-table1"));
        insta::assert_snapshot!("array", array_script(&launch, &folder, &slurm, 12).unwrap());
        insta::assert_snapshot!("report", report_script(&launch, &folder, &slurm).unwrap());
    }

    #[test]
    fn what_is_not_set_is_left_to_the_cluster() {
        let slurm = SlurmSection { requeue: false, ..SlurmSection::default() };
        let hostile = launch("/r/a b/it's \"$HOME\" #1 50% `id`;x");
        insta::assert_snapshot!(
            "hostile",
            array_script(&hostile, &hostile.free_folder(), &slurm, 1).unwrap()
        );
    }

    #[test]
    fn a_path_that_no_script_can_hold_is_refused() {
        for path in ["/r/a\nb", "/r/a\\b"] {
            let launch = launch(path);
            let told = array_script(&launch, &launch.free_folder(), &SlurmSection::default(), 1)
                .unwrap_err()
                .to_string();
            assert!(told.contains("the launch") && told.contains("line breaks"), "{told}");
        }
        let wrong = Launch { working_directory: PathBuf::from("/a\tb"), ..launch("/r") };
        let told = report_script(&wrong, Path::new("/r"), &SlurmSection::default()).unwrap_err().to_string();
        assert!(told.contains("the working directory"), "{told}");
    }
}
