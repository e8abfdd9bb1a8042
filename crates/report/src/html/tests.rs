//! Tests of whole pages.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use fs_err as fs;

use crate::index::{Entry, write_index_page};
use crate::records::Run;
use crate::suite::Suite;
use crate::{PAGE, fake, gallery, write_report_with_page};

/// Writes the report of `runs` with its page and returns `report.md` and the page.
fn written(suite: impl Into<Suite>, runs: &[Run], folder: &Path, runs_root: &Path) -> [String; 2] {
    write_report_with_page(suite, runs, &["class".to_owned()], folder, runs_root).unwrap();
    ["report.md", PAGE].map(|name| fs::read_to_string(folder.join(name)).unwrap())
}

/// Returns what a reader sees of a page, with a bar before each cell of a table.
fn seen(html: &str) -> String {
    let body = html.split_once("<main").unwrap().1.split_once("</main>").unwrap().0;
    let mut text = String::new();
    for piece in body.split('<') {
        let (tag, words) = piece.split_once('>').unwrap_or(("", piece));
        if tag.starts_with("td") || tag.starts_with("th ") || tag.starts_with("/tr") {
            text.push('|');
        }
        // Links to seeds stand behind a row's label.
        text.push_str(if tag.starts_with("a class=\"seed\"") { "" } else { words });
    }
    let entities = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    entities.iter().fold(text, |text, (entity, letter)| text.replace(entity, letter))
}

/// Returns every value of the attributes `src` and `href`.
fn targets(html: &str) -> Vec<&str> {
    let values = ["src=\"", "href=\""].map(|name| html.split(name).skip(1));
    values.into_iter().flatten().map(|rest| rest.split('"').next().unwrap()).collect()
}

/// Checks that each row of each table of `markdown` with heads is a row of the page, cell by cell.
fn assert_same_tables(markdown: &str, html: &str) {
    let seen = seen(html);
    let mut rows = 0;
    for block in markdown.split("\n\n").filter(|block| block.starts_with("| ") && !block.starts_with("| | |"))
    {
        for line in block.lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<String> = line
                .trim_matches(['|', ' '])
                .split(" | ")
                .map(|cell| cell.trim().replace(['*', '`'], "").replace("\\_", "_"))
                .collect();
            // A row's label may be followed by links.
            let row = cells.join("|");
            assert!(seen.replace(" |", "|").contains(&row), "{row}\n{seen}");
            rows += 1;
        }
    }
    assert!(rows > 10, "{rows} rows were compared");
}

#[test]
fn every_row_of_every_table_is_on_the_page() {
    let root = tempfile::tempdir().unwrap();
    let every = |seeds: &[u64]| fake::with_separations(fake::with_shape(fake::quick_runs(seeds)));
    let mut mixed = every(&[0, 1, 2]);
    mixed.extend(fake::full_runs(&[0]));
    for (name, suite, runs) in [
        ("one", "table1", every(&[0])),
        ("mixed", "table1", mixed),
        ("retrieval", "table3", fake::retrieval_runs()),
    ] {
        let [markdown, html] = written(suite, &runs, &root.path().join(name), root.path());
        assert_same_tables(&markdown, &html);
        for said in ["Reduced.", "To regenerate", "Last epoch: the value after the last epoch"] {
            assert_eq!(markdown.contains(said), html.contains(said), "{said}");
        }
        // The largest has 200 epochs of nine rows in four charts.
        assert!(html.len() < 500_000, "{name}: {} bytes", html.len());
    }
}

