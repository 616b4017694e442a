//! What a request costs is known before it is paid: bombs are refused without being unpacked, and what is reserved for
//! a request is more than it takes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rstest::rstest;
use support::proto::{field, label, now_ms, packed, sample, series_of, snappy, varint};
use support::{WAIT, post, request, start_with, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use understudy_gateway::batch::{self, BatchRules};
use understudy_gateway::limits::Limits;
use understudy_gateway::wire;
use understudy_kafka::fake::Mood;
use understudy_model::Tenant;
use understudy_model::rules::{LabelRules, TimeWindow};

/// Counts what the whole process has allocated, and the most that was.
struct Counting;

static NOW: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);
/// One measurement at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

#[allow(unsafe_code, reason = "an allocator cannot be written without; it only adds up what the system's does")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size() as isize, Ordering::Relaxed) + layout.size() as isize;
        MOST.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size() as isize, Ordering::Relaxed) + layout.size() as isize;
        MOST.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn mark() -> isize {
    let now = NOW.load(Ordering::Relaxed);
    MOST.store(now, Ordering::Relaxed);
    now
}

fn most_since(mark: isize) -> usize {
    usize::try_from(MOST.load(Ordering::Relaxed) - mark).unwrap_or(0)
}

const MIB: usize = 1 << 20;
/// Two bytes each, they almost fill the limit.
const MANY: usize = 4 * MIB - 64;

#[rstest]
#[case::declares_4_gib(|| [varint(u64::from(u32::MAX)), vec![0; 100]].concat(), 413, MIB)]
#[case::declares_the_limit_in_100_bytes(|| [varint(8 << 20), vec![0; 100]].concat(), 400, MIB)]
#[case::unpacks_to_64_mib(|| snappy(&vec![0; 64 * MIB]), 413, 5 * MIB)]
#[case::unpacks_to_the_limit_and_is_nothing(|| snappy(&vec![0; 8 * MIB]), 400, 9 * MIB)]
#[case::four_million_empty_labels(|| packed(&[series_of(&[[0x0a, 0x00].repeat(MANY)])]), 400, 9 * MIB)]
#[case::four_million_empty_samples(|| packed(&[series_of(&[[0x12, 0x00].repeat(MANY)])]), 413, 9 * MIB)]
#[case::four_million_empty_series(|| packed(&[[0x0a, 0x00].repeat(MANY)]), 413, 9 * MIB)]
#[case::four_million_metadata(|| packed(&[[0x1a, 0x00].repeat(MANY)]), 204, 9 * MIB)]
#[case::one_label_of_7_mib(|| packed(&[series_of(&[label(b"__name__", &vec![b'x'; 7 * MIB])])]), 400, 9 * MIB)]
#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_costs_no_more_than_what_it_declares(
    #[case] body: fn() -> Vec<u8>,
    #[case] status: u16,
    #[case] most: usize,
) {
    let _alone = ALONE.lock().await;
    let body = body();
    let running = start_with(Limits { decompressed_bytes: 8 * MIB, ..Limits::default() }).await;
    let mark = mark();
    let answer = post(&running, &body).await;
    let cost = most_since(mark);
    assert_eq!(answer.status, status, "{answer:?}");
    // Twice the body: the gateway's and the test's own copy of the request.
    assert!(cost < most + 2 * body.len() + MIB, "{} MiB for a body of {} bytes", cost / MIB, body.len());
}

