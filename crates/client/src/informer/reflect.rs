//! The task of an informer: list, watch, apply, tell; and what to do when a watch ends.

use super::store::{Change, Entry, Put};
use super::{Inner, Reach, View};
use crate::request::{Options, Reply, WatchEvent};
use futures::StreamExt;
use krate_api::{Reason, Shared, Status};
use krate_base::Rng;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// First pause after a failed list or watch; doubles up to [`BACKOFF_MAX`], each lengthened at random by up
/// to its own length.
const BACKOFF_FIRST: Duration = Duration::from_millis(400);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A watch that lived this long had no failure to back off from.
const BACKOFF_RESET: Duration = Duration::from_secs(120);
/// After this time the server is to end a watch, so that a dead connection cannot last; up to twice as long.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Follows the collection for ever.
pub(super) async fn run<V: View>(inner: &Inner<V>) {
    let mut patience = Patience::new(&inner.reach);
    // `0`: any state that the server has at hand will do for a start.
    let mut at_least = "0";
    loop {
        match list(inner, at_least).await {
            Ok(mut revision) => {
                patience.rewarded();
                let status = follow(inner, &mut revision, &mut patience).await;
                tracing::debug!(resource = %inner.source.qualified(), %status, "listing again");
                // What expired was too old: the present state is wanted, not one at hand.
                at_least = "";
            }
            Err(status) if expired(&status) => at_least = "",
            Err(status) => {
                tracing::warn!(resource = %inner.source.qualified(), %status, "cannot list; it will be tried again");
                patience.tried = true;
            }
        }
        patience.wait().await;
    }
}

/// Watches, again and again, until the revision to go on from has expired.
async fn follow<V: View>(inner: &Inner<V>, revision: &mut u64, patience: &mut Patience<'_>) -> Status {
    loop {
        let started = Instant::now();
        let before = *revision;
        let end = watch(inner, revision, patience).await;
        match end {
            Err(status) if expired(&status) => return status,
            Err(status) => {
                tracing::debug!(resource = %inner.source.qualified(), %status, "the watch broke; it goes on from {revision}");
                patience.tried = true;
            }
            // The server's time was over.
            Ok(()) if *revision > before || started.elapsed() >= BACKOFF_FIRST => {
                patience.pause = BACKOFF_FIRST;
                continue;
            }
            Ok(()) => {}
        }
        if started.elapsed() > BACKOFF_RESET {
            patience.pause = BACKOFF_FIRST;
        }
        patience.wait().await;
    }
}

/// Tells the informers of a process when one of them gets through again: the others need not sit out their pauses.
/// (Who waits is woken in the order of asking, which a `watch` channel does not promise.)
#[derive(Default)]
pub(super) struct Recovered {
    times: AtomicU64,
    told: Notify,
}

/// How long an informer waits before it asks again: longer from failure to failure, but no longer than until another
/// informer of the process gets through. Caches that come back one by one would show their controllers a state that
/// never was, for up to a minute.
struct Patience<'a> {
    rng: &'a Rng,
    recovered: &'a Recovered,
    /// How often informers had got through when this one asked.
    seen: u64,
    pause: Duration,
    /// The last thing that was asked failed.
    tried: bool,
}

impl<'a> Patience<'a> {
    fn new(reach: &'a Reach) -> Self {
        Self { rng: &reach.rng, recovered: &reach.recovered, seen: 0, pause: BACKOFF_FIRST, tried: false }
    }

    /// A list succeeded.
    fn rewarded(&mut self) {
        self.pause = BACKOFF_FIRST;
        self.got_through();
    }

    /// The server answered.
    fn got_through(&mut self) {
        if std::mem::take(&mut self.tried) {
            self.seen = self.recovered.times.fetch_add(1, Ordering::SeqCst) + 1;
            self.recovered.told.notify_waiters();
        }
    }

    async fn wait(&mut self) {
        let pause = self.rng.jitter(self.pause, 1.0);
        let shortest = self.rng.jitter(BACKOFF_FIRST, 1.0).min(pause);
        self.pause = (self.pause * 2).min(BACKOFF_MAX);
        tokio::time::sleep(shortest).await;
        let told = self.recovered.told.notified();
        // It may have been while this one was asking.
        if self.recovered.times.load(Ordering::SeqCst) == self.seen {
            tokio::select! {
                biased;
                () = told => {}
                () = tokio::time::sleep(pause - shortest) => {}
            }
        }
        self.seen = self.recovered.times.load(Ordering::SeqCst);
    }
}

