//! Images of a pod's containers: looked for, pulled beside the worker, with a growing pause between failures.

use super::Worker;
use crate::env::Referenced;
use crate::events;
use crate::image::{self, Need, Pulled, auth, go_millis};
use crate::spec::{self, Role};
use crate::status::Waiting;
use crate::sync::backoff::{Backoff, Turn};
use krate_api::types::core::v1::Container;
use krate_base::Timestamp;
use krate_runtime::cri::{Error, Image};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the error of a pull is shown before the state says that the next one is waited for.
const SHOW_ERROR: Duration = Duration::from_secs(3);

/// What is known of the image of a container that is to be started.
enum State {
    Pulling,
    /// Pulled for this start: it is not pulled again for it.
    Ready(String),
    Failed {
        text: String,
        at: Timestamp,
    },
}

/// By container name.
#[derive(Default)]
pub struct Progress {
    states: BTreeMap<String, State>,
    pauses: Backoff,
}

impl Progress {
    /// The container has been started: its next start looks again.
    pub fn used(&mut self, container: &str) {
        self.states.remove(container);
    }
}

/// Whether a container can be started with its image.
pub enum Ready {
    Yes(Image),
    /// Not now; perhaps at this time.
    No(Option<Timestamp>),
}

impl Worker {
    /// Finds the container's image, or does what is needed to have it.
    pub(super) async fn image_for(
        &mut self,
        role: Role,
        container: &Container,
        referenced: &Referenced,
    ) -> Ready {
        let name = container.image.clone().unwrap_or_default();
        let about = events::about_container(&self.pod, role, &container.name);
        let reference = match auth::parse(&name) {
            Ok(reference) => reference,
            Err(error) => {
                let text = format!("Failed to apply default image tag \"{name}\": {error}");
                if self.wait_for(&container.name, image::INVALID_NAME, &text) {
                    self.context.recorder.warning(&about, events::INSPECT_FAILED, &text);
                    self.context.recorder.warning(&about, events::FAILED, "Error: InvalidImageName");
                }
                return Ready::No(None);
            }
        };
        match self.images.states.get(&container.name) {
            Some(State::Pulling) => return Ready::No(None),
            Some(State::Ready(id)) => {
                let id = id.clone();
                if let Ok(Some(image)) = self.context.puller.images().image_status(&id).await {
                    return Ready::Yes(image);
                }
            }
            Some(State::Failed { .. }) => {
                if let Some(at) = self.still_failing(role, container, &name) {
                    return Ready::No(Some(at));
                }
            }
            None => {}
        }
        self.decide(role, container, &name, &reference, referenced).await
    }

    async fn decide(
        &mut self,
        role: Role,
        container: &Container,
        name: &str,
        reference: &auth::Reference,
        referenced: &Referenced,
    ) -> Ready {
        let about = events::about_container(&self.pod, role, &container.name);
        let recorder = self.context.recorder.clone();
        let present = match self.context.puller.images().image_status(name).await {
            Ok(present) => present,
            Err(error) => {
                let text = format!("Failed to inspect image \"{name}\": {error}");
                if self.wait_for(&container.name, "ImageInspectError", &text) {
                    recorder.warning(&about, events::INSPECT_FAILED, &text);
                }
                return Ready::No(self.after(super::RETRY));
            }
        };
        match (image::need(container.image_pull_policy.as_deref(), reference, present.as_ref()), present) {
            (Need::Present(_), Some(image)) => {
                let text = format!(
                    "Container image \"{name}\" already present on machine and can be accessed by the pod"
                );
                recorder.normal(&about, events::PULLED, text);
                Ready::Yes(image)
            }
            (Need::Absent, _) => {
                let text = format!("Container image \"{name}\" is not present with pull policy of Never");
                if self.wait_for(&container.name, image::ERR_NEVER, &text) {
                    recorder.warning(&about, events::NEVER_PULL, &text);
                    recorder.warning(&about, events::FAILED, format!("Error: {}", image::ERR_NEVER));
                }
                // Whoever brings it makes the images change, and that wakes the worker.
                Ready::No(None)
            }
            _ => {
                self.pull(role, container, name, referenced);
                Ready::No(None)
            }
        }
    }