/// 4000 series of a kilobyte each.
fn large_request() -> Vec<u8> {
    let parts: Vec<Vec<u8>> = (0..4000)
        .map(|index| {
            let name = format!("metric_{index}");
            series_of(&[label(b"__name__", name.as_bytes()), label(b"pad", &[b'x'; 1000]), sample(now_ms(), 1.0)])
        })
        .collect();
    request(&packed(&parts), &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_computed_for_clients_that_have_left_stays_counted() {
    let _alone = ALONE.lock().await;
    let budget = 64 * MIB;
    let running = start_with(Limits { inflight_bytes: budget, ..Limits::default() }).await;
    let bytes = large_request();
    let mark = mark();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
    until(WAIT, "the memory comes back", || running.budget.used_bytes() == 0).await;
    let cost = most_since(mark);
    assert!(cost < budget + 16 * MIB, "{} MiB", cost / MIB);
    assert_eq!(post(&running, &packed(&[minimal("up", "a")])).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_requests_at_once_stay_within_the_memory_for_all() {
    let _alone = ALONE.lock().await;
    let budget = 64 * MIB;
    let running =
        start_with(Limits { inflight_bytes: budget, produce_timeout: Duration::from_secs(1), ..Limits::default() })
            .await;
    running.log.set_mood(Mood::Dead);
    let bytes = large_request();
    let mark = mark();
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        assert_eq!(support::read_answer(stream).await.unwrap().status, 503);
    }
    let cost = most_since(mark);
    assert!(cost < budget + 16 * MIB, "{} MiB", cost / MIB);
    drop(streams);
    assert_eq!(running.budget.used_bytes(), 0);
}

fn minimal(name: &str, instance: &str) -> Vec<u8> {
    series_of(&[label(b"__name__", name.as_bytes()), label(b"instance", instance.as_bytes()), sample(now_ms(), 1.0)])
}

fn wide(index: usize) -> Vec<u8> {
    let labels = (0..127).flat_map(|label_index| label(format!("l{label_index}").as_bytes(), b"v")).collect();
    series_of(&[label(b"__name__", format!("m{index}").as_bytes()), labels, sample(now_ms(), 1.0)])
}

fn different(index: usize) -> Vec<u8> {
    let labels = (0..50).flat_map(|at| label(format!("n{index}x{at}").as_bytes(), format!("v{index}x{at}").as_bytes()));
    let name = label(b"__name__", format!("m{index}").as_bytes());
    series_of(&[name, labels.collect(), sample(now_ms(), 1.0)])
}

#[rstest]
#[case::each_series_a_group_of_its_own(|| (0..20_000).map(|index| minimal("up", &format!("{index:x}"))).collect(), 3)]
#[case::one_group(|| (0..20_000).map(|index| minimal(&format!("{index:x}"), "a")).collect(), 12)]
#[case::one_series_with_many_samples(|| {
    vec![series_of(&[label(b"__name__", b"up"), (0..200_000).flat_map(|_| sample(now_ms(), 1.5)).collect()])]
}, 6)]
#[case::as_many_labels_as_allowed(|| (0..2000).map(wide).collect(), 6)]
#[case::all_texts_different(|| (0..2000).map(different).collect(), 6)]
#[case::each_series_refused(|| (0..20_000).map(|_| field(1, &sample(0, 1.0))).collect(), usize::MAX)]
#[case::one_sample(|| vec![minimal("up", "a")], 1)]
fn what_is_reserved_for_a_request_is_more_than_it_takes(#[case] parts: fn() -> Vec<Vec<u8>>, #[case] times: usize) {
    let _alone = ALONE.blocking_lock();
    let body = Bytes::from(parts().concat());
    let rules = BatchRules {
        labels: LabelRules::default(),
        window: TimeWindow { earliest_ms: 1, latest_ms: i64::MAX },
        partitions: 16,
    };
    let survey = wire::survey(&body, rules.labels.labels).unwrap();
    let reserved = batch::working_memory(body.len(), &survey);
    let tenant = Tenant::new("acme").unwrap();
    let mark = mark();
    let batch = batch::make(&tenant, &body, &rules).unwrap();
    let cost = most_since(mark);
    assert!(cost < reserved, "{cost} bytes taken, {reserved} reserved for {survey:?}");
    // And not absurdly more, or the gateway would refuse what it could take.
    assert!(
        reserved < cost.saturating_mul(times).saturating_add(MIB),
        "{cost} bytes taken, {reserved} reserved for {survey:?}"
    );
    drop(batch);
}
