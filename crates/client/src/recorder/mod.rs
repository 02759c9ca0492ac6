//! Records Events about objects, as `kubectl describe` shows them.
//!
//! Recording never waits and never fails: events go through a bounded queue ([`QUEUE`]) to a task that writes
//! them; what does not fit is counted (`event_recorder_dropped_total`) and gone. Events about one object are
//! written in order, those about different ones together ([`BATCH`]): the server commits at once what comes at
//! once. A burst of events must take little from the work that it tells of: one batch is written at a time, and
//! after the first [`BURST`] of them [`PACE`] a second (client-go writes 50); the rest waits its turn. An event
//! that was recorded before raises the count of the first one; many similar ones are combined; one object's flood
//! is cut (`correlate`).

mod correlate;

use crate::api::Api;
use crate::queue::Bucket;
use crate::request::{PatchKind, Transport};
use correlate::{Correlator, Write};
use krate_api::meta::Time;
use krate_api::types::core::v1::{Event, EventSource, ObjectReference};
use krate_api::{Object, Reason, Status};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Supervisor};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events that wait to be written; an event is about 1 KiB.
pub const QUEUE: usize = 16_384;
/// Most events that are written at once.
pub const BATCH: usize = 16;
/// Events that are written a second, when many wait.
pub const PACE: f64 = 500.0;
/// Events that are written without regard to the pace.
pub const BURST: f64 = 256.0;
/// How often a write that the server could not take is tried.
const ATTEMPTS: u32 = 12;
/// Pause between these attempts, lengthened at random by up to its own length.
const PAUSE: Duration = Duration::from_secs(5);

/// Which object an event is about.
pub type Reference = ObjectReference;

/// A reference to an object as it is now.
#[must_use]
pub fn reference(object: &dyn Object) -> Reference {
    let meta = object.meta();
    Reference {
        api_version: Some(object.api_version().to_owned()),
        kind: Some(object.kind().to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// Whether an event tells of something out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// A handle on a recorder; clones share it.
#[derive(Clone)]
pub struct Recorder {
    source: EventSource,
    clock: Clock,
    metrics: Metrics,
    queue: mpsc::Sender<Box<Event>>,
}

impl Recorder {
    /// A recorder for `component` (`deployment-controller`), on `host` if it runs on a node. Its writer
    /// runs under the supervisor.
    #[must_use]
    pub fn start(
        transport: Arc<dyn Transport>,
        component: &str,
        host: &str,
        clock: &Clock,
        rng: &Rng,
        metrics: &Metrics,
        supervisor: &Supervisor,
    ) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        let api = Api::new(transport);
        let writer = Writer { api, correlator: Correlator::default(), rng: rng.clone() };
        let shutdown = supervisor.shutdown();
        supervisor.spawn(async move {
            shutdown.run_until_cancelled(writer.run(events)).await;
        });
        let source = EventSource {
            component: Some(component.to_owned()),
            host: (!host.is_empty()).then(|| host.to_owned()),
        };
        Self { source, clock: clock.clone(), metrics: metrics.clone(), queue }
    }

    pub fn normal(&self, about: &Reference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Normal, reason, message);
    }

    pub fn warning(&self, about: &Reference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Warning, reason, message);
    }

    pub fn event(&self, about: &Reference, kind: EventType, reason: &str, message: impl Into<String>) {
        let event = Box::new(self.make(about, kind, reason, message.into()));
        if self.queue.try_send(event).is_err() {
            let help = "Events that were not recorded because too many waited.";
            let labels = vec![("component", self.source.component.clone().unwrap_or_default())];
            self.metrics.add("event_recorder_dropped_total", help, labels, 1.0);
        }
    }

    fn make(&self, about: &Reference, kind: EventType, reason: &str, message: String) -> Event {
        let now = self.clock.now();
        let time = Some(Time(self.clock.now_seconds()));
        let namespace = about.namespace.clone().filter(|n| !n.is_empty());
        let mut event = Event {
            involved_object: about.clone(),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            type_: Some(kind.as_str().to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            first_timestamp: time.clone(),
            last_timestamp: time,
            count: Some(1),
            ..Event::default()
        };
        event.metadata.namespace = Some(namespace.unwrap_or_else(|| "default".to_owned()));
        let name = about.name.as_deref().unwrap_or_default();
        event.metadata.name = Some(format!("{name}.{:x}", now.as_nanosecond()));
        event
    }
}

struct Writer {
    api: Api<Event>,
    correlator: Correlator,
    rng: Rng,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<Box<Event>>) {
        let mut come = Vec::with_capacity(BATCH);
        let mut pace = Bucket { tokens: BURST, at: None };
        while events.recv_many(&mut come, BATCH).await > 0 {
            let waits = come.iter().map(|_| pace.reserve(Instant::now(), PACE, BURST));
            tokio::time::sleep(waits.last().unwrap_or_default()).await;
            let mut batch: Vec<Event> = come.drain(..).map(|event| *event).collect();
            while !batch.is_empty() {
                batch = self.round(batch).await;
            }
        }
    }

    /// Writes the first event of a batch about each object, and returns the others.
    async fn round(&mut self, batch: Vec<Event>) -> Vec<Event> {
        let mut seen = HashSet::new();
        let (first, later): (Vec<_>, Vec<_>) = batch.into_iter().partition(|event| {
            let about = &event.involved_object;
            seen.insert((about.kind.clone(), about.namespace.clone(), about.name.clone()))
        });
        let writes: Vec<_> = first.into_iter().filter_map(|event| self.correlator.correlate(event)).collect();
        let names = futures::future::join_all(writes.iter().map(|write| self.write(write))).await;
        for (write, name) in writes.iter().zip(names) {
            if let Some(name) = name {
                self.correlator.written(write, name);
            }
        }
        later
    }

    /// Writes an event, again and again while that may help. The name under which it is stored.
    async fn write(&self, write: &Write) -> Option<String> {
        for _ in 0..ATTEMPTS {
            match self.attempt(write).await {
                Ok(name) => return Some(name),
                Err(status) if !temporary(&status) => {
                    tracing::debug!(%status, reason = ?write.event.reason, "an event was refused");
                    return None;
                }
                Err(status) => tracing::debug!(%status, "an event could not be written yet"),
            }
            tokio::time::sleep(self.rng.jitter(PAUSE, 1.0)).await;
        }
        tracing::warn!(reason = ?write.event.reason, "an event could not be written");
        None
    }

    /// Writes the event once. The name under which it is stored.
    async fn attempt(&self, write: &Write) -> Result<String, Status> {
        let event = &write.event;
        let meta = &event.metadata;
        if write.repeats {
            let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
            let patch = serde_json::json!({
                "count": event.count,
                "lastTimestamp": event.last_timestamp,
                "message": event.message,
            });
            let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
            let patched = self.api.patch(namespace, name, PatchKind::Merge, patch.to_string()).await;
            match patched {
                // The first one has expired: this one starts again.
                Err(status) if status.is_not_found() => {}
                result => return result.map(|event| event.metadata.name.clone().unwrap_or_default()),
            }
        }
        let created = match self.api.create_unread(event.clone()).await {
            Err(status) if status.is_already_exists() => {
                let mut other = event.clone();
                other.metadata.name = meta.name.as_ref().map(|n| format!("{n}{}", self.rng.suffix(2)));
                self.api.create_unread(other).await
            }
            result => result,
        };
        created.map(|event| event.view.name.clone())
    }
}

