//! Frames: what goes in comes out, and bytes from anywhere do no harm.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use rstest::rstest;
use support::{allocations, checksummed, labels, sample_bits};
use understudy_model::frame::{Full, HEADER_BYTES, MAX_BODY_BYTES, MAX_FRAME_BYTES, MAX_RATIO, MAX_SAMPLES};
use understudy_model::{
    BatchId, Codec, DecodeError, EncodeError, Frame, FrameBuilder, Group, Labels, STALE_MARKER, Sample, SeriesId,
    Tenant,
};

fn tenant() -> Tenant {
    Tenant::new("acme").unwrap()
}

fn group() -> Group {
    Group::new(tenant(), "node", "web-1:9100")
}

fn series(name: &str) -> Labels {
    labels(&[("__name__", name), ("job", "node"), ("instance", "web-1:9100"), ("zone", "a")])
}

fn frame_of(samples: &[Sample]) -> Frame {
    let mut builder = FrameBuilder::new(group());
    assert_eq!(builder.push(&series("cpu_seconds_total"), samples), Full::No);
    builder.finish(None).unwrap()
}

fn samples_of(frame: &Frame) -> Vec<(Labels, Vec<Sample>)> {
    frame.series().map(|series| (series.labels.clone(), series.samples().collect())).collect()
}

#[rstest]
#[case::zero(0.0_f64.to_bits())]
#[case::negative_zero((-0.0_f64).to_bits())]
#[case::infinity(f64::INFINITY.to_bits())]
#[case::negative_infinity(f64::NEG_INFINITY.to_bits())]
#[case::quiet_nan(f64::NAN.to_bits())]
#[case::stale_marker(STALE_MARKER)]
#[case::negative_nan_with_payload(0xfff8_dead_beef_0001)]
#[case::smallest_subnormal(1)]
#[case::largest_subnormal(0x000f_ffff_ffff_ffff)]
#[case::greatest(f64::MAX.to_bits())]
fn every_bit_of_a_value_comes_back(#[case] bits: u64) {
    for codec in [Codec::None, Codec::Zstd] {
        let sample = Sample { timestamp_ms: 1_700_000_000_000, bits };
        let frame = frame_of(&[sample]);
        let read = Frame::decode(&frame.encode(codec).unwrap()).unwrap();
        assert_eq!(samples_of(&read)[0].1, [sample]);
    }
}

#[rstest]
#[case::epoch(&[0])]
#[case::before_1970(&[-1, i64::MIN])]
#[case::far_future(&[i64::MAX])]
#[case::from_one_end_to_the_other(&[i64::MIN, i64::MAX, i64::MIN, 0, i64::MAX])]
#[case::out_of_order_and_repeated(&[30, 10, 20, 20, 10])]
fn every_timestamp_comes_back_in_the_order_it_was_sent(#[case] times: &[i64]) {
    let samples: Vec<Sample> = times.iter().map(|&at| Sample::new(at, 1.0)).collect();
    let frame = frame_of(&samples);
    let read = Frame::decode(&frame.encode(Codec::None).unwrap()).unwrap();
    assert_eq!(samples_of(&read)[0].1, samples);
    assert_eq!(read.time_range_ms(), (*times.iter().min().unwrap(), *times.iter().max().unwrap()));
}

fn arbitrary_labels() -> impl Strategy<Value = Labels> {
    vec(("[a-z_]{1,8}", "\\PC{0,12}"), 0..6).prop_map(|mut pairs| {
        pairs.sort();
        pairs.dedup_by(|a, b| a.0 == b.0);
        pairs.retain(|(name, _)| name != "job" && name != "instance");
        let fixed = [("job", "node"), ("instance", "web-1:9100")];
        let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Labels::from_pairs(pairs.chain(fixed)).unwrap()
    })
}

fn arbitrary_series() -> impl Strategy<Value = Vec<(Labels, Vec<Sample>)>> {
    let sample = (any::<i64>(), sample_bits()).prop_map(|(timestamp_ms, bits)| Sample { timestamp_ms, bits });
    vec((arbitrary_labels(), vec(sample, 1..20)), 1..12)
}

fn arbitrary_batch() -> impl Strategy<Value = Option<BatchId>> {
    proptest::option::of(
        ("\\PC{0,30}", any::<u64>()).prop_map(|(agent, sequence)| BatchId { agent: agent.into(), sequence }),
    )
}

