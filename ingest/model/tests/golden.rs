//! Values that must never change: data in Kafka and in MySQL is found by them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use rstest::rstest;
use support::labels;
use understudy_model::frame::Full;
use understudy_model::{
    BatchId, Codec, Frame, FrameBuilder, Group, Labels, STALE_MARKER, Sample, SeriesId, Tenant, partition_of,
};

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

#[rstest]
#[case::no_labels("acme", &[], "36652d037f85ad6bddb3279fcc37517b")]
#[case::one("acme", &[("__name__", "up")], "aa126801e158eba06f1a5b13dea6d523")]
#[case::another_tenant("globex", &[("__name__", "up")], "d696f8e8cf5b3fb5e31dcf537ac48649")]
#[case::several("acme", &[("__name__", "up"), ("instance", "web-1:9100"), ("job", "node")], "532a73be19f08b022f479192ef9390a3")]
#[case::beyond_ascii("acme", &[("__name__", "temp"), ("ort", "Zürich 🏔")], "cce0c969b2cb7b7a57f38bf1621c90af")]
fn the_id_of_a_series_stays(#[case] owner: &str, #[case] pairs: &[(&str, &str)], #[case] id: &str) {
    assert_eq!(SeriesId::of(&tenant(owner), &labels(pairs)).to_string(), id);
}

#[rstest]
#[case::usual("acme", "node", "web-1:9100", "f462e021b6ccdf8543ac73ae1ea8a6ec", [0, 12, 3])]
#[case::no_labels("acme", "", "", "2404644171867cb7b693aeac4aa2d8d6", [0, 6, 45])]
#[case::another_tenant("globex", "node", "web-1:9100", "9a83e488296a8074afd35341b4e85c13", [0, 3, 38])]
#[case::beyond_ascii("acme", "wetter", "Zürich 🏔", "a0aca138f7eb735abdf87ec147420000", [0, 0, 39])]
fn the_id_and_the_partition_of_a_group_stay(
    #[case] owner: &str,
    #[case] job: &str,
    #[case] instance: &str,
    #[case] id: &str,
    #[case] partitions: [u32; 3],
) {
    let group = Group::new(tenant(owner), job, instance).id();
    assert_eq!(group.to_string(), id);
    assert_eq!([1, 16, 61].map(|count| partition_of(group, count)), partitions);
}

#[test]
fn groups_spread_evenly_over_partitions() {
    let mut counts = [0_u32; 16];
    for host in 0..16_000 {
        let group = Group::new(tenant("acme"), "node", &format!("host-{host}:9100"));
        counts[partition_of(group.id(), 16) as usize] += 1;
    }
    assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
}

/// The frame that the vectors under `golden/` hold.
fn golden_frame() -> Frame {
    let owner = tenant("acme");
    let up: Labels = labels(&[("__name__", "up"), ("instance", "web-1:9100"), ("job", "node")]);
    let temperature = labels(&[("__name__", "temp"), ("instance", "web-1:9100"), ("job", "node"), ("ort", "Zürich 🏔")]);
    let mut builder = FrameBuilder::new(Group::of(&owner, &up));
    let start = 1_700_000_000_000;
    let ups = [
        Sample::new(start, 1.0),
        Sample::new(start + 15_000, -0.0),
        Sample { timestamp_ms: start + 30_000, bits: STALE_MARKER },
    ];
    let temperatures = [
        Sample::new(start + 7, f64::INFINITY),
        Sample::new(-1, 21.5),
        Sample { timestamp_ms: i64::MAX, bits: 0xfff8_dead_beef_0001 },
        Sample { timestamp_ms: i64::MIN, bits: 1 },
    ];
    assert_eq!(builder.push(&up, &ups), Full::No);
    assert_eq!(builder.push(&temperature, &temperatures), Full::No);
    builder.finish(Some(BatchId { agent: "agent-7".into(), sequence: 300 })).unwrap()
}

#[test]
fn a_frame_of_version_1_is_written_byte_for_byte_as_ever() {
    let written = golden_frame().encode(Codec::None).unwrap();
    assert_eq!(written, include_bytes!("golden/frame-v1-plain.bin"), "version 1 is in Kafka already");
}

#[rstest]
#[case::plain(include_bytes!("golden/frame-v1-plain.bin"))]
#[case::zstd(include_bytes!("golden/frame-v1-zstd.bin"))]
fn a_frame_of_version_1_is_read_for_ever(#[case] bytes: &[u8]) {
    assert_eq!(Frame::decode(bytes).unwrap(), golden_frame());
}