fn expired(status: &Status) -> bool {
    status.is(Reason::Expired) || status.is(Reason::Gone) || status.code() == 410
}

async fn list<V: View>(inner: &Inner<V>, at_least: &str) -> Result<u64, Status> {
    let options = Options { resource_version: at_least.to_owned(), ..Options::default() };
    match inner.reach.transport.send(inner.source.request(options)).await? {
        Reply::List { items, revision, .. } => {
            inner.replace(&items);
            inner.synced.cancel();
            Ok(revision)
        }
        _ => Err(Status::internal("the server answered something else than the list that was asked for")),
    }
}

/// One watch, until it ends; `revision` follows what was applied.
async fn watch<V: View>(
    inner: &Inner<V>,
    revision: &mut u64,
    patience: &mut Patience<'_>,
) -> Result<(), Status> {
    let timeout = inner.reach.rng.jitter(WATCH_TIMEOUT, 1.0).as_secs();
    let options = Options {
        resource_version: revision.to_string(),
        allow_watch_bookmarks: true,
        timeout_seconds: u32::try_from(timeout).ok(),
        ..Options::default()
    };
    let mut events = inner.reach.transport.watch(inner.source.request(options)).await?;
    patience.got_through();
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                inner.upsert(&object);
                *revision = object.revision.max(*revision);
            }
            WatchEvent::Deleted(object) => {
                inner.delete(&object);
                *revision = object.revision.max(*revision);
            }
            WatchEvent::Bookmark { revision: at, .. } => *revision = at.max(*revision),
        }
    }
    Ok(())
}

impl<V: View> Inner<V> {
    fn view(&self, object: &Shared) -> Option<Arc<V>> {
        match V::of(object) {
            Ok(view) => Some(view),
            Err(error) => {
                let resource = self.source.qualified();
                tracing::error!(%resource, key = %object.key(), %error, "an object cannot be decoded");
                let help = "Objects that an informer could not decode.";
                let labels = vec![("resource", resource)];
                self.reach.metrics.add("informer_undecodable_objects_total", help, labels, 1.0);
                None
            }
        }
    }

    /// Applies an addition or a modification. A state that is not newer than the present one is old news.
    fn upsert(&self, object: &Shared) {
        let handlers = self.handlers.lock();
        let mut changes = Vec::with_capacity(1);
        self.apply(object, &mut changes);
        tell(&handlers, changes);
    }

    fn delete(&self, object: &Shared) {
        let handlers = self.handlers.lock();
        let key = object.key();
        let Some(entry) = self.store.write().remove(&key) else { return };
        // The event carries the last state; the cache may be one behind.
        let last = self.view(object).unwrap_or(entry.view);
        tell(&handlers, vec![Change { old: Some(last), new: None }]);
    }

    /// Makes the cache equal to a list, telling only the differences.
    fn replace(&self, items: &[Shared]) {
        let handlers = self.handlers.lock();
        let present: HashSet<String> = items.iter().map(Shared::key).collect();
        let mut changes = vec![];
        {
            let mut store = self.store.write();
            for key in store.keys() {
                if !present.contains(&key)
                    && let Some(entry) = store.remove(&key)
                {
                    changes.push(Change { old: Some(entry.view), new: None });
                }
            }
        }
        for object in items {
            let known = self.store.read().entry(&object.key()).is_some_and(|e| e.revision >= object.revision);
            if !known {
                self.apply(object, &mut changes);
            }
        }
        tell(&handlers, changes);
    }

    /// Puts one object into the cache. Another object under the same key (a new uid) is a deletion and an
    /// addition.
    fn apply(&self, object: &Shared, changes: &mut Vec<Change<V>>) {
        let Some(view) = self.view(object) else { return };
        let entry = Entry { revision: object.revision, uid: object.view.uid.clone(), view: view.clone() };
        match self.store.write().put(&object.key(), entry) {
            Put::Stale => {}
            Put::Changed(old) if old.uid != object.view.uid => {
                changes.push(Change { old: Some(old.view), new: None });
                changes.push(Change { old: None, new: Some(view) });
            }
            Put::Changed(old) => changes.push(Change { old: Some(old.view), new: Some(view) }),
            Put::Added => changes.push(Change { old: None, new: Some(view) }),
        }
    }
}

fn tell<V>(handlers: &[super::Handler<V>], changes: Vec<Change<V>>) {
    for change in changes {
        for handler in handlers {
            handler(change.old.as_ref(), change.new.as_ref());
        }
    }
}
