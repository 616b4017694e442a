//! GTID sets and their algebra. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A set of global transaction ids in MySQL's text form, `uuid:1-5:7,uuid2:1-3` (tagged GTIDs included).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GtidSet(String);

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
