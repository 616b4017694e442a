//! What the pod tells the manager: environment variables and mounted files. Reads files once, at the start.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use understudy_mysql::schema::{ACCOUNTS, NoPassword, Passwords};
use understudy_wire::order::Fault;
use understudy_wire::{ReplicaName, ShardName};

/// Not MySQL's usual 33062: that is one of the ports from which a kernel makes connections (32768 and on). A probe that asks for
/// it before mysqld listens may be connected to itself, and then mysqld finds its port taken and ends.
const MYSQL_ADMIN_PORT: u16 = 3307;

/// What is wrong with the pod's settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable is missing.
    #[error("environment variable {0} is not set")]
    Missing(&'static str),
    /// A variable cannot be read as what it should be.
    #[error("environment variable {name}={value:?}: {reason}")]
    Invalid {
        /// Which.
        name: &'static str,
        /// As given.
        value: String,
        /// Why not.
        reason: String,
    },
    /// A file cannot be read.
    #[error("{} could not be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A password is missing.
    #[error(transparent)]
    Password(#[from] NoPassword),
}

/// Everything that does not change while the manager runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica.
    pub replica: ReplicaName,
    /// Its shard.
    pub shard: ShardName,
    /// UID of the Shard object: a volume of another shard of the same name is not ours.
    pub shard_uid: String,
    /// `server_id` of mysqld, unique in the shard and never used again.
    pub server_id: u32,
    /// The pod's address.
    pub pod_ip: IpAddr,
    /// Root of the volume; data lies in a directory of it.
    pub volume: PathBuf,
    /// Scratch space: socket, pid file, generated configuration.
    pub run: PathBuf,
    /// mysqld's settings as the operator wants them.
    pub settings: String,
    /// `ca.crt`, `tls.crt`, `tls.key`.
    pub tls: PathBuf,
    /// Passwords of the accounts.
    pub passwords: Passwords,
    /// Where the instance API listens.
    pub api_listen: SocketAddr,
    /// Where health and metrics are served.
    pub admin_listen: SocketAddr,
    /// mysqld's port.
    pub mysql_port: u16,
    /// mysqld's admin port, inside the pod only.
    pub mysql_admin_port: u16,
    /// Where the Kubernetes API listens; None: it cannot be asked.
    pub api_server: Option<SocketAddr>,
    /// Time between probes.
    pub probe_every: Duration,
    /// Deadline of each stage of a probe but the last.
    pub stage_deadline: Duration,
    /// Deadline of a probe's commit, as it was asked for: [`Deadlines::new`](understudy_mysql::Deadlines::new) has the least that it may be.
    pub commit_deadline: Duration,
    /// The mysqld to run; a bare name is looked for in PATH.
    pub mysqld: PathBuf,
    /// Bandwidth of a clone, MiB per second.
    pub clone_mib_per_second: u32,
    /// How long mysqld may take to stop before it is killed.
    pub stop_within: Duration,
    /// What drills may do to this server; nothing unless the spec says so.
    pub drills: Vec<Fault>,
}

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from(&|name| std::env::var(name).ok())
    }

    /// Reads variables through `get`.
    pub fn from(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = |name| get(name).filter(|value| !value.is_empty()).ok_or(ConfigError::Missing(name));
        let pod_ip: IpAddr = parse("POD_IP", &text("POD_IP")?)?;
        let path = |name| text(name).map(PathBuf::from);
        Ok(Self {
            replica: ReplicaName::new(text("UNDERSTUDY_REPLICA")?),
            shard: ShardName::new(text("UNDERSTUDY_SHARD")?),
            shard_uid: text("UNDERSTUDY_SHARD_UID")?,
            server_id: parse("UNDERSTUDY_SERVER_ID", &text("UNDERSTUDY_SERVER_ID")?)?,
            pod_ip,
            volume: path("UNDERSTUDY_VOLUME_DIR")?,
            run: path("UNDERSTUDY_RUN_DIR")?,
            settings: match get("UNDERSTUDY_CONFIG_DIR").filter(|dir| !dir.is_empty()) {
                Some(dir) => read(&Path::new(&dir).join("my.cnf"))?,
                None => String::new(),
            },
            tls: path("UNDERSTUDY_TLS_DIR")?,
            passwords: passwords(&path("UNDERSTUDY_CREDENTIALS_DIR")?)?,
            api_listen: or(get, "UNDERSTUDY_API_LISTEN", SocketAddr::from(([0, 0, 0, 0], 8440)))?,
            admin_listen: or(get, "UNDERSTUDY_ADMIN_LISTEN", SocketAddr::from(([0, 0, 0, 0], 8441)))?,
            mysql_port: or(get, "UNDERSTUDY_MYSQL_PORT", 3306)?,
            mysql_admin_port: or(get, "UNDERSTUDY_MYSQL_ADMIN_PORT", MYSQL_ADMIN_PORT)?,
            api_server: api_server(get)?,
            probe_every: millis(get, "UNDERSTUDY_PROBE_INTERVAL_MS", 250)?,
            stage_deadline: millis(get, "UNDERSTUDY_STAGE_DEADLINE_MS", 500)?,
            commit_deadline: millis(get, "UNDERSTUDY_COMMIT_DEADLINE_MS", 1500)?,
            mysqld: get("UNDERSTUDY_MYSQLD").map_or_else(|| PathBuf::from("mysqld"), PathBuf::from),
            clone_mib_per_second: or(get, "UNDERSTUDY_CLONE_MIB_PER_SECOND", 100)?,
            stop_within: millis(get, "UNDERSTUDY_STOP_WITHIN_MS", 45_000)?,
            drills: faults(get)?,
        })
    }

    /// mysqld as clients reach it.
    pub fn mysql_address(&self) -> SocketAddr {
        SocketAddr::new(self.pod_ip, self.mysql_port)
    }

    /// mysqld's admin port.
    pub fn mysql_admin_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.mysql_admin_port))
    }

    /// The authority's certificate, as mysqld opens it.
    pub fn ca_file(&self) -> String {
        self.tls.join("ca.crt").display().to_string()
    }
}