proptest! {
    #[test]
    fn a_frame_comes_back_whole(
        series in arbitrary_series(),
        batch in arbitrary_batch(),
        codec in prop_oneof![Just(Codec::None), Just(Codec::Zstd)],
    ) {
        let mut builder = FrameBuilder::new(group());
        for (labels, samples) in &series {
            prop_assert_eq!(builder.push(labels, samples), Full::No);
        }
        let frame = builder.finish(batch.clone()).unwrap();
        let bytes = frame.encode(codec).unwrap();
        let read = Frame::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &frame);
        prop_assert_eq!(samples_of(&read), series);
        prop_assert_eq!(read.batch(), batch.as_ref());
        for series in read.series() {
            prop_assert_eq!(series.id, SeriesId::of(&tenant(), series.labels));
        }
    }

    #[test]
    fn one_flipped_bit_is_always_noticed(series in arbitrary_series(), at in any::<prop::sample::Index>()) {
        let mut builder = FrameBuilder::new(group());
        for (labels, samples) in &series {
            prop_assert_eq!(builder.push(labels, samples), Full::No);
        }
        let mut bytes = builder.finish(None).unwrap().encode(Codec::Zstd).unwrap();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Frame::decode(&bytes).is_err());
    }

    #[test]
    fn a_frame_that_was_cut_is_refused(series in arbitrary_series(), at in any::<prop::sample::Index>()) {
        let mut builder = FrameBuilder::new(group());
        for (labels, samples) in &series {
            prop_assert_eq!(builder.push(labels, samples), Full::No);
        }
        let bytes = builder.finish(None).unwrap().encode(Codec::None).unwrap();
        prop_assert!(Frame::decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_harm(bytes in vec(any::<u8>(), 0..2000)) {
        let (outcome, most) = allocations(|| Frame::decode(&bytes));
        prop_assert!(outcome.is_err());
        prop_assert!(most < 64 * 1024, "{most} bytes allocated");
    }

    /// Past the checksum: what a hostile or faulty producer could write.
    #[test]
    fn any_body_under_a_right_checksum_does_no_harm(body in vec(any::<u8>(), 0..4000), claim in any::<u32>()) {
        for (codec, length) in [(0, body.len() as u32), (1, claim), (1, claim % (2 * MAX_BODY_BYTES as u32))] {
            let bytes = checksummed(codec, length, &body);
            let (outcome, most) = allocations(|| Frame::decode(&bytes));
            drop(outcome);
            prop_assert!(most < 64 * 1024 + body.len() * MAX_RATIO, "{most} bytes allocated");
        }
    }

    /// Mutations of a real body get deeper into the decoder than noise does.
    #[test]
    fn a_damaged_body_under_a_right_checksum_does_no_harm(
        series in arbitrary_series(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut builder = FrameBuilder::new(group());
        for (labels, samples) in &series {
            prop_assert_eq!(builder.push(labels, samples), Full::No);
        }
        let bytes = builder.finish(None).unwrap().encode(Codec::None).unwrap();
        let mut body = bytes[HEADER_BYTES..].to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let bytes = checksummed(0, body.len() as u32, &body);
        let (outcome, most) = allocations(|| Frame::decode(&bytes));
        prop_assert!(most < 1 << 20, "{most} bytes allocated");
        if let Ok(frame) = outcome {
            let again = frame.encode(Codec::None).unwrap();
            prop_assert_eq!(Frame::decode(&again).unwrap(), frame);
        }
    }
}

/// A body that is right up to the dictionary.
fn body_start() -> Vec<u8> {
    let mut body = Vec::new();
    for text in ["acme", "node", "web-1:9100"] {
        body.push(text.len() as u8);
        body.extend_from_slice(text.as_bytes());
    }
    body.extend_from_slice(&[0, 0]);
    body
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[rstest]
#[case::four_billion_symbols(varint(u64::from(u32::MAX)), "too_many")]
#[case::as_many_symbols_as_allowed_and_none_there(varint(MAX_BODY_BYTES as u64), "truncated")]
#[case::a_symbol_longer_than_the_rest([varint(1), varint(MAX_BODY_BYTES as u64)].concat(), "truncated")]
#[case::a_symbol_of_2_to_the_63([varint(1), varint(1 << 63)].concat(), "too_many")]
#[case::a_symbol_that_is_not_utf8([varint(1), vec![1, 0xff]].concat(), "not_utf8")]
#[case::four_billion_series([varint(0), varint(u64::from(u32::MAX))].concat(), "too_many")]
#[case::many_series_and_none_there([varint(0), varint(65_536)].concat(), "truncated")]
#[case::no_series([varint(0), varint(0)].concat(), "empty")]
#[case::a_symbol_that_is_not_there([varint(1), vec![1, b'a'], varint(1), vec![1, 0, 7, 1], vec![0; 9]].concat(), "symbol")]
#[case::a_label_without_value(
    [varint(2), vec![1, b'a', 0], varint(1), vec![1, 0, 1, 1], vec![0; 9]].concat(), "not_canonical")]
#[case::labels_out_of_order(
    [varint(2), vec![1, b'a', 1, b'b'], varint(1), vec![2, 1, 0, 0, 1, 1], vec![0; 9]].concat(), "not_canonical")]
