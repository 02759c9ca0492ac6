//! Structured logs. Programs call [`init`] once; libraries only use `tracing`.

use tracing_subscriber::{EnvFilter, fmt};

/// Sends log lines to standard error, at `filter` (for example `info` or `krate_kubelet=debug`).
/// A second call changes nothing.
pub fn init(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