#[test]
fn charts_stand_in_place_of_pictures() {
    let root = tempfile::tempdir().unwrap();
    let runs = fake::with_separations(fake::with_shape(fake::quick_runs(&[0, 1])));
    let [_, html] = written("table1", &runs, root.path(), root.path());
    for id in
        ["s1-curves", "s1-rank", "s1-similarity1-0", "s1-loss", "s1-images_per_second", "s1-wait_seconds"]
    {
        assert_eq!(html.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
    assert!(!html.contains("<img"), "no picture is left");
    let curves = html.split("id=\"s1-curves\"").nth(1).unwrap().split("</figure>").next().unwrap();
    assert_eq!(curves.matches("<g class=\"line\"").count(), 9);
    assert_eq!(curves.matches("<g class=\"dotted\"").count(), 4, "the paper's curves");
    assert!(
        curves.contains("InvaSpread, paper") && curves.contains("class=\"band\""),
        "two seeds have a band"
    );
    let value = &runs.iter().find(|run| run.record.row == "nce").unwrap().curves["knn_top1"];
    assert_eq!(
        curves.matches("<tr>").count(),
        value.len() + 1,
        "a line of the table for each epoch, and its head"
    );

    let mut untrained = fake::quick_runs(&[0]);
    for run in &mut untrained {
        run.training.clear();
    }
    let [_, html] = written("table1", &untrained, root.path(), root.path());
    assert!(!html.contains("id=\"s1-loss\"") && !html.contains(">Training<"));
}

#[test]
fn names_of_users_stay_text() {
    let hostile = [
        "<img src=x onerror=alert(1)>",
        "\"><script>alert(1)</script>",
        "</title></style></script>",
        "a|b' \u{1b}",
    ];
    let root = tempfile::tempdir().unwrap();
    let mut runs = fake::with_separations(fake::quick_runs(&[0]));
    for (place, run) in runs.iter_mut().enumerate() {
        let name = hostile[place % hostile.len()];
        run.record.label = Some(format!("{place} {name}"));
        run.record.profile = name.into();
        run.record.cpu = name.into();
        run.record.arguments = vec![format!("data.root={name}")];
        run.record.version = name.into();
    }
    let suite = Suite { title: hostile[1].into(), ..Suite::from("own") };
    let [_, html] = written(suite, &runs, root.path(), root.path());
    assert_eq!(html.matches("<script").count(), 1);
    assert_eq!(html.matches("</script").count(), 1);
    assert_eq!(html.matches("</style").count(), 1);
    assert_eq!(html.matches("</title").count(), 1);
    assert!(!html.contains("<img") && !html.contains('\u{1b}'));
    let seen = seen(&html);
    for name in &hostile[..3] {
        assert!(seen.contains(name), "{name}");
    }
    // An attribute ends where the template ends it.
    assert!(!html.contains("aria-label=\"Values of 1 \">"), "{html}");
    let entry = Entry { suite: Suite::from("own"), runs, folder: "a\"><b>".into(), pictures: Vec::new() };
    let index = fs::read_to_string(write_index_page(&[entry], root.path()).unwrap()).unwrap();
    assert_eq!(index.matches("<script").count(), 1);
    assert!(!index.contains("<b>") && index.contains("%22%3E%3Cb%3E/report.html"), "{index}");
}

#[test]
fn nothing_is_asked_of_anywhere_and_the_bytes_repeat() {
    let root = tempfile::tempdir().unwrap();
    let runs = fake::with_separations(fake::with_shape(fake::quick_runs(&[0, 1])));
    let [_, first] = written("table1", &runs, &root.path().join("a"), root.path());
    let reversed: Vec<Run> = runs.iter().rev().cloned().collect();
    let [_, second] = written("table1", &reversed, &root.path().join("b"), root.path());
    assert!(first == second);
    for target in targets(&first) {
        let is_here = !target.contains(':') && !target.starts_with("//");
        assert!(is_here, "{target}");
    }
    for foreign in ["@import", "url(", "fetch(", "XMLHttpRequest", "http-equiv=\"refresh\""] {
        assert!(!first.contains(foreign), "{foreign}");
    }
    assert!(first.contains("default-src 'none'"));
    // The time of the runs is no part of the page.
    assert!(!first.contains("2001-01-01"));
}

#[test]
fn rows_lead_to_the_records_that_exist() {
    let root = tempfile::tempdir().unwrap();
    let runs_root = root.path().join("my runs");
    let runs = fake::write_suite(&runs_root, &fake::quick_runs(&[0]));
    let gone = runs.iter().find(|run| run.record.row == "nce").unwrap();
    fs::remove_file(runs_root.join(&gone.folder).join("record.json")).unwrap();
    let page = root.path().join("results/table1");
    let [_, html] = written("table1", &runs, &page, &runs_root);
    let links: Vec<&str> =
        targets(&html).into_iter().filter(|target| target.ends_with("record.json")).collect();
    // Each of eight rows is linked in the tables of two metrics, of speed (not the untrained one) and of records.
    assert_eq!(links.len(), 2 * 8 + 7 + 8, "{links:?}");
    for link in links {
        assert!(page.join(link.replace("%20", " ")).is_file(), "{link}");
    }
    assert!(!html.contains(&gone.record.id) || !targets(&html).iter().any(|to| to.contains(&gone.record.id)));

    let runs = fake::write_suite(&runs_root, &fake::quick_runs(&[0, 1]));
    let [_, html] = written("table1", &runs, &page, &runs_root);
    assert!(html.contains(">seed 0</a>") && html.contains(">seed 1</a>"));
}

#[test]
fn a_record_on_another_branch_of_the_disk_is_not_linked() {
    let runs = fake::quick_runs(&[0]);
    let root = tempfile::tempdir().unwrap();
    let [_, html] = written("table1", &runs, &root.path().join("page"), Path::new("/nowhere"));
    assert!(targets(&html).iter().all(|target| !target.contains("..")));
}

#[test]
fn photographs_are_in_the_page() {
    let root = tempfile::tempdir().unwrap();
    let picture = image::RgbImage::from_fn(2000, 500, |x, y| image::Rgb([x as u8, y as u8, 99]));
    picture.save(root.path().join(gallery::FILE)).unwrap();
    let suite = Suite { gallery: true, ..Suite::from("table3") };
    let [_, html] = written(suite.clone(), &fake::retrieval_runs(), root.path(), root.path());
    let data: Vec<&str> =
        targets(&html).into_iter().filter(|target| target.starts_with("data:image/jpeg")).collect();
    assert_eq!(data.len(), 1);
    fs::write(root.path().join(gallery::FILE), "not a picture").unwrap();
    let failed = write_report_with_page(suite, &fake::retrieval_runs(), &[], root.path(), root.path());
    let said = failed.unwrap_err().to_string();
    assert!(said.contains(gallery::FILE) && said.contains("invaspread reproduce"), "{said}");
}

#[test]
fn the_index_leads_to_the_pages_of_the_suites() {
    let root = tempfile::tempdir().unwrap();
    let entry = |name: &str, runs: Vec<Run>| Entry {
        suite: Suite::from(name),
        runs,
        folder: name.to_owned(),
        pictures: vec!["curves.png".into()],
    };
    let entries = [entry("table1", fake::quick_runs(&[0])), entry("table3", fake::retrieval_runs())];
    let html = fs::read_to_string(write_index_page(&entries, root.path()).unwrap()).unwrap();
    assert!(html.contains("href=\"table1/report.html\"") && html.contains("href=\"table3/report.html\""));
    assert!(!html.contains("report.md") && !html.contains("<img"));
    let markdown = fs::read_to_string(crate::index::write_index(&entries, root.path()).unwrap()).unwrap();
    assert_same_tables(&markdown, &html);
}