#[case::a_label_twice(
    [varint(2), vec![1, b'a', 1, b'b'], varint(1), vec![2, 0, 1, 0, 1, 1], vec![0; 9]].concat(), "labels")]
#[case::a_series_of_another_group(
    [varint(2), vec![1, b'a', 1, b'b'], varint(1), vec![1, 0, 1, 1], vec![0; 9]].concat(), "foreign_series")]
fn a_dictionary_that_lies_is_refused_with_its_reason(#[case] dictionary: Vec<u8>, #[case] reason: &str) {
    let body = [body_start(), dictionary].concat();
    let bytes = checksummed(0, body.len() as u32, &body);
    let (outcome, most) = allocations(|| Frame::decode(&bytes));
    assert_eq!(outcome.unwrap_err().reason(), reason);
    assert!(most < 64 * 1024, "{most} bytes allocated");
}

#[test]
fn labels_that_repeat_one_large_symbol_cannot_blow_up() {
    let value = "x".repeat(60_000);
    let mut body = body_start();
    body.extend(varint(2));
    for symbol in ["a", value.as_str()] {
        body.extend(varint(symbol.len() as u64));
        body.extend_from_slice(symbol.as_bytes());
    }
    body.extend(varint(2000));
    for _ in 0..2000 {
        body.extend([1, 0, 1, 1]);
    }
    body.extend(vec![0; 2000 * 9]);
    let bytes = checksummed(0, body.len() as u32, &body);
    let (outcome, most) = allocations(|| Frame::decode(&bytes));
    // The first of them is of no group of ours, so this also shows what is checked first.
    assert!(matches!(outcome, Err(DecodeError::ForeignSeries | DecodeError::TooMany { .. })));
    assert!(most < 1 << 20, "{most} bytes allocated");
}

#[rstest]
#[case::empty(vec![], "truncated")]
#[case::header_only(b"USFR\x01".to_vec(), "truncated")]
#[case::another_magic([b"PAR1".to_vec(), vec![0; 40]].concat(), "magic")]
#[case::a_later_version([b"USFR\x02".to_vec(), vec![0; 40]].concat(), "version")]
#[case::a_wrong_checksum([b"USFR\x01".to_vec(), vec![0; 40]].concat(), "checksum")]
#[case::an_unknown_codec(checksummed(2, 4, b"body"), "codec")]
#[case::a_claim_over_the_limit(checksummed(1, MAX_BODY_BYTES as u32 + 1, b"body"), "body_length")]
#[case::a_claim_of_four_gigabytes(checksummed(1, u32::MAX, b"body"), "body_length")]
#[case::a_ratio_no_encoder_makes(checksummed(1, 4 * MAX_RATIO as u32 + 1, b"body"), "ratio")]
#[case::a_plain_body_of_another_length(checksummed(0, 5, b"body"), "unpack")]
#[case::a_body_that_is_not_zstd(checksummed(1, 100, b"body"), "unpack")]
#[case::longer_than_any_frame(vec![0; MAX_FRAME_BYTES + 1], "oversized")]
fn a_header_that_is_wrong_is_refused_with_its_reason(#[case] bytes: Vec<u8>, #[case] reason: &str) {
    assert_eq!(Frame::decode(&bytes).unwrap_err().reason(), reason);
}

