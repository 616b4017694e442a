//! Single facts out of an object's JSON. Pure.

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::Value;

/// What may be known of something. Every question may go unanswered.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a>(&'a Value);

impl<'a> Facts<'a> {
    /// All of an object but its metadata.
    pub fn of(object: &'a DynamicObject) -> Self {
        Self(&object.data)
    }

    fn at(self, pointer: &str) -> Option<&'a Value> {
        self.0.pointer(pointer).filter(|value| !value.is_null())
    }

    /// Something within.
    pub fn within(self, pointer: &str) -> Option<Self> {
        self.at(pointer).filter(|value| value.is_object()).map(Self)
    }

    /// Each of a list.
    pub fn list(self, pointer: &str) -> impl Iterator<Item = Self> + use<'a> {
        self.at(pointer).and_then(Value::as_array).into_iter().flatten().map(Self)
    }

    /// A text that is not empty.
    pub fn text(self, pointer: &str) -> Option<String> {
        self.at(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A whole number.
    pub fn count(self, pointer: &str) -> Option<i64> {
        self.at(pointer).and_then(Value::as_i64)
    }

    /// A number.
    pub fn number(self, pointer: &str) -> Option<f64> {
        self.at(pointer).and_then(Value::as_f64)
    }

    /// A point in time.
    pub fn time(self, pointer: &str) -> Option<Timestamp> {
        self.at(pointer).and_then(Value::as_str).and_then(|text| text.parse().ok())
    }

    /// Whether something is said to be so; `false` when nothing is said.
    pub fn flag(self, pointer: &str) -> bool {
        self.answer(pointer).unwrap_or(false)
    }

    /// Whether something is said to be so, if it is said.
    pub fn answer(self, pointer: &str) -> Option<bool> {
        self.at(pointer).and_then(Value::as_bool)
    }

    /// As it is.
    pub fn value(self, pointer: &str) -> Option<Value> {
        self.at(pointer).cloned()
    }

    /// The whole of it as text, when it is one.
    pub fn itself(self) -> Option<String> {
        self.0.as_str().map(str::to_owned)
    }
}
