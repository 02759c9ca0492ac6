//! What a person sees: steps with their time on a terminal, plain lines when piped, errors as one sentence
//! with the next step.

use std::io::{IsTerminal, Write};
use tokio::time::Instant;

/// An error for the person at the terminal: what happened, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    pub what: String,
    pub next: String,
}

impl Failure {
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.into(), next: next.into() }
    }
}

/// A result whose error is for a person.
pub type Outcome<T> = Result<T, Failure>;

/// Adds what was being done, and the next step, to an error from below.
pub trait Explain<T> {
    fn explain(self, what: &str, next: &str) -> Outcome<T>;
}

impl<T, E: std::fmt::Display> Explain<T> for Result<T, E> {
    fn explain(self, what: &str, next: &str) -> Outcome<T> {
        self.map_err(|error| Failure::new(format!("{what}: {error}"), next))
    }
}

/// Prints an error to standard error.
pub fn fail(error: &Failure) {
    eprintln!("krate: {}", error.what);
    if !error.next.is_empty() {
        eprintln!("  {}", error.next);
    }
}

/// A sequence of steps that a person waits for.
pub struct Steps {
    terminal: bool,
}

impl Steps {
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }

    /// Begins a step; on a terminal its line is shown at once and completed by [`Step::done`].
    pub fn begin(&self, text: &str) -> Step {
        if self.terminal {
            eprint!("   {text} ...");
            let _ = std::io::stderr().flush();
        }
        Step { text: text.to_owned(), terminal: self.terminal, started: Instant::now(), finished: false }
    }
}

/// One step in progress.
pub struct Step {
    text: String,
    terminal: bool,
    started: Instant,
    finished: bool,
}

impl Step {
    /// Shows how far the step is.
    pub fn note(&self, note: &str) {
        if self.terminal {
            eprint!("\r\x1b[2K   {} ... {note}", self.text);
            let _ = std::io::stderr().flush();
        }
    }

    pub fn done(mut self) {
        self.finished = true;
        let took = self.started.elapsed();
        if self.terminal {
            eprintln!("\r\x1b[2K \x1b[32m✓\x1b[0m {} ({:.1?})", self.text, took);
        } else {
            eprintln!("{} ({took:.1?})", self.text);
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished && self.terminal {
            eprintln!("\r\x1b[2K \x1b[31m✗\x1b[0m {}", self.text);
        }
    }
}
