//! Which topic of which cluster it is: two ids that stay with a topic for its life and that no other topic of its name has. I/O.
//!
//! The Rust driver does not wrap the call that tells a topic's id, and leaks what the one for the cluster's id returns, so both calls are
//! made here by hand.
#![expect(unsafe_code, reason = "two calls of librdkafka that its Rust driver does not wrap, or wraps with a leak")]

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::Client;

use crate::connection::Logged;

/// What tells a topic from another one of the same name. A part that the brokers do not tell is None: a topic has an id since Kafka 2.8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The id of the cluster, as the brokers tell it.
    pub cluster: Option<String>,
    /// The id of the topic, a UUID in base64.
    pub topic: Option<String>,
}

impl Origin {
    /// Whether they can be the same, as far as both are known.
    pub fn agrees(&self, other: &Self) -> bool {
        let agree = |a: &Option<String>, b: &Option<String>| a.as_ref().zip(b.as_ref()).is_none_or(|(a, b)| a == b);
        agree(&self.cluster, &other.cluster) && agree(&self.topic, &other.topic)
    }

    /// What is known from either, first from this one.
    pub fn or(&self, other: &Self) -> Self {
        let or = |a: &Option<String>, b: &Option<String>| a.as_ref().or(b.as_ref()).cloned();
        Self { cluster: or(&self.cluster, &other.cluster), topic: or(&self.topic, &other.topic) }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = |part: &Option<String>| part.clone().unwrap_or_else(|| "unknown".to_owned());
        write!(f, "topic id {} of cluster {}", known(&self.topic), known(&self.cluster))
    }
}

/// The id of the cluster; None when the brokers tell none in time.
pub(super) fn cluster_id(client: &Client<Logged>, within: Duration) -> Option<String> {
    // SAFETY: the client outlives the call, which copies what it returns; that copy is ours to read once and to free.
    unsafe {
        let id = sys::rd_kafka_clusterid(client.native_ptr(), millis(within));
        if id.is_null() {
            return None;
        }
        let text = text(id);
        sys::rd_kafka_mem_free(client.native_ptr(), id.cast());
        Some(text)
    }
}

/// The id of a topic; None when the brokers know of none. Blocks for `within` at most.
pub(super) fn topic_id(client: &Client<Logged>, topic: &str, within: Duration) -> Result<Option<String>, String> {
    let name = CString::new(topic).map_err(|e| e.to_string())?;
    let mut names = [name.as_ptr()];
    let within = millis(within);
    // SAFETY: the client and the name outlive the calls. What is made here is given back here, once, after its last use, and what belongs to
    // the answer is copied before that is given back.
    unsafe {
        let handle = client.native_ptr();
        let queue = sys::rd_kafka_queue_new(handle);
        let options =
            sys::rd_kafka_AdminOptions_new(handle, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, within, ptr::null_mut(), 0);
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        sys::rd_kafka_DescribeTopics(handle, topics, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, within);
        let answer = if event.is_null() { Err("no answer".to_owned()) } else { id_of(event) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// # Safety
/// `event` must be an answer that is not given back yet.
unsafe fn id_of(event: *mut sys::rd_kafka_event_t) -> Result<Option<String>, String> {
    // SAFETY: as the caller promises; everything that is read belongs to the event.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || result.is_null() {
            return Err(text(sys::rd_kafka_event_error_string(event)));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count == 0 {
            return Err("an answer without the topic".to_owned());
        }
        let error = sys::rd_kafka_TopicDescription_error(*topics);
        if !error.is_null() && sys::rd_kafka_error_code(error) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_error_string(error)));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*topics);
        let no_id = id.is_null()
            || (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id)) == (0, 0);
        Ok((!no_id).then(|| text(sys::rd_kafka_Uuid_base64str(id))))
    }
}

/// # Safety
/// `text` must be null or a string that ends with a zero.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn millis(within: Duration) -> i32 {
    i32::try_from(within.as_millis()).unwrap_or(i32::MAX).min(3_600_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(cluster: &str, topic: &str) -> Origin {
        let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Origin { cluster: part(cluster), topic: part(topic) }
    }

    #[test]
    fn only_two_ids_that_are_known_and_differ_tell_topics_apart() {
        for (case, a, b, agree) in [
            ("the same", ("c", "t"), ("c", "t"), true),
            ("made anew", ("c", "t"), ("c", "u"), false),
            ("another cluster", ("c", "t"), ("d", "t"), false),
            ("nothing known yet", ("", ""), ("c", "t"), true),
            ("brokers without ids of topics", ("c", "t"), ("c", ""), true),
            ("the same without ids of topics, elsewhere", ("c", ""), ("d", ""), false),
        ] {
            let (a, b) = (origin(a.0, a.1), origin(b.0, b.1));
            assert_eq!((a.agrees(&b), b.agrees(&a)), (agree, agree), "{case}");
        }
        assert_eq!(origin("", "t").or(&origin("c", "u")), origin("c", "t"));
    }
}