#[test]
fn a_zstd_bomb_is_not_unpacked() {
    let packed = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    for claim in [MAX_BODY_BYTES as u32, (packed.len() as u32).saturating_mul(100).min(MAX_BODY_BYTES as u32)] {
        let bytes = checksummed(1, claim, &packed);
        let (outcome, most) = allocations(|| Frame::decode(&bytes));
        assert!(outcome.is_err());
        assert!(most < 2 * MAX_BODY_BYTES + (1 << 20), "{most} bytes allocated");
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let bytes = frame_of(&[Sample::new(0, 1.0)]).encode(Codec::None).unwrap();
    let body = [&bytes[HEADER_BYTES..], b"more"].concat();
    assert_eq!(Frame::decode(&checksummed(0, body.len() as u32, &body)), Err(DecodeError::Trailing(4)));
}

#[test]
fn a_dictionary_kind_for_labels_left_out_is_refused_until_it_is_safe() {
    let bytes = frame_of(&[Sample::new(0, 1.0)]).encode(Codec::None).unwrap();
    let mut body = bytes[HEADER_BYTES..].to_vec();
    let kind = body_start().len() - 1;
    body[kind] = 1;
    assert_eq!(Frame::decode(&checksummed(0, body.len() as u32, &body)), Err(DecodeError::Dictionary(1)));
}

#[test]
fn a_full_frame_says_where_the_next_one_starts() {
    let samples: Vec<Sample> = (0..200_000).map(|at| Sample::new(at * 1000 * (at % 7), at as f64)).collect();
    let labels = series("cpu_seconds_total");
    let (mut rest, mut seen, mut frames) = (samples.as_slice(), Vec::new(), 0);
    loop {
        let mut builder = FrameBuilder::new(group());
        let full = builder.push(&labels, rest);
        let bytes = builder.finish(None).unwrap().encode(Codec::None).unwrap();
        assert!(bytes.len() <= MAX_FRAME_BYTES, "{} bytes", bytes.len());
        seen.extend(samples_of(&Frame::decode(&bytes).unwrap()).remove(0).1);
        frames += 1;
        match full {
            Full::No => break,
            Full::From(at) => rest = &rest[at..],
            Full::Never => panic!("labels fit"),
        }
    }
    assert!(frames > 1 && samples.len() / frames < MAX_SAMPLES);
    assert_eq!(seen, samples);
}

#[test]
fn a_full_frame_of_many_series_stays_within_its_limit() {
    let mut builder = FrameBuilder::new(group());
    let mut pushed = 0;
    loop {
        let value = format!("{pushed:0>40}");
        let labels = labels(&[("__name__", &value), ("job", "node"), ("instance", "web-1:9100")]);
        match builder.push(&labels, &[Sample { timestamp_ms: i64::MIN, bits: pushed }]) {
            Full::No => pushed += 1,
            full => {
                assert_eq!(full, Full::From(0));
                break;
            }
        }
    }
    let frame = builder.finish(None).unwrap();
    let bytes = frame.encode(Codec::Zstd).unwrap();
    assert!(bytes.len() <= MAX_FRAME_BYTES);
    assert_eq!(Frame::decode(&bytes).unwrap().series_len() as u64, pushed);
}

#[test]
fn labels_larger_than_any_frame_never_fit() {
    let value = "x".repeat(MAX_BODY_BYTES);
    let labels = labels(&[("__name__", &value), ("job", "node"), ("instance", "web-1:9100")]);
    let mut builder = FrameBuilder::new(group());
    assert_eq!(builder.push(&labels, &[Sample::new(0, 0.0)]), Full::Never);
    assert_eq!(builder.finish(None), None);
}

#[test]
fn values_that_hardly_differ_are_stored_plain_rather_than_beyond_the_ratio() {
    let samples = vec![Sample::new(0, 0.0); 50_000];
    let frame = frame_of(&samples);
    let bytes = frame.encode(Codec::Zstd).unwrap();
    assert_eq!(Frame::decode(&bytes).unwrap(), frame);
}

#[test]
fn an_agent_name_that_is_too_long_is_an_error_of_the_encoder() {
    let mut builder = FrameBuilder::new(group());
    assert_eq!(builder.push(&series("up"), &[Sample::new(0, 1.0)]), Full::No);
    let batch = BatchId { agent: "a".repeat(129).into(), sequence: 1 };
    let frame = builder.finish(Some(batch)).unwrap();
    assert!(matches!(frame.encode(Codec::None), Err(EncodeError::Agent(129))));
}

#[test]
fn a_scrape_takes_few_bytes_a_sample() {
    let mut builder = FrameBuilder::new(group());
    for index in 0..800 {
        let name = format!("node_metric_{}_total", index / 8);
        let cpu = (index % 8).to_string();
        let labels = labels(&[("__name__", &name), ("cpu", &cpu), ("job", "node"), ("instance", "web-1:9100")]);
        let value = (index * 7919 % 1000) as f64;
        assert_eq!(builder.push(&labels, &[Sample::new(1_700_000_000_123, value)]), Full::No);
    }
    let bytes = builder.finish(None).unwrap().encode(Codec::Zstd).unwrap();
    assert!(bytes.len() < 800 * 10, "{} bytes for 800 samples with their labels", bytes.len());
}
