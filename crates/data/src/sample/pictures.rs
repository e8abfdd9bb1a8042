//! Small sets of image files in the exact forms in which the retrieval sets are distributed.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;

use super::matlab::{Mat, Writer};

/// Returns a JPEG of one color.
pub fn jpeg(size: (u32, u32), color: [u8; 3]) -> Vec<u8> {
    let image = image::RgbImage::from_pixel(size.0, size.1, image::Rgb(color));
    let mut bytes = Cursor::new(Vec::new());
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 95)).unwrap();
    bytes.into_inner()
}

/// Returns a gray JPEG of one channel, in which all pixels have one value.
pub fn gray_jpeg(size: (u32, u32), value: u8) -> Vec<u8> {
    let image = image::GrayImage::from_pixel(size.0, size.1, image::Luma([value]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 95)).unwrap();
    bytes.into_inner()
}

/// A JPEG of 16 x 16 pixels in CMYK as Pillow writes it: (200, 40, 20, 30) in its upper half, (10, 180, 90,
/// 60) in its lower half. Pillow's `convert("RGB")` converts these colors to (49, 190, 207) and (187, 57,
/// 126).
pub const CMYK_JPEG: &[u8] = include_bytes!("cmyk.jpg");

/// Writes `bytes` to `path` and makes the folders above it.
pub fn put(path: &Path, bytes: &[u8]) {
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, bytes).unwrap();
}

/// Returns the picture of class `class` and number `number`: its red value is the class, its green value is
/// the number times 20.
pub fn picture(class: u32, number: u32) -> Vec<u8> {
    jpeg((20 + number, 10 + class % 7), [class as u8, (number * 20) as u8, 128])
}

/// Writes birds of the given classes, three of each, in the form of CUB-200-2011, and returns the folder.
pub fn birds(root: &Path, classes: &[u32]) -> PathBuf {
    let folder = root.join("CUB_200_2011");
    let (mut images, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for &class in classes {
        names.push(format!("{class} {class:03}.Bird_of_{class}"));
        for number in 1..=3 {
            let id = images.len() + 1;
            let name = format!("{class:03}.Bird_of_{class}/Bird_{number:04}.jpg");
            put(&folder.join("images").join(&name), &picture(class, number));
            images.push(format!("{id} {name}"));
            labels.push(format!("{id} {class}"));
        }
    }
    for (name, lines) in [("images.txt", images), ("image_class_labels.txt", labels), ("classes.txt", names)]
    {
        put(&folder.join(name), (lines.join("\n") + "\n").as_bytes());
    }
    folder
}

/// Returns a list of cars with the class and the path of each; the path is in the field `path_field`.
pub fn cars_list(writer: Writer, path_field: &str, cars: &[(u32, String)]) -> Vec<u8> {
    let fields = ["bbox_x1", "class", path_field].map(str::to_owned).to_vec();
    let structs = cars.iter().map(|(class, path)| {
        vec![Mat::Shorts(vec![39]), Mat::Bytes(vec![*class as u8]), Mat::Text(path.clone())]
    });
    writer.file(&[("annotations", Mat::Structs(fields, structs.collect()))])
}

/// The settings with which MATLAB writes on usual machines.
pub const USUAL: Writer = Writer { big: false, compressed: true };

/// Writes cars of the given classes, three of each, as `cars_annos.mat` and `car_ims/`.
pub fn cars_union(root: &Path, classes: &[u32]) {
    let mut cars = Vec::new();
    for &class in classes {
        for number in 1..=3 {
            let path = format!("car_ims/{:06}.jpg", cars.len() + 1);
            put(&root.join(&path), &picture(class, number));
            cars.push((class, path));
        }
    }
    put(&root.join("cars_annos.mat"), &cars_list(USUAL, "relative_im_path", &cars));
}

/// Writes cars of the given classes in the form of the devkit: the first car of each class is an official
/// training image, the others are official test images.
pub fn cars_devkit(root: &Path, classes: &[u32]) {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for &class in classes {
        for number in 1..=3 {
            let (folder, list) =
                if number == 1 { ("cars_train", &mut train) } else { ("cars_test", &mut test) };
            let name = format!("{:05}.jpg", list.len() + 1);
            put(&root.join(folder).join(&name), &picture(class, number));
            list.push((class, name));
        }
    }
    put(&root.join("devkit/cars_train_annos.mat"), &cars_list(USUAL, "fname", &train));
    put(&root.join("cars_test_annos_withlabels.mat"), &cars_list(USUAL, "fname", &test));
}

/// Writes products with the given numbers, three pictures of each, and returns the folder. Products up to
/// number 11,318 are for training.
pub fn products(root: &Path, classes: &[u32]) -> PathBuf {
    let folder = root.join("Stanford_Online_Products");
    let heading = || vec!["image_id class_id super_class_id path".to_owned()];
    let (mut train, mut test) = (heading(), heading());
    for &class in classes {
        for number in 1..=3 {
            let name = format!("sofa_final/{}_{number}.JPG", 111_000 + class);
            put(&folder.join(&name), &picture(class % 200, number));
            let list = if class <= 11_318 { &mut train } else { &mut test };
            list.push(format!("{} {class} 11 {name}", list.len()));
        }
    }
    for (name, lines) in [("Ebay_train.txt", train), ("Ebay_test.txt", test)] {
        put(&folder.join(name), (lines.join("\n") + "\n").as_bytes());
    }
    folder
}