/// Whether the same write may succeed later.
fn temporary(status: &Status) -> bool {
    use Reason::{InternalError, ServerTimeout, ServiceUnavailable, Timeout, TooManyRequests};
    matches!(
        status.reason(),
        None | Some(InternalError | ServerTimeout | ServiceUnavailable | Timeout | TooManyRequests)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;
    use krate_api::types::core::v1::Pod;
    use krate_base::{Shutdown, Timestamp};

    fn pod(name: &str) -> Reference {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some("shop".to_owned());
        pod.metadata.uid = Some(format!("uid-{name}"));
        reference(&pod)
    }

    fn start() -> (Fake, Recorder) {
        let (clock, rng) = (Clock::starting_at(Timestamp::UNIX_EPOCH), Rng::from_seed(1));
        let fake = Fake::new(clock.clone(), rng.clone());
        let supervisor = Supervisor::new(Shutdown::new());
        let metrics = Metrics::default();
        let recorder = Recorder::start(fake.transport(), "tester", "", &clock, &rng, &metrics, &supervisor);
        (fake, recorder)
    }

    async fn pause() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_event_is_counted() {
        let (fake, recorder) = start();
        for _ in 0..3 {
            recorder.normal(&pod("a"), "Pulled", "image pulled");
            pause().await;
        }
        recorder.warning(&pod("a"), "Failed", "no");
        pause().await;
        let events = fake.list::<Event>();
        assert_eq!(events.len(), 2);
        let pulled = events.iter().find(|e| e.reason.as_deref() == Some("Pulled")).unwrap();
        assert_eq!(pulled.count, Some(3));
        assert_eq!(pulled.metadata.name.as_deref(), Some("a.0"));
        assert_eq!(pulled.reporting_component.as_deref(), Some("tester"));
        assert!(pulled.last_timestamp > pulled.first_timestamp);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_at_once_about_one_object_is_counted_too() {
        let (fake, recorder) = start();
        for _ in 0..3 {
            recorder.normal(&pod("a"), "Pulled", "image pulled");
            recorder.normal(&pod("b"), "Pulled", "image pulled");
        }
        pause().await;
        let mut counts: Vec<_> =
            fake.list::<Event>().iter().map(|e| (e.involved_object.name.clone(), e.count)).collect();
        counts.sort();
        assert_eq!(counts, [(Some("a".to_owned()), Some(3)), (Some("b".to_owned()), Some(3))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_about_many_objects_is_written_whole_at_its_pace() {
        let (fake, recorder) = start();
        for n in 0..10_000 {
            recorder.normal(&pod(&format!("p{n}")), "Scheduled", "assigned");
        }
        pause().await;
        let first = fake.list::<Event>().len() as f64;
        assert!((BURST..BURST + PACE + BATCH as f64).contains(&first), "{first}");
        tokio::time::sleep(Duration::from_secs_f64(10_000.0 / PACE)).await;
        assert_eq!(fake.list::<Event>().len(), 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn similar_events_are_combined_and_floods_are_cut() {
        let (fake, recorder) = start();
        for n in 0..40 {
            recorder.normal(&pod("a"), "Tick", format!("tick {n}"));
            pause().await;
        }
        let events = fake.list::<Event>();
        // Nine as they are, then one that stands for the rest; after 25 in all the object is held to its rate.
        assert_eq!(events.len(), 10);
        let combined = events.iter().find(|e| e.message.as_ref().unwrap().starts_with("(combined")).unwrap();
        assert_eq!(combined.count, Some(16));
        recorder.normal(&pod("b"), "Tick", "tick");
        pause().await;
        assert_eq!(fake.list::<Event>().len(), 11, "another object has a budget of its own");
    }
}
