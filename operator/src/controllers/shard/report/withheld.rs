//! What the status shows of that which is not done, and when that is written. Pure: the time is an argument.
//!
//! An event tells it once and is gone an hour later; this stays for as long as it holds. A pass comes several times a second and its words
//! have numbers in them, so neither a pass nor a number is a write: an entry comes when it has lasted, goes when it has been over for a
//! while, and its words are made anew now and then.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use understudy_api::v1alpha1::Withheld;
use understudy_decide::decision::Note;

use super::super::notes::{Refusal, not_done};

/// What is over sooner has its event and is not worth a write.
const LASTS: SignedDuration = SignedDuration::from_secs(1);
/// What stopped holding and holds again within this time went on.
const FLICKER: SignedDuration = SignedDuration::from_secs(10);
/// Words that changed are written anew no sooner than this.
const WORDS: SignedDuration = SignedDuration::from_secs(300);
/// Entries that are shown.
const MOST: usize = 16;
/// The longest message, bytes.
const LONGEST: usize = 512;

/// What is not done, since when, and what was written of it.
#[derive(Debug, Default)]
pub struct Withholding {
    /// None before the first pass.
    held: Option<Vec<Held>>,
}

#[derive(Debug)]
struct Held {
    shown: Withheld,
    /// When it began to hold, as this process or one before it saw it.
    since: Timestamp,
    /// When it held last.
    last: Timestamp,
    /// When its words were made.
    worded: Timestamp,
    /// Whether the status has had it.
    is_told: bool,
}

impl Withholding {
    /// What to show after a pass. `present` is what the status says.
    pub fn show(&mut self, present: &[Withheld], notes: &[Note], now: Timestamp) -> Vec<Withheld> {
        // After a restart what was written goes on to hold, as far as it does.
        let held = self.held.get_or_insert_with(|| present.iter().map(|shown| Held::resumed(shown, now)).collect());
        let refusals = not_done(notes);
        for refusal in &refusals {
            match held.iter_mut().find(|held| held.is_of(refusal)) {
                Some(held) => held.goes_on(refusal, now),
                None => held.push(Held::begun(refusal, now)),
            }
        }
        held.retain(|held| held.last == now || (held.is_told && elapsed(held.last, now) <= FLICKER));
        // Those that hold keep the order of what is decided, the most binding first; what may have ended comes after.
        let place = |held: &Held| refusals.iter().position(|refusal| held.is_of(refusal)).unwrap_or(usize::MAX);
        if held.iter().any(|held| !held.is_told && elapsed(held.since, now) >= LASTS) {
            held.sort_by_key(place);
        }
        for held in held.iter_mut() {
            held.is_told |= elapsed(held.since, now) >= LASTS;
        }
        held.iter().filter(|held| held.is_told).take(MOST).map(|held| held.shown.clone()).collect()
    }
}

impl Held {
    fn begun(refusal: &Refusal<'_>, now: Timestamp) -> Self {
        let shown = Withheld {
            reason: refusal.reason.to_owned(),
            about: refusal.note.about.as_ref().map(ToString::to_string),
            message: shortened(&refusal.note.message).to_owned(),
            since: Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
            next_check: Some(refusal.next_check.to_owned()),
        };
        Self { shown, since: now, last: now, worded: now, is_told: false }
    }

    fn resumed(shown: &Withheld, now: Timestamp) -> Self {
        let since = shown.since.as_ref().map_or(now, |since| since.0);
        Self { shown: shown.clone(), since, last: now, worded: now, is_told: true }
    }

    fn is_of(&self, refusal: &Refusal<'_>) -> bool {
        self.shown.reason == refusal.reason
            && self.shown.about.as_deref() == refusal.note.about.as_ref().map(|about| about.as_str())
    }

