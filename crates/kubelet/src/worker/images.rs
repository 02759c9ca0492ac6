//! Images of a pod's containers and of the volumes that they mount: looked for, pulled beside the worker, with a
//! growing pause between failures.

use super::Worker;
use crate::env::Referenced;
use crate::events;
use crate::image::{self, Need, Pulled, auth, go_millis};
use crate::spec::{self, Role};
use crate::status::Waiting;
use crate::sync::backoff::{Backoff, Turn};
use krate_api::types::core::v1::{Container, Pod, Volume};
use krate_base::Timestamp;
use krate_client::recorder::Reference;
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

/// By [`Wanted::key`].
#[derive(Default)]
pub struct Progress {
    states: BTreeMap<String, State>,
    pauses: Backoff,
}

impl Progress {
    /// The container has been started: its next start looks again.
    pub fn used(&mut self, container: &str) {
        self.states.retain(|key, _| key.split(VOLUME).next() != Some(container));
    }
}

/// Between a container and its volume in a key; no name has it.
const VOLUME: char = '/';

/// An image that the start of a container needs.
struct Wanted {
    /// The container's name; with a volume's behind it for the image of that.
    key: String,
    container: String,
    image: String,
    policy: Option<String>,
    about: Reference,
}

impl Wanted {
    fn of_volume(&self) -> bool {
        self.key != self.container
    }
}

/// Whether a container can be started with its image.
pub enum Ready {
    Yes(Image),
    /// Not now; perhaps at this time.
    No(Option<Timestamp>),
}

impl Worker {
    /// Finds the container's image and those of its volumes, or does what is needed to have them.
    pub(super) async fn image_for(
        &mut self,
        role: Role,
        container: &Container,
        referenced: &Referenced,
    ) -> Ready {
        for volume in image_volumes(&self.pod, container) {
            let wanted = self.volume_wanted(container, &volume);
            if let Ready::No(at) = self.find(&wanted, referenced).await {
                return Ready::No(at);
            }
        }
        self.find(&self.wanted(role, container), referenced).await
    }

    fn wanted(&self, role: Role, container: &Container) -> Wanted {
        Wanted {
            key: container.name.clone(),
            container: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            policy: container.image_pull_policy.clone(),
            about: events::about_container(&self.pod, role, &container.name),
        }
    }

    fn volume_wanted(&self, container: &Container, volume: &Volume) -> Wanted {
        let image = volume.image.clone().unwrap_or_default();
        Wanted {
            key: format!("{}{VOLUME}{}", container.name, volume.name),
            container: container.name.clone(),
            image: image.reference.unwrap_or_default(),
            policy: image.pull_policy,
            about: events::about(&self.pod),
        }
    }

    async fn find(&mut self, wanted: &Wanted, referenced: &Referenced) -> Ready {
        let (name, about) = (&wanted.image, &wanted.about);
        let reference = match auth::parse(name) {
            Ok(reference) => reference,
            Err(error) => {
                let text = format!("Failed to apply default image tag \"{name}\": {error}");
                if self.wait_for(&wanted.container, image::INVALID_NAME, &text) {
                    self.context.recorder.warning(about, events::INSPECT_FAILED, &text);
                    self.context.recorder.warning(about, events::FAILED, "Error: InvalidImageName");
                }
                return Ready::No(None);
            }
        };
        match self.images.states.get(&wanted.key) {
            Some(State::Pulling) => return Ready::No(None),
            Some(State::Ready(id)) => {
                let id = id.clone();
                if let Ok(Some(image)) = self.context.puller.images().image_status(&id).await {
                    return Ready::Yes(image);
                }
            }
            Some(State::Failed { .. }) => {
                if let Some(at) = self.still_failing(wanted) {
                    return Ready::No(Some(at));
                }
            }
            None => {}
        }
        self.decide(wanted, &reference, referenced).await
    }

    async fn decide(
        &mut self,
        wanted: &Wanted,
        reference: &auth::Reference,
        referenced: &Referenced,
    ) -> Ready {
        let (name, about) = (&wanted.image, &wanted.about);
        let recorder = self.context.recorder.clone();
        let present = match self.context.puller.images().image_status(name).await {
            Ok(present) => present,
            Err(error) => {
                let text = format!("Failed to inspect image \"{name}\": {error}");
                if self.wait_for(&wanted.container, "ImageInspectError", &text) {
                    recorder.warning(about, events::INSPECT_FAILED, &text);
                }
                return Ready::No(self.after(super::RETRY));
            }
        };
        match (image::need(wanted.policy.as_deref(), reference, present.as_ref()), present) {
            (Need::Present(_), Some(image)) => {
                let text = format!(
                    "Container image \"{name}\" already present on machine and can be accessed by the pod"
                );
                recorder.normal(about, events::PULLED, text);
                // Other images of the same start may have to be waited for: said once is enough.
                if wanted.of_volume() {
                    self.images.states.insert(wanted.key.clone(), State::Ready(image.id.clone()));
                }
                Ready::Yes(image)
            }
            (Need::Absent, _) => {
                let text = format!("Container image \"{name}\" is not present with pull policy of Never");
                if self.wait_for(&wanted.container, image::ERR_NEVER, &text) {
                    recorder.warning(about, events::NEVER_PULL, &text);
                    recorder.warning(about, events::FAILED, format!("Error: {}", image::ERR_NEVER));
                }
                // Whoever brings it makes the images change, and that wakes the worker.
                Ready::No(None)
            }
            _ => {
                self.pull(wanted, referenced);
                Ready::No(None)
            }
        }
    }

