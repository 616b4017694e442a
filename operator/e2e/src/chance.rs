//! Random moments from a printed seed, so that a run can be repeated. Pure but for the environment.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A sequence of random choices.
#[derive(Debug)]
pub struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    /// The seed of `UNDERSTUDY_E2E_SEED`, or of the clock; printed either way.
    pub fn from_environment() -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        let seed = std::env::var("UNDERSTUDY_E2E_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(clock);
        println!("seed: UNDERSTUDY_E2E_SEED={seed}");
        Self::new(seed)
    }

    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.drawn += 1;
        xxh3_64_with_seed(&self.drawn.to_le_bytes(), self.seed)
    }

    /// A number from 1 to `most`.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.number() % most.max(1) + 1
    }

    /// A moment between nothing and `limit`.
    pub fn moment(&mut self, limit: Duration) -> Duration {
        Duration::from_millis(self.number() % (limit.as_millis() as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_moments_and_another_gives_others() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..8).map(|_| chance.moment(Duration::from_secs(10))).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(1).iter().all(|m| *m < Duration::from_secs(10)));
    }

    #[test]
    fn every_number_up_to_the_most_is_drawn_and_no_other() {
        let mut chance = Chance::new(7);
        let drawn: std::collections::BTreeSet<_> = (0..200).map(|_| chance.up_to(4)).collect();
        assert_eq!(drawn, [1, 2, 3, 4].into());
        assert_eq!(chance.up_to(0), 1);
    }
}
