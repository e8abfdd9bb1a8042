//! What the page of a single run shows ([`write_look`]): its settings and curves, and, if its embeddings are there, a map of
//! the test images, their nearest neighbors and the classes that are taken for others.

use std::path::Path;

use invaspread_record::{Layout, write_atomically};

use crate::error::ReportError;
use crate::gallery::Picture;
use crate::html;
use crate::records::{self, Run};

/// The most images that a map shows.
pub const MOST_POINTS: usize = 10_000;

/// A run, as its page shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// The run's folder below `runs.root`.
    pub name: String,
    /// Names and values of what the run is: its state, method, data set, ...
    pub facts: Vec<(String, String)>,
    /// The keys of its config with their values.
    pub settings: Vec<(String, String)>,
    /// Its record and measurements, if it is finished.
    pub run: Option<Run>,
    /// What is seen of its test images, if there are embeddings.
    pub images: Option<Images>,
    /// Sentences about what is missing, and what must be known to read the page.
    pub notes: Vec<String>,
}

/// The test images of a run, as its embeddings see them.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    /// The names of the classes; a class without a name is shown by its number.
    pub classes: Vec<String>,
    /// How a class is predicted: "kNN among the training images, k = 200".
    pub predicted_by: String,
    /// The class of each test image.
    pub labels: Vec<u32>,
    /// The predicted class of each test image.
    pub predictions: Vec<u32>,
    /// The test images on the map, ascending; at most [`MOST_POINTS`].
    pub shown: Vec<u32>,
    /// The maps of the shown images.
    pub views: Vec<View>,
    /// The pictures of the shown images; empty if the data set is not there.
    pub pictures: Vec<Picture>,
    /// Some test images with what is nearest to them, wrong ones first.
    pub queries: Vec<Query>,
    /// Where the neighbors come from: "training images", "other test images".
    pub among: String,
}

/// A map of the shown images.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its name: "PCA".
    pub name: String,
    /// What it shows and what not.
    pub about: String,
    /// x and y of each shown image.
    pub places: Vec<[f32; 2]>,
}

/// A test image and what is nearest to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The number of the image in the test set.
    pub image: u32,
    /// Its picture, if the data set is there.
    pub picture: Option<Picture>,
    /// The nearest images, nearest first.
    pub found: Vec<Found>,
}

/// A retrieved image.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its number in its set.
    pub image: u32,
    /// Its class.
    pub label: u32,
    /// Its cosine similarity to the query.
    pub similarity: f32,
    /// Its picture, if the data set is there.
    pub picture: Option<Picture>,
}

impl Images {
    /// Returns the name of a class.
    pub(crate) fn class(&self, class: u32) -> String {
        self.classes.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"))
    }

    /// Returns how often each class (first index) was predicted as each (second index).
    pub(crate) fn confusion(&self) -> Vec<Vec<u32>> {
        let highest =
            self.labels.iter().chain(&self.predictions).max().map_or(0, |&class| class as usize + 1);
        let classes = highest.max(self.classes.len());
        let mut counts = vec![vec![0; classes]; classes];
        for (&label, &predicted) in self.labels.iter().zip(&self.predictions) {
            counts[label as usize][predicted as usize] += 1;
        }
        counts
    }
}

/// Reads the record and the measurements of the run in `layout`, which lies below `runs_root`; `None` if it is not finished.
///
/// # Errors
/// If a file cannot be read or parsed.
pub fn read_run(runs_root: &Path, layout: &Layout) -> Result<Option<Run>, ReportError> {
    records::load_run(runs_root, layout)
}

/// Writes the page of a run to `path`, whole or not at all. The same run gives the same bytes.
///
/// # Errors
/// If a picture cannot be encoded, the table of the run cannot be made, or the file cannot be written.
pub fn write_look(look: &Look, path: &Path) -> Result<(), ReportError> {
    let failed = |source| ReportError::File { action: "write", path: path.to_path_buf(), source };
    let page = html::look(look)?;
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder).map_err(failed)?;
    }
    write_atomically(path, page.as_bytes()).map_err(failed)
}
