//! The instructions, what they are told apart by, and what a hostile pickle may not do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

/// A dict that `{"list": [1, 258, -2, -1], "tuples": ((), (1,), (1, 2), (1, 2, 3), ("list",)), "call": a.b() with attributes,
/// "stored": what is called 7}` and values of no use are pickled as.
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
    assert_eq!(told(b"\x80\x04."), "pickle protocol 4 instead of 2 at byte 0 of the pickle");
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
    // Each value twice as long as the one before, were it copied; nested deeper than a recursion could go.
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
