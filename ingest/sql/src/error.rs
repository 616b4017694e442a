//! What went wrong with a server and in which stage, in the words of the evidence. Pure.

use std::fmt;

use mysql_async::{DriverError, Error, IoError};
use understudy_wire::evidence::{Limit, ProbeError, Stage};

/// Too many connections.
const TOO_MANY: u16 = 1040;
/// Too many of this account; another limit of this account.
const TOO_MANY_OF_ACCOUNT: [u16; 2] = [1203, 1226];
/// The server is read-only, one way or the other.
const READ_ONLY: [u16; 2] = [1290, 1836];
/// A lock was not given in time; a deadlock was broken.
const LOCKED: [u16; 2] = [1205, 1213];
/// A table, or a schema, is not there.
const MISSING: [u16; 2] = [1146, 1049];

/// A step that the server did not carry out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{step}: {}", say(error))]
pub struct StepError {
    /// What was being done, in a word or two.
    pub step: &'static str,
    /// The stage of a probe that this step belongs to.
    pub stage: Stage,
    /// How it ended.
    pub error: ProbeError,
}

impl StepError {
    /// A step that had no answer within its deadline.
    pub fn timeout(step: &'static str, stage: Stage) -> Self {
        Self { step, stage, error: ProbeError::Timeout }
    }

    /// A step that failed with an error of the driver.
    pub fn of(step: &'static str, stage: Stage, error: &Error) -> Self {
        Self { step, stage, error: classify(error) }
    }

    /// The code of the server's answer, if it answered with an error.
    pub fn code(&self) -> Option<u16> {
        match &self.error {
            ProbeError::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether a table or schema was not there: it may have been dropped, or this server never had it.
    pub fn is_missing_table(&self) -> bool {
        self.code().is_some_and(|code| MISSING.contains(&code))
    }

    /// Whether the server answered and stays usable: trying again on another connection would change nothing.
    pub fn is_answer(&self) -> bool {
        matches!(self.error, ProbeError::Server { .. } | ProbeError::ReadOnly)
    }

    /// Whether somebody else held a lock: nothing is wrong with the statement.
    pub fn is_lock(&self) -> bool {
        self.code().is_some_and(|code| LOCKED.contains(&code))
    }
}

fn say(error: &ProbeError) -> impl fmt::Display + '_ {
    struct Say<'a>(&'a ProbeError);
    impl fmt::Display for Say<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                ProbeError::Timeout => f.write_str("no answer within the deadline"),
                ProbeError::Refused { message } => write!(f, "connection refused or lost: {message}"),
                ProbeError::TooManyConnections { whose: Limit::Server } => {
                    f.write_str("the server has no connection left")
                }
                ProbeError::TooManyConnections { whose: Limit::Account } => {
                    f.write_str("the server has no connection left for this account")
                }
                ProbeError::TooManyConnections { whose: Limit::Unknown } => {
                    f.write_str("a limit of connections is reached")
                }
                ProbeError::ReadOnly => f.write_str("the server is read-only"),
                ProbeError::Server { code, message } => write!(f, "error {code}: {message}"),
                ProbeError::Other { message } => f.write_str(message),
                ProbeError::Unknown => f.write_str("what is not known here"),
            }
        }
    }
    Say(error)
}

fn classify(error: &Error) -> ProbeError {
    match error {
        Error::Server(e) if e.code == TOO_MANY => ProbeError::TooManyConnections { whose: Limit::Server },
        Error::Server(e) if TOO_MANY_OF_ACCOUNT.contains(&e.code) => {
            ProbeError::TooManyConnections { whose: Limit::Account }
        }
        Error::Server(e) if READ_ONLY.contains(&e.code) => ProbeError::ReadOnly,
        Error::Server(e) => ProbeError::Server { code: e.code, message: e.message.clone() },
        Error::Io(IoError::Io(e)) => ProbeError::Refused { message: e.to_string() },
        Error::Driver(DriverError::ConnectionClosed) => ProbeError::Refused { message: "connection closed".to_owned() },
        other => ProbeError::Other { message: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    #[test]
    fn an_answer_of_the_server_is_told_from_silence() {
        let server = |code| Error::Server(ServerError { code, message: "m".into(), state: "HY000".into() });
        let lost = || Error::Io(IoError::Io(std::io::Error::other("reset")));
        let full = |whose| ProbeError::TooManyConnections { whose };
        let cases: [(&str, Error, ProbeError, bool); 7] = [
            ("too many connections", server(1040), full(Limit::Server), false),
            ("too many of the account", server(1203), full(Limit::Account), false),
            ("a limit of the account", server(1226), full(Limit::Account), false),
            ("read only by option", server(1290), ProbeError::ReadOnly, true),
            ("read only by mode", server(1836), ProbeError::ReadOnly, true),
            ("any other code", server(1146), ProbeError::Server { code: 1146, message: "m".into() }, true),
            ("a reset", lost(), ProbeError::Refused { message: "reset".into() }, false),
        ];
        for (case, error, expected, answers) in cases {
            let step = StepError::of("step", Stage::Select, &error);
            assert_eq!(step.error, expected, "{case}");
            assert_eq!(step.is_answer(), answers, "{case}");
        }
    }
}
