//! Lifecycle hooks: what a container wants done right after its start and right before its end.

use crate::probe::ask;
use crate::probe::http;
use krate_api::types::core::v1::{Container, LifecycleHandler};
use krate_runtime::cri::Runtime;
use std::sync::Arc;
use std::time::Duration;

/// Where a hook runs.
#[derive(Clone)]
pub struct Place {
    pub runtime: Arc<dyn Runtime>,
    pub container: Container,
    pub id: String,
    /// The pod's primary address.
    pub ip: String,
    /// `name_namespace(uid)`.
    pub pod: String,
}

/// Runs a hook to its end; the error is the text of the container's state.
pub async fn run(place: &Place, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        return command(place, exec.command.as_deref().unwrap_or_default()).await;
    }
    if let Some(action) = &hook.http_get {
        let request = ask::request(&place.container, action, &place.ip)?;
        let answer = http::get(&request).await;
        return answer.map(drop).map_err(|error| {
            format!(
                "HTTP lifecycle hook ({}) for Container \"{}\" in Pod \"{}\" failed - error: Get \"{}\": {error}",
                action.path.as_deref().unwrap_or_default(),
                place.container.name,
                place.pod,
                request.url()
            )
        });
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
    }
    Ok(())
}

async fn command(place: &Place, command: &[String]) -> Result<(), String> {
    let failed = |error: String, output: &[u8]| {
        format!(
            "Exec lifecycle hook ({}) for Container \"{}\" in Pod \"{}\" failed - error: {error}, message: {:?}",
            go_list(command),
            place.container.name,
            place.pod,
            String::from_utf8_lossy(output)
        )
    };
    match place.runtime.exec_sync(&place.id, command, Duration::ZERO).await {
        Ok(done) if done.exit_code == 0 => Ok(()),
        Ok(done) => {
            let output = [done.stdout, done.stderr].concat();
            let text = String::from_utf8_lossy(&output).into_owned();
            Err(failed(
                format!("command '{}' exited with {}: {text}", command.join(" "), done.exit_code),
                &output,
            ))
        }
        Err(error) => Err(failed(error.to_string(), b"")),
    }
}

fn go_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}
