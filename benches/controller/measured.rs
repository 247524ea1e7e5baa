//! The costs of a run of Tidegate.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::process::{Webhook, processor_time, resident_mib};

/// The user of Tidegate's requests, which tells them from others.
const USER: &str = "tidegate";

/// The verbs of write requests.
const WRITES: [&str; 4] = ["create", "update", "patch", "delete"];

/// How often activity is checked.
const GLANCE: Duration = Duration::from_secs(3);

/// How many checks without activity mean that Tidegate is done: together longer than any timer of Tidegate.
const QUIET_GLANCES: usize = 4;

/// The processor time of an idle process, for its timers.
const IDLE: Duration = Duration::from_millis(150);

/// The longest time until Tidegate is done.
const PATIENCE: Duration = Duration::from_mins(30);

/// The costs of a run until there was nothing left to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    pub(crate) processor_s: f64,
    pub(crate) writes: usize,
    pub(crate) resident_mib: f64,
}

/// Watches a run from its start.
pub(crate) struct Watch {
    begun: Instant,
    audit_log: PathBuf,
    read: u64,
    writes: usize,
}

impl Watch {
    /// Starts before Tidegate does.
    pub(crate) fn begin(cluster: &Cluster) -> Self {
        let audit_log = cluster.folder().join("control-plane/logs/audit.log");
        let read = fs::metadata(&audit_log).map_or(0, |metadata| metadata.len());
        Self { begun: Instant::now(), audit_log, read, writes: 0 }
    }

    /// Waits until Tidegate has nothing left to do.
    pub(crate) async fn end(mut self, tidegate: &Webhook) -> anyhow::Result<Measured> {
        let process = tidegate.target.process;
        let (mut last_work, mut processor) = (self.begun.elapsed(), processor_time(process)?);
        let mut quiet = 0;
        while quiet < QUIET_GLANCES {
            ensure!(self.begun.elapsed() < PATIENCE, "tidegate is still busy after the longest time allowed");
            sleep(GLANCE).await;
            let (new_writes, now) = (self.new_writes()?, processor_time(process)?);
            if new_writes == 0 && now.saturating_sub(processor) < IDLE {
                quiet += 1;
            } else {
                (quiet, last_work) = (0, self.begun.elapsed());
            }
            (self.writes, processor) = (self.writes + new_writes, now);
        }
        let (seconds, processor_s) = (last_work.as_secs_f64(), processor.as_secs_f64());
        Ok(Measured { seconds, processor_s, writes: self.writes, resident_mib: resident_mib(process)? })
    }

    /// Counts Tidegate's writes since the last call.
    fn new_writes(&mut self) -> anyhow::Result<usize> {
        let mut file = File::open(&self.audit_log)?;
        file.seek(SeekFrom::Start(self.read))?;
        let (mut lines, mut line, mut writes) = (BufReader::new(file), String::new(), 0);
        // The last line may be half written.
        while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
            self.read += line.len() as u64;
            writes += usize::from(is_write(&line));
            line.clear();
        }
        Ok(writes)
    }
}

fn is_write(line: &str) -> bool {
    let has = |field: &str, value: &str| line.contains(&format!(r#""{field}":"{value}""#));
    line.contains("impersonatedUser") && has("username", USER) && WRITES.iter().any(|verb| has("verb", verb))
}

/// Writes a kubeconfig with a user of its own for Tidegate, who may do everything.
pub(crate) fn kubeconfig_of_user(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let mut config: Value = serde_saphyr::from_str(&fs::read_to_string(cluster.kubeconfig())?)?;
    config["users"][0]["user"]["as"] = USER.into();
    config["users"][0]["user"]["as-groups"] = vec!["system:masters"].into();
    let path = cluster.folder().join("kubeconfig-of-tidegate");
    fs::write(&path, config.to_string())?;
    Ok(path)
}
