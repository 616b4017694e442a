//! Samples per second of each tenant: the only reason for a 429. Pure; the caller tells the time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use understudy_model::Tenant;

/// How many seconds' worth may be sent at once.
const BURST_SECONDS: f64 = 10.0;

/// A token bucket per tenant. Tenants come from tokens, so there are only as many as somebody named.
#[derive(Debug)]
pub struct Quota {
    rate: Option<f64>,
    buckets: Mutex<HashMap<Tenant, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Quota {
    /// A quota of so many samples per second for each tenant; `None` = no limit.
    pub fn new(samples_per_second: Option<u32>) -> Self {
        Self { rate: samples_per_second.map(f64::from), buckets: Mutex::default() }
    }

    /// Takes `samples` from the tenant's bucket, or says how long to wait. A request larger than the whole burst passes
    /// when the bucket is full and leaves a debt, because refusing it for ever would lose it.
    pub fn take(&self, tenant: &Tenant, samples: usize, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        let burst = rate * BURST_SECONDS;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(tenant.clone()).or_insert_with(|| Bucket { tokens: burst, filled: now });
        let since = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + since * rate).min(burst);
        bucket.filled = now;
        let wanted = samples as f64;
        let needed = wanted.min(burst);
        if bucket.tokens < needed {
            return Err(Duration::from_secs_f64((needed - bucket.tokens) / rate));
        }
        bucket.tokens -= wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    #[test]
    fn a_tenant_over_its_quota_waits_and_the_others_do_not() {
        let quota = Quota::new(Some(100));
        let start = Instant::now();
        assert_eq!(quota.take(&tenant("acme"), 1000, start), Ok(()));
        assert_eq!(quota.take(&tenant("acme"), 100, start), Err(Duration::from_secs(1)));
        assert_eq!(quota.take(&tenant("globex"), 1000, start), Ok(()));
        assert_eq!(quota.take(&tenant("acme"), 100, start + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_request_larger_than_the_burst_passes_once_the_bucket_is_full() {
        let quota = Quota::new(Some(100));
        let start = Instant::now();
        assert_eq!(quota.take(&tenant("acme"), 2000, start), Ok(()));
        assert_eq!(quota.take(&tenant("acme"), 1, start), Err(Duration::from_millis(10_010)));
    }

    #[test]
    fn without_a_quota_everything_passes() {
        assert_eq!(Quota::new(None).take(&tenant("acme"), usize::MAX, Instant::now()), Ok(()));
    }
}
