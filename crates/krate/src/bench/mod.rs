//! `krate bench`: what a Kubernetes server costs, this one or another, over the wire as any client sees it.
//!
//! Every row is a count of operations, the time they took, and the CPU time that the server's processes spent
//! meanwhile, which is steadier than rates. Nothing here is an assertion.

mod cluster;
mod load;
mod rows;
mod running;
mod schedule;
mod server;

pub use cluster::one_node;
pub use rows::run_all;
pub use running::needs_node;
pub use schedule::alone as schedule_alone;
pub use server::{Server, Target};

use serde::Serialize;
use std::time::Duration;

/// One line of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub name: String,
    pub operations: u64,
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
    pub per_second: f64,
    /// Latencies of single operations in microseconds.
    pub p50_us: f64,
    pub p99_us: f64,
    /// CPU time of the server's processes per operation; absent when the processes are not known.
    pub cpu_us: Option<f64>,
    pub note: String,
}

fn seconds<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(d.as_secs_f64())
}

impl Row {
    /// A row from the latencies of its operations.
    pub fn of(name: &str, mut latencies: Vec<Duration>, elapsed: Duration, cpu: Option<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |q: f64| {
            let index = ((latencies.len().saturating_sub(1)) as f64 * q) as usize;
            latencies.get(index).map_or(0.0, |d| d.as_secs_f64() * 1e6)
        };
        Self { p50_us: at(0.5), p99_us: at(0.99), ..Self::total(name, latencies.len() as u64, elapsed, cpu) }
    }

    /// A row of which only the whole was timed.
    pub fn total(name: &str, operations: u64, elapsed: Duration, cpu: Option<Duration>) -> Self {
        let count = operations.max(1) as f64;
        Self {
            name: name.to_owned(),
            operations,
            elapsed,
            per_second: operations as f64 / elapsed.as_secs_f64().max(1e-9),
            p50_us: 0.0,
            p99_us: 0.0,
            cpu_us: cpu.map(|c| c.as_secs_f64() * 1e6 / count),
            note: String::new(),
        }
    }

    /// A row of something that is started once.
    pub fn boot(name: &str, took: Duration) -> Self {
        Self::total(name, 1, took, None).noting(format!("{:.0} ms", took.as_secs_f64() * 1e3))
    }

    /// A row that says something that is no rate.
    pub fn remark(name: &str, note: impl Into<String>) -> Self {
        Self { per_second: 0.0, ..Self::total(name, 0, Duration::ZERO, None) }.noting(note)
    }

    pub fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// The rows as a table for a terminal.
pub fn table(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<44} {:>9} {:>11} {:>10} {:>10} {:>11}\n",
        "work", "count", "per second", "p50 us", "p99 us", "CPU us/op"
    );
    for r in rows {
        let cell = |v: f64| if v > 0.0 { format!("{v:.0}") } else { String::new() };
        let cpu = r.cpu_us.map_or(String::new(), |c| format!("{c:.1}"));
        let line = format!(
            "{:<44} {:>9} {:>11} {:>10} {:>10} {:>11}  {}",
            r.name,
            cell(r.operations as f64),
            cell(r.per_second),
            cell(r.p50_us),
            cell(r.p99_us),
            cpu,
            r.note
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
