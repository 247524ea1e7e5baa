//! A running Tidegate, stopped with the test binary.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{ControlPlane, Output, SOON, wait_until};

/// A Tidegate process.
pub(crate) struct Tidegate {
    keeper: Child,
    pid: String,
    log: PathBuf,
    health: SocketAddr,
}

/// Runs a program until stdin is closed, then terminates it. Ignores interrupts, which are for the test binary.
pub(super) const KEEP: &str = r#"
trap '' INT
"$@" & echo $!
cat > /dev/null
kill $! 2>/dev/null
wait $!
"#;

impl Tidegate {
    /// Starts Tidegate outside the cluster, and waits until it is ready.
    pub(crate) fn start(plane: &ControlPlane) -> Self {
        let addresses @ [listen, _] = free_addresses();
        let url = format!("https://{listen}");
        let started = Self::run(plane, &plane.kubeconfig(), addresses, &["--webhook-url", &url]);
        wait_until("tidegate to be ready", SOON, || started.is_ready());
        started
    }

    /// Starts Tidegate with a kubeconfig; the addresses are those of the webhooks and of `/readyz`.
    pub(crate) fn run(plane: &ControlPlane, kubeconfig: &Path, addresses: [SocketAddr; 2], arguments: &[&str]) -> Self {
        Self::run_in(&plane.new_folder(), kubeconfig, addresses, arguments)
    }

    /// Starts Tidegate with its certificates and log in a folder.
    pub(crate) fn run_in(
        folder: &Path,
        kubeconfig: &Path,
        [listen, health]: [SocketAddr; 2],
        arguments: &[&str],
    ) -> Self {
        let log = folder.join("log");
        let written = File::create(&log).unwrap();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEP, "sh", env!("CARGO_BIN_EXE_tidegate"), "serve"])
            .args(["--listen", &listen.to_string(), "--health-listen", &health.to_string()])
            .arg("--certs")
            .arg(folder.join("certs"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            // A short settle time, and a resync so long that only watches cause reconciliations.
            .args(["--settle-seconds", "2", "--resync-seconds", "3600"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(written)
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        Self { keeper, pid: pid.trim().to_owned(), log, health }
    }

    /// Kills Tidegate without a chance to clean up.
    pub(crate) fn kill(mut self) {
        self.signal("KILL");
        self.keeper.wait().unwrap();
    }

    /// Sends a signal, such as `STOP` and `CONT` to suspend and resume the process.
    pub(crate) fn signal(&self, signal: &str) {
        let mut command = Command::new("kill");
        command.args([&format!("-{signal}"), &self.pid]);
        Output::of(command, "").succeeds();
    }

    /// Terminates Tidegate, and waits for it.
    pub(crate) fn stop(mut self) {
        drop(self.keeper.stdin.take());
        let status = self.keeper.wait().unwrap();
        assert!(status.success(), "tidegate ends with {status}:\n{}", self.log());
    }

    /// Returns whether `/readyz` answers with 200.
    pub(crate) fn is_ready(&self) -> bool {
        let answer = || {
            let mut stream = TcpStream::connect_timeout(&self.health, Duration::from_secs(1))?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: tidegate\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        answer().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Returns the log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Returns two unused addresses.
pub(crate) fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}
