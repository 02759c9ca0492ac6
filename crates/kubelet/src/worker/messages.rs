//! The last words of containers: their termination message, read once when they have ended.

use crate::logs::line::Line;
use crate::observed::{Observed, PodRuntime, TERMINATION_PATH, TERMINATION_POLICY};
use std::collections::HashMap;
use std::path::Path;

/// Most bytes of a message from a file, and of one from the log.
const MAX_FILE: u64 = 4096;
const MAX_LOG: usize = 2048;
/// Most lines of a message from the log.
const MAX_LINES: usize = 80;

/// Messages by container id.
#[derive(Default)]
pub struct Messages(HashMap<String, String>);

impl Messages {
    /// Puts the message of every ended container into its status.
    pub async fn fill_in(&mut self, runtime: &mut PodRuntime) {
        self.0.retain(|id, _| runtime.containers.iter().any(|c| c.id() == id));
        for container in runtime.containers.iter_mut().filter(|c| c.has_exited()) {
            if !self.0.contains_key(container.id()) {
                let asked = container.clone();
                let message = tokio::task::spawn_blocking(move || read(&asked)).await.unwrap_or_default();
                self.0.insert(container.id().to_owned(), message);
            }
            if let Some(message) = self.0.get(container.id()).filter(|m| !m.is_empty()) {
                container.status.message.clone_from(message);
            }
        }
    }
}

fn read(container: &Observed) -> String {
    let status = &container.status;
    let path = status.annotations.get(TERMINATION_PATH).map_or("/dev/termination-log", String::as_str);
    let file = status.mounts.iter().find(|m| m.container_path == path);
    let message = file.map(|m| first_bytes(Path::new(&m.host_path))).unwrap_or_default();
    let from_log = status.annotations.get(TERMINATION_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    if message.is_empty() && from_log && status.exit_code != 0 {
        return tail(Path::new(&status.log_path));
    }
    message
}

fn first_bytes(path: &Path) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    match std::fs::File::open(path).map(|f| f.take(MAX_FILE).read_to_end(&mut bytes)) {
        Ok(Ok(_)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(Err(error)) | Err(error) => format!("Error reading termination log {}: {error}", path.display()),
    }
}

/// The end of a log, without its time stamps.
fn tail(path: &Path) -> String {
    let Ok(bytes) = std::fs::read(path) else { return String::new() };
    let lines: Vec<Line<'_>> = bytes.split(|b| *b == b'\n').filter_map(Line::parse).collect();
    let last = &lines[lines.len().saturating_sub(MAX_LINES)..];
    let bytes = last.iter().flat_map(|l| [l.content, if l.partial { b"" } else { b"\n" }]);
    let mut out = String::from_utf8_lossy(&bytes.collect::<Vec<_>>().concat()).into_owned();
    while out.len() > MAX_LOG {
        let cut = (out.len() - MAX_LOG..=out.len()).find(|at| out.is_char_boundary(*at)).unwrap_or(out.len());
        out.drain(..cut);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::build::*;
    use krate_runtime::cri::Mount;

    #[tokio::test]
    async fn the_file_first_then_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("m"), dir.path().join("0.log"));
        std::fs::write(&file, "").unwrap();
        std::fs::write(&log, "2026-01-01T00:00:00Z stderr F boom\n2026-01-01T00:00:00Z stdout P end\n")
            .unwrap();
        let mut container = exited("web", 0, 1);
        container.status.log_path = log.to_string_lossy().into_owned();
        container.status.mounts = vec![Mount {
            container_path: "/dev/termination-log".into(),
            host_path: file.to_string_lossy().into_owned(),
            ..Default::default()
        }];
        let mut runtime = pod_runtime(vec![container.clone()]);
        Messages::default().fill_in(&mut runtime).await;
        assert_eq!(runtime.containers[0].status.message, "");
        container.status.annotations.insert(TERMINATION_POLICY.into(), "FallbackToLogsOnError".into());
        let mut runtime = pod_runtime(vec![container.clone()]);
        Messages::default().fill_in(&mut runtime).await;
        assert_eq!(runtime.containers[0].status.message, "boom\nend");
        std::fs::write(&file, "why").unwrap();
        let mut runtime = pod_runtime(vec![container]);
        Messages::default().fill_in(&mut runtime).await;
        assert_eq!(runtime.containers[0].status.message, "why");
    }
}
