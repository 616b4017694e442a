//! The certificate authority and the certificates it signs. No file and no socket; the clock is an argument.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates are valid from this long before they are made, so that a clock that is behind accepts them.
pub const BACKDATED: Duration = Duration::from_secs(3600);
/// How long the authority's own certificate lives.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a leaf lives. It is replaced when a third of this is left.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// What failed while issuing or reading a certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// No key pair could be made.
    #[error("key pair could not be generated")]
    Key(#[source] rcgen::Error),
    /// The authority's certificate or key cannot be read.
    #[error("authority could not be read")]
    Authority(#[source] rcgen::Error),
    /// A name is no DNS name.
    #[error("{name:?} is no DNS name")]
    Name {
        /// The name as given.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// Signing failed.
    #[error("certificate could not be signed")]
    Sign(#[source] rcgen::Error),
    /// The text holds no certificate.
    #[error("certificate could not be parsed: {0}")]
    Parse(String),
}

/// Everything a process needs to prove who it is, in PEM: the keys of the Secret with it are `ca.crt`, `tls.crt` and `tls.key`.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The authority's certificate.
    pub ca: String,
    /// The leaf.
    pub cert: String,
    /// The leaf's private key, PKCS#8.
    pub key: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("ca", &self.ca).field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// A certificate authority with its key.
pub struct Authority {
    cert: String,
    key: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority.
    pub fn generate(common_name: &str, now: SystemTime) -> Result<Self, IssueError> {
        let key = KeyPair::generate().map_err(IssueError::Key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = valid(now, AUTHORITY_LIFETIME);
        let cert = params.self_signed(&key).map_err(IssueError::Sign)?;
        Ok(Self { cert: cert.pem(), key: key.serialize_pem() })
    }

    /// Takes an authority that was made before.
    pub fn from_pem(cert: &str, key: &str) -> Result<Self, IssueError> {
        let pair = KeyPair::from_pem(key).map_err(IssueError::Authority)?;
        Issuer::from_ca_cert_pem(cert, pair).map_err(IssueError::Authority)?;
        Ok(Self { cert: cert.to_owned(), key: key.to_owned() })
    }

    /// The certificate, PEM.
    pub fn cert(&self) -> &str {
        &self.cert
    }

    /// The private key, PEM. A secret.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Signs a leaf for these DNS names, good as a server and as a client.
    pub fn issue(&self, names: &[&str], now: SystemTime, lifetime: Duration) -> Result<Pem, IssueError> {
        let pair = KeyPair::from_pem(&self.key).map_err(IssueError::Authority)?;
        let issuer = Issuer::from_ca_cert_pem(&self.cert, pair).map_err(IssueError::Authority)?;
        let key = KeyPair::generate().map_err(IssueError::Key)?;
        let mut params = CertificateParams::default();
        for name in names {
            let dns = (*name).try_into().map_err(|source| IssueError::Name { name: (*name).to_owned(), source })?;
            params.subject_alt_names.push(rcgen::SanType::DnsName(dns));
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(first) = names.first().filter(|name| name.len() <= 64) {
            params.distinguished_name.push(DnType::CommonName, *first);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = valid(now, lifetime);
        let cert = params.signed_by(&key, &issuer).map_err(IssueError::Sign)?;
        Ok(Pem { ca: self.cert.clone(), cert: cert.pem(), key: key.serialize_pem() })
    }
}

fn valid(now: SystemTime, lifetime: Duration) -> (OffsetDateTime, OffsetDateTime) {
    (OffsetDateTime::from(now - BACKDATED), OffsetDateTime::from(now + lifetime))
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// DNS names of the subject.
    pub names: Vec<String>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
}

impl Facts {
    /// Reads the first certificate of a PEM text.
    pub fn of_pem(pem: &str) -> Result<Self, IssueError> {
        let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(|e| IssueError::Parse(e.to_string()))?;
        Self::of_der(&block.contents)
    }

    /// Reads a certificate in DER.
    pub fn of_der(der: &[u8]) -> Result<Self, IssueError> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| IssueError::Parse(e.to_string()))?;
        let names = match cert.subject_alternative_name() {
            Ok(Some(san)) => san.value.general_names.iter().filter_map(dns_name).collect(),
            Ok(None) => Vec::new(),
            Err(e) => return Err(IssueError::Parse(e.to_string())),
        };
        let validity = cert.validity();
        Ok(Self {
            names,
            not_before: validity.not_before.to_datetime().into(),
            not_after: validity.not_after.to_datetime().into(),
        })
    }

    /// Whether a third or less of the life is left: time to issue a new one.
    pub fn is_due(&self, now: SystemTime) -> bool {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        let left = self.not_after.duration_since(now).unwrap_or_default();
        left <= life / 3
    }
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_leaf_carries_its_names_and_dates() {
        let authority = Authority::generate("understudy", noon()).unwrap();
        let again = Authority::from_pem(authority.cert(), authority.key()).unwrap();
        let leaf = again.issue(&["a.shard.understudy.internal", "b.example"], noon(), 9 * DAY).unwrap();
        let facts = Facts::of_pem(&leaf.cert).unwrap();
        assert_eq!(facts.names, ["a.shard.understudy.internal", "b.example"]);
        assert_eq!(facts.not_before, noon() - BACKDATED);
        assert_eq!(facts.not_after, noon() + 9 * DAY);
        assert_eq!(leaf.ca, authority.cert());
    }

    #[test]
    fn a_certificate_is_due_in_the_last_third_of_its_life() {
        let authority = Authority::generate("understudy", noon()).unwrap();
        let leaf = authority.issue(&["a.example"], noon(), 9 * DAY).unwrap();
        let facts = Facts::of_pem(&leaf.cert).unwrap();
        for (case, after, due) in
            [("new", 0, false), ("in the middle", 5, false), ("near its end", 7, true), ("expired", 12, true)]
        {
            assert_eq!(facts.is_due(noon() + after * DAY), due, "{case}");
        }
    }

    #[test]
    fn what_is_no_name_or_no_certificate_is_an_error() {
        let authority = Authority::generate("understudy", noon()).unwrap();
        assert!(matches!(authority.issue(&["kö.example"], noon(), DAY), Err(IssueError::Name { .. })));
        assert!(matches!(Facts::of_pem("no certificate"), Err(IssueError::Parse(_))));
        assert!(matches!(Authority::from_pem(authority.cert(), "no key"), Err(IssueError::Authority(_))));
    }

    #[test]
    fn a_private_key_is_never_printed() {
        let authority = Authority::generate("understudy", noon()).unwrap();
        let leaf = authority.issue(&["a.example"], noon(), DAY).unwrap();
        assert!(!format!("{authority:?} {leaf:?}").contains("PRIVATE KEY"));
    }
}
