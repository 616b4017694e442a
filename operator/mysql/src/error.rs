//! Which step failed, and MySQL's error codes told apart. Pure.

use std::time::Duration;

use understudy_wire::evidence::{Limit, ProbeError};

/// No connection left for anybody.
const ER_CON_COUNT_ERROR: u16 = 1040;
/// No connection left for this account.
const ER_TOO_MANY_USER_CONNECTIONS: u16 = 1203;
/// This account has used up one of its limits (connections at a time, connections or statements an hour).
const ER_USER_LIMIT_REACHED: u16 = 1226;
/// `--super-read-only`, `--read-only` and their like stand in the way.
const ER_OPTION_PREVENTS_STATEMENT: u16 = 1290;
/// Read-only mode.
const ER_READ_ONLY_MODE: u16 = 1836;

/// What an error packet of the server means to a prober.
pub fn classify(code: u16, message: &str) -> ProbeError {
    match code {
        ER_CON_COUNT_ERROR => ProbeError::TooManyConnections { whose: Limit::Server },
        ER_TOO_MANY_USER_CONNECTIONS | ER_USER_LIMIT_REACHED => {
            ProbeError::TooManyConnections { whose: Limit::Account }
        }
        ER_OPTION_PREVENTS_STATEMENT if message.contains("read-only") || message.contains("read_only") => {
            ProbeError::ReadOnly
        }
        ER_READ_ONLY_MODE => ProbeError::ReadOnly,
        _ => ProbeError::Server { code, message: message.to_owned() },
    }
}

/// Why a step on a server did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The deadline passed. Whether the server will still do it is unknown.
    #[error("{step} not done within {within:?}")]
    Deadline {
        /// What was being done.
        step: &'static str,
        /// How long was waited.
        within: Duration,
    },
    /// The server answered with an error.
    #[error("{step}: error {code}: {message}")]
    Refused {
        /// What was being done.
        step: &'static str,
        /// MySQL's error number.
        code: u16,
        /// MySQL's words.
        message: String,
    },
    /// The connection could not be made, or broke. Whether the server did it is unknown.
    #[error("{step}: {reason}")]
    Broken {
        /// What was being done.
        step: &'static str,
        /// Why.
        reason: String,
    },
    /// The server answered something that was not understood.
    #[error("{step}: answer not understood: {reason}")]
    Answer {
        /// What was being done.
        step: &'static str,
        /// Why.
        reason: String,
    },
    /// What was asked would go back to an older epoch.
    #[error("epoch {given} is older than epoch {stored} in the epoch table")]
    OlderEpoch {
        /// The one to write.
        given: u64,
        /// The one that is there.
        stored: u64,
    },
}

impl SqlError {
    pub(crate) fn of(step: &'static str, error: &mysql_async::Error) -> Self {
        match error {
            mysql_async::Error::Server(e) => Self::Refused { step, code: e.code, message: e.message.clone() },
            e => Self::Broken { step, reason: e.to_string() },
        }
    }

    /// MySQL's error number, where the server gave one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_read_only_and_broken_are_told_apart() {
        let option = |what: &str| {
            format!("The MySQL server is running with the {what} option so it cannot execute this statement")
        };
        for (case, code, message, expected) in [
            ("full", 1040, "Too many connections".to_owned(), ProbeError::TooManyConnections { whose: Limit::Server }),
            (
                "full for this account",
                1203,
                "User x already has more".to_owned(),
                ProbeError::TooManyConnections { whose: Limit::Account },
            ),
            (
                "a limit of this account",
                1226,
                "User 'x' has exceeded the 'max_user_connections' resource".to_owned(),
                ProbeError::TooManyConnections { whose: Limit::Account },
            ),
            ("super read only", 1290, option("--super-read-only"), ProbeError::ReadOnly),
            ("read only", 1290, option("--read-only"), ProbeError::ReadOnly),
            ("read-only mode", 1836, "Running in read-only mode".to_owned(), ProbeError::ReadOnly),
        ] {
            assert_eq!(classify(code, &message), expected, "{case}");
        }
        for (case, code, message) in [
            ("another option", 1290, option("--secure-file-priv")),
            ("wrong password", 1045, "Access denied".to_owned()),
            ("disk full", 1114, "The table is full".to_owned()),
        ] {
            assert_eq!(classify(code, &message), ProbeError::Server { code, message: message.clone() }, "{case}");
        }
    }
}
