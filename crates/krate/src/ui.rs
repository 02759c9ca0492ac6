//! What a person sees: steps with their time on a terminal, plain lines when piped, errors as one sentence
//! with the next step.

use std::fmt::Arguments;
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

/// Prints a line to standard output: what a command was asked for. Work goes on when nobody reads any more
/// (`krate up | head -1` still makes a whole cluster); the value is false then, for those who only print.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::ui::line(format_args!($($text)*))
    };
}
pub(crate) use say;

/// What [`say`] stands for.
pub fn line(text: Arguments<'_>) -> bool {
    writeln!(std::io::stdout(), "{text}").is_ok()
}

/// Prints to standard error, whether or not somebody reads it.
fn tell(text: Arguments<'_>) {
    let mut out = std::io::stderr();
    let _ = out.write_fmt(text);
    let _ = out.flush();
}

/// Prints an error to standard error.
pub fn fail(error: &Failure) {
    tell(format_args!("krate: {}\n", error.what));
    if !error.next.is_empty() {
        tell(format_args!("  {}\n", error.next));
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
            tell(format_args!("   {text} ..."));
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
            tell(format_args!("\r\x1b[2K   {} ... {note}", self.text));
        }
    }

    pub fn done(mut self) {
        self.finished = true;
        let took = self.started.elapsed();
        if self.terminal {
            tell(format_args!("\r\x1b[2K \x1b[32m✓\x1b[0m {} ({:.1?})\n", self.text, took));
        } else {
            tell(format_args!("{} ({took:.1?})\n", self.text));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished && self.terminal {
            tell(format_args!("\r\x1b[2K \x1b[31m✗\x1b[0m {}\n", self.text));
        }
    }
}