    fn goes_on(&mut self, refusal: &Refusal<'_>, now: Timestamp) {
        self.last = now;
        // Until it was told, the words are those of the moment.
        if !self.is_told || elapsed(self.worded, now) >= WORDS {
            self.worded = now;
            shortened(&refusal.note.message).clone_into(&mut self.shown.message);
            self.shown.next_check = Some(refusal.next_check.to_owned());
        }
    }
}

/// Whichever way the clock was set meanwhile.
fn elapsed(since: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_since(since).abs()
}

/// As much of a text as is kept, and no half letter.
pub(super) fn shortened(text: &str) -> &str {
    let end = (0..=text.len().min(LONGEST)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use understudy_decide::Reason as Why;
    use understudy_wire::ReplicaName;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    fn note(reason: Why, about: Option<&str>, message: &str) -> Note {
        Note { reason, about: about.map(ReplicaName::new), message: message.into() }
    }

    fn kept(millis: i64) -> Vec<Note> {
        vec![note(Why::LastCopyKept, Some("m-b"), &format!("m-b is kept, its manager has been silent for {millis} ms"))]
    }

    #[test]
    fn what_holds_for_a_day_is_written_once_and_its_words_now_and_then() {
        let mut withholding = Withholding::default();
        let mut present = Vec::new();
        let mut writes = 0;
        // A pass a second for an hour.
        for second in 0..3_600 {
            let next = withholding.show(&present, &kept(second * 1_000), at(second * 1_000));
            writes += u32::from(next != present);
            present = next;
        }
        assert!((2..=13).contains(&writes), "{writes}");
        assert_eq!((present[0].reason.as_str(), present[0].about.as_deref()), ("LastCopyKept", Some("m-b")));
        assert_eq!(present[0].since, Some(Time(at(0))));
        assert!(present[0].next_check.as_deref().is_some_and(|check| check.contains("another good copy")));
    }

    #[test]
    fn what_is_over_within_a_moment_is_no_write_and_what_comes_and_goes_is_few() {
        let mut withholding = Withholding::default();
        assert!(withholding.show(&[], &kept(0), at(0)).is_empty());
        assert!(withholding.show(&[], &[], at(400)).is_empty());
        assert!(withholding.show(&[], &kept(800), at(800)).is_empty(), "it began anew");
        let shown = withholding.show(&[], &kept(1_800), at(1_800));
        assert_eq!(shown.len(), 1);
        for millis in (2_000..60_000).step_by(1_000) {
            let notes = if millis % 2_000 == 0 { kept(millis) } else { Vec::new() };
            assert_eq!(withholding.show(&shown, &notes, at(millis)), shown, "{millis}");
        }
        assert!(withholding.show(&shown, &[], at(80_000)).is_empty(), "it is over");
    }

    #[test]
    fn after_a_restart_it_holds_since_it_began_and_goes_when_it_is_over() {
        let mut before = Withholding::default();
        before.show(&[], &kept(0), at(0));
        let shown = before.show(&[], &kept(5_000), at(5_000));
        let mut restarted = Withholding::default();
        assert_eq!(restarted.show(&shown, &kept(60_000), at(60_000)), shown);
        let mut of_what_is_over = Withholding::default();
        assert_eq!(of_what_is_over.show(&shown, &[], at(60_000)), shown, "evidence comes in a moment later");
        assert!(of_what_is_over.show(&shown, &[], at(71_000)).is_empty());
    }

    #[test]
    fn it_is_bounded_in_number_and_in_bytes() {
        let long = "é".repeat(LONGEST);
        let many: Vec<_> = (0..40).map(|n| note(Why::WaitingForDonor, Some(&format!("m-{n}")), &long)).collect();
        let mut withholding = Withholding::default();
        withholding.show(&[], &many, at(0));
        let shown = withholding.show(&[], &many, at(2_000));
        assert_eq!(shown.len(), MOST);
        assert!(shown.iter().all(|held| held.message.len() == LONGEST), "{shown:?}");
        assert_eq!(shortened("short"), "short");
    }
}
