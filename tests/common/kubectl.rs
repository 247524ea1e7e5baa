//! Runs programs to completion.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

/// The output of a program.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Output {
    /// Runs a program with this text as its stdin.
    pub(crate) fn of(mut command: impl std::borrow::BorrowMut<Command>, stdin: &str) -> Self {
        let command = command.borrow_mut().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut pipe, text) = (child.stdin.take().unwrap(), stdin.to_owned());
        // A program may end without reading its stdin.
        let writer = thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Self {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Asserts that the program succeeded.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that the program failed.
    #[track_caller]
    pub(crate) fn fails(self) -> Self {
        assert_ne!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that stderr contains a text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "expected `{text}` in:\n{}", self.stderr);
        self
    }

    /// Asserts that stderr is empty.
    #[track_caller]
    pub(crate) fn says_nothing(self) -> Self {
        assert_eq!(self.stderr, "");
        self
    }
}

/// The two ways in which kubectl applies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Apply {
    /// kubectl compares with the last applied configuration, and sends a patch.
    ClientSide,
    /// The API server compares, by managed fields.
    ServerSide,
}

impl Apply {
    pub(crate) const BOTH: [Self; 2] = [Self::ClientSide, Self::ServerSide];

    /// Returns the arguments for kubectl.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::ClientSide => &["apply", "-f", "-"],
            Self::ServerSide => &["apply", "--server-side", "-f", "-"],
        }
    }

    /// Returns a name for objects applied in this way.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClientSide => "client-side",
            Self::ServerSide => "server-side",
        }
    }
}
