//! Types of elements, shapes and labels.

use safetensors::tensor::Dtype;

use super::{Folder, array, doubles, floats, labels_of, npy, numbers, words};
use crate::embeddings::{Classes, ClassesError, Labels, Scaling};

#[test]
fn numbers_of_every_type_are_read() {
    let f = |descr: &str, bytes: &[u8]| {
        let array = array(&npy(descr, false, "(2,)", bytes)).unwrap();
        [0, 1].map(|row| array.number(row, 0, 2, 1))
    };
    let i = |descr: &str, bytes: &[u8]| labels_of(descr, "(2,)", bytes).unwrap();
    assert_eq!(f("<f4", &floats(&[1.5, -2.0])), [1.5, -2.0]);
    assert_eq!(f(">f4", &[1.5_f32.to_be_bytes(), 2.0_f32.to_be_bytes()].concat()), [1.5, 2.0]);
    assert_eq!(f("<f8", &doubles(&[1e-300, -2.0])), [1e-300, -2.0]);
    assert_eq!(f("<f2", &[0x00, 0x3e, 0x00, 0xc0]), [1.5, -2.0]);
    assert_eq!(f("<i2", &[1, 0, 0xff, 0xff]), [1.0, -1.0]);
    assert_eq!(i("|i1", &[0xff, 127]), numbers(&[-1, 127]));
    assert_eq!(i("|u1", &[0xff, 127]), numbers(&[255, 127]));
    assert_eq!(i("|b1", &[1, 0]), numbers(&[1, 0]));
    assert_eq!(i("<i4", &[7, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]), numbers(&[7, -2]));
    assert_eq!(
        i("<i8", &[5_i64.to_le_bytes(), i64::MIN.to_le_bytes()].concat()),
        numbers(&[5, i64::MIN.into()])
    );
    assert_eq!(i(">u4", &[0, 0, 1, 0, 0x80, 0, 0, 0]), numbers(&[256, 1 << 31]));
    // A number larger than any signed one, which is different from every negative one.
    assert_eq!(
        i("<u8", &[u64::MAX.to_le_bytes(), 1_u64.to_le_bytes()].concat()),
        numbers(&[u64::MAX.into(), 1])
    );
}

#[test]
fn columns_may_come_first_and_headers_be_of_other_versions() {
    let table = array(&npy("<f4", true, "(2, 3)", &floats(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]))).unwrap();
    let rows: Vec<f64> = (0..6).map(|i| table.number(i / 3, i % 3, 2, 3)).collect();
    assert_eq!(rows, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let header = b"{\"shape\": (2L, 1L), 'fortran_order': False, 'descr': '|u1'}";
    let mut file = b"\x93NUMPY\x03\x00".to_vec();
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header);
    file.extend([3, 9]);
    assert_eq!(Labels::from_array(&array(&file).unwrap()).unwrap(), numbers(&[3, 9]));
}

#[test]
fn labels_may_be_words_booleans_and_whole_floats_of_any_shape_with_one_long_axis() {
    let label = |descr: &str, bytes: &[u8]| labels_of(descr, "(2,)", bytes);
    let letters = |text: &str| text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(label("<U3", &letters("catéé\0")).unwrap(), words(&["cat", "éé"]));
    assert_eq!(label(">U1", &[0, 0, 0, b'a', 0, 1, 0xf6, 0]).unwrap(), words(&["a", "😀"]));
    assert_eq!(label("|S2", b"a\0bc").unwrap(), words(&["a", "bc"]));
    assert_eq!(label("<f8", &doubles(&[-0.0, 3.0])).unwrap(), numbers(&[0, 3]));
    assert_eq!(label("<f4", &floats(&[1.5, 3.0])).unwrap_err(), "the label 1.5 of row 0, counted from 0");
    assert_eq!(
        label("<f8", &doubles(&[1.0, f64::NAN])).unwrap_err(),
        "the label NaN of row 1, counted from 0"
    );
    assert!(label("<f8", &doubles(&[1.0, f64::INFINITY])).unwrap_err().contains("infinity of row 1"));
    assert!(label("|S2", b"a\0\xffc").unwrap_err().contains("row 1 whose bytes are not text"));
    for shape in ["(2, 1)", "(1, 2)", "(2, 1, 1)"] {
        assert_eq!(labels_of("|u1", shape, &[4, 5]).unwrap(), numbers(&[4, 5]), "{shape}");
    }
    assert_eq!(labels_of("|u1", "()", &[4]).unwrap(), numbers(&[4]));
    assert_eq!(labels_of("|u1", "(2, 3)", &[0; 6]).unwrap_err(), "labels of the shape (2, 3)");
}