    fn pull(&mut self, role: Role, container: &Container, name: &str, referenced: &Referenced) {
        let about = events::about_container(&self.pod, role, &container.name);
        self.context.recorder.normal(&about, events::PULLING, format!("Pulling image \"{name}\""));
        self.images.states.insert(container.name.clone(), State::Pulling);
        let wanted = spec::spec(&self.pod).image_pull_secrets.iter().flatten();
        let secrets: Vec<_> = wanted.filter_map(|s| referenced.secrets.get(&s.name).cloned()).collect();
        let (puller, mailbox, name) = (self.context.puller.clone(), self.mailbox.clone(), name.to_owned());
        let (container, stop) = (container.name.clone(), self.shutdown.clone());
        self.context.supervisor.spawn(async move {
            // A pull goes on if the pod ends: another pod may wait for the same image.
            if let Some(result) = stop.run_until_cancelled(puller.pull(&name, &secrets)).await {
                mailbox.leave(|news| {
                    news.pulls.insert(container, result);
                });
            }
        });
    }

    /// A pull has ended.
    pub(super) fn pulled(&mut self, name: &str, result: Result<Pulled, Error>) {
        let Some((role, container)) = spec::find_container(&self.pod, name) else { return };
        let image = container.image.unwrap_or_default();
        let about = events::about_container(&self.pod, role, name);
        let recorder = &self.context.recorder;
        match result {
            Ok(pulled) => {
                let text = format!(
                    "Successfully pulled image \"{image}\" in {} ({} including waiting). Image size: {} bytes.",
                    go_millis(pulled.took),
                    go_millis(pulled.with_wait),
                    pulled.size
                );
                recorder.normal(&about, events::PULLED, text);
                self.images.pauses.forget(&image);
                self.waiting.remove(name);
                self.images.states.insert(name.to_owned(), State::Ready(pulled.id));
            }
            Err(error) => {
                let text = error.to_string();
                recorder.warning(&about, events::FAILED, format!("Failed to pull image \"{image}\": {text}"));
                recorder.warning(&about, events::FAILED, format!("Error: {}", image::ERR_PULL));
                let now = self.context.clock.now();
                self.images.pauses.next(&image, now, now);
                self.waiting.insert(name.to_owned(), Waiting::new(image::ERR_PULL, &text));
                self.images.states.insert(name.to_owned(), State::Failed { text, at: now });
            }
        }
    }

    /// Shows that a failed pull is waited with; until when. `None` when the wait is over.
    fn still_failing(&mut self, role: Role, container: &Container, name: &str) -> Option<Timestamp> {
        let Some(State::Failed { text, at }) = self.images.states.get(&container.name) else { return None };
        let (text, failed_at, now) = (text.clone(), *at, self.now());
        let Turn::Later { at, .. } = self.images.pauses.turn(name, failed_at, now) else { return None };
        let shown_until = crate::sync::backoff::plus(failed_at, SHOW_ERROR);
        if now < shown_until {
            return Some(shown_until);
        }
        let message = format!("Back-off pulling image \"{name}\"");
        let detail = format!("{message}: {}: {text}", image::ERR_PULL);
        if self.wait_for(&container.name, image::BACK_OFF, &detail) {
            let about = events::about_container(&self.pod, role, &container.name);
            self.context.recorder.normal(&about, events::BACK_OFF, message);
            self.context.recorder.warning(&about, events::FAILED, format!("Error: {}", image::BACK_OFF));
        }
        Some(at)
    }

    /// Notes why a container does not run; whether that is news.
    pub(super) fn wait_for(&mut self, container: &str, reason: &str, message: &str) -> bool {
        let waiting = Waiting::new(reason, message);
        let news = self.waiting.get(container) != Some(&waiting);
        self.waiting.insert(container.to_owned(), waiting);
        news
    }

    /// The credentials that are at hand for the pod's images.
    pub(super) fn referenced(&self) -> Option<Referenced> {
        self.context.references.get(&self.pod)
    }
}
