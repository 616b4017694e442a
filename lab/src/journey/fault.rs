//! `kill -9` of a replica's mysqld: from outside in the lab, by `kubectl exec` on a cluster of the user's.

use anyhow::Result;

use super::store::Store;
use crate::fault::{self, Kind, Target};
use crate::paths::Paths;
use crate::progress::Ui;
use crate::run;

/// Finds mysqld among the processes of its container without a single tool that an image may lack.
const SCRIPT: &str =
    "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = mysqld ] && kill -9 ${p#/proc/}; done; exit 0";

/// Kills it now.
pub fn kill(store: &Store<'_>, paths: &Paths, ui: &Ui, replica: &str) -> Result<()> {
    if store.access.is_lab() {
        let target = Target::Replica { name: replica.to_owned(), namespace: Some(store.namespace.clone()) };
        return fault::inject(paths, ui, Kind::Kill, &target, None);
    }
    let mut command =
        store.access.kubectl(&["exec", "-n", &store.namespace, replica, "-c", "mysql", "--", "bash", "-c", SCRIPT]);
    run::output(&mut command).map(drop)
}
