//! Tests the instructions, and hostile pickles.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

/// The pickle of this dict:
///
/// ```text
/// {"list": [1, 258, -2, -1], "tuples": ((), (1,), (1, 2), (1, 2, 3), ("list",)),
///  "call": a.b() with attributes, "stored": the object named 7}
/// ```
///
/// It also has items of kinds that are only recognized, such as a float.
const ALL: &[u8] = b"\x80\x02}q\x00(U\x04listq\x01]q\x02(K\x01M\x02\x01e\x4a\xfe\xff\xff\xffa\x8a\x01\xffa\
    X\x06\0\0\0tuples()K\x01\x85K\x01K\x02\x86K\x01K\x02K\x03\x87(h\x01tt\
    T\x04\0\0\0callca\nb\nr\xff\0\0\0)R}U\x01xG?\xe0\0\0\0\0\0\0sb\
    U\x06storedK\x07Q\
    U\x05otherNU\x04true\x88U\x05false\x89U\x03new\x6a\xff\0\0\0)\x81\
    U\x07orderedccollections\nOrderedDict\n)RU\x01kK\x09s}b\
    U\x04long\x8a\x09\0\0\0\0\0\0\0\0\x01u.";

#[test]
fn each_instruction_gives_its_value() {
    let pickle = Pickle::read(ALL).unwrap();
    let root = pickle.dict(pickle.root()).unwrap();
    assert_eq!(root.len(), 10);
    let item = |key: &str| pickle.item(root, key).unwrap();
    let int = Value::Int;
    assert_eq!(pickle.list(item("list")).unwrap(), [int(1), int(258), int(-2), int(-1)]);
    let tuples: Vec<&[Value]> =
        pickle.tuple(item("tuples")).unwrap().iter().map(|tuple| pickle.tuple(*tuple).unwrap()).collect();
    assert_eq!(tuples[..4], [&[][..], &[int(1)], &[int(1), int(2)], &[int(1), int(2), int(3)]]);
    assert_eq!(pickle.bytes(tuples[4][0]), Some(&b"list"[..]));
    let call = pickle.call(item("call")).unwrap();
    assert_eq!(pickle.global(call.callable), Some((&b"a"[..], &b"b"[..])));
    assert_eq!(pickle.tuple(call.arguments), Some(&[][..]));
    let attributes = pickle.dict(call.state.unwrap()).unwrap();
    assert_eq!(pickle.item(attributes, "x"), Some(Value::Other));
    assert_eq!(pickle.stored(item("stored")), Some(int(7)));
    assert_eq!(
        [item("other"), item("true"), item("false"), item("long")],
        [Value::Other, Value::Bool(true), Value::Bool(false), Value::Other]
    );
    let made = pickle.call(item("new")).unwrap();
    assert_eq!((made.callable, made.state), (call.callable, None));
    let ordered = pickle.dict(item("ordered")).unwrap();
    assert_eq!(pickle.item(ordered, "k"), Some(int(9)));
}

/// The output of CPython's pickle.dumps for {"a": [1, (2, 3)], "b": b"bytes", "o": OrderedDict([("k", 9)]),
/// "s": {5}} in protocols 3 to 5.
const LATER: [&[u8]; 3] = [
    b"\x80\x03}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01K\x02K\x03\x86q\x03eX\x01\x00\x00\x00bq\x04C\x05bytesq\x05X\x01\x00\x00\x00oq\x06ccollections\x0aOrderedDict\x0aq\x07)Rq\x08X\x01\x00\x00\x00kq\x09K\x09sX\x01\x00\x00\x00sq\x0acbuiltins\x0aset\x0aq\x0b]q\x0cK\x05a\x85q\x0dRq\x0eu.",
    b"\x80\x04\x95W\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01K\x02K\x03\x86\x94e\x8c\x01b\x94C\x05bytes\x94\x8c\x01o\x94\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94\x8c\x01k\x94K\x09s\x8c\x01s\x94\x8f\x94(K\x05\x90u.",
    b"\x80\x05\x95W\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01K\x02K\x03\x86\x94e\x8c\x01b\x94C\x05bytes\x94\x8c\x01o\x94\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94\x8c\x01k\x94K\x09s\x8c\x01s\x94\x8f\x94(K\x05\x90u.",
];

#[test]
fn later_protocols_are_read() {
    for file in LATER {
        let longer = [file, b"what follows"].concat();
        let pickle = Pickle::read(&longer).unwrap();
        assert_eq!(pickle.length(), file.len());
        let root = pickle.dict(pickle.root()).unwrap();
        let item = |key: &str| pickle.item(root, key).unwrap();
        let [one, pair] = pickle.list(item("a")).unwrap() else { panic!("two items") };
        assert_eq!(*one, Value::Int(1));
        assert_eq!(pickle.tuple(*pair).unwrap(), [Value::Int(2), Value::Int(3)]);
        assert_eq!(pickle.bytes(item("b")), Some(&b"bytes"[..]));
        let ordered = pickle.dict(item("o")).unwrap();
        assert_eq!(pickle.item(ordered, "k"), Some(Value::Int(9)));
        for held in 0..file.len() {
            Pickle::read(&file[..held]).unwrap_err();
        }
    }
}

