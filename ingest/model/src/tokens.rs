//! Bearer tokens: a client shows `ID.SECRET`, we hold `TENANT sha256:HEX` of the whole token under its id. Pure.

use std::collections::HashMap;
use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::tenant::{InvalidTenant, Tenant};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 512;

/// The tokens that are valid now.
#[derive(Clone, Default)]
pub struct Tokens(HashMap<String, Entry>);

#[derive(Clone)]
struct Entry {
    tenant: Tenant,
    digest: [u8; 32],
}

/// Why an entry is not a token's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// The id has a character outside `a-z A-Z 0-9 _ -` or the wrong length.
    #[error("the id of a token is 1 to 64 of a-z, A-Z, 0-9, '-' and '_'")]
    Id,
    /// Not `TENANT sha256:HEX`.
    #[error("an entry is '<tenant> sha256:<64 hexadecimal digits>'")]
    Form,
    /// The tenant's name is not one.
    #[error("tenant")]
    Tenant(#[from] InvalidTenant),
}

impl Tokens {
    /// Adds an entry: `id` is the key, `text` is `<tenant> sha256:<hex of the whole token>`.
    pub fn insert(&mut self, id: &str, text: &str) -> Result<(), InvalidToken> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if id.is_empty() || id.len() > 64 || !id.bytes().all(allowed) {
            return Err(InvalidToken::Id);
        }
        let mut words = text.split_ascii_whitespace();
        let (Some(tenant), Some(digest), None) = (words.next(), words.next(), words.next()) else {
            return Err(InvalidToken::Form);
        };
        let digest = digest.strip_prefix("sha256:").and_then(parse_hex).ok_or(InvalidToken::Form)?;
        self.0.insert(id.to_owned(), Entry { tenant: Tenant::new(tenant)?, digest });
        Ok(())
    }

    /// The tenant of a token, or nothing: unknown id and wrong secret look alike, in time too.
    pub fn tenant_of(&self, token: &str) -> Option<Tenant> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let shown: [u8; 32] = Sha256::digest(token).into();
        let entry = token.split_once('.').and_then(|(id, _)| self.0.get(id));
        let held = entry.map_or([0; 32], |entry| entry.digest);
        let matches = bool::from(shown.ct_eq(&held));
        entry.filter(|_| matches).map(|entry| entry.tenant.clone())
    }

    /// The tenant of a request, from the value of its `Authorization` header.
    pub fn tenant_of_header(&self, header: &str) -> Option<Tenant> {
        let (scheme, token) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| self.tenant_of(token.trim_matches(' ')))?
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody may come in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Ids and tenants, never a digest.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(id, entry)| (id, &entry.tenant))).finish()
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
}
