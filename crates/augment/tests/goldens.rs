//! Compares every transform with torchvision on Pillow, byte for byte, for each case in the folder that
//! `INVASPREAD_GOLDENS` names, or in `tests/goldens` of the workspace.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its goldens has failed")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use invaspread_augment::{
    Filter, Image, ImageRef, Window, brightness, contrast, gaussian_blur, grayscale, hflip, hue, resize,
    resized_crop, saturation, solarize,
};
use safetensors::SafeTensors;

type Change = fn(ImageRef<'_>, f64) -> Image;

fn goldens() -> PathBuf {
    std::env::var_os("INVASPREAD_GOLDENS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens"), PathBuf::from)
}

/// Returns the image of that name, if the folder holds it. Not every case has every result.
fn image<'a>(tensors: &SafeTensors<'a>, name: &str) -> Option<ImageRef<'a>> {
    let tensor = tensors.tensor(name).ok()?;
    let [height, width, 3] = *tensor.shape() else { panic!("{name} is {:?}, not H x W x 3", tensor.shape()) };
    Some(ImageRef::new(width, height, tensor.data()))
}

fn assert_equal(found: &Image, expected: ImageRef<'_>, name: &str) {
    assert_eq!((found.width, found.height), (expected.width, expected.height), "{name}: size");
    let differing = found.pixels.iter().zip(expected.pixels).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 0, "{name}: {differing} of {} bytes differ", found.pixels.len());
}

#[test]
fn golden_transforms_are_equal_to_the_byte() {
    let folder = goldens();
    let bytes = std::fs::read(folder.join("transforms.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("values.json")).unwrap()).unwrap();
    let cases = values["transforms"].as_array().unwrap();
    assert!(!cases.is_empty(), "no transform cases in {}", folder.display());
    let mut checked = BTreeSet::new();
    for case in cases {
        let count = |key: &str| case[key].as_u64().unwrap_or_else(|| panic!("{key} of {case}")) as usize;
        let factor = |key: &str| case[key].as_f64().unwrap_or_else(|| panic!("{key} of {case}"));
        let name = |what: &str| format!("case{:02}.{what}", count("case"));
        let mut check = |found: &Image, what: &str| {
            if let Some(expected) = image(&tensors, &name(what)) {
                assert_equal(found, expected, &name(what));
                checked.insert(name(what));
            }
        };

        let input = image(&tensors, &name("input")).unwrap_or_else(|| panic!("no {}", name("input")));
        let window =
            Window { top: count("top"), left: count("left"), height: count("height"), width: count("width") };
        let cropped = resized_crop(input, window, count("size"));
        check(&cropped, "resized_crop");

        let changes: [(&str, Change); 4] =
            [("brightness", brightness), ("contrast", contrast), ("saturation", saturation), ("hue", hue)];
        for (what, change) in changes {
            check(&change(cropped.as_ref(), factor(what)), what);
        }
        let mut jittered = cropped.clone();
        for at in case["order"].as_array().unwrap() {
            let (what, change) = changes[at.as_u64().unwrap() as usize];
            jittered = change(jittered.as_ref(), factor(what));
        }
        check(&jittered, "jitter");
        check(&grayscale(jittered.as_ref()), "grayscale");
        check(&hflip(jittered.as_ref()), "hflip");
        check(&resize(input, 256, 256, Filter::Lanczos), "lanczos256");
    }
    let results = tensors.names().into_iter().filter(|name| !name.contains("input"));
    let unchecked: Vec<_> = results.filter(|name| !checked.contains(*name)).collect();
    assert!(unchecked.is_empty(), "results that no case of values.json leads to: {unchecked:?}");
}

/// Checks blur and solarization. If the folder was made before their file existed, the workspace's own file
/// is read.
#[test]
fn golden_blur_and_solarize_are_equal_to_the_byte() {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens");
    let file =
        [goldens(), own].map(|folder| folder.join("views.safetensors")).into_iter().find(|f| f.exists());
    let bytes = std::fs::read(file.unwrap()).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let eight = |name: &str| -> [u8; 8] { tensors.tensor(name).unwrap().data().try_into().unwrap() };
    let (mut blurred, mut solarized) = (0, 0);
    for case in tensors.names().into_iter().filter_map(|name| name.strip_suffix(".input")) {
        let [input, output] =
            ["input", "output"].map(|what| image(&tensors, &format!("{case}.{what}")).unwrap());
        if case.starts_with("blur.") {
            let kernel = i64::from_le_bytes(eight(&format!("{case}.kernel")));
            let sigma = f64::from_le_bytes(eight(&format!("{case}.sigma")));
            assert_equal(&gaussian_blur(input, usize::try_from(kernel).unwrap(), sigma), output, case);
            blurred += 1;
        } else {
            let threshold = i64::from_le_bytes(eight(&format!("{case}.threshold")));
            assert_equal(&solarize(input, u8::try_from(threshold).unwrap()), output, case);
            solarized += 1;
        }
    }
    assert!(blurred > 0 && solarized > 0, "{blurred} blurred and {solarized} solarized images");
}
