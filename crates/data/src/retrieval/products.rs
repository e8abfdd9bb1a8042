//! Stanford Online Products (Song et al. 2016): 120,053 pictures of 22,634 products of 12 kinds that were
//! sold on eBay.
//!
//! `Ebay_train.txt` and `Ebay_test.txt` have a heading and then lines of
//! `image_id class_id super_class_id path`. Their classes are disjoint: products 1 to 11,318 are for
//! training, the others for testing.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Found, Item, Listing, Set, bad_line, each_once, plain};
use crate::error::DataError;
use crate::form::RetrievalForm as Form;
use crate::lists::read_text;
use crate::package::{Package, Packing, Piece};
use crate::walk::PassedOver;

/// The folder that the archive unpacks to.
const FOLDER: &str = "Stanford_Online_Products";

const TRAIN: &str = "Ebay_train.txt";
const TEST: &str = "Ebay_test.txt";

/// The first line of both lists.
const HEADING: &str = "image_id class_id super_class_id path";

pub(super) fn find(root: &Path) -> Option<Found> {
    let own = root.join("products");
    let folders = [root.to_owned(), root.join(FOLDER), own.join(FOLDER), own];
    let folder = folders.into_iter().find(|folder| folder.join(TRAIN).is_file())?;
    Some(Found { form: Form::EbayLists, folder })
}

pub(super) fn looked_for() -> Vec<String> {
    [FOLDER.to_owned(), format!("products/{FOLDER}"), "products".to_owned()]
        .map(|folder| format!("{folder}/{TRAIN}"))
        .to_vec()
}

pub(super) fn list(folder: &Path) -> Result<Listing, DataError> {
    // Each product by its number in the lists, with its name, which consists of the kind and the number.
    let mut names = BTreeMap::new();
    let (train, test) = (rows(folder, TRAIN)?, rows(folder, TEST)?);
    for row in train.iter().chain(&test) {
        names.entry(row.class).or_insert_with(|| format!("{} {}", row.kind(), row.class));
    }
    let number: BTreeMap<u32, u32> = names.keys().zip(0..).map(|(&class, number)| (class, number)).collect();
    let items = |rows: Vec<Row>| -> Vec<Item> {
        rows.into_iter().map(|row| Item { file: row.path.into(), class: number[&row.class] }).collect()
    };
    let (train, test) = (items(train), items(test));
    let listing = Listing {
        classes: names.into_values().collect(),
        train,
        test,
        lists: vec![TRAIN.to_owned(), TEST.to_owned()],
        passed_over: PassedOver::default(),
    };
    let path = folder.join(TEST);
    each_once(&path, &listing, Set::Products)?;
    let mut trained = vec![false; listing.classes.len()];
    for item in &listing.train {
        trained[item.class as usize] = true;
    }
    match listing.test.iter().find(|item| trained[item.class as usize]) {
        None => Ok(listing),
        Some(item) => Err(DataError::Damaged {
            path,
            found: format!(
                "the product \"{}\", which is in {TRAIN} too",
                listing.classes[item.class as usize]
            ),
            expected: "products that no training image shows".to_owned(),
            advice: Set::Products.refetch(),
        }),
    }
}

/// A line of a list.
struct Row {
    class: u32,
    path: String,
}

impl Row {
    /// Returns the kind of product: the folder of the picture without its ending.
    fn kind(&self) -> &str {
        let folder = self.path.split_once('/').map_or("product", |(folder, _)| folder);
        folder.strip_suffix("_final").unwrap_or(folder)
    }
}

fn rows(folder: &Path, name: &str) -> Result<Vec<Row>, DataError> {
    let path = folder.join(name);
    let text = read_text(&path)?;
    let mut lines = text.lines().enumerate();
    match lines.next() {
        Some((_, heading)) if heading.trim() == HEADING => {}
        other => {
            let found = other.map_or("", |(_, line)| line);
            return Err(bad_line(&path, 0, found, &format!("the heading \"{HEADING}\""), Set::Products));
        }
    }
    lines
        .map(|(number, line)| {
            let row = || {
                let mut words = line.trim().splitn(4, ' ');
                let mut whole = || words.next()?.parse::<u32>().ok();
                let (_, class, _) = (whole()?, whole()?, whole()?);
                let path = words.next().filter(|path| plain(path))?.to_owned();
                Some(Row { class, path })
            };
            row().ok_or_else(|| bad_line(&path, number, line, "three numbers and a path", Set::Products))
        })
        .collect()
}

/// Returns the archive as published.
pub(super) fn package() -> Package {
    fn keep(name: &str) -> bool {
        name == TRAIN || name == TEST || name.contains("_final/")
    }
    Package {
        name: "products",
        folder: FOLDER,
        pieces: vec![Piece {
            base_url: Some("http://ftp.cs.stanford.edu/cs/cvgl".to_owned()),
            file: "Stanford_Online_Products.zip".to_owned(),
            bytes: 3_083_860_082,
            sha256: "b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48".to_owned(),
            packing: Packing::Zip { top: FOLDER, keep },
            into: "",
        }],
        advice: Set::Products.refetch(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::open;
    use super::super::tests::{assert_shows, config, message};
    use super::*;
    use crate::sample::pictures::products;

    #[test]
    fn both_lists_are_read_and_their_products_numbered_together() {
        let root = tempfile::tempdir().unwrap();
        products(&root.path().join("products"), &[5, 100, 11_319, 22_634]);
        let dataset = open(Set::Products, &config(Set::Products, root.path())).unwrap();
        assert_eq!(dataset.train.labels, [0, 0, 0, 1, 1, 1]);
        assert_eq!(dataset.test.labels, [2, 2, 2, 3, 3, 3]);
        assert_eq!(dataset.classes, ["sofa 5", "sofa 100", "sofa 11319", "sofa 22634"]);
        assert_shows(&dataset.train, &[5, 100]);
        assert_shows(&dataset.test, &[11_319 % 200, 22_634 % 200]);
    }

    #[test]
    fn damaged_lists_are_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = products(root.path(), &[5, 11_319]);
        let check = |name: &str, change: &dyn Fn(&str) -> String, expected: &[&str]| {
            let path = folder.join(name);
            let whole = fs_err::read_to_string(&path).unwrap();
            fs_err::write(&path, change(&whole)).unwrap();
            let message = message(Set::Products, root.path());
            assert!(
                message.contains(name) && expected.iter().all(|part| message.contains(part)),
                "{message}"
            );
            assert!(message.contains("data fetch products"), "{message}");
            fs_err::write(&path, whole).unwrap();
        };
        check(TRAIN, &|text| text.split_once('\n').unwrap().1.to_owned(), &["in line 1", "the heading"]);
        check(TRAIN, &|_| String::new(), &["\"\" in line 1", "the heading"]);
        check(TEST, &|text| text[..text.len() - 26].to_owned(), &["in line 4", "three numbers and a path"]);
        check(TEST, &|text| text.replace("11319", "x"), &["in line 2"]);
        check(TEST, &|text| text.replace("sofa_final/", "/etc/"), &["in line 2", "three numbers and a path"]);
        check(TEST, &|text| text.replace("_2.JPG", "_1.JPG"), &["122319_1.JPG twice"]);
        check(TEST, &|text| text.replace("11319", "5"), &["the product \"sofa 5\"", "Ebay_train.txt too"]);
        fs_err::remove_file(folder.join(TEST)).unwrap();
        let text = message(Set::Products, root.path());
        assert!(text.contains(TEST) && text.contains("check that it exists"), "{text}");
    }
}
