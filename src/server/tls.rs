//! The TLS side of a listener: what is negotiated, and a certificate that can be replaced while serving.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::certs::{Certificates, crypto_provider};

/// The protocol name by which a client asks for HTTP/2.
pub(super) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why certificates cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate and its key cannot be used together.
    #[error("cannot serve with the certificate; check that tls.crt and tls.key are a pair")]
    Certificate(#[source] rustls::Error),
    /// The cryptography provider cannot offer the protocol versions wanted.
    #[error("cannot set up TLS 1.2 and 1.3 with the built-in cryptography")]
    Protocol(#[source] rustls::Error),
}

/// The certificate a listener serves with; clones share it, so that a replacement reaches all of
/// them.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    slot: Arc<Slot>,
    config: Arc<ServerConfig>,
}

impl ServerCertificate {
    /// Prepares to serve with `certificates`.
    ///
    /// # Errors
    ///
    /// When the key is not the certificate's, or of a kind that is not supported.
    pub fn new(certificates: &Certificates) -> Result<Self, TlsError> {
        let slot = Arc::new(Slot(ArcSwap::from_pointee(certified(certificates)?)));
        let config = Arc::new(server_config(Arc::clone(&slot))?);
        Ok(Self { slot, config })
    }

    /// Serves new connections with `certificates`; open ones keep what they were shown.
    ///
    /// # Errors
    ///
    /// As for [`ServerCertificate::new`]; the certificate in force then stays.
    pub fn replace(&self, certificates: &Certificates) -> Result<(), TlsError> {
        self.slot.0.store(Arc::new(certified(certificates)?));
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// Where the handshake finds the certificate in force.
#[derive(Debug)]
struct Slot(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Slot {
    /// Whatever name is asked for, there is one certificate; the client judges whether it will do.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(certificates: &Certificates) -> Result<CertifiedKey, TlsError> {
    let (chain, key) = (certificates.chain.clone(), certificates.key.clone_key());
    CertifiedKey::from_der(chain, key, &crypto_provider()).map_err(TlsError::Certificate)
}

fn server_config(slot: Arc<Slot>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_no_client_auth()
        .with_cert_resolver(slot);
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    // The API server never resumes sessions, so tickets would be work for nothing; and a session
    // resumed after a replacement would skip the new certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
