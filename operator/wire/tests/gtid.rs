//! The algebra of GTID sets, by example and by property.

use std::collections::BTreeSet;

use proptest::prelude::*;
use understudy_wire::GtidSet;
use understudy_wire::gtid::SourceId;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

/// `A:` and `B:` stand for two servers.
fn expand(text: &str) -> String {
    text.replace("A:", &format!("{A}:")).replace("B:", &format!("{B}:"))
}

fn set(text: &str) -> GtidSet {
    expand(text).parse().expect("a GTID set")
}

#[test]
fn text_is_read_as_the_server_writes_it() {
    for (case, text, normal) in [
        ("nothing", "", ""),
        ("one", "A:1", "A:1"),
        ("many, out of order", "A:7:1-5", "A:1-5:7"),
        ("touching intervals melt", "A:1-5:6-9", "A:1-9"),
        ("overlapping intervals melt", "A:1-5:3-9:2", "A:1-9"),
        ("two sources with the line break of SHOW REPLICA STATUS", "A:1-5,\nB:1-3", "A:1-5,B:1-3"),
        ("sources are sorted", "B:1-3,A:1", "A:1,B:1-3"),
        ("tags follow untagged, in lower case", "A:1-2:Blue:5:1-3", "A:1-2:blue:1-3:5"),
        ("two tags", "A:x:1:y:2", "A:x:1:y:2"),
        ("no dashes", "3e11fa4771ca11e19e33c80aa9429562:4", "A:4"),
        ("upper case", "3E11FA47-71CA-11E1-9E33-C80AA9429562:4", "A:4"),
    ] {
        let read: GtidSet = expand(text).parse().unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(read.to_string(), expand(normal), "{case}");
    }
}

#[test]
fn what_is_not_a_set_is_refused() {
    for text in [
        "x",
        A,
        "A:",
        "A:0",
        "A:5-3",
        "A:1-",
        "A:-1",
        "A:+1",
        "A:1:tag",
        "A:1 2",
        "A:9223372036854775807",
        "A:99999999999999999999",
        "3e11fa47-71ca-11e1-9e33-c80aa942956:1",
        "3e11fa47-71ca-11e1-9e33-c80aa942956g:1",
        "A:a_tag_that_is_longer_than_32_characters:1",
    ] {
        assert!(expand(text).parse::<GtidSet>().is_err(), "{text:?} was read");
    }
}

#[test]
fn a_set_travels_as_a_checked_string() {
    let there = serde_json::to_string(&set("A:1-5:7,B:1")).expect("serialises");
    assert_eq!(there, format!("\"{A}:1-5:7,{B}:1\""));
    assert_eq!(serde_json::from_str::<GtidSet>(&there).expect("parses"), set("A:1-5:7,B:1"));
    assert!(serde_json::from_str::<GtidSet>("\"nonsense\"").is_err());
}

#[test]
fn parts_by_source_and_sources() {
    let both = set("A:1-3:t:9,B:4");
    let a: SourceId = A.parse().expect("a uuid");
    assert_eq!(both.of(a), set("A:1-3:t:9"));
    assert_eq!(both.sources().collect::<Vec<_>>(), vec![a, B.parse().expect("a uuid")]);
    assert_eq!(both.count(), 5);
}

/// The model: a plain set of (source, tag, number).
type Model = BTreeSet<(u8, u8, u64)>;

fn build(model: &Model) -> GtidSet {
    let tag = |tag: &u8| if *tag == 0 { String::new() } else { format!(":t{tag}") };
    let all: Vec<_> =
        model.iter().map(|(source, t, n)| format!("{}{}:{n}", SourceId::from_bytes([*source; 16]), tag(t))).collect();
    all.join(",").parse().expect("built from parts")
}

fn model() -> impl Strategy<Value = Model> {
    prop::collection::btree_set((0..3u8, 0..2u8, 1..20u64), 0..40)
}

proptest! {
    #[test]
    fn text_and_back_is_the_same_set(a in model()) {
        let set = build(&a);
        prop_assert_eq!(set.to_string().parse::<GtidSet>().expect("own text"), set);
    }

    #[test]
    fn the_algebra_agrees_with_plain_sets(a in model(), b in model()) {
        let (x, y) = (build(&a), build(&b));
        prop_assert_eq!(x.union(&y), build(&a.union(&b).copied().collect()));
        prop_assert_eq!(x.subtract(&y), build(&a.difference(&b).copied().collect()));
        prop_assert_eq!(x.intersect(&y), build(&a.intersection(&b).copied().collect()));
        prop_assert_eq!(x.contains(&y), b.is_subset(&a));
        prop_assert_eq!(x.count(), a.len() as u64);
        prop_assert_eq!(x.is_empty(), a.is_empty());
        prop_assert_eq!(x == y, a == b);
    }

    #[test]
    fn any_text_is_read_or_refused_and_never_panics(text in "[0-9a-fA-F:,\\- t]{0,60}") {
        if let Ok(set) = text.parse::<GtidSet>() {
            prop_assert_eq!(set.to_string().parse::<GtidSet>().expect("own text"), set);
        }
    }
}
