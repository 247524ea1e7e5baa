//! The measurements as a page of documentation.

use std::fmt::Write as _;
use std::fs;
use std::thread::available_parallelism;

use crate::measured::Measured;

/// All measurements of one run.
#[derive(Debug)]
pub(crate) struct Report {
    date: Option<String>,
    busy: f64,
    made: String,
    found: String,
}

impl Report {
    /// Starts a report; `busy` is how busy the machine was before, in percent.
    pub(crate) fn new(date: Option<String>, busy: f64) -> Self {
        Self { date, busy, made: String::new(), found: String::new() }
    }

    /// Adds the figures for creating model servers, and for starting with all of them.
    pub(crate) fn add(&mut self, size: usize, new: usize, made: Measured, found: Measured) {
        let row = |page: &mut String, measured: Measured, new: Option<usize>| {
            let Measured { seconds, processor_s, writes, resident_mib } = measured;
            let new = new.map_or_else(String::new, |new| format!(" {new} |"));
            writeln!(
                page,
                "| {size} |{new} {writes} | {processor_s:.1} s | {seconds:.0} s | **{resident_mib:.0} MiB** |"
            )
        };
        row(&mut self.made, made, Some(new)).expect(WRITES);
        row(&mut self.found, found, None).expect(WRITES);
    }

    /// Returns the page.
    pub(crate) fn write(&self) -> String {
        let day = self.date.as_ref().map(|date| format!("{date}, ")).unwrap_or_default();
        let (busy, made, found) = (self.busy, &self.made, &self.found);
        let (columns, line) = ("writes | processor time | until done | resident memory |", "---:|---:|---:|---:|");
        format!(
            "# Benchmarks of the controller\n\n\
             Written by `make bench-controller`.\n\n\
             `tidegate serve` on a real control plane whose controllers are stopped, under the policy `serving`, with \
             copies of `examples/model-server.yaml` that have no replicas, a hundred in a namespace. Each has an \
             autoscaler, a database and a ModelServer. Writes are Tidegate's write requests to the API server, counted \
             in its audit log. Processor time is Tidegate's, user and system; the API server and etcd share the \
             machine.\n\n\
             ## Creating model servers\n\n\
             Tidegate admits them and creates their companions.\n\n\
             | model servers | of these new | {columns}\n|---:|---:|{line}\n{made}\n\
             ## After a start\n\n\
             Everything exists and is up to date: Tidegate reads the cluster and reconciles each model server. It \
             writes the two webhook configurations, because its address changes with each start here.\n\n\
             | model servers | {columns}\n|---:|{line}\n{found}\n\
             Measured: {day}{}, {busy:.0} % busy before.\n\
             To repeat: `make bench-controller`.\n",
            machine()
        )
    }
}

const WRITES: &str = "writing to a String does not fail";

fn machine() -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    format!("{cores} cores of {}", model.map_or("an unnamed processor", |(_, name)| name))
}
