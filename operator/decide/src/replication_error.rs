//! What a server says went wrong with its replication: `number: words`, as its manager reports it. Pure.

/// The source says that it cannot send what is asked for: as a server has it, and as a replica passes it on.
const SOURCE_CANNOT: [u32; 2] = [1236, 13_114];

/// The applier was ended within a transaction, as the manager does with one of which the source left only the beginning.
const INTERRUPTED: u32 = 1756;

/// An error of a receiver or an applier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicationError {
    /// MySQL's number; None: there is none in front of the words.
    pub(crate) number: Option<u32>,
    /// MySQL's words, the same for as long as the same is wrong.
    words: String,
}

impl ReplicationError {
    /// From what the manager reports.
    pub(crate) fn parse(reported: &str) -> Self {
        let numbered = reported.split_once(": ").and_then(|(number, words)| Some((number.parse().ok()?, words)));
        let (number, words) = numbered.map_or((None, reported), |(number, words)| (Some(number), words));
        Self { number, words: uncounted(words) }
    }

    /// Whether the source has purged what is needed, or cannot read it: trying again does not help.
    pub(crate) fn is_final(&self) -> bool {
        self.number.is_some_and(|number| SOURCE_CANNOT.contains(&number))
    }

    /// Whether it was ended by whoever meant to start it again: that is all it takes.
    pub(crate) fn is_interruption(&self) -> bool {
        self.number == Some(INTERRUPTED)
    }

    /// For a person.
    pub(crate) fn text(&self) -> String {
        match self.number {
            Some(number) => format!("{number}: {}", self.words),
            None => self.words.clone(),
        }
    }
}

/// A receiver that tries to connect counts its tries, which makes other words each second: "This was attempt 5/86400, with a
/// delay of 1 seconds between attempts. Message: ..."
fn uncounted(words: &str) -> String {
    const COUNTED: &str = "This was attempt ";
    const ENDS: &str = ". ";
    let Some((before, counted)) = words.split_once(COUNTED) else { return words.to_owned() };
    let after = counted.split_once(ENDS).map_or("", |(_, after)| after);
    format!("{before}{after}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_a_number_and_words_that_do_not_count() {
        let refused = "Error connecting to source 'repl@10.0.0.1:3306'. Message: Can't connect to MySQL server on '10.0.0.1:3306' (111)";
        for (case, reported, number, words, is_final) in [
            (
                "tried once",
                "2003: Error connecting to source 'repl@10.0.0.1:3306'. This was attempt 1/86400, with a delay of 1 seconds between attempts. Message: Can't connect to MySQL server on '10.0.0.1:3306' (111)",
                Some(2003),
                refused,
                false,
            ),
            (
                "tried 1236 times",
                "2003: Error connecting to source 'repl@10.0.0.1:3306'. This was attempt 1236/86400, with a delay of 1 seconds between attempts. Message: Can't connect to MySQL server on '10.0.0.1:3306' (111)",
                Some(2003),
                refused,
                false,
            ),
            ("cut off", "2003: Error connecting. This was attempt 7/86", Some(2003), "Error connecting.", false),
            (
                "purged, as a replica has it",
                "13114: Got fatal error 1236 from source when reading data from binary log: 'purged'",
                Some(13_114),
                "Got fatal error 1236 from source when reading data from binary log: 'purged'",
                true,
            ),
            ("purged, as a server has it", "1236: purged", Some(1236), "purged", true),
            ("without a number", "duplicate key: 1236", None, "duplicate key: 1236", false),
        ] {
            let error = ReplicationError::parse(reported);
            assert_eq!((error.number, error.words.as_str()), (number, words), "{case}");
            assert_eq!(error.is_final(), is_final, "{case}");
            assert!(reported.starts_with(&error.text()[..5]), "{case}: {}", error.text());
        }
    }
}
