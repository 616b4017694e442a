//! The owner of data, as the token names it. Pure.

use std::fmt;
use std::sync::Arc;

/// The name of a tenant: 1 to 63 of `a-z`, `0-9`, `-`, `_`, the first one a letter or a digit.
///
/// Lower case only, so that no collation, file system or DNS name can ever make two tenants one. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Arc<str>);

/// The longest name of a tenant, in bytes.
pub const MAX_TENANT_BYTES: usize = 63;

/// Why a text is not the name of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTenant {
    /// Empty, or longer than [`MAX_TENANT_BYTES`].
    #[error("a tenant's name has 1 to {MAX_TENANT_BYTES} characters, this one has {0}")]
    Length(usize),
    /// A character outside the alphabet, or a first one that is neither letter nor digit.
    #[error("a tenant's name is made of a-z, 0-9, '-' and '_' and starts with a letter or a digit")]
    Character,
}

impl Tenant {
    /// Checks the name and keeps it.
    pub fn new(name: &str) -> Result<Self, InvalidTenant> {
        if name.is_empty() || name.len() > MAX_TENANT_BYTES {
            return Err(InvalidTenant::Length(name.len()));
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let first = name.as_bytes()[0];
        if !name.bytes().all(allowed) || first == b'-' || first == b'_' {
            return Err(InvalidTenant::Character);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("acme", true)]
    #[case::digits_and_marks("9-lives_of_acme", true)]
    #[case::longest(&"a".repeat(63), true)]
    #[case::empty("", false)]
    #[case::too_long(&"a".repeat(64), false)]
    #[case::far_too_long(&"a".repeat(256), false)]
    #[case::path_traversal("../acme", false)]
    #[case::percent_encoded("%2e%2e", false)]
    #[case::homoglyph("аcme", false)]
    #[case::upper_case("Acme", false)]
    #[case::leading_dash("-acme", false)]
    #[case::quote("a'cme", false)]
    #[case::nul("a\0cme", false)]
    #[case::newline("acme\n", false)]
    fn only_plain_lower_case_names_are_tenants(#[case] name: &str, #[case] valid: bool) {
        assert_eq!(Tenant::new(name).is_ok(), valid);
    }
}
