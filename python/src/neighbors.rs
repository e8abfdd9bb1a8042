//! Votes of neighbors, clusters and linear classifiers of arrays.

use invaspread::measure::number;
use invaspread_metrics::{
    Agreement, KMeans, LinearClassifier, LinearSvm, LogisticRegression, Rows, Seeding, WeightedKnn,
};
use invaspread_runner::embeddings::{Classes, Embedded};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;

use crate::arrays::{Labeled, take, wrong};
use crate::interrupt::interruptible;

/// Accuracies in percent, and the number of the class that was found for each row; classes are numbered in the
/// order of all labels.
type Accuracies<'py> = (Vec<f64>, Bound<'py, PyArray1<u32>>);

/// The cluster of each row, the sum of squared distances, and NMI (arithmetic, geometric) and AMI in percent.
type Clusters<'py> = (Bound<'py, PyArray1<u32>>, f64, Option<[f64; 3]>);

/// Returns the top-1 and top-5 accuracy of weighted kNN, and its predictions.
#[pyfunction]
#[pyo3(signature = (test, gallery, *, k, temperature, scaled))]
pub(crate) fn knn<'py>(
    py: Python<'py>,
    test: Labeled,
    gallery: Labeled,
    k: usize,
    temperature: f64,
    scaled: bool,
) -> PyResult<Accuracies<'py>> {
    let found = interruptible(py, move || {
        let (test, gallery, classes) = both(test, gallery, scaled)?;
        if k == 0 {
            return Err(wrong("k: found 0, expected at least 1"));
        }
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(wrong(format!("temperature: found {temperature}, expected a number above 0")));
        }
        let knn = WeightedKnn { k, temperature, ..WeightedKnn::default() };
        let of_gallery = classes.gallery.as_deref().unwrap_or_default();
        knn.evaluate(rows(&test), &classes.test, rows(&gallery), of_gallery, classes.count()).map_err(wrong)
    })?;
    Ok((vec![found.top1, found.top5], found.predictions.into_pyarray(py)))
}

/// Returns the accuracy of a linear classifier that is trained on the gallery, and its predictions.
#[pyfunction]
#[pyo3(signature = (test, gallery, *, classifier, c, scaled))]
pub(crate) fn linear<'py>(
    py: Python<'py>,
    test: Labeled,
    gallery: Labeled,
    classifier: String,
    c: f64,
    scaled: bool,
) -> PyResult<Accuracies<'py>> {
    let (accuracy, predictions) = interruptible(py, move || {
        let (test, gallery, classes) = both(test, gallery, scaled)?;
        let of_gallery = classes.gallery.as_deref().unwrap_or_default();
        let fitted: LinearClassifier = match classifier.as_str() {
            "svm" => LinearSvm { c, ..LinearSvm::default() }.fit(rows(&gallery), of_gallery),
            "logistic" => {
                LogisticRegression { c, ..LogisticRegression::default() }.fit(rows(&gallery), of_gallery)
            }
            other => {
                return Err(wrong(format!(
                    "classifier: found \"{other}\", expected \"svm\" or \"logistic\""
                )));
            }
        }
        .map_err(wrong)?;
        let predictions = fitted.predict(rows(&test)).map_err(wrong)?;
        Ok((fitted.accuracy(rows(&test), &classes.test).map_err(wrong)?, predictions))
    })?;
    Ok((vec![accuracy], predictions.into_pyarray(py)))
}

/// Returns the cluster of each row, the sum of squared distances to the centroids, and with classes the two
/// forms of NMI and AMI, in percent.
#[pyfunction]
#[pyo3(signature = (test, *, clusters, starts, seed, scaled, has_labels))]
pub(crate) fn cluster<'py>(
    py: Python<'py>,
    test: Labeled,
    clusters: usize,
    starts: usize,
    seed: u64,
    scaled: bool,
    has_labels: bool,
) -> PyResult<Clusters<'py>> {
    let (found, agreement) = interruptible(py, move || {
        let test = take(test, ["embeddings", "labels"], scaled)?;
        if clusters == 0 || starts == 0 {
            return Err(wrong(format!(
                "clusters and starts: found {clusters} and {starts}, expected at least 1"
            )));
        }
        // As scikit-learn's defaults, and as `measure` clusters.
        let kmeans = KMeans {
            clusters,
            iterations: 300,
            tolerance: 1e-4,
            restarts: starts,
            seeding: Seeding::PlusPlus,
            seed,
            epoch: 0,
            device: invaspread_tensor::DeviceKind::Cpu,
        };
        let found = kmeans.fit(rows(&test)).map_err(wrong)?;
        let agreement = if has_labels {
            let classes = number(&test.labels, None).map_err(wrong)?;
            Some(Agreement::between(&classes.test, &found.assignments).map_err(wrong)?)
        } else {
            None
        };
        Ok((found, agreement))
    })?;
    let agreement =
        agreement.map(|one| [one.nmi_arithmetic, one.nmi_geometric, one.ami].map(|value| 100.0 * value));
    Ok((found.assignments.into_pyarray(py), found.inertia, agreement))
}

/// Takes test rows and a gallery with the classes of both.
fn both(test: Labeled, gallery: Labeled, scaled: bool) -> PyResult<(Embedded, Embedded, Classes)> {
    let test = take(test, ["embeddings", "labels"], scaled)?;
    let gallery = take(gallery, ["gallery", "gallery_labels"], scaled)?;
    let classes = number(&test.labels, Some(&gallery.labels)).map_err(wrong)?;
    Ok((test, gallery, classes))
}

fn rows(embedded: &Embedded) -> Rows<'_> {
    Rows::new(&embedded.features.values, embedded.features.dim)
}
