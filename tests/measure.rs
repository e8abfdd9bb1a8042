//! Tests of `invaspread measure` from outside: for embeddings from any program it prints the values of the
//! definitions, with the warnings that a reader needs, or the reason why it cannot measure them.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking; the values compared are exact"
)]

mod program;

use std::fs;
use std::path::Path;

use invaspread_models::{Network, ResNetConfig, write_weights};
use program::{Said, done, empty, invaspread, refused};
use serde_json::Value;

/// Writes a file in numpy's format, version 1.
fn npy(path: &Path, descr: &str, shape: &str, numbers: &[u8]) {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), numbers].concat()).unwrap();
}

/// There are three classes (40, -1 and 7) of two rows each, and all rows but one are nearest to a row of
/// their own class.
#[test]
fn embeddings_from_elsewhere_are_measured() {
    let folder = empty();
    let at = |name: &str| folder.path().join(name);
    let rows: [[f32; 2]; 6] = [[2.0, 0.0], [9.0, 1.0], [0.0, 1.0], [0.1, 3.0], [-1.0, -0.1], [-0.2, 4.0]];
    let floats =
        |rows: &[[f32; 2]]| rows.as_flattened().iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
    npy(&at("rows.npy"), "<f4", "(6, 2)", &floats(&rows));
    let labels: Vec<u8> = [40_i64, 40, -1, -1, 7, 7].iter().flat_map(|n| n.to_le_bytes()).collect();
    npy(&at("labels.npy"), "<i8", "(6,)", &labels);

    let said = done(folder.path(), &["measure", "rows.npy", "--labels", "labels.npy", "--json"]);
    let result: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&result["rows"], &result["dim"], &result["classes"]), (&6.into(), &2.into(), &3.into()));
    // Rows 0 to 3 find their own class; row 4 finds row 5 (a cosine of -0.05, the largest), row 5 finds row
    // 2.
    let metric = |name: &str| result["metrics"][name].as_f64().unwrap();
    assert!((metric("recall_at_1") - 500.0 / 6.0).abs() < 1e-9, "{said}");
    assert!((metric("map_at_r") - 500.0 / 6.0).abs() < 1e-9, "{said}");
    assert!(metric("nmi_arithmetic") > 50.0, "{said}");

    // One key of a section leaves the others unchanged.
    let settings = ["eval.retrieval.clustering=never", "eval.retrieval.recall_at=[1,5]"];
    let said =
        done(folder.path(), &[&["measure", "rows.npy", "--labels", "labels.npy"][..], &settings].concat());
    assert!(said.contains("R@5") && !said.contains("NMI") && !said.contains("R@2"), "{said}");

    npy(&at("voters.npy"), "<f4", "(3, 2)", &floats(&[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]));
    npy(&at("classes.npy"), "|i1", "(3,)", &[40, 0xff, 7]);
    let asked = ["measure", "rows.npy", "--labels", "labels.npy", "--gallery", "voters.npy", "eval.k=1"];
    let said = done(folder.path(), &[&asked[..], &["--gallery-labels", "classes.npy"]].concat());
    assert!(said.contains("among 3; kNN with k = 1, temperature 0.1"), "{said}");
    assert!(said.contains("kNN") && said.contains("83.33%"), "{said}");
    assert!(said.contains("NMI and AMI are not measured with a gallery"), "{said}");

    refused(folder.path(), &["measure", "rows.npy"], 1, &["rows.npy", "--labels FILE"]);
    refused(
        folder.path(),
        &["measure", "rows.npy", "--labels", "classes.npy"],
        1,
        &["3 labels of 6 embeddings"],
    );
    refused(folder.path(), &asked, 1, &["voters.npy", "no file of labels"]);
    refused(
        folder.path(),
        &["measure", "labels.npy", "--labels", "labels.npy"],
        1,
        &["embeddings of the shape (6,)"],
    );
    refused(folder.path(), &["measure", "none.npz"], 1, &["none.npz"]);
    refused(folder.path(), &["measure", "rows.npy", "--gallery-labels", "x.npy"], 2, &["--gallery"]);
    npy(&at("long.npy"), "<f4", "(3, 4)", &floats(&[[1.0, 0.0]; 6]));
    let unlike = ["measure", "rows.npy", "--labels", "labels.npy", "--gallery", "long.npy"];
    let unlike = [&unlike[..], &["--gallery-labels", "classes.npy"]].concat();
    refused(folder.path(), &unlike, 1, &["2 numbers each, expected 4"]);
    npy(&at("nan.npy"), "<f4", "(6, 2)", &floats(&[[f32::NAN, 0.0]; 6]));
    refused(folder.path(), &["measure", "nan.npy", "--labels", "labels.npy"], 1, &["row 0", "NaN"]);
}

/// Writes 400 rows of ten classes, each near its class with some noise, to `name`, and their labels to labels.txt.
fn noisy(folder: &Path, name: &str, noise: f32) {
    // A hash of the place: the same on every machine.
    let drawn = |place: u32| {
        let mixed = place.wrapping_mul(0x9E37_79B9);
        let mixed = (mixed ^ mixed >> 16).wrapping_mul(0x85EB_CA6B);
        (mixed ^ mixed >> 13) as f32 / u32::MAX as f32 - 0.5
    };
    let rows: Vec<[f32; 10]> = (0..400_u32)
        .map(|row| {
            std::array::from_fn(|column| {
                let own = f32::from(u8::from(row % 10 == column as u32));
                own + noise * drawn(10 * row + column as u32)
            })
        })
        .collect();
    put(folder, name, &rows);
    let labels: Vec<String> = (0..400).map(|i| (i % 10).to_string()).collect();
    fs::write(folder.join("labels.txt"), labels.join("\n")).unwrap();
}

/// Returns the arguments that measure the good rows.
fn of<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["measure", "good.npy", "--labels", "labels.txt"], more].concat()
}

