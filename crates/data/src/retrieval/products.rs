//! Stanford Online Products (Song et al. 2016): 120,053 pictures of 22,634 products sold on eBay, of 12 kinds.
//!
//! `Ebay_train.txt` and `Ebay_test.txt` have a heading and then `image_id class_id super_class_id path` a line. Their classes are
//! disjoint: the products 1 to 11,318 train, the others test.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Form, Found, Item, Listing, Set, bad_line, each_once, plain};
use crate::error::{DataError, reading};
use crate::fetch::{Package, Packing, Piece};

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
    // Numbers of the products as listed, and what to call them: the kind and the number.
    let mut names = BTreeMap::new();
    let (train, test) = (rows(folder, TRAIN)?, rows(folder, TEST)?);
    for row in train.iter().chain(&test) {
        names.entry(row.class).or_insert_with(|| format!("{} {}", row.kind(), row.class));
    }
    let number: BTreeMap<u32, u32> = names.keys().zip(0..).map(|(&class, number)| (class, number)).collect();
    let items = |rows: Vec<Row>| -> Vec<Item> {
        rows.into_iter().map(|row| Item { file: row.path, class: number[&row.class] }).collect()
    };
    let (train, test) = (items(train), items(test));
    let listing = Listing {
        classes: names.into_values().collect(),
        train,
        test,
        lists: vec![TRAIN.to_owned(), TEST.to_owned()],
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
    /// The kind of product: the picture's folder without its ending.
    fn kind(&self) -> &str {
        let folder = self.path.split_once('/').map_or("product", |(folder, _)| folder);
        folder.strip_suffix("_final").unwrap_or(folder)
    }
}

fn rows(folder: &Path, name: &str) -> Result<Vec<Row>, DataError> {
    let path = folder.join(name);
    let text = fs_err::read_to_string(&path).map_err(reading)?;
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

/// The archive as published.
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
