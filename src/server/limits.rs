//! Limits on clients.

use std::time::Duration;

/// The limits of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most open connections; further ones wait in the listener's backlog. Zero counts as one.
    pub connections: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a client may take to send the headers of a request, and so how long an HTTP/1.1
    /// connection may be idle. An idle HTTP/2 connection stays for as long as it answers pings.
    pub headers: Duration,
    /// How long connections may take to finish after shutdown begins.
    pub drain: Duration,
}

impl Default for Limits {
    /// An API server keeps a handful of connections open, and a webhook call times out after 10 s by default.
    fn default() -> Self {
        Self {
            connections: 1024,
            handshake: Duration::from_secs(5),
            headers: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}