#[test]
fn every_metric_has_an_interval_and_two_embeddings_are_compared_row_by_row() {
    let folder = empty();
    let at = folder.path();
    noisy(at, "good.npy", 2.0);
    noisy(at, "bad.npy", 4.0);

    let alone = json(at, &of(&[]));
    assert_eq!(alone["intervals"]["units"], "classes", "{alone}");
    for (name, value) in alone["metrics"].as_object().unwrap() {
        let interval = &alone["intervals"]["metrics"][name];
        let [value, low, high] = [value, &interval["low"], &interval["high"]].map(|x| x.as_f64().unwrap());
        assert!(low <= value && value <= high && low < high, "{name}: {interval}");
    }
    let said = done(at, &of(&[]));
    assert!(said.contains("95% intervals for other classes: 10000 bootstrap draws"), "{said}");
    assert!(said.contains("; of NMI and AMI, 1000 halves of the classes"), "{said}");
    // The seed decides the draws, and nothing else does.
    let intervals = |more: &[&str]| json(at, &of(more))["intervals"]["metrics"].clone();
    assert_eq!(intervals(&[]), alone["intervals"]["metrics"]);
    assert_ne!(intervals(&["seed=1"]), alone["intervals"]["metrics"]);
    assert_ne!(intervals(&["--intervals", "queries"]), alone["intervals"]["metrics"]);
    assert!(json(at, &of(&["--intervals", "none"]))["intervals"].is_null());

    let against = json(at, &of(&["--against", "bad.npy"]));
    let (one, other) = (metric(&against, "recall_at_1"), metric(&against["against"], "recall_at_1"));
    let difference = &against["against"]["differences"]["recall_at_1"];
    assert_eq!(difference["value"].as_f64().unwrap(), one - other);
    assert!(one > other + 5.0 && difference["interval"]["low"].as_f64().unwrap() > 0.0, "{against}");
    let said = done(at, &of(&["--against", "bad.npy", "eval.retrieval.clustering=never"]));
    assert!(said.contains("R@1: good.npy is better than bad.npy"), "{said}");
    assert!(said.contains("; with only 10 classes that is a hint, not a decision"), "{said}");
    let said = done(at, &of(&["--against", "good.npy", "eval.retrieval.clustering=never"]));
    assert!(said.contains("+0.00 to  +0.00") && said.contains("the same score in every row"), "{said}");
    assert!(alone["notes"].to_string().contains("10 classes are few to draw from"), "{alone}");

    // With a gallery both need one, and queries are drawn again.
    let among = ["--gallery", "bad.npy", "--gallery-labels", "labels.txt"];
    let both = [&among[..], &["--against", "bad.npy"]].concat();
    refused(at, &of(&both), 2, &["--against bad.npy", "--against-gallery FILE"]);
    let result = json(at, &of(&[&both[..], &["--against-gallery", "bad.npy"]].concat()));
    assert_eq!(result["intervals"]["units"], "queries");
    assert!(!result["against"]["differences"]["knn_top1"]["interval"].is_null(), "{result}");

    let first: Vec<[f32; 2]> = vec![[1.0, 0.0]; 7];
    put(at, "few.npy", &first);
    refused(at, &of(&["--against", "few.npy"]), 1, &["few.npy", "400 labels of 7 embeddings"]);
    refused(at, &of(&["--against-gallery", "bad.npy"]), 2, &["--against"]);
}

#[test]
fn other_embeddings_must_be_of_the_same_rows() {
    let folder = empty();
    let at = folder.path();
    let save = |name: &str, labels: &[f32]| {
        let array = |numbers: &[f32], shape: Vec<usize>| {
            candle_core::Tensor::from_vec(numbers.to_vec(), shape, &candle_core::Device::Cpu).unwrap()
        };
        let rows: Vec<f32> = (0..2 * labels.len()).map(|i| i as f32 + 1.0).collect();
        let tensors = [
            ("embeddings", array(&rows, vec![labels.len(), 2])),
            ("labels", array(labels, vec![labels.len()])),
        ];
        candle_core::safetensors::save(&tensors.into(), at.join(name)).unwrap();
    };
    save("one", &[0.0, 0.0, 1.0, 1.0]);
    save("order", &[0.0, 1.0, 0.0, 1.0]);
    save("more", &[0.0, 0.0, 1.0, 1.0, 1.0]);
    refused(
        at,
        &["measure", "one", "--against", "order"],
        1,
        &["row 1 has the label 0 in one and 1 in order"],
    );
    refused(at, &["measure", "one", "--against", "more"], 1, &["more has 5 rows and one 4", "the same rows"]);
    // Two classes, or four rows, are too few.
    for units in ["classes", "queries"] {
        let said = done(at, &["measure", "one", "--against", "one", "--intervals", units]);
        assert!(said.contains("one against one, row by row:"), "{said}");
        assert!(said.contains(&format!("no intervals: there are too few {units}")), "{said}");
    }
    // The rows of the galleries must be the same, too.
    let galleries = ["--gallery", "one", "--against-gallery", "order"];
    refused(
        at,
        &[&["measure", "one", "--against", "one"], &galleries[..]].concat(),
        1,
        &["row 1 has the label 0 in one and 1 in order"],
    );
}

/// Writes the rows and labels of the test above, and a gallery of three rows, to the files that the commands
/// below name.
fn example(folder: &Path) {
    let rows: [[f32; 2]; 6] = [[2.0, 0.0], [9.0, 1.0], [0.0, 1.0], [0.1, 3.0], [-1.0, -0.1], [-0.2, 4.0]];
    put(folder, "rows.npy", &rows);
    fs::write(folder.join("labels.txt"), "40\n40\n-1\n-1\n7\n7\n").unwrap();
    put(folder, "voters.npy", &[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]);
    fs::write(folder.join("classes.txt"), "40\n-1\n7\n").unwrap();
}

fn put<const D: usize>(folder: &Path, name: &str, rows: &[[f32; D]]) {
    let bytes: Vec<u8> = rows.as_flattened().iter().flat_map(|n| n.to_le_bytes()).collect();
    npy(&folder.join(name), "<f4", &format!("({}, {D})", rows.len()), &bytes);
}

const AMONG_THEMSELVES: [&str; 4] = ["measure", "rows.npy", "--labels", "labels.txt"];
const AMONG_VOTERS: [&str; 8] = [
    "measure",
    "rows.npy",
    "--labels",
    "labels.txt",
    "--gallery",
    "voters.npy",
    "--gallery-labels",
    "classes.txt",
];

/// Runs a command that must succeed and returns its result as JSON.
fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(folder, &[arguments, &["--json"]].concat())).unwrap()
}

fn metric(result: &Value, name: &str) -> f64 {
    result["metrics"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {result}"))
}

/// Returns the path of a file that numpy wrote: three rows times 1e-50, labels as words, and other arrays.
fn people() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/numpy/seed_people.npz");
    file.to_str().unwrap().to_owned()
}

