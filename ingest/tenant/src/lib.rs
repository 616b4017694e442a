//! Who a caller is: bearer tokens to tenants, shared by everything that takes requests from users.
//!
//! [`table`] is pure: entries, and the check of one `Authorization` header. [`reload`] does I/O: it reads the mounted
//! Secret and reads it again, so that a revoked token stops working within [`RELOAD_EVERY`] plus the kubelet's delay.
//!
//! One file a token: the file's name is the token's id, its content `<tenant> sha256:<hex of the whole token>`. The
//! caller sends `Authorization: Bearer <id>.<secret>`; only the hash is stored. The tenant comes from here and never
//! from a body or another header.

mod reload;
mod table;

pub use reload::{LoadError, RELOAD_EVERY, Tokens};
pub use table::{AuthError, EntryError, TenantName, TokenTable};
