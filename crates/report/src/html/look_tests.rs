//! Tests of the page of a run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::fake;
use crate::gallery::Picture;
use crate::look::{Found, Images, Look, Query, View, write_look};

/// Returns twelve invented images of three classes, of which the last four are predicted wrong.
fn images(classes: &[&str], pictures: bool) -> Images {
    let picture =
        |label: u32| Picture { width: 16, height: 16, pixels: vec![40 * label as u8; 16 * 16 * 3], label };
    let labels: Vec<u32> = (0..12).map(|image| image % 3).collect();
    let predictions =
        labels.iter().enumerate().map(|(i, &label)| if i < 8 { label } else { (label + 1) % 3 }).collect();
    let found =
        |label| Found { image: 7, label, similarity: -0.25, picture: pictures.then(|| picture(label)) };
    Images {
        classes: classes.iter().map(|&class| class.to_owned()).collect(),
        predicted_by: "kNN".into(),
        predictions,
        shown: (0..12).collect(),
        views: vec![View {
            name: "PCA".into(),
            about: "Two directions.".into(),
            places: (0..12).map(|i| [i as f32, (i * i) as f32 / 22.0]).collect(),
        }],
        pictures: if pictures { labels.iter().map(|&label| picture(label)).collect() } else { Vec::new() },
        queries: vec![Query {
            image: 8,
            picture: pictures.then(|| picture(2)),
            found: vec![found(2), found(0)],
        }],
        among: "training images".into(),
        labels,
    }
}

fn page(images: Option<Images>, with_run: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/look.html");
    let run = with_run.then(|| fake::with_separations(fake::with_shape(fake::quick_runs(&[0]))).remove(1));
    let look = Look {
        name: "table1/<b>-s0".into(),
        facts: vec![("State".into(), "</dd><script>".into())],
        settings: vec![("optim.lr".into(), "<0.03>".into())],
        run,
        images,
        notes: vec!["<i>missing".into()],
    };
    write_look(&look, &path).unwrap();
    let written = fs_err::read_to_string(&path).unwrap();
    write_look(&look, &path).unwrap();
    assert!(fs_err::read_to_string(&path).unwrap() == written, "the bytes repeat");
    written
}

fn data(html: &str) -> serde_json::Value {
    let data = html.split("id=\"points\">").nth(1).unwrap().split("</script>").next().unwrap();
    serde_json::from_str(data).unwrap()
}

#[test]
fn the_map_holds_every_image_in_its_proportions() {
    let html = page(Some(images(&["cat", "dog", "ship"], true)), true);
    let data = data(&html);
    assert_eq!(data["classes"], serde_json::json!(["cat", "dog", "ship"]));
    assert_eq!(data["labels"].as_array().unwrap().len(), 12);
    let places: Vec<i64> =
        data["views"][0]["places"].as_array().unwrap().iter().map(|place| place.as_i64().unwrap()).collect();
    // x goes from 0 to 11 and y from 0 to 5.5, so the map is half as high as wide, and y points up.
    assert_eq!((places[0], places[22]), (0, 10_000));
    assert_eq!((places[1], places[23]), (7500, 2500));
    assert_eq!(data["columns"], 4);
    assert_eq!(html.matches("data:image/jpeg;base64,").count(), 2);
    assert!(html.contains("8 of 12 right (66.67 %)"));
    // Images 8 to 11 are wrong: of classes 2, 0, 1, 2, each taken for the next.
    let rows: Vec<&str> =
        html.split("class=\"confusion").nth(1).unwrap().split("<tr>").skip(2).take(3).collect();
    let counts = |row: &str| -> Vec<String> {
        row.split("data-v=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    };
    assert_eq!(counts(rows[0]), ["3", "1", "0", "75.0"]);
    assert_eq!(counts(rows[1]), ["0", "3", "1", "75.0"]);
    assert_eq!(counts(rows[2]), ["2", "0", "2", "50.0"]);
    assert!(html.contains("✗ taken for cat") && html.contains("−0.250"), "the query");
}

#[test]
fn names_of_users_stay_text() {
    let hostile = "</script><img src=x>";
    let html = page(Some(images(&[hostile, "a\"b", "c"], true)), true);
    assert!(!html.contains("<img") && !html.contains("<i>missing") && !html.contains("<b>-s0"));
    // The page's two scripts, and the data.
    assert_eq!(html.matches("<script").count(), 3);
    assert_eq!(html.matches("</script>").count(), 3);
    assert_eq!(data(&html)["classes"][0], hostile);
}

#[test]
fn what_is_missing_is_left_out() {
    let html = page(Some(images(&[], false)), false);
    assert!(!html.contains("data:image") && html.contains("class 2") && html.contains("image 7"));
    assert_eq!(data(&html)["columns"], 0);
    assert!(html.contains("The pictures are missing"));
    let html = page(None, true);
    assert!(!html.contains("id=\"points\"") && html.contains("id=\"curves\"") && html.contains("optim.lr"));
    let html = page(None, false);
    assert!(html.contains("&#60;i&#62;missing") && !html.contains("<figure"));
}

#[test]
fn many_classes_have_a_table_of_mistakes() {
    let mut many = images(&[], false);
    many.labels = (0..120).collect();
    many.predictions = (0..120).map(|class| if class < 100 { (class + 1) % 120 } else { class }).collect();
    many.shown = (0..12).collect();
    let html = page(Some(many), false);
    assert!(
        !html.contains("class=\"confusion") && html.contains("The most frequent mistakes among 120 classes")
    );
    let table = html.split("taken for</th>").nth(1).unwrap().split("</table>").next().unwrap();
    assert_eq!(table.matches("<tr>").count(), 60);
}
