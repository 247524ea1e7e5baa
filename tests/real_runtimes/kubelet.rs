//! Probes a server as the kubelet does.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A probe of a container.
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    port: u16,
    /// The path of an HTTP probe; none for a TCP probe.
    path: Option<String>,
    timeout: Duration,
    /// How long it may fail.
    pub(crate) window: Duration,
}

impl Probe {
    /// Returns the probe in a field of a container.
    pub(crate) fn of(container: &Value, name: &'static str) -> Self {
        let probe = &container[name];
        let seconds = |field: &str| probe[field].as_u64().unwrap();
        let handler = if probe["httpGet"].is_object() { &probe["httpGet"] } else { &probe["tcpSocket"] };
        Self {
            name,
            port: u16::try_from(handler["port"].as_u64().unwrap()).unwrap(),
            path: handler["path"].as_str().map(str::to_owned),
            timeout: Duration::from_secs(seconds("timeoutSeconds")),
            window: Duration::from_secs(seconds("periodSeconds") * seconds("failureThreshold")),
        }
    }

    /// Probes once. An HTTP probe succeeds with a status from 200 to 399, a TCP probe if it can connect.
    ///
    /// <https://github.com/kubernetes/kubernetes/blob/master/pkg/probe/http/http.go>
    pub(crate) fn ask(&self) -> Result<(), String> {
        let asked = match &self.path {
            Some(path) => get(self.port, path, self.timeout).map(|(status, _)| status),
            None => connect(self.port, self.timeout).map(|_| 200),
        };
        match asked {
            Ok(200..400) => Ok(()),
            Ok(status) => Err(format!("{} of {:?} on port {}: {status}", self.name, self.path, self.port)),
            Err(error) => Err(format!("{} of {:?} on port {}: {error}", self.name, self.path, self.port)),
        }
    }
}

/// Sends a GET request; returns the status and the body of the answer.
pub(crate) fn get(port: u16, path: &str, timeout: Duration) -> io::Result<(u16, String)> {
    send(port, &format!("GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\nuser-agent: kube-probe/1.33\r\n\r\n"), timeout)
}

/// Sends a POST request with JSON; returns the status and the body of the answer.
pub(crate) fn post(port: u16, path: &str, body: &Value, timeout: Duration) -> io::Result<(u16, String)> {
    let body = body.to_string();
    let length = body.len();
    let head = "host: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json";
    send(port, &format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}"), timeout)
}

fn connect(port: u16, timeout: Duration) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), timeout)
}

fn send(port: u16, request: &str, timeout: Duration) -> io::Result<(u16, String)> {
    let end = Instant::now() + timeout;
    let mut stream = connect(port, timeout)?;
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        stream.set_read_timeout(Some(left.ok_or(ErrorKind::TimedOut)?))?;
        match stream.read(&mut part)? {
            0 => break,
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.ok_or(ErrorKind::UnexpectedEof)?, body.to_owned()))
}
