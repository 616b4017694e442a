//! Where everything of the lab lives. Pure: nothing here touches the disk.

use std::path::{Path, PathBuf};

/// The three places the lab writes to: its state, its cache, and `.lab` in the checkout.
#[derive(Debug, Clone)]
pub struct Paths {
    /// State of the one lab of this machine, outside any checkout.
    pub state: PathBuf,
    /// Built artifacts, keyed by version; survives `down`.
    pub cache: PathBuf,
    /// The checkout this binary was built from.
    pub checkout: PathBuf,
}

impl Paths {
    /// Certificates and kubeconfigs.
    pub fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }
    /// Generated configuration files.
    pub fn config(&self) -> PathBuf {
        self.state.join("config")
    }
    /// One log file a process.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }
    /// Kubeconfig of the administrator, also copied to the checkout.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.pki().join("admin.kubeconfig")
    }
    /// Everything that is a node's disk.
    pub fn node(&self, node: &str) -> PathBuf {
        self.state.join("nodes").join(node)
    }
    /// Image files behind the volumes of a node.
    pub fn disks(&self, node: &str) -> PathBuf {
        self.node(node).join("disks")
    }
    /// Parent of all mounted volumes: the one directory whose mounts reach the nodes.
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }
    /// Where a volume is mounted, in the host's and in every node's mount namespace.
    pub fn volume(&self, node: &str, volume: &str) -> PathBuf {
        self.volumes().join(node).join(volume)
    }
    /// containerd's socket of a node, seen from the host.
    pub fn containerd_socket(&self, node: &str) -> PathBuf {
        self.node(node).join("run-containerd").join("containerd.sock")
    }
    /// What `up` leaves in the checkout for people and tools.
    pub fn dot_lab(&self) -> PathBuf {
        self.checkout.join(".lab")
    }
    /// Directory of an artifact in the cache.
    pub fn artifact(&self, name: &str, version: &str) -> PathBuf {
        self.cache.join(format!("{name}-{version}"))
    }
    /// A binary built from source.
    pub fn binary(&self, name: &str, version: &str, binary: &str) -> PathBuf {
        self.artifact(name, version).join("bin").join(binary)
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/understudy-lab`.
pub fn cache_dir(xdg: Option<&str>, home: Option<&str>) -> PathBuf {
    let base = match (xdg, home) {
        (Some(dir), _) if Path::new(dir).is_absolute() => PathBuf::from(dir),
        (_, Some(home)) => Path::new(home).join(".cache"),
        _ => PathBuf::from("/var/cache"),
    };
    base.join("understudy-lab")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_follows_xdg_then_home() {
        for (name, xdg, home, want) in [
            ("xdg wins", Some("/x"), Some("/h"), "/x/understudy-lab"),
            ("a relative xdg is ignored", Some("x"), Some("/h"), "/h/.cache/understudy-lab"),
            ("home", None, Some("/h"), "/h/.cache/understudy-lab"),
            ("nothing", None, None, "/var/cache/understudy-lab"),
        ] {
            assert_eq!(cache_dir(xdg, home), PathBuf::from(want), "{name}");
        }
    }
}
