//! How the embeddings of a run were measured, as the run's `config.toml` says.

use std::path::Path;

use fs_err as fs;
use serde::Deserialize;

use crate::error::ReportError;

/// The part of a config that decides how embeddings are measured. Keys that it lacks were not recorded.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Evaluation {
    eval: Eval,
    augment: Augment,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Eval {
    k: u64,
    temperature: f64,
    layer: Option<String>,
    linear: Option<String>,
    retrieval: Option<Retrieval>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Retrieval {
    recall_at: Vec<u64>,
    clustering: Option<String>,
    kmeans_restarts: Option<u64>,
    kmeans_iterations: Option<u64>,
    kmeans_start: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Augment {
    size: usize,
    squash: Option<usize>,
    crop: Option<toml::Table>,
}

/// The data set; of its tables, those whose images are resized when they are read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Data {
    #[serde(default)]
    name: String,
    retrieval: Option<Images>,
    folder: Option<Images>,
    webdataset: Option<Images>,
    parquet: Option<Images>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Images {
    image_size: usize,
    filter: Option<String>,
}

impl Data {
    /// Returns the side and the filter of the resize on reading, if there is one.
    fn resize(&self) -> Option<(usize, &str)> {
        let images = match self.name.as_str() {
            "folder" => self.folder.as_ref(),
            "webdataset" => self.webdataset.as_ref(),
            "parquet" => self.parquet.as_ref(),
            _ => self.retrieval.as_ref(),
        };
        images.map(|Images { image_size, filter }| (*image_size, filter.as_deref().unwrap_or("bilinear")))
    }
}

impl Evaluation {
    /// Reads the config in `file`; `None` if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML, or has no such keys.
    pub fn read(file: &Path) -> Result<Option<Self>, ReportError> {
        if !file.is_file() {
            return Ok(None);
        }
        let path = file.to_path_buf();
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(source) => return Err(ReportError::File { action: "read", path, source }),
        };
        toml::from_str(&text)
            .map(Some)
            .map_err(|source| ReportError::Config { path, source: Box::new(source) })
    }

    /// Returns what the embeddings are, what they are compared with, and how.
    pub fn describe(&self) -> String {
        let Eval { k, temperature, layer, linear, retrieval } = &self.eval;
        let layer = match layer.as_deref() {
            None => "embedding",
            Some("pooled") => "pooled features",
            Some(other) => other,
        };
        let mut parts = vec![match retrieval {
            Some(retrieval) => format!(
                "each test image among the others, by the cosine of the {layer}; {}",
                list_of_recall(&retrieval.recall_at)
            ),
            None => format!(
                "kNN among the training images by the cosine of the {layer}, k = {k}, votes exp(cosine / {temperature})"
            ),
        }];
        if let Some(retrieval) = retrieval.as_ref().filter(|of| is_measured(of.clustering.as_deref())) {
            parts.push(clusters(retrieval));
        }
        if retrieval.is_none() && linear.is_some() && is_measured(linear.as_deref()) {
            parts.push("a linear SVM on the training images".to_owned());
        }
        let Augment { size, squash, crop } = &self.augment;
        parts.push(format!("images: {}", resize(self.data.resize(), *squash, crop.is_some(), *size)));
        parts.join("; ")
    }
}

/// Returns how an image becomes the input of a network where nothing is drawn at random: `on_reading` are the side and the
/// filter of the resize when it is read, `squash` is the side that it is resized to then, and `is_cropped` says whether its
/// middle is cut out as it is.
fn resize(on_reading: Option<(usize, &str)>, squash: Option<usize>, is_cropped: bool, size: usize) -> String {
    let resized = [on_reading, squash.map(|side| (side, "lanczos"))];
    let resized = resized.into_iter().flatten();
    let mut parts: Vec<String> =
        resized.map(|(side, filter)| format!("resized to {side} x {side} ({filter})")).collect();
    let shorter = if is_cropped { String::new() } else { format!("the shorter side to {size} (bilinear), ") };
    parts.push(format!("{shorter}the middle {size} x {size}"));
    parts.join("; ")
}

fn is_measured(when: Option<&str>) -> bool {
    when != Some("never")
}

fn list_of_recall(ks: &[u64]) -> String {
    let ks: Vec<String> = ks.iter().map(u64::to_string).collect();
    format!("R@K for K = {}", ks.join(", "))
}

fn clusters(retrieval: &Retrieval) -> String {
    let starts = match retrieval.kmeans_restarts {
        Some(1) => "k-means from one start".to_owned(),
        Some(starts) => format!("the best k-means of {starts} starts"),
        None => "k-means".to_owned(),
    };
    let start = retrieval.kmeans_start.as_deref().filter(|start| *start == "random");
    let start = start.map_or("", |_| " at random rows");
    let iterations = retrieval.kmeans_iterations;
    let iterations = iterations.map_or_else(String::new, |most| format!(" with at most {most} iterations"));
    format!("NMI and AMI of {starts}{start}{iterations}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn described(config: &str) -> String {
        toml::from_str::<Evaluation>(config).unwrap().describe()
    }

    #[test]
    fn a_protocol_is_described_as_its_config_says() {
        assert_eq!(
            described("[eval]\nk = 200\ntemperature = 0.1\nevery = 1\n[augment]\nsize = 32\n"),
            "kNN among the training images by the cosine of the embedding, k = 200, votes exp(cosine / 0.1); images: the shorter side to 32 \
             (bilinear), the middle 32 x 32"
        );
        assert_eq!(
            described(
                "[eval]\nk = 20\ntemperature = 0.07\nlayer = 'pooled'\nlinear = 'last'\n[augment]\nsize = 224\nsquash = 256\n\
                 [augment.crop]\npadding = 4"
            ),
            "kNN among the training images by the cosine of the pooled features, k = 20, votes exp(cosine / 0.07); a linear SVM on the training \
             images; images: resized to 256 x 256 (lanczos); the middle 224 x 224"
        );
        let folder = "[eval]\nk = 5\ntemperature = 1.0\n[augment]\nsize = 32\n[data]\nname = 'folder'\nfolder = { image_size = 40 }\n";
        let folder = described(folder);
        assert!(folder.contains("images: resized to 40 x 40 (bilinear); the shorter side to 32"), "{folder}");
        let retrieval = "[data.retrieval]\nimage_size = 64\nfilter = 'lanczos'\n[augment]\nsize = 64\n[eval]\nk = 200\ntemperature = 0.1\n\
                         [eval.retrieval]\nrecall_at = [1, 2]\nkmeans_restarts = 10\n";
        assert_eq!(
            described(&format!("{retrieval}clustering = 'last'")),
            "each test image among the others, by the cosine of the embedding; R@K for K = 1, 2; NMI and AMI of the best k-means of 10 starts; \
             images: resized to 64 x 64 (lanczos); the shorter side to 64 (bilinear), the middle 64 x 64"
        );
        assert!(!described(&format!("{retrieval}clustering = 'never'")).contains("NMI"));
        let faiss = described(&format!("{retrieval}kmeans_start = 'random'\nkmeans_iterations = 25"));
        assert!(faiss.contains("of 10 starts at random rows with at most 25 iterations;"), "{faiss}");
    }

    #[test]
    fn a_config_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        assert_eq!(Evaluation::read(&file).unwrap(), None);
        for text in ["[eval", "[eval]\nk = 'many'"] {
            fs::write(&file, text).unwrap();
            let told = Evaluation::read(&file).unwrap_err().to_string();
            assert!(told.contains("config.toml") && told.contains("expected the config of a run"), "{told}");
        }
    }
}
