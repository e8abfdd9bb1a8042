//! Finds CIFAR-10 in a folder, in any of its forms.

use std::path::{Path, PathBuf};

use super::BATCHES;
use super::official::BINARY_FOLDER;
use super::parquet;
use crate::error::DataError;
use crate::form::Cifar10Form as Form;
use crate::location::Location;

/// A copy: its form and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The form of the copy.
    pub form: Form,
    /// The folder or archive.
    pub path: PathBuf,
}

impl Found {
    /// Returns an error that names the missing batches, if there are any.
    pub(crate) fn check(&self) -> Result<(), DataError> {
        let (folder, files, _) = self.files();
        let absent: Vec<String> = files
            .iter()
            .filter(|file| !folder.join(file).exists())
            .map(|file| file.display().to_string())
            .collect();
        if absent.is_empty() {
            return Ok(());
        }
        let expected = format!("all of its {} files", files.len());
        Err(DataError::damaged(&self.path, format!("no {} ({})", absent.join(", no "), self.form), expected))
    }

    /// Returns the copy's folder, its files as paths below that folder, and a text that distinguishes it from
    /// other copies in the same folder.
    pub(crate) fn files(&self) -> (PathBuf, Vec<PathBuf>, String) {
        let batches = |ending: &str| BATCHES.map(|batch| PathBuf::from(format!("{batch}{ending}"))).to_vec();
        match self.form {
            Form::BinaryFolder => (self.path.clone(), batches(".bin"), String::new()),
            Form::PythonFolder => (self.path.clone(), batches(""), String::new()),
            Form::Parquet => {
                let files = parquet::files(&self.path).into_iter().flatten();
                let below = files.filter_map(|file| file.strip_prefix(&self.path).map(Path::to_owned).ok());
                (self.path.clone(), below.collect(), String::new())
            }
            Form::BinaryArchive | Form::PythonArchive => {
                let name = self.path.file_name().unwrap_or_default();
                let folder = self.path.parent().map(Path::to_owned).unwrap_or_default();
                (folder, vec![name.into()], format!("-{}", name.to_string_lossy()))
            }
        }
    }
}

const PYTHON_FOLDER: &str = "cifar-10-batches-py";
const BINARY_ARCHIVE: &str = "cifar-10-binary.tar.gz";
const PYTHON_ARCHIVE: &str = "cifar-10-python.tar.gz";

/// Finds the copy in `root`, in `root/cifar10`, or `root` itself.
pub(crate) fn find(root: &Path) -> Option<Found> {
    let found = |form, path| Some(Found { form, path });
    let name = root.file_name().and_then(|name| name.to_str());
    match name {
        Some(BINARY_ARCHIVE) if root.is_file() => return found(Form::BinaryArchive, root.to_owned()),
        Some(PYTHON_ARCHIVE) if root.is_file() => return found(Form::PythonArchive, root.to_owned()),
        _ => {}
    }
    let holds = |ending: &str| BATCHES.iter().any(|batch| root.join(format!("{batch}{ending}")).is_file());
    if holds(".bin") {
        return found(Form::BinaryFolder, root.to_owned());
    }
    if holds("") {
        return found(Form::PythonFolder, root.to_owned());
    }
    if parquet::files(root).is_some() {
        return found(Form::Parquet, root.to_owned());
    }
    for folder in [root.to_owned(), root.join("cifar10")] {
        let candidates = [
            (Form::BinaryFolder, BINARY_FOLDER),
            (Form::BinaryArchive, BINARY_ARCHIVE),
            (Form::PythonFolder, PYTHON_FOLDER),
            (Form::PythonArchive, PYTHON_ARCHIVE),
            (Form::Parquet, "plain_text"),
        ];
        for (form, name) in candidates {
            let path = folder.join(name);
            let there = match form {
                Form::BinaryFolder | Form::PythonFolder => path.is_dir(),
                Form::BinaryArchive | Form::PythonArchive => path.is_file(),
                Form::Parquet => parquet::files(&path).is_some(),
            };
            if there {
                return found(form, path);
            }
        }
    }
    None
}

/// Returns the error of a folder without a copy.
pub(crate) fn missing(location: Location) -> DataError {
    let exists = location.path.is_dir();
    let advice = "Run `invaspread data fetch cifar10`, or set data.root or INVASPREAD_DATA to the folder that holds it";
    DataError::Missing {
        name: "cifar10",
        looked_for: looked_for(),
        advice: if exists { advice.to_owned() } else { format!("That folder does not exist. {advice}") },
        location,
    }
}

/// Returns the names that [`find`] searches for.
pub(crate) fn looked_for() -> Vec<String> {
    [
        &format!("{BINARY_FOLDER}/"),
        BINARY_ARCHIVE,
        &format!("{PYTHON_FOLDER}/"),
        PYTHON_ARCHIVE,
        "plain_text/{train,test}-00000-of-00001.parquet",
        "plain_text/{train,test}/0000.parquet",
    ]
    .map(str::to_owned)
    .to_vec()
}