#[test]
fn safetensors_of_every_type_are_read() {
    let folder = Folder::new();
    let rows = floats(&[1.0, 2.0, 3.0, 4.0]);
    let types: [(Dtype, &[u8], [i128; 2]); 9] = [
        (Dtype::I8, &[0xff, 3], [-1, 3]),
        (Dtype::U8, &[0xff, 3], [255, 3]),
        (Dtype::I16, &[0xff, 0xff, 3, 0], [-1, 3]),
        (Dtype::U16, &[0xff, 0xff, 3, 0], [65535, 3]),
        (Dtype::I32, &[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0], [-1, 3]),
        (Dtype::U32, &[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0], [i128::from(u32::MAX), 3]),
        (Dtype::I64, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0, 0, 0, 0, 0], [-1, 3]),
        (
            Dtype::U64,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0, 0, 0, 0, 0],
            [i128::from(u64::MAX), 3],
        ),
        (Dtype::BOOL, &[1, 0], [1, 0]),
    ];
    for (dtype, bytes, expected) in types {
        folder
            .tensors("t.safetensors", &[("features", Dtype::F32, &[2, 2], &rows), ("y", dtype, &[2], bytes)]);
        let found = folder.read("t.safetensors", Scaling::Unscaled).unwrap();
        assert_eq!(found.labels, numbers(&expected), "{dtype:?}");
        assert_eq!(found.origin.embeddings.name.as_deref(), Some("features"));
    }
    let halves: [(Dtype, &[u8]); 2] = [
        (Dtype::F16, &[0, 0x3c, 0, 0x40, 0, 0x42, 0, 0x44]),
        (Dtype::BF16, &[0x80, 0x3f, 0, 0x40, 0x40, 0x40, 0x80, 0x40]),
    ];
    for (dtype, bytes) in halves {
        folder.tensors(
            "h.safetensors",
            &[("embs", dtype, &[2, 2], bytes), ("labels", Dtype::U8, &[2], &[1, 2])],
        );
        let found = folder.read("h.safetensors", Scaling::Unscaled).unwrap();
        assert_eq!(found.features.values, [1.0, 2.0, 3.0, 4.0], "{dtype:?}");
    }
    folder.tensors(
        "8.safetensors",
        &[("embs", Dtype::F8_E4M3, &[2, 2], &[0; 4]), ("labels", Dtype::U8, &[2], &[1, 2])],
    );
    assert!(folder.told("8.safetensors").contains("elements of the type F8_E4M3"));
}

#[test]
fn labels_of_text_are_numbers_if_all_are() {
    let from = |text: &str| Labels::from_text(text.as_bytes()).unwrap().unwrap();
    assert_eq!(from("3\n-1\n"), numbers(&[3, -1]));
    assert_eq!(from("3.000000000000000000e+00\n1.0\n"), numbers(&[3, 1]));
    assert_eq!(from("\u{feff}red fox\nnan\n"), words(&["red fox", "nan"]));
    assert_eq!(from("3\nb\n"), words(&["3", "b"]));
    assert_eq!(Labels::from_text(&b"a\0b"[..]).unwrap(), None);
    // Blank lines at the end are not labels; a blank line between two labels is an error.
    assert_eq!(from("3\n1\n\n \r\n\n"), from("3\n1"));
    assert!(Labels::from_text(&b"3\n\n1\n"[..]).unwrap_err().found.contains("nothing in line 2"));
    assert!(Labels::from_text(&b"1.5\n2.5\n"[..]).unwrap_err().found.contains("the label 1.5 of row 0"));
}

#[test]
fn the_same_label_is_the_same_class_in_both() {
    let both = Classes::number(&numbers(&[9, -3, 9]), Some(&numbers(&[5, 9]))).unwrap();
    assert_eq!((&both.test, &both.gallery), (&vec![2, 0, 2], &Some(vec![1, 2])));
    assert_eq!((both.labels.clone(), both.count(), both.without_match()), (numbers(&[-3, 5, 9]), 3, 1));
    let alone = Classes::number(&words(&["b", "a", "b"]), None).unwrap();
    assert_eq!((&alone.test, &alone.gallery, alone.without_match()), (&vec![1, 0, 1], &None, 1));
    assert_eq!(Classes::number(&words(&["9"]), Some(&numbers(&[9]))), Err(ClassesError::Unlike));
    // A number above 2^63 is not a negative one.
    let wide = Classes::number(&numbers(&[u64::MAX.into()]), Some(&numbers(&[-1]))).unwrap();
    assert_eq!((wide.count(), wide.without_match()), (2, 1));
}
