//! Who waits for processor, memory and disk, as the kernel says (pressure stall information). Reads files of the kernel's.
//!
//! The container's own cgroup where that is of version 2, else the whole node; nothing where the kernel was built or started without it.

use std::fs;
use std::path::{Path, PathBuf};

use understudy_wire::evidence::{Pressure, PressureOf, Stall};

/// Where a container sees its own cgroup.
const CGROUP: &str = "/sys/fs/cgroup";
/// Where the kernel tells of the whole machine.
const NODE: &str = "/proc/pressure";

/// The present pressure; None where nothing tells.
pub fn read() -> Option<Pressure> {
    read_from(Path::new(CGROUP), Path::new(NODE))
}

fn read_from(cgroup: &Path, node: &Path) -> Option<Pressure> {
    let own = pressure(PressureOf::Container, |name| cgroup.join(format!("{name}.pressure")));
    own.or_else(|| pressure(PressureOf::Node, |name| node.join(name)))
}

fn pressure(of: PressureOf, path: impl Fn(&str) -> PathBuf) -> Option<Pressure> {
    let stall = |name: &str| parse(&fs::read_to_string(path(name)).ok()?);
    let read = Pressure { of, cpu: stall("cpu"), memory: stall("memory"), io: stall("io") };
    (read.cpu.is_some() || read.memory.is_some() || read.io.is_some()).then_some(read)
}

/// `some avg10=1.53 avg60=... total=...`, and the same for `full`, which old kernels leave out for processors.
fn parse(text: &str) -> Option<Stall> {
    let share = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split_whitespace().find_map(|field| field.strip_prefix("avg10="))?.parse::<f64>().ok()
    };
    Some(Stall { some: share("some ")?, full: share("full ").unwrap_or(0.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_seconds_are_read_and_what_is_no_pressure_is_none() {
        let text = "some avg10=41.50 avg60=3.00 avg300=0.10 total=1\nfull avg10=30.25 avg60=2.00 avg300=0.00 total=1\n";
        for (case, text, expected) in [
            ("both", text, Some(Stall { some: 41.5, full: 30.25 })),
            ("an old kernel's processors", "some avg10=2.00 avg60=0.00\n", Some(Stall { some: 2.0, full: 0.0 })),
            ("nothing", "", None),
            ("something else", "usage 12\n", None),
        ] {
            assert_eq!(parse(text), expected, "{case}");
        }
    }

    #[test]
    fn the_containers_own_goes_before_the_nodes_and_absent_is_absent() {
        let (cgroup, node) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(read_from(cgroup.path(), node.path()), None);
        fs::write(node.path().join("io"), "some avg10=5.00\n").unwrap();
        let of_node = read_from(cgroup.path(), node.path()).unwrap();
        assert_eq!((of_node.of, of_node.cpu, of_node.io.map(|io| io.some)), (PressureOf::Node, None, Some(5.0)));
        fs::write(cgroup.path().join("memory.pressure"), "some avg10=1.00\nfull avg10=0.50\n").unwrap();
        let own = read_from(cgroup.path(), node.path()).unwrap();
        assert_eq!((own.of, own.io, own.memory.map(|memory| memory.full)), (PressureOf::Container, None, Some(0.5)));
    }
}
