//! The measurements as a page of documentation.

use std::fmt::Write as _;
use std::fs;
use std::thread::available_parallelism;

use crate::REVIEW;
use crate::load::{CONNECTIONS, Measured, Protocol};

/// Both webhooks, loaded one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) baseline: Measured,
    pub(crate) tidegate: Measured,
}

/// All measurements of one run.
#[derive(Debug)]
pub(crate) struct Report {
    date: Option<String>,
    busy: f64,
    pairs: Vec<(Protocol, Pair)>,
}

impl Report {
    /// Starts a report; `busy` is how busy the machine was before, in percent.
    pub(crate) fn new(date: Option<String>, busy: f64) -> Self {
        Self { date, busy, pairs: Vec::new() }
    }

    /// Adds one round.
    pub(crate) fn add(&mut self, protocol: Protocol, pair: Pair) {
        self.pairs.push((protocol, pair));
    }

    /// Returns the page.
    pub(crate) fn write(&self) -> String {
        let size = REVIEW.len();
        let rounds = self.pairs.len() / Protocol::ALL.len();
        let mut page = format!(
            "# Benchmarks\n\n\
             Written by `make bench`. Compare figures only within one table.\n\n\
             ## The webhook and a baseline\n\n\
             `POST /mutate` over TLS on {CONNECTIONS} connections, each of which sends the next request as soon as it \
             gets an answer. The request is the review of `examples/model-server.yaml` as an API server sent it, \
             {size} bytes. *Tidegate* is `tidegate serve` on a real control plane, doing all its work: resources, \
             probes, the database binding, the receipt, the rules. *The baseline* is a webhook on the same server \
             (axum, rustls, the same allocator) that only reads the uid and allows.\n\n\
             Each figure is the median of {rounds} rounds, each ratio the median of the rounds' ratios; in a round \
             both are loaded one after the other. The load generator runs on the same machine and uses part of it. \
             Processor time is the webhook's, user and system.\n\n"
        );
        page += "| | requests/s | p50 | p99 | processor time per request | resident memory |\n";
        page += "|---|---:|---:|---:|---:|---:|\n";
        for protocol in Protocol::ALL {
            self.rows(protocol, &mut page);
        }
        let day = self.date.as_ref().map(|date| format!("{date}, ")).unwrap_or_default();
        let busy = self.busy;
        writeln!(page, "\nMeasured: {day}{}, {busy:.0} % busy before.", machine()).expect(WRITES);
        page += "To repeat: `make bench`; for `decide` alone: `cargo bench --bench decide`.\n";
        page
    }

    fn rows(&self, protocol: Protocol, page: &mut String) {
        let pairs: Vec<Pair> =
            self.pairs.iter().filter(|(spoken, _)| *spoken == protocol).map(|(_, pair)| *pair).collect();
        let row = |name: &str, of: fn(&Pair) -> Measured| {
            let median = |figure: fn(&Measured) -> f64| median(pairs.iter().map(|pair| figure(&of(pair))));
            format!(
                "| {protocol}, {name} | {:.0} | {:.2} ms | {:.2} ms | {:.1} µs | {:.1} MiB |\n",
                median(|measured| measured.requests_per_second),
                median(|measured| measured.p50_ms),
                median(|measured| measured.p99_ms),
                median(|measured| measured.processor_us),
                median(|measured| measured.resident_mib),
            )
        };
        page.push_str(&row("the baseline", |pair| pair.baseline));
        page.push_str(&row("Tidegate", |pair| pair.tidegate));
        let ratio = |figure: fn(&Measured) -> f64| {
            median(pairs.iter().map(|pair| figure(&pair.tidegate) / figure(&pair.baseline)))
        };
        writeln!(
            page,
            "| {protocol}, ratio | **{:.0} %** | {:.1}× | **{:.1}×** | {:.1}× | {:.1}× |",
            ratio(|measured| measured.requests_per_second) * 100.0,
            ratio(|measured| measured.p50_ms),
            ratio(|measured| measured.p99_ms),
            ratio(|measured| measured.processor_us),
            ratio(|measured| measured.resident_mib),
        )
        .expect(WRITES);
    }
}

const WRITES: &str = "writing to a String does not fail";

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

fn machine() -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    format!("{cores} cores of {}", model.map_or("an unnamed processor", |(_, name)| name))
}
