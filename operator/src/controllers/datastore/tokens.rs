//! Whether a Secret holds tokens, by the same code that gateway and query read them with. Pure.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use understudy_model::tokens::Tokens;

/// Entries that are named in a message.
const NAMED: usize = 5;

/// What is wrong with it, for a person: entries that let nobody in, or that there is none.
pub fn problem(secret: &Secret) -> Option<String> {
    let name = secret.name_any();
    let mut tokens = Tokens::default();
    let mut problems = Vec::new();
    for (id, text) in secret.data.iter().flatten() {
        let inserted = match std::str::from_utf8(&text.0) {
            Ok(text) => tokens.insert(id, text).map_err(|error| error.to_string()),
            Err(_) => Err("it is no text".to_owned()),
        };
        problems.extend(inserted.err().map(|why| format!("{id}: {why}")));
    }
    if problems.is_empty() && tokens.is_empty() {
        return Some(format!("Secret {name} is empty: nobody is let in. Put a token into it, `ID: TENANT sha256:HEX`"));
    }
    let more = problems.len().saturating_sub(NAMED);
    problems.truncate(NAMED);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    (!problems.is_empty()).then(|| format!("Secret {name} has entries that let nobody in: {}", problems.join("; ")))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    const VALUE: &str = "acme sha256:cecc05b29ae140bae8e9dc95877ec61e196273f1e2bed00495ca78650da2522d";

    #[test]
    fn a_secret_whose_entries_let_nobody_in_says_which_and_why() {
        for (case, entries, says) in [
            ("tokens", &[("agent", VALUE), ("other", VALUE)][..], None),
            ("the token itself instead of its digest", &[("agent", "s3cret")], Some("agent: an entry is")),
            ("one of two", &[("agent", VALUE), ("bad", "acme")], Some("bad: ")),
            ("an id with a dot", &[("a.b", VALUE)], Some("a.b: the id of a token")),
            ("nothing in it", &[], Some("is empty")),
        ] {
            let data = entries.iter().map(|(id, text)| ((*id).to_owned(), ByteString(text.as_bytes().to_vec())));
            let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
            secret.metadata.name = Some("tokens".to_owned());
            let problem = problem(&secret);
            assert_eq!(problem.is_some(), says.is_some(), "{case}: {problem:?}");
            assert!(problem.unwrap_or_default().contains(says.unwrap_or_default()), "{case}");
            assert!(!problem_text(&secret).contains("s3cret"), "{case}: what is in it is not told");
        }
    }

    fn problem_text(secret: &Secret) -> String {
        problem(secret).unwrap_or_default()
    }
}