/// Python 2 pickles OrderedDict([("a", 1), ("b", 2)]) as a call with a list of pairs.
#[test]
fn ordered_dicts_of_python_2_are_read() {
    let pickle = Pickle::read(b"\x80\x02ccollections\x0aOrderedDict\x0aq\x00]q\x01(]q\x02(U\x01aq\x03K\x01e]q\x04(U\x01bq\x05K\x02ee\x85q\x06Rq\x07.").unwrap();
    let root = pickle.dict(pickle.root()).unwrap();
    assert_eq!(root.len(), 2);
    assert_eq!(pickle.item(root, "a"), Some(Value::Int(1)));
    assert_eq!(pickle.item(root, "b"), Some(Value::Int(2)));
    // Many dicts are made from one list of many pairs, and the number of pairs does not grow.
    let list =
        [&b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01("[..], &b"K\x01K\x02\x86".repeat(1000), b"e"]
            .concat();
    let calls = b"h\x00h\x01\x85R".repeat(1000);
    let many = [&list[..], &calls, b"."].concat();
    let pickle = Pickle::read(&many).unwrap();
    let held: usize = pickle
        .objects
        .iter()
        .map(|object| if let Object::Dict(pairs) = object { pairs.len() } else { 0 })
        .sum();
    assert_eq!(held, 1000);
}

#[test]
fn values_are_not_taken_for_each_other() {
    let pickle = Pickle::read(ALL).unwrap();
    let root = pickle.root();
    assert!(pickle.tuple(root).is_none() && pickle.list(root).is_none() && pickle.bytes(root).is_none());
    assert!(pickle.global(root).is_none() && pickle.call(root).is_none() && pickle.stored(root).is_none());
    assert!(pickle.dict(Value::Int(0)).is_none() && pickle.item(&[], "list").is_none());
}

#[test]
fn the_last_of_two_values_under_a_key_counts() {
    let pickle = Pickle::read(b"\x80\x02}(U\x01aK\x01U\x01aK\x02u.").unwrap();
    assert_eq!(pickle.item(pickle.dict(pickle.root()).unwrap(), "a"), Some(Value::Int(2)));
}

#[test]
fn what_is_out_of_order_is_told() {
    let told = |pickle: &[u8]| Pickle::read(pickle).unwrap_err();
    assert_eq!(told(b"\x80\x06."), "pickle protocol 6 instead of 2 to 5 at byte 0 of the pickle");
    assert_eq!(told(b"\x80\x02X\xff\xff\xff\xff"), "a pickle of 7 bytes that ends 4294967295 too soon");
    assert_eq!(told(b"T\xff\xff\xff\xff"), "a string of negative length at byte 0 of the pickle");
    assert_eq!(told(b"i"), "instruction 0x69, which is not known here, at byte 0 of the pickle");
    assert_eq!(told(b"K\x01(."), "a pickle that takes from an empty stack");
    assert_eq!(told(b"K\x01(\x85."), "a pickle that takes from an empty stack");
    assert_eq!(told(b"t"), "a pickle that closes what it never opened");
    assert_eq!(told(b"q\x00"), "a memo of nothing");
    assert_eq!(told(b"h\x05"), "memo 5, which was never put");
    assert_eq!(told(b"K\x01K\x02a"), "items without a list at byte 4 of the pickle");
    assert_eq!(told(b"](K\x01K\x02u"), "items without a dict at byte 6 of the pickle");
    assert_eq!(told(b"}(K\x01u"), "a key without a value at byte 4 of the pickle");
    assert_eq!(told(b"K\x01}b"), "attributes without an object at byte 3 of the pickle");
    assert_eq!(told(&[b'c'; 2000]), "a name of more than 1000 bytes");
    assert_eq!(told(b"cmodule"), "a pickle of 7 bytes that ends 1 too soon");
}

#[test]
fn every_truncation_is_an_error() {
    for held in 0..ALL.len() {
        Pickle::read(&ALL[..held]).unwrap_err();
    }
}

#[test]
fn memory_does_not_follow_what_a_pickle_claims() {
    // Each value would be twice as long as the one before if values were copied; another input is nested
    // deeper than a recursion could go.
    let doubled: Vec<u8> = (0..100_u8).flat_map(|key| [b'q', key, b'h', key, b'h', key, 0x86]).collect();
    let pickle = [b"\x80\x02)", &doubled[..], b"."].concat();
    assert_eq!(Pickle::read(&pickle).unwrap().objects.len(), 101);
    let deep = [b"\x80\x02)", &vec![0x85; 1 << 20][..], b"."].concat();
    assert_eq!(Pickle::read(&deep).unwrap().objects.len(), (1 << 20) + 1);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(start in 0..ALL.len(), noise in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = ALL.to_vec();
        let end = (start + noise.len()).min(bytes.len());
        bytes.splice(start..end, noise);
        let _ = Pickle::read(&bytes);
    }
}
