//! Groups of classes: the attributes by which Figure 6 of the paper sorts CIFAR-10.

use crate::Dataset;

/// A sorting of a data set's classes into groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// Its name, such as `animals_artifacts`.
    pub name: String,
    /// What each group is called.
    pub groups: Vec<String>,
    /// The group of each class; `None` for a class that takes no part.
    pub of_class: Vec<Option<u32>>,
}

impl Dataset {
    /// The groupings known for its classes, by their names: animals against artifacts, and big against small animals, of CIFAR-10 and
    /// STL-10. The paper takes them from Huang et al. (CVPR 2016) without printing which class is which; the second is our reading.
    pub fn groupings(&self) -> Vec<Grouping> {
        let known = [
            (
                "animals_artifacts",
                ["animal", "artifact"],
                [
                    &["bird", "cat", "deer", "dog", "frog", "horse", "monkey"][..],
                    &["airplane", "automobile", "car", "ship", "truck"],
                ],
            ),
            (
                "big_small_animals",
                ["big animal", "small animal"],
                [&["deer", "horse"], &["bird", "cat", "dog", "frog", "monkey"]],
            ),
        ];
        if !matches!(self.name.as_str(), "cifar10" | "stl10") {
            return Vec::new();
        }
        known
            .into_iter()
            .map(|(name, groups, members)| {
                let group = |class: &String| {
                    members.iter().position(|members| members.contains(&class.as_str())).map(|at| at as u32)
                };
                Grouping {
                    name: name.to_owned(),
                    groups: groups.map(str::to_owned).to_vec(),
                    of_class: self.classes.iter().map(group).collect(),
                }
            })
            .collect()
    }
}