    fn pull(&mut self, wanted: &Wanted, referenced: &Referenced) {
        let name = wanted.image.clone();
        self.context.recorder.normal(&wanted.about, events::PULLING, format!("Pulling image \"{name}\""));
        self.images.states.insert(wanted.key.clone(), State::Pulling);
        let secrets = spec::spec(&self.pod).image_pull_secrets.iter().flatten();
        let secrets: Vec<_> = secrets.filter_map(|s| referenced.secrets.get(&s.name).cloned()).collect();
        let (puller, mailbox) = (self.context.puller.clone(), self.mailbox.clone());
        let (key, stop) = (wanted.key.clone(), self.shutdown.clone());
        self.context.supervisor.spawn(async move {
            // A pull goes on if the pod ends: another pod may wait for the same image.
            if let Some(result) = stop.run_until_cancelled(puller.pull(&name, &secrets)).await {
                mailbox.leave(|news| {
                    news.pulls.insert(key, result);
                });
            }
        });
    }

    /// What a key stands for, if the pod still has it.
    fn wanted_by_key(&self, key: &str) -> Option<Wanted> {
        let (container, volume) = match key.split_once(VOLUME) {
            Some((container, volume)) => (container, Some(volume)),
            None => (key, None),
        };
        let (role, container) = spec::find_container(&self.pod, container)?;
        let Some(volume) = volume else { return Some(self.wanted(role, &container)) };
        let volume = image_volumes(&self.pod, &container).into_iter().find(|v| v.name == volume)?;
        Some(self.volume_wanted(&container, &volume))
    }

    /// A pull has ended.
    pub(super) fn pulled(&mut self, key: &str, result: Result<Pulled, Error>) {
        let Some(Wanted { container, image, about, .. }) = self.wanted_by_key(key) else { return };
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
                self.waiting.remove(&container);
                self.images.states.insert(key.to_owned(), State::Ready(pulled.id));
            }
            Err(error) => {
                let text = error.to_string();
                recorder.warning(&about, events::FAILED, format!("Failed to pull image \"{image}\": {text}"));
                recorder.warning(&about, events::FAILED, format!("Error: {}", image::ERR_PULL));
                let now = self.context.clock.now();
                self.images.pauses.next(&image, now, now);
                self.waiting.insert(container, Waiting::new(image::ERR_PULL, &text));
                self.images.states.insert(key.to_owned(), State::Failed { text, at: now });
            }
        }
    }

    /// Shows that a failed pull is waited with; until when. `None` when the wait is over.
    fn still_failing(&mut self, wanted: &Wanted) -> Option<Timestamp> {
        let Some(State::Failed { text, at }) = self.images.states.get(&wanted.key) else { return None };
        let (text, failed_at, now, name) = (text.clone(), *at, self.now(), &wanted.image);
        let Turn::Later { at, .. } = self.images.pauses.turn(name, failed_at, now) else { return None };
        let shown_until = crate::sync::backoff::plus(failed_at, SHOW_ERROR);
        if now < shown_until {
            return Some(shown_until);
        }
        let message = format!("Back-off pulling image \"{name}\"");
        let detail = format!("{message}: {}: {text}", image::ERR_PULL);
        if self.wait_for(&wanted.container, image::BACK_OFF, &detail) {
            let recorder = &self.context.recorder;
            recorder.normal(&wanted.about, events::BACK_OFF, message);
            recorder.warning(&wanted.about, events::FAILED, format!("Error: {}", image::BACK_OFF));
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

/// The volumes of images that a container mounts.
fn image_volumes(pod: &Pod, container: &Container) -> Vec<Volume> {
    let mounted = |volume: &&Volume| container.volume_mounts.iter().flatten().any(|m| m.name == volume.name);
    let volumes = spec::spec(pod).volumes.iter().flatten();
    volumes.filter(|v| v.image.is_some()).filter(mounted).cloned().collect()
}