#[test]
fn queries_are_looked_up_in_a_gallery() {
    let folder = empty();
    let at = folder.path();
    example(at);
    let result = json(at, &[&AMONG_VOTERS[..], &["eval.k=1", "eval.retrieval.recall_at=[1,2,50]"]].concat());
    // Each query has one image of its class in the gallery; only row 5 finds it second.
    for (name, value) in [
        ("knn_top1", 500.0 / 6.0),
        ("recall_at_1", 500.0 / 6.0),
        ("recall_at_2", 100.0),
        ("recall_at_50", 100.0),
        ("map_at_r", 500.0 / 6.0),
        ("r_precision", 500.0 / 6.0),
    ] {
        assert!((metric(&result, name) - value).abs() < 1e-9, "{name}: {result}");
    }
    assert!(result["metrics"].get("nmi_arithmetic").is_none(), "{result}");
    assert_eq!(
        (&result["k"], &result["k_used"], &result["without_match"]),
        (&1.into(), &1.into(), &0.into())
    );
    assert_eq!(result["recall_at"], serde_json::json!([1, 2, 50]));
    assert_eq!(result["arrays"]["gallery"]["labels"]["type"], "text");
    assert_eq!(result["settings"]["eval.k"]["origin"], "argument eval.k=1");
    assert!(result["notes"].to_string().contains("R@50 looks at all 3 rows that can be found"), "{result}");
    // All three vote if `eval.k` is three or more.
    let all = json(at, &[&AMONG_VOTERS[..], &["eval.k=3"]].concat());
    let more = json(at, &AMONG_VOTERS);
    assert_eq!((&more["metrics"], &more["k_used"]), (&all["metrics"], &3.into()));
    assert!(done(at, &AMONG_VOTERS).contains("kNN with k = 200 (all 3 there are)"));
}

#[test]
fn classes_that_the_gallery_lacks_are_counted_and_said() {
    let folder = empty();
    let at = folder.path();
    example(at);
    fs::write(at.join("classes.txt"), "40\n-1\n8\n").unwrap();
    let Said { code, out, err } = invaspread(at, &AMONG_VOTERS);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("note: 2 of 6 queries have no image of their class in the gallery: they count as missed in kNN and R@K; they are left out of MAP@R and R-precision"), "{err}");
    assert!(
        out.contains("R@1                 66.67%") && out.contains("MAP@R              100.00%"),
        "{out}"
    );
    fs::write(at.join("classes.txt"), "41\n0\n8\n").unwrap();
    let result = json(at, &AMONG_VOTERS);
    assert_eq!((metric(&result, "knn_top1"), metric(&result, "recall_at_1")), (0.0, 0.0));
    assert_eq!(result["without_match"], 6);
    assert!(result["notes"].to_string().contains("6 of 6 queries have no image of their class"), "{result}");
    // A metric without a value is absent, not zero.
    assert!(result["metrics"].get("map_at_r").is_none(), "{result}");
    fs::write(at.join("classes.txt"), "a\nb\nc\n").unwrap();
    refused(at, &AMONG_VOTERS, 1, &["numbers", "words", "save both as one or the other"]);
}

#[test]
fn a_setting_that_changes_nothing_is_refused() {
    let folder = empty();
    let at = folder.path();
    example(at);
    let alone = |setting| [&AMONG_THEMSELVES[..], &[setting]].concat();
    for setting in ["eval.k=1", "eval.temperature=1", "eval.linear=last"] {
        let key = setting.split_once('=').unwrap().0;
        refused(at, &alone(setting), 2, &[key, "changes nothing", "--gallery"]);
    }
    refused(at, &alone("eval.layer=pooled"), 2, &["eval.layer", "when the embeddings were made"]);
    refused(at, &alone("optim.lr=1"), 2, &["optim.lr", "eval.retrieval.recall_at"]);
    refused(at, &alone("eval.kk=1"), 2, &["unknown key `eval.kk`"]);
    for setting in [
        "eval.retrieval.clustering=last",
        "eval.retrieval.kmeans_restarts=3",
        "eval.retrieval.kmeans_iterations=3",
        "eval.retrieval.kmeans_start=random",
    ] {
        let key = setting.split_once('=').unwrap().0;
        refused(at, &[&AMONG_VOTERS[..], &[setting]].concat(), 2, &[key, "without --gallery"]);
    }
    let idle = ["seed=3", "method=nce", "--intervals", "none"];
    let said = invaspread(at, &[&AMONG_VOTERS[..], &idle].concat());
    assert!(said.err.contains("the seed changes nothing"), "{}", said.err);
    assert!(said.err.contains("method=nce sets nothing that measuring embeddings uses"), "{}", said.err);
    let said = invaspread(at, &[&AMONG_VOTERS[..], &["--profile", "smoke"]].concat());
    assert!(!said.err.contains("sets nothing"), "{}", said.err);
    assert!(
        said.out.contains("kNN with k = 20")
            && said.out.contains("eval.k = 20 (experiments/profile/smoke.toml"),
        "{}",
        said.out
    );
}

