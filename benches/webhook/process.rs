//! Processes and their figures in `/proc`.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::load::Target;

/// The unit of processor times in `/proc`, the same on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// A webhook in a process of its own, which is killed when this is dropped.
pub(crate) struct Webhook {
    pub(crate) target: Target,
    child: Child,
}

impl Webhook {
    /// Starts a webhook that creates its certificate in a folder, and waits until it listens.
    pub(crate) async fn start(command: &mut Command, address: SocketAddr, certs: &Path) -> anyhow::Result<Self> {
        let mut child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let begun = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("{} ended with {status}", command.get_program().display());
            }
            if begun.elapsed() > Duration::from_mins(1) {
                let _ = child.kill();
                bail!("{} does not listen at {address}", command.get_program().display());
            }
            sleep(Duration::from_millis(50)).await;
        }
        let ca_pem = fs::read_to_string(certs.join("ca.crt"))?;
        Ok(Self { target: Target { address, ca_pem, process: child.id() }, child })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns an address that is not in use.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Returns the processor time that a process has used.
pub(crate) fn processor_time(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The process name before it, in parentheses, may contain spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let (user, system): (u32, u32) = (fields[11].parse()?, fields[12].parse()?);
    Ok(TICK * (user + system))
}

/// Returns the resident memory of a process.
pub(crate) fn resident_mib(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc/PID/status has no VmRSS")?;
    let kib: f64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Waits until the machine is almost idle, for half a minute at most, and returns how busy it is, in percent.
pub(crate) async fn settle() -> anyhow::Result<f64> {
    let mut busy = 100.0;
    for _ in 0..15 {
        let before = times()?;
        sleep(Duration::from_secs(2)).await;
        let after = times()?;
        let (all, idle) = (after.0 - before.0, after.1 - before.1);
        busy = (all - idle) * 100.0 / all.max(1.0);
        if busy < 5.0 {
            break;
        }
    }
    say(&format!("the machine is {busy:.0} % busy"));
    Ok(busy)
}

/// Returns the total time of all processors, and their idle time.
fn times() -> anyhow::Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let times: Vec<f64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    Ok((times.iter().take(8).sum(), times[3] + times[4]))
}

/// Prints progress.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints a result.
pub(crate) fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
