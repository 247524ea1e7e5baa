//! What can go wrong with the certificates, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::pki_types::InvalidDnsNameError;
use time::OffsetDateTime;

/// Why there are no certificates to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The list of names is empty.
    #[error("there are no names to put into the certificate; give at least one DNS name or IP address")]
    NoNames,
    /// A name cannot stand in a certificate.
    #[error("cannot put `{name}` into the certificate; give a DNS name or an IP address")]
    Name {
        /// The name as given.
        name: String,
        /// Why it is refused.
        source: InvalidDnsNameError,
    },
    /// A file exists and cannot be read.
    #[error("cannot read {path}; make it a file this process may read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or the folder cannot be written.
    #[error("cannot write {path}; make the folder writable, or put ca.crt, tls.crt and tls.key into it")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// One file of a pair is there and the other is not.
    #[error("{path} is missing beside {}; {remedy}", .present.display())]
    MissingHalf {
        /// The absent file.
        path: PathBuf,
        /// The file that is there.
        present: PathBuf,
        /// The way out.
        remedy: Remedy,
    },
    /// A file does not hold what its name says.
    #[error("{path} is damaged; {remedy}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The way out.
        remedy: Remedy,
        /// What cannot be understood.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The certificate in `ca.crt` may not sign others.
    #[error("{path} is not the certificate of a CA; {}", Remedy::RemakeAuthority)]
    NotAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The private key of the CA is not the one its certificate names.
    #[error("{path} is not the private key of the certificate beside it; {}", Remedy::RemakeAuthority)]
    KeyMismatch {
        /// The file with the private key.
        path: PathBuf,
    },
    /// A certificate that is not ours to renew is past its end.
    #[error("{path} expired at {not_after}; {remedy}")]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it expired.
        not_after: OffsetDateTime,
        /// The way out.
        remedy: Remedy,
    },
    /// A certificate starts in the future, which is more often a wrong clock than a wrong certificate.
    #[error("{path} is not valid before {not_before}; correct the clock, or {remedy}")]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When it becomes valid.
        not_before: OffsetDateTime,
        /// The way out.
        remedy: Remedy,
    },
    /// A certificate that is not ours to renew would be refused by the API server.
    #[error("{path} would be refused by clients; {remedy}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// The way out.
        remedy: Remedy,
        /// Why it would be refused.
        source: rustls::Error,
    },
    /// A certificate issued elsewhere lies in the folder without its CA.
    #[error("{path} comes without the ca.crt it was issued by; add ca.crt, or {}", Remedy::RemakeLeaf)]
    ForeignLeaf {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key cannot be made.
    #[error("cannot make {path}")]
    Issue {
        /// The file it was meant for.
        path: PathBuf,
        /// What the certificate library says.
        source: rcgen::Error,
    },
    /// The system has no randomness for a serial number.
    #[error("cannot draw a serial number for {path}; check that the system's random source works")]
    Serial {
        /// The file it was meant for.
        path: PathBuf,
    },
}

/// What to do about files that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The CA is ours to remake, once somebody says so.
    RemakeAuthority,
    /// The served certificate is ours to remake, once somebody says so.
    RemakeLeaf,
    /// Somebody else issues the certificates.
    AskIssuer,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RemakeAuthority => {
                "restore ca.crt and ca.key together, or delete both to have a new CA made (caBundle changes with it)"
            }
            Self::RemakeLeaf => "restore tls.crt and tls.key together, or delete both to have a new certificate issued",
            Self::AskIssuer => {
                "have ca.crt, tls.crt and tls.key issued anew, or empty the folder to have them made here"
            }
        })
    }
}