#[test]
fn weights_are_told_from_embeddings_and_listed_in_part() {
    let folder = empty();
    let network = Network::new(ResNetConfig { width: 8, ..Default::default() }, 0).unwrap();
    write_weights(&folder.path().join("w.safetensors"), &network.state_dict().unwrap()).unwrap();
    let said = invaspread(folder.path(), &["measure", "w.safetensors"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("invaspread evaluate FILE") && said.err.contains(" more;"), "{}", said.err);
    assert!(said.err.len() < 700, "{}", said.err);
    // Flags that measuring refuses are not in its help.
    let help = done(folder.path(), &["measure", "--help"]);
    assert!(
        help.contains("--gallery") && !help.contains("--data-root") && !help.contains("--runs"),
        "{help}"
    );
}

#[test]
fn files_of_numpys_are_measured_with_words_for_labels() {
    let folder = empty();
    let at = folder.path();
    fs::copy(people(), at.join("PEOPLE.NPZ")).unwrap();
    let said = done(at, &["measure", "PEOPLE.NPZ", "eval.retrieval.recall_at=[1]"]);
    assert!(said.contains("PEOPLE.NPZ: embeddings float64 (3, 2), labels <U4 (3,)"), "{said}");
    assert!(said.contains("classes by name: bird, cat"), "{said}");
    assert!(said.contains("rows scaled to length 1, ranked by cosine similarity"), "{said}");
    // Of the rows (0, 1), (2, 3) and (4, 5), the cat is nearest to both birds.
    assert!(said.contains("R@1                  0.00%"), "{said}");
    let result = json(at, &["measure", "PEOPLE.NPZ"]);
    assert_eq!(result["class_names"], serde_json::json!(["bird", "cat"]));
    assert_eq!(result["arrays"]["test"]["embeddings"]["type"], "float64");
    assert!(result["notes"].to_string().contains("1 of 3 rows are alone in their class"), "{result}");
    refused(at, &["measure", "PEOPLE.NPZ", "--unscaled"], 1, &["1e-50 as the largest number of row 0"]);
    refused(
        at,
        &["measure", "PEOPLE.NPZ", "--key", "x"],
        1,
        &["no array \"x\"", "\"paths\" <U7 (3,)", "--key NAME"],
    );
    refused(
        at,
        &["measure", "PEOPLE.NPZ", "--label-key", "meta"],
        1,
        &["meta", "allow_pickle is never used"],
    );
    let lacking = ["measure", "PEOPLE.NPZ", "--label-key", "z"];
    refused(at, &lacking, 1, &["no array \"z\"", "--label-key NAME", "--labels FILE"]);
    refused(
        at,
        &["measure", "PEOPLE.NPZ", "--gallery", "PEOPLE.NPZ", "--gallery-label-key", "z"],
        1,
        &["--gallery-label-key NAME", "--gallery-labels FILE"],
    );
    let twice = invaspread(at, &["measure", "PEOPLE.NPZ", "--gallery", "PEOPLE.NPZ"]);
    assert!(twice.err.contains("the gallery holds the same rows as the measured file"), "{}", twice.err);
}

#[test]
fn limits_have_the_value_of_the_definitions() {
    let folder = empty();
    let at = folder.path();
    let measure = |labels: &str| {
        fs::write(at.join("l.txt"), labels).unwrap();
        json(at, &["measure", "r.npy", "--labels", "l.txt"])
    };
    put(at, "r.npy", &[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]);
    let one = measure("7\n7\n7\n7\n");
    for name in
        ["recall_at_1", "recall_at_8", "map_at_r", "r_precision", "nmi_arithmetic", "nmi_geometric", "ami"]
    {
        assert!((metric(&one, name) - 100.0).abs() < 1e-9, "{name}: {one}");
    }
    assert!(one["notes"].to_string().contains("all rows are of one class"), "{one}");
    // Every row is its own class: there are as many clusters as rows, and no neighbor to find.
    let own = measure("1\n2\n3\n4\n");
    assert_eq!(metric(&own, "recall_at_8"), 0.0);
    assert!((metric(&own, "nmi_arithmetic") - 100.0).abs() < 1e-9, "{own}");
    assert!(own["metrics"].get("map_at_r").is_none(), "{own}");
    assert!(own["notes"].to_string().contains("4 of 4 rows are alone in their class"), "{own}");
    // All rows are equal: the first row is nearest to all others, the second to the first.
    put(at, "r.npy", &[[3.0, 4.0]; 4]);
    let equal = measure("1\n2\n1\n2\n");
    assert_eq!(metric(&equal, "recall_at_1"), 25.0);
    assert!(equal["notes"].to_string().contains("all rows of r.npy are equal"), "{equal}");
    put(at, "r.npy", &[[1.0, 0.0], [1.0, 0.001], [1.0, 0.002], [1.0, -0.001]]);
    assert!(
        measure("1\n2\n1\n2\n")["notes"].to_string().contains("nearly equal, as collapsed embeddings are")
    );
    put(at, "r.npy", &[[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]);
    let zeros = measure("-1\n2\n1\n2\n")["notes"].to_string();
    assert!(zeros.contains("2 of 4 rows of r.npy are zeros, the first is row 1"), "{zeros}");
    assert!(zeros.contains("1 of 4 labels of l.txt are below 0"), "{zeros}");

    put(at, "r.npy", &[[1.0, 0.0]]);
    fs::write(at.join("l.txt"), "1\n").unwrap();
    refused(at, &["measure", "r.npy", "--labels", "l.txt"], 1, &["r.npy", "one row", "--gallery"]);
    // With a gallery, one query and one image to find are enough.
    let one = ["measure", "r.npy", "--labels", "l.txt", "--gallery", "r.npy", "--gallery-labels", "l.txt"];
    assert_eq!(metric(&json(at, &one), "map_at_r"), 100.0);
}

/// By inner product the longest row is the neighbor of every other row; by angle it is not.
#[test]
fn rows_as_they_are_rank_by_inner_product() {
    let folder = empty();
    let at = folder.path();
    put(at, "r.npy", &[[1.0, 0.0], [0.9, 0.1], [5.0, 9.0], [0.0, 1.0]]);
    fs::write(at.join("l.txt"), "1\n1\n2\n2\n").unwrap();
    let asked = ["measure", "r.npy", "--labels", "l.txt"];
    let scaled = json(at, &asked);
    assert_eq!((metric(&scaled, "recall_at_1"), &scaled["scaling"]), (100.0, &"unit length".into()));
    // Rows 0 and 1 find row 2, of another class.
    let raw = json(at, &[&asked[..], &["--unscaled"]].concat());
    assert_eq!((metric(&raw, "recall_at_1"), &raw["scaling"]), (50.0, &"none".into()));
    let said = done(at, &[&asked[..], &["--unscaled"]].concat());
    assert!(
        said.contains("ranked by inner product; clusters of NMI and AMI by Euclidean distance"),
        "{said}"
    );
    let help = done(at, &["measure", "--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("ranked by inner product") && help.contains("Euclidean"), "{help}");
}

#[test]
fn further_metrics_have_the_values_of_their_definitions() {
    let folder = empty();
    let at = folder.path();
    example(at);
    let settings = [
        "--metrics",
        "precision,mrr,map,cmc,fnmr",
        "--fmr",
        "0.1,0.25,0.01",
        "eval.retrieval.recall_at=[1,2]",
    ];
    let near = |result: &Value, wanted: &[(&str, f64)]| {
        for &(name, want) in wanted {
            assert!((metric(result, name) - want).abs() < 1e-9, "{name}: expected {want} in {result}");
        }
        assert_eq!(result["metrics"].as_object().unwrap().len(), wanted.len(), "{result}");
    };
    // Rows 0 to 4 find their class first, row 5 in fourth place. Of the twelve pairs of two classes, rows 3 and 5
    // (0.9988), 2 and 5 (0.9965) are nearest; the pairs of one class have 0.9939, 0.9994 and -0.0497.
    let alone = json(at, &[&AMONG_THEMSELVES[..], &settings].concat());
    let first = 100.0 * 5.25 / 6.0;
    near(
        &alone,
        &[
            ("precision_at_1", 500.0 / 6.0),
            ("precision_at_2", 250.0 / 6.0),
            ("mrr", first),
            ("map", first),
            ("cmc_1", 500.0 / 6.0),
            ("cmc_2", 500.0 / 6.0),
            ("fnmr_at_fmr_1e-1", 200.0 / 3.0),
            ("fnmr_at_fmr_2.5e-1", 100.0 / 3.0),
        ],
    );
    assert_eq!(
        (&alone["verification"]["genuine_pairs"], &alone["verification"]["impostor_pairs"]),
        (&3.into(), &12.into())
    );
    let threshold = alone["verification"]["at"][0]["threshold"].as_f64().unwrap();
    assert!((threshold - 0.996_534).abs() < 1e-6, "{alone}");
    let few = "FNMR at FMR 1e-2 has no value: it needs 100 pairs of two classes, and there are 12";
    assert!(alone["notes"].to_string().contains(few), "{alone}");

    // In the gallery only row 5 finds its class second; one of six genuine pairs is below 0.1104.
    let among = json(at, &[&AMONG_VOTERS[..], &settings].concat());
    let first = 100.0 * 5.5 / 6.0;
    near(
        &among,
        &[
            ("precision_at_1", 500.0 / 6.0),
            ("precision_at_2", 50.0),
            ("mrr", first),
            ("map", first),
            ("cmc_1", 500.0 / 6.0),
            ("cmc_2", 100.0),
            ("fnmr_at_fmr_1e-1", 100.0 / 6.0),
            ("fnmr_at_fmr_2.5e-1", 0.0),
        ],
    );
    let said = done(at, &[&AMONG_VOTERS[..], &settings].concat());
    for text in ["mAP", "91.67%", "CMC rank 2", "FNMR at FMR 1e-1", "pairs: 6 of one class, 12 of two"] {
        assert!(said.contains(text), "no {text} in {said}");
    }
    // A query whose class the gallery lacks is left out of all of them.
    fs::write(at.join("classes.txt"), "40\n-1\n8\n").unwrap();
    let lacking = json(at, &[&AMONG_VOTERS[..], &settings].concat());
    assert_eq!((metric(&lacking, "cmc_1"), metric(&lacking, "mrr")), (100.0, 100.0));
    let said = "2 of 6 queries have no image of their class in the gallery: they are left out of precision@K, MRR, mAP and CMC";
    assert!(lacking["notes"].to_string().contains(said), "{lacking}");
}

#[test]
fn the_default_metrics_are_those_of_the_paper_and_all_adds_to_them() {
    let folder = empty();
    let at = folder.path();
    noisy(at, "good.npy", 2.0);
    noisy(at, "bad.npy", 4.0);
    let plain = json(at, &of(&[]));
    assert_eq!(plain["metrics"], json(at, &of(&["--metrics", "default"]))["metrics"]);
    assert!(plain["hubness"].is_null() && plain["shape"].is_null() && plain["verification"].is_null());
    let all = json(at, &of(&["--metrics", "all", "--against", "bad.npy"]));
    for (name, value) in plain["metrics"].as_object().unwrap() {
        assert_eq!(&all["metrics"][name], value, "{name}");
    }
    for (name, value) in all["metrics"].as_object().unwrap() {
        let interval = &all["intervals"]["metrics"][name];
        let difference = &all["against"]["differences"][name];
        assert!(difference["value"].is_f64(), "{name}: {all}");
        assert!(difference["interval"]["low"].is_f64(), "{name}: {all}");
        let [value, low, high] = [value, &interval["low"], &interval["high"]].map(|x| x.as_f64().unwrap());
        assert!(low <= value && value <= high && low < high, "{name}: {interval}");
    }
    let better = &all["against"]["differences"]["map"]["interval"];
    assert!(better["low"].as_f64().unwrap() > 0.0, "{all}");
    for (of, names) in [
        ("hubness", &["skewness", "never_retrieved"][..]),
        ("shape", &["effective_rank", "rank_share", "rankme", "uniformity", "class_alignment", "spread"]),
    ] {
        assert_eq!(all[of]["intervals"].as_object().unwrap().len(), names.len(), "{all}");
        for name in names {
            let interval = &all[of]["intervals"][name];
            let [value, low, high] =
                [&all[of][name], &interval["low"], &interval["high"]].map(|x| x.as_f64().unwrap());
            // Every row is retrieved, so there is nothing that could vary.
            let is_constant = *name == "never_retrieved" && value == 0.0;
            assert!(low <= value && value <= high && (low < high || is_constant), "{name}: {all}");
        }
    }
    let plain = json(at, &of(&["--metrics", "hubness,shape", "--intervals", "none"]));
    assert_eq!(plain["hubness"]["intervals"], serde_json::json!({}));
    assert_eq!(plain["shape"]["intervals"], serde_json::json!({}));
    assert_eq!(all["hubness"]["k"], 10);
    assert!(all["hubness"]["skewness"].as_f64().unwrap() > 0.0, "{all}");
    assert_eq!(all["shape"]["rows"], 400);
    let rank = all["shape"]["effective_rank"].as_f64().unwrap();
    assert!((5.0..10.0).contains(&rank), "{all}");
    // Rows of one class are nearer to each other in the better embeddings.
    let alignment = |result: &Value| result["shape"]["class_alignment"].as_f64().unwrap();
    let other = json(at, &["measure", "bad.npy", "--labels", "labels.txt", "--metrics", "shape"]);
    assert!(alignment(&all) < alignment(&other), "{all} {other}");
    assert_eq!(other["metrics"], serde_json::json!({}));
    let said = done(at, &of(&["--metrics", "all"]));
    for text in [
        "hubness: skewness of N_10",
        "are never retrieved",
        "effective rank",
        "; of FNMR, at the threshold of all pairs",
    ] {
        assert!(said.contains(text), "no {text} in {said}");
    }
}

#[test]
fn metrics_that_cannot_be_measured_are_refused() {
    let folder = empty();
    let at = folder.path();
    example(at);
    let alone = |more: &[&'static str]| [&AMONG_THEMSELVES[..], more].concat();
    refused(at, &alone(&["--metrics", "knn"]), 2, &["--metrics knn", "need a --gallery"]);
    refused(
        at,
        &[&AMONG_VOTERS[..], &["--metrics", "mrr,nmi"]].concat(),
        2,
        &["--metrics nmi", "without --gallery"],
    );
    refused(at, &alone(&["--metrics", "mmr"]), 2, &["mmr", "mrr"]);
    refused(at, &alone(&["--fmr", "0.1"]), 2, &["--fmr", "fnmr is not among --metrics"]);
    refused(at, &alone(&["--metrics", "fnmr", "--fmr", "1e-3,0"]), 2, &["above 0 and below 1"]);
    refused(at, &alone(&["--metrics", "fnmr", "--fmr", "0.1,1e-1"]), 2, &["--fmr: found 0.1 twice"]);
    refused(
        at,
        &[&AMONG_VOTERS[..], &["--metrics", "mrr", "eval.k=3"]].concat(),
        2,
        &["eval.k", "kNN is not among --metrics"],
    );
    refused(
        at,
        &alone(&["--metrics", "map", "eval.retrieval.recall_at=[1]"]),
        2,
        &["eval.retrieval.recall_at", "not among --metrics"],
    );
}

#[test]
fn a_table_of_classes_says_what_each_is_confused_with() {
    let folder = empty();
    let at = folder.path();
    example(at);
    let asked = |file| [&AMONG_THEMSELVES[..], &["--metrics", "mrr", "--per-class", file]].concat();
    done(at, &asked("classes.csv"));
    let table = fs::read_to_string(at.join("classes.csv")).unwrap();
    // Row 5, of class 7, finds row 2 first, of class -1.
    assert_eq!(table, "class,rows,mrr,confused_with\n-1,2,100,\n7,2,62.5,-1 (1)\n40,2,100,\n");
    // The same command writes it again, but no other file is replaced.
    done(at, &asked("classes.csv"));
    done(at, &asked("classes.json"));
    let table: Value = serde_json::from_str(&fs::read_to_string(at.join("classes.json")).unwrap()).unwrap();
    assert_eq!(table["per_class"][1]["confused_with"], serde_json::json!([{ "class": -1, "rows": 1 }]));
    fs::write(at.join("mine.csv"), "1,2\n").unwrap();
    refused(at, &asked("mine.csv"), 2, &["mine.csv", "did not write"]);
    refused(at, &asked("classes.txt"), 2, &["classes.txt", "expected .csv or .json"]);
    refused(at, &asked("none/classes.csv"), 2, &["none/classes.csv", "there is no folder none"]);
}

/// Six rows at 0 to 55 degrees, with the classes a a b a b b and the sources 1 1 1 2 2 2.
fn of_sources(folder: &Path) {
    let rows = [0.0_f32, 10.0, 21.0, 33.0, 43.0, 55.0].map(|degrees| {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        [cosine, sine]
    });
    put(folder, "rows.npy", &rows);
    fs::write(folder.join("labels.txt"), "a\na\nb\na\nb\nb\n").unwrap();
    fs::write(folder.join("cameras.txt"), "1\n1\n1\n2\n2\n2\n").unwrap();
}

#[test]
fn rows_of_the_same_source_are_not_retrieved() {
    let folder = empty();
    let at = folder.path();
    of_sources(at);
    let settings = ["--metrics", "retrieval,mrr,map,fnmr", "--fmr", "0.5", "eval.retrieval.recall_at=[1,2]"];
    let asked = |more: &[&'static str]| {
        [&AMONG_THEMSELVES[..], &["--same-source", "cameras.txt"], &settings, more].concat()
    };
    // The orders of the other rows, without those of the query's class and source:
    // 0: 2b 3a 4b 5b, 1: 2b 3a 4b 5b, 2: 1a 3a 0a 4b 5b (10 to 21 is nearer than 33), 3: 4b 2b 5b 1a 0a,
    // 4: 3a 2b 1a 0a, 5: 3a 2b 1a 0a.
    let class = json(at, &asked(&[]));
    assert_eq!(metric(&class, "recall_at_1"), 0.0);
    assert!((metric(&class, "recall_at_2") - 400.0 / 6.0).abs() < 1e-9, "{class}");
    let reciprocal = (0.5 + 0.5 + 0.25 + 0.25 + 0.5 + 0.5) / 6.0;
    assert!((metric(&class, "mrr") - 100.0 * reciprocal).abs() < 1e-9, "{class}");
    // Rows 2 and 3 have two rows to find: at places 4 and 5.
    let average = (4.0 * 0.5 + 2.0 * (0.25 + 0.4) / 2.0) / 6.0;
    assert!((metric(&class, "map") - 100.0 * average).abs() < 1e-9, "{class}");
    // Genuine: 0-3, 1-3, 2-4, 2-5. Impostors are all nine pairs of two classes.
    let pairs = |result: &Value| {
        ["genuine_pairs", "impostor_pairs"].map(|name| result["verification"][name].as_u64().unwrap())
    };
    assert_eq!(pairs(&class), [4, 9]);
    assert_eq!(class["same_source"]["leaves_out"], "class");
    assert_eq!(class["same_source"]["sources"], 2);
    // All rows of the source are left out: 0: 3a, 1: 3a, 2: 3a 4b 5b, 3: 2b 1a 0a, 4: 2b, 5: 2b.
    let all = json(at, &asked(&["--same-source-leaves-out", "all"]));
    assert!((metric(&all, "recall_at_1") - 400.0 / 6.0).abs() < 1e-9, "{all}");
    assert_eq!(metric(&all, "recall_at_2"), 100.0);
    assert_eq!(pairs(&all), [4, 5]);
    let said = done(at, &asked(&["--same-source-leaves-out", "all"]));
    assert!(
        said.contains("2 sources (cameras.txt: text (6,)): a query leaves out all rows of its source"),
        "{said}"
    );
    // --against leaves out the same rows.
    let against = json(at, &asked(&["--against", "rows.npy"]));
    assert_eq!(against["against"]["differences"]["map"]["value"], 0.0);

    // A query without a row of its class in another source is counted and said.
    fs::write(at.join("cameras.txt"), "1\n1\n1\n1\n2\n3\n").unwrap();
    let lacking = json(at, &asked(&[]));
    assert_eq!(lacking["without_match"], 3);
    let said = "3 of 6 rows have no other row of their class and another source: they count as missed in R@K; they are left out of MAP@R, \
                R-precision, MRR and mAP";
    assert!(lacking["notes"].to_string().contains(said), "{lacking}");
}

#[test]
fn rows_of_the_same_source_do_not_vote_in_a_gallery() {
    let folder = empty();
    let at = folder.path();
    of_sources(at);
    let gallery = ["--gallery", "rows.npy", "--gallery-labels", "labels.txt", "eval.k=1"];
    let asked = |more: &[&'static str]| [&AMONG_THEMSELVES[..], &gallery, more].concat();
    // Each row finds itself first.
    assert_eq!(metric(&json(at, &asked(&[])), "knn_top1"), 100.0);
    let both = ["--same-source", "cameras.txt", "--gallery-same-source", "cameras.txt"];
    let all = [&both[..], &["--same-source-leaves-out", "all"]].concat();
    let left = json(at, &asked(&all));
    // Without its source: 0: 3a, 1: 3a, 2: 3a, 3: 2b, 4: 2b, 5: 2b.
    assert!((metric(&left, "knn_top1") - 400.0 / 6.0).abs() < 1e-9, "{left}");
    assert!((metric(&left, "recall_at_1") - 400.0 / 6.0).abs() < 1e-9, "{left}");
    assert_eq!(metric(&json(at, &asked(&both)), "knn_top1"), 0.0);

    refused(at, &asked(&["--same-source", "cameras.txt"]), 2, &["cameras.txt", "--gallery-same-source FILE"]);
    refused(at, &asked(&["--gallery-same-source", "cameras.txt"]), 2, &["--same-source"]);
    fs::write(at.join("few.txt"), "1\n2\n").unwrap();
    let few = [&AMONG_THEMSELVES[..], &["--same-source", "few.txt"]].concat();
    refused(at, &few, 1, &["few.txt", "2 sources of the 6 rows of rows.npy"]);
    let none = [&AMONG_THEMSELVES[..], &["--same-source", "camera"]].concat();
    refused(at, &none, 1, &["rows.npy", "there is no file camera", "--same-source FILE|NAME"]);
}

/// The sources may lie beside the embeddings, as numbers or words.
#[test]
fn sources_are_read_from_an_array_beside_the_embeddings() {
    let folder = empty();
    let at = folder.path();
    fs::copy(people(), at.join("people.npz")).unwrap();
    let result = json(at, &["measure", "people.npz", "--same-source", "paths"]);
    assert_eq!(result["same_source"]["test"]["name"], "paths");
    assert_eq!(result["same_source"]["sources"], 3);
    refused(
        at,
        &["measure", "people.npz", "--same-source", "camera"],
        1,
        &["no array \"camera\" for the sources", "\"paths\" <U7 (3,)"],
    );
    // A folder of that name is no file of sources, and a file of that name may be meant.
    fs::create_dir(at.join("paths")).unwrap();
    assert_eq!(json(at, &["measure", "people.npz", "--same-source", "paths"])["same_source"]["sources"], 3);
    fs::remove_dir(at.join("paths")).unwrap();
    fs::write(at.join("paths"), "1\n1\n2\n").unwrap();
    let asked = |given| ["measure", "people.npz", "--same-source", given];
    refused(at, &asked("paths"), 1, &["an array \"paths\"", "./paths names the file"]);
    assert_eq!(json(at, &asked("./paths"))["same_source"]["sources"], 2);
}

/// Every `invaspread measure` command of the README, with what stands in brackets and without it.
#[test]
fn the_commands_of_the_readme_run() {
    let folder = empty();
    let at = folder.path();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    // The content of a file decides what it is, not its name.
    for (name, noise) in [("embeddings.npz", 2.0), ("train.npz", 1.0), ("mine.npz", 2.0), ("theirs.npz", 3.0)]
    {
        noisy(at, "rows.npy", noise);
        let bytes = fs::read(at.join("rows.npy")).unwrap();
        let (values, _) = bytes[bytes.len() - 16_000..].as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let array = |numbers: Vec<f32>, shape: &[usize]| {
            candle_core::Tensor::from_vec(numbers, shape, &candle_core::Device::Cpu).unwrap()
        };
        let tensors = [
            ("embeddings", array(values, &[400, 10])),
            ("labels", array((0..400_u16).map(|row| f32::from(row % 10)).collect(), &[400])),
            ("camera", array((0..400_u16).map(|row| f32::from(row / 10 % 3)).collect(), &[400])),
        ];
        candle_core::safetensors::save(&tensors.into(), at.join(name)).unwrap();
    }
    let mut run = 0;
    for line in readme.lines().filter_map(|line| line.strip_prefix("    invaspread ")) {
        let command = line.split('#').next().unwrap().trim();
        if !command.starts_with("measure ") {
            continue;
        }
        let with = command.replace(['[', ']'], "");
        let without = command.split('[').next().unwrap().trim();
        for command in [&with[..], without] {
            let arguments: Vec<&str> = command.split_whitespace().collect();
            let said = done(at, &arguments);
            assert!(said.contains('%'), "{command}: {said}");
            run += 1;
        }
    }
    assert!(run >= 10, "{run} commands");
    assert!(fs::read_to_string(at.join("classes.csv")).unwrap().starts_with("class,rows,recall_at_1,"));
}

#[test]
fn a_card_states_the_protocol_beside_the_numbers() {
    let folder = empty();
    let at = folder.path();
    noisy(at, "good.npy", 2.0);
    let alone = json(at, &of(&[]));
    let protocol = &alone["protocol"];
    assert_eq!(protocol["gallery"], "each test row among the others");
    assert_eq!((&protocol["k"], &protocol["layer"]), (&Value::Null, &Value::Null));
    assert_eq!((&protocol["test_rows"], &protocol["recall_at"]), (&400.into(), &alone["recall_at"]));
    assert_eq!(protocol["intervals"]["units"], "classes");
    let gallery = ["--gallery", "good.npy", "--gallery-labels", "labels.txt", "--unscaled", "eval.k=7"];
    let among = json(at, &of(&[&gallery[..], &["--metrics", "knn", "--intervals", "none"]].concat()));
    let protocol = &among["protocol"];
    assert_eq!((&protocol["gallery"], &protocol["k"]), (&"good.npy".into(), &7.into()));
    assert_eq!((&protocol["normalized"], &protocol["ranking"]), (&false.into(), &"inner product".into()));
    assert!(protocol["recall_at"].is_null() && protocol["intervals"].is_null(), "{among}");
    let said = done(at, &of(&[&gallery[..], &["--card"]].concat()));
    assert!(said.contains("  temperature:            0.1") && said.contains("  ties:"), "{said}");
    assert!(!done(at, &of(&[])).contains("protocol"), "a card only where it is asked for");
}

/// Checks `--as` against the values of other libraries in a file of goldens.
fn protocols_agree(file: &Path) {
    let folder = empty();
    let at = folder.path();
    fs::copy(file, at.join("rows")).unwrap();
    let tensors = candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap();
    let arrays = ["measure", "rows", "--key", "test", "--label-key", "test_labels"];
    let gallery = ["--gallery", "rows", "--gallery-key", "train", "--gallery-label-key", "train_labels"];
    for (library, names) in [
        ("paper", &["knn_top1", "knn_top5"][..]),
        ("lightly", &["knn_top1", "knn_top5"]),
        ("solo-learn", &["knn_top1", "knn_top5"]),
        ("dino", &["knn_top1", "knn_top5"]),
        ("pytorch-metric-learning", &["precision_at_1", "map_at_r", "r_precision"]),
    ] {
        let found = json(at, &[&arrays[..], &gallery, &["--as", library, "--intervals", "none"]].concat());
        assert_eq!(found["protocol"]["as"], library);
        let wanted: Vec<f64> = tensors[&format!("{library}.values")].to_vec1().unwrap();
        assert_eq!(wanted.len(), names.len());
        assert!(!wanted[0].is_nan());
        for (name, want) in names.iter().zip(wanted).filter(|(_, want)| !want.is_nan()) {
            // pytorch-metric-learning computes in f32.
            let got = metric(&found, name);
            assert!((got - want).abs() < 1e-4, "{library}, {name}: {got}, expected {want}");
        }
    }
}

#[test]
fn the_protocol_of_a_library_gives_its_values() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens");
    protocols_agree(&goldens.join("protocols.safetensors"));
    // With the libraries themselves, on other rows.
    let Some(python) = std::env::var_os("INVASPREAD_PYTHON") else {
        eprintln!("skipped: INVASPREAD_PYTHON names no Python with lightly and pytorch-metric-learning");
        return;
    };
    let folder = empty();
    let made = std::process::Command::new(python)
        .arg(goldens.join("protocols.py"))
        .arg(folder.path())
        .arg("7")
        .status()
        .unwrap();
    assert!(made.success(), "protocols.py: {made}");
    protocols_agree(&folder.path().join("protocols.safetensors"));
}

#[test]
fn k_means_begins_and_ends_as_it_is_told() {
    let folder = empty();
    let at = folder.path();
    // So noisy that k-means needs many iterations, and ends where its start leads.
    noisy(at, "good.npy", 8.0);
    let alone = of(&["--intervals", "none", "--metrics", "nmi"]);
    let nmi = |more: &[&str]| metric(&json(at, &[&alone[..], more].concat()), "nmi_arithmetic");
    let one = ["eval.retrieval.kmeans_restarts=1"];
    let random = ["eval.retrieval.kmeans_restarts=1", "eval.retrieval.kmeans_start=random"];
    assert_eq!(
        nmi(&one),
        nmi(&[one[0], "eval.retrieval.kmeans_start=plus_plus", "eval.retrieval.kmeans_iterations=300"])
    );
    assert_ne!(nmi(&one), nmi(&[one[0], "eval.retrieval.kmeans_iterations=1"]));
    assert_ne!(nmi(&one), nmi(&random));
    let refusals = [("kmeans_iterations=0", "at least 1"), ("kmeans_start=median", "plus_plus")];
    for (setting, expected) in refusals {
        let setting = format!("eval.retrieval.{setting}");
        refused(at, &[&alone[..], &[&setting]].concat(), 2, &[&setting, expected]);
    }
    let said = done(at, &[&alone[..], &random, &["--card"]].concat());
    let clusters = "k-means from one start at random rows, at most 300 iterations";
    assert!(said.contains(&format!("NMI and AMI of {clusters}")), "{said}");
    assert!(said.contains(&format!("  clusters:               {clusters}")), "{said}");
    assert!(said.contains("  without match:          -"), "neither kNN nor R@K is measured: {said}");

    // A library's protocol clusters as that library does.
    let library = ["--as", "pytorch-metric-learning"];
    let found = json(at, &[&alone[..6], &library].concat());
    assert_eq!(
        metric(&found, "nmi_arithmetic"),
        nmi(&[random[0], random[1], "eval.retrieval.kmeans_iterations=25"])
    );
    let twice = [&alone[..4], &library, &["eval.retrieval.kmeans_start=plus_plus"]].concat();
    refused(at, &twice, 2, &["`eval.retrieval.kmeans_start` is set by `--as pytorch-metric-learning`"]);
}

#[test]
fn a_request_that_measures_nothing_is_refused() {
    let folder = empty();
    let at = folder.path();
    noisy(at, "good.npy", 8.0);
    let never = "eval.retrieval.clustering=never";
    refused(at, &of(&["--metrics", "nmi", never]), 2, &["`--metrics nmi`", "clustering is never"]);
    refused(
        at,
        &of(&[never, "eval.retrieval.kmeans_restarts=3"]),
        2,
        &["kmeans_restarts=3", "clustering is never"],
    );
    assert!(!done(at, &of(&[never])).contains("NMI"));
    refused(
        at,
        &of(&["--metrics", "shape,hubness", "--against", "good.npy"]),
        2,
        &["`--against`", "row by row"],
    );
    put(at, "one.npy", &[[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]);
    fs::write(at.join("one.txt"), "3\n").unwrap();
    let one = [
        "measure",
        "one.npy",
        "--labels",
        "one.txt",
        "--gallery",
        "good.npy",
        "--gallery-labels",
        "labels.txt",
    ];
    refused(
        at,
        &[&one[..], &["--metrics", "all"]].concat(),
        2,
        &["one.npy holds one row", "leave `shape` out"],
    );
    refused(
        at,
        &of(&["--as", "pytorch-metric-learning", "--fmr", "0.1"]),
        2,
        &["metrics of `--as pytorch-metric-learning`"],
    );
    // A profile is of runs, and changes nothing here.
    let nmi =
        |more: &[&str]| metric(&json(at, &of(&[&["--metrics", "nmi"], more].concat())), "nmi_arithmetic");
    assert_eq!(nmi(&[]), nmi(&["--profile", "quick"]));
}

#[test]
fn a_protocol_that_does_not_fit_is_refused() {
    let folder = empty();
    let at = folder.path();
    example(at);
    let alone = |more: &[&'static str]| [&AMONG_THEMSELVES[..], more].concat();
    refused(at, &alone(&["--as", "dino"]), 2, &["--as dino", "--gallery FILE"]);
    refused(at, &alone(&["--as", "dino", "--metrics", "map"]), 2, &["--metrics"]);
    refused(at, &alone(&["--as", "lightning"]), 2, &["lightning", "lightly"]);
    let twice = [&AMONG_VOTERS[..], &["--as", "lightly", "eval.k=3"]].concat();
    refused(at, &twice, 2, &["`eval.k` is set by `--as lightly`"]);
    // Among themselves the paper's protocol is the default.
    let paper = json(at, &alone(&["--as", "paper"]));
    assert_eq!(paper["metrics"], json(at, &AMONG_THEMSELVES)["metrics"]);
    let among = json(at, &[&AMONG_VOTERS[..], &["--as", "dino"]].concat());
    assert_eq!((&among["k"], &among["temperature"]), (&20.into(), &0.07.into()));
    assert_eq!(among["metrics"].as_object().unwrap().len(), 2, "{among}");
    assert_eq!(among["settings"]["eval.k"]["origin"], "--as dino, which sets it to 20");
}
