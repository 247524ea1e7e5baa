//! The `tidegate` binary: parses the command line, runs it, and turns an error into an exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tidegate::cli::Cli;
use tidegate::report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes: 0 no findings, 1 findings, 2 error.
fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| {
        // Nothing can be done about a closed standard error.
        let _ = writeln!(io::stderr(), "tidegate: {}", report::chain(&*error));
        ExitCode::from(2)
    })
}
