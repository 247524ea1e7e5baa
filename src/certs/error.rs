//! Errors of the certificates, each with a remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::pki_types::InvalidDnsNameError;
use time::OffsetDateTime;

/// Why there are no certificates to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The list of names is empty.
    #[error("no names for the certificate; give at least one DNS name or IP address")]
    NoNames,
    /// A name is invalid.
    #[error("invalid certificate name `{name}`: must be a DNS name or an IP address")]
    Name {
        /// The name as given.
        name: String,
        /// Why it is invalid.
        source: InvalidDnsNameError,
    },
    /// A file exists but cannot be read.
    #[error("cannot read {path}; make it readable for this process")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file or the folder cannot be written.
    #[error("cannot write {path}; make the folder writable, or put ca.crt, tls.crt and tls.key into it")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// One file of a pair is missing.
    #[error("{path} is missing, but {} exists; {remedy}", .present.display())]
    MissingHalf {
        /// The missing file.
        path: PathBuf,
        /// The other file of the pair.
        present: PathBuf,
        /// What to do about it.
        remedy: Remedy,
    },
    /// A file cannot be parsed.
    #[error("{path} is damaged; {remedy}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        remedy: Remedy,
        /// Why it cannot be parsed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The certificate in `ca.crt` may not sign others.
    #[error("{path} is not the certificate of a CA; {}", Remedy::RemakeAuthority)]
    NotAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The private key of the CA does not match its certificate.
    #[error("{path} does not match the certificate in ca.crt; {}", Remedy::RemakeAuthority)]
    KeyMismatch {
        /// The file with the private key.
        path: PathBuf,
    },
    /// An externally managed certificate has expired.
    #[error("{path} expired at {not_after}; {remedy}")]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it expired.
        not_after: OffsetDateTime,
        /// What to do about it.
        remedy: Remedy,
    },
    /// A certificate is not valid yet, most likely because of a wrong clock.
    #[error("{path} is not valid before {not_before}; correct the clock, or {remedy}")]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When it becomes valid.
        not_before: OffsetDateTime,
        /// What to do about it.
        remedy: Remedy,
    },
    /// The API server would reject an externally managed certificate.
    #[error("{path} would be rejected by the API server; {remedy}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        remedy: Remedy,
        /// Why it would be rejected.
        source: rustls::Error,
    },
    /// The folder has a certificate from another issuer without its CA.
    #[error("{path} was issued by another CA, and ca.crt is missing; add ca.crt, or {}", Remedy::RemakeLeaf)]
    ForeignLeaf {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key cannot be created.
    #[error("cannot create {path}")]
    Issue {
        /// The file it was meant for.
        path: PathBuf,
        /// The error of the certificate library.
        source: rcgen::Error,
    },
    /// The system's random source failed.
    #[error("cannot generate a serial number for {path}; check the system's random source")]
    Serial {
        /// The file it was meant for.
        path: PathBuf,
    },
}

/// What to do about unusable files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Tidegate recreates the CA once its files are deleted.
    RemakeAuthority,
    /// Tidegate recreates the served certificate once its files are deleted.
    RemakeLeaf,
    /// The certificates are issued externally.
    AskIssuer,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RemakeAuthority => {
                "restore ca.crt and ca.key together, or delete both to create a new CA (which changes caBundle)"
            }
            Self::RemakeLeaf => "restore tls.crt and tls.key together, or delete both to issue a new certificate",
            Self::AskIssuer => {
                "have ca.crt, tls.crt and tls.key reissued, or empty the folder to let tidegate create them"
            }
        })
    }
}
