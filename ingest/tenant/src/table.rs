//! The table of tokens and the check of one header. Pure.

use std::collections::HashMap;
use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Longest tenant name and token id, in bytes.
const NAME_LIMIT: usize = 64;
/// Longest token that is hashed at all, in bytes; a header can be much longer.
const TOKEN_LIMIT: usize = 512;

/// A tenant, 1 to 64 characters of `[A-Za-z0-9_-]`. Nothing in it can be a path, an SQL quote or an escape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantName(String);

impl TenantName {
    /// Parses a tenant's name.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(EntryError::Tenant) }
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why an entry of the Secret is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// The key.
    #[error("the token id must be 1 to 64 characters of A-Z a-z 0-9 _ -")]
    Id,
    /// The shape of the value.
    #[error("the value must read: <tenant> sha256:<64 hex digits>")]
    Shape,
    /// The tenant in the value.
    #[error("the tenant must be 1 to 64 characters of A-Z a-z 0-9 _ -")]
    Tenant,
    /// The hash in the value.
    #[error("the hash must be sha256: and 64 hex digits of the whole token")]
    Hash,
}

/// Why a caller is not let in. Every variant is HTTP 401; the text never tells whether the id exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// No header, or not a bearer token.
    #[error("send the header Authorization: Bearer <id>.<secret>")]
    Missing,
    /// Not of the form `<id>.<secret>`, unknown, revoked, or wrong.
    #[error("the token is not valid")]
    Invalid,
}

#[derive(Clone)]
struct Entry {
    tenant: TenantName,
    digest: [u8; 32],
}

/// All tokens that are valid now.
#[derive(Clone, Default)]
pub struct TokenTable {
    by_id: HashMap<String, Entry>,
}

impl fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenTable").field("tokens", &self.by_id.len()).finish()
    }
}

impl TokenTable {
    /// Adds the token `id` from its stored `value`; a later entry of the same id replaces an earlier one.
    pub fn insert(&mut self, id: &str, value: &str) -> Result<(), EntryError> {
        if !is_name(id) {
            return Err(EntryError::Id);
        }
        let mut words = value.split_ascii_whitespace();
        let (Some(tenant), Some(hash), None) = (words.next(), words.next(), words.next()) else {
            return Err(EntryError::Shape);
        };
        let tenant = TenantName::parse(tenant)?;
        let digest = hash.strip_prefix("sha256:").and_then(unhex).ok_or(EntryError::Hash)?;
        self.by_id.insert(id.to_owned(), Entry { tenant, digest });
        Ok(())
    }

    /// The tenant that the value of an `Authorization` header proves.
    pub fn authenticate(&self, header: Option<&str>) -> Result<&TenantName, AuthError> {
        let (scheme, token) = header.and_then(|value| value.trim().split_once(' ')).ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Missing);
        }
        let token = token.trim_start();
        if token.len() > TOKEN_LIMIT {
            return Err(AuthError::Invalid);
        }
        let (id, _secret) = token.split_once('.').ok_or(AuthError::Invalid)?;
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let entry = self.by_id.get(id).ok_or(AuthError::Invalid)?;
        if bool::from(entry.digest.ct_eq(&digest)) { Ok(&entry.tenant) } else { Err(AuthError::Invalid) }
    }

    /// How many tokens are valid.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether nobody can be let in.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_LIMIT).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (out, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *out = u8::try_from(high * 16 + low).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn value(tenant: &str, token: &str) -> String {
        let hex: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{tenant} sha256:{hex}")
    }

    fn table() -> TokenTable {
        let mut table = TokenTable::default();
        table.insert("agent-1", &value("acme", "agent-1.s3cret")).unwrap();
        table.insert("agent-2", &value("globex", "agent-2.other.with.dots")).unwrap();
        table
    }

    #[rstest]
    #[case::the_right_token("Bearer agent-1.s3cret", Ok("acme"))]
    #[case::a_secret_with_dots("Bearer agent-2.other.with.dots", Ok("globex"))]
    #[case::the_scheme_in_any_case("bearer agent-1.s3cret", Ok("acme"))]
    #[case::a_wrong_secret("Bearer agent-1.s3creT", Err(AuthError::Invalid))]
    #[case::another_tokens_secret("Bearer agent-1.other.with.dots", Err(AuthError::Invalid))]
    #[case::an_unknown_id("Bearer agent-3.s3cret", Err(AuthError::Invalid))]
    #[case::no_dot("Bearer agent-1", Err(AuthError::Invalid))]
    #[case::a_path_as_id("Bearer ../agent-1.s3cret", Err(AuthError::Invalid))]
    #[case::basic("Basic YWxhZGRpbg==", Err(AuthError::Missing))]
    #[case::an_empty_header("", Err(AuthError::Missing))]
    fn a_header_proves_a_tenant_or_nothing(#[case] header: &str, #[case] expected: Result<&str, AuthError>) {
        let table = table();
        assert_eq!(table.authenticate(Some(header)).map(TenantName::as_str), expected);
    }

    #[test]
    fn a_request_without_a_header_is_told_how_to_send_one() {
        assert_eq!(table().authenticate(None), Err(AuthError::Missing));
    }

    #[test]
    fn a_token_beyond_the_limit_is_refused_unhashed() {
        let header = format!("Bearer agent-1.{}", "x".repeat(TOKEN_LIMIT));
        assert_eq!(table().authenticate(Some(&header)), Err(AuthError::Invalid));
    }

    #[rstest]
    #[case::id_with_a_slash("../etc", "acme sha256:00", EntryError::Id)]
    #[case::id_with_a_dot("a.b", "acme sha256:00", EntryError::Id)]
    #[case::nothing_but_a_tenant("a", "acme", EntryError::Shape)]
    #[case::three_words("a", "acme sha256:00 more", EntryError::Shape)]
    #[case::tenant_with_a_quote("a", "ac'me sha256:00", EntryError::Tenant)]
    #[case::short_hash("a", "acme sha256:00", EntryError::Hash)]
    #[case::other_hash("a", "acme md5:00", EntryError::Hash)]
    fn a_malformed_entry_says_what_is_wrong(#[case] id: &str, #[case] value: &str, #[case] expected: EntryError) {
        assert_eq!(TokenTable::default().insert(id, value), Err(expected));
    }
}