fn api_server(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<SocketAddr>, ConfigError> {
    const NAME: &str = "UNDERSTUDY_API_SERVER";
    if let Some(given) = get(NAME).filter(|value| !value.is_empty()) {
        return parse(NAME, &given).map(Some);
    }
    const HOST: &str = "KUBERNETES_SERVICE_HOST";
    const PORT: &str = "KUBERNETES_SERVICE_PORT";
    match (get(HOST), get(PORT)) {
        (Some(host), Some(port)) => Ok(Some(SocketAddr::new(parse(HOST, &host)?, parse(PORT, &port)?))),
        _ => Ok(None),
    }
}

/// Names with commas between them.
fn faults(get: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Fault>, ConfigError> {
    const NAME: &str = "UNDERSTUDY_DRILLS";
    let given = get(NAME).unwrap_or_default();
    given.split(',').filter(|word| !word.is_empty()).map(|word| parse(NAME, word)).collect()
}

fn parse<T: FromStr<Err: Display>>(name: &'static str, value: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|e: T::Err| ConfigError::Invalid { name, value: value.to_owned(), reason: e.to_string() })
}

fn or<T: FromStr<Err: Display>>(
    get: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    otherwise: T,
) -> Result<T, ConfigError> {
    get(name).filter(|value| !value.is_empty()).map_or(Ok(otherwise), |value| parse(name, &value))
}

fn millis(get: &dyn Fn(&str) -> Option<String>, name: &'static str, otherwise: u64) -> Result<Duration, ConfigError> {
    or(get, name, otherwise).map(Duration::from_millis)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

fn passwords(dir: &Path) -> Result<Passwords, ConfigError> {
    let mut all = BTreeMap::new();
    for account in ACCOUNTS {
        let password = read(&dir.join(account))?;
        all.insert(account.to_owned(), password.trim_end_matches('\n').to_owned());
    }
    Ok(Passwords::new(all)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration whose files lie in `dir`.
    pub(crate) fn sample(dir: &Path) -> Config {
        Config::from(&|name| variables(dir).remove(name)).unwrap()
    }

    fn variables(dir: &Path) -> BTreeMap<String, String> {
        for account in ACCOUNTS {
            fs::write(dir.join(account), format!("secret of {account}\n")).unwrap();
        }
        let at = dir.display().to_string();
        [
            ("POD_IP", "10.0.0.7"),
            ("UNDERSTUDY_REPLICA", "metrics-0-k7x2"),
            ("UNDERSTUDY_SHARD", "metrics-0"),
            ("UNDERSTUDY_SHARD_UID", "uid-1"),
            ("UNDERSTUDY_SERVER_ID", "12"),
            ("UNDERSTUDY_VOLUME_DIR", &at),
            ("UNDERSTUDY_RUN_DIR", &at),
            ("UNDERSTUDY_TLS_DIR", &at),
            ("UNDERSTUDY_CREDENTIALS_DIR", &at),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn what_is_not_said_has_a_default_and_passwords_lose_their_line_feed() {
        let dir = tempfile::tempdir().unwrap();
        let config = sample(dir.path());
        assert_eq!(config.mysql_address().to_string(), "10.0.0.7:3306");
        assert_eq!(config.mysql_admin_address().to_string(), "127.0.0.1:3307");
        assert_eq!(config.api_server.unwrap().to_string(), "10.96.0.1:443");
        assert_eq!(config.passwords.of("understudy_probe"), "secret of understudy_probe");
        let probing = (config.probe_every, config.stage_deadline, config.commit_deadline);
        assert_eq!(probing, (Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1500)));
        assert!(config.drills.is_empty(), "no drill may do harm unless that was said");
    }

    #[test]
    fn what_drills_may_do_is_a_list_of_faults() {
        let dir = tempfile::tempdir().unwrap();
        let mut variables = variables(dir.path());
        variables.insert("UNDERSTUDY_DRILLS".to_owned(), "Kill,Wedge".to_owned());
        let config = Config::from(&|name| variables.get(name).cloned()).unwrap();
        assert_eq!(config.drills, [Fault::Kill, Fault::Wedge]);
    }

    #[test]
    fn a_variable_that_is_missing_or_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (case, name, value, message) in [
            ("missing", "UNDERSTUDY_SHARD_UID", "", "environment variable UNDERSTUDY_SHARD_UID is not set"),
            (
                "no number",
                "UNDERSTUDY_SERVER_ID",
                "x",
                "environment variable UNDERSTUDY_SERVER_ID=\"x\": invalid digit found in string",
            ),
            (
                "a name for an address",
                "UNDERSTUDY_API_SERVER",
                "kubernetes:443",
                "environment variable UNDERSTUDY_API_SERVER=\"kubernetes:443\": invalid socket address syntax",
            ),
            (
                "no fault",
                "UNDERSTUDY_DRILLS",
                "Burn",
                "environment variable UNDERSTUDY_DRILLS=\"Burn\": \"Burn\" is none of Kill, Freeze and Wedge",
            ),
        ] {
            let mut variables = variables(dir.path());
            variables.insert(name.to_owned(), value.to_owned());
            let error = Config::from(&|name| variables.get(name).cloned()).unwrap_err();
            assert_eq!(error.to_string(), message, "{case}");
        }
    }

    #[test]
    fn an_account_without_a_password_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let variables = variables(dir.path());
        fs::write(dir.path().join("understudy_repl"), "\n").unwrap();
        let error = Config::from(&|name| variables.get(name).cloned()).unwrap_err();
        assert_eq!(error.to_string(), "no password for account understudy_repl");
    }
}
