//! Watching: the changes of a collection from a revision, as a feed that both transports deliver.
//!
//! A feed never copies an object. It reads the store's history at its own position; when it falls off, it
//! ends with `410 Expired`. Selectors turn "begins to match" into ADDED and "ceases to" into DELETED.

use crate::call::Call;
use crate::codec::{Rows, at_revision};
use crate::error::{from_store, too_large};
use crate::rest::list::revision;
use crate::rest::select::Selection;
use crate::server::Inner;
use krate_api::field::{self, Path};
use krate_api::{Shared, Status};
use krate_client::WatchEvent;
use krate_store::{Entry, Error, Event, ListQuery, Watch};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

/// A watch without a timeout of its own ends after this long, and up to twice that.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How often a watcher who asked for bookmarks is told its position while nothing changes.
const BOOKMARK: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// What a feed delivers.
pub(crate) enum Item {
    /// `event` is there when every watcher without selectors sees this change alike, so that its frame
    /// may be shared.
    Change {
        change: Change,
        entry: Arc<Entry>,
        event: Option<Arc<Event>>,
    },
    Bookmark {
        revision: u64,
        initial_end: bool,
    },
}

/// An open watch.
pub(crate) struct Feed {
    rows: Rows,
    selection: Selection,
    watch: Box<dyn Watch>,
    ready: VecDeque<Item>,
    deadline: Pin<Box<Sleep>>,
    bookmarks: Option<Interval>,
    told: u64,
    ended: bool,
}

/// Opens a watch.
pub(crate) async fn open(server: &Inner, call: &Call) -> Result<Feed, Status> {
    check_options(call)?;
    let options = &call.options;
    let selection = Selection::of(call)?;
    let from: u64 = match options.resource_version.as_str() {
        "" => 0,
        text => revision(text).map_err(|fault| {
            let resource = call.resource();
            Status::invalid(&resource.group, &resource.plural, "", &[fault])
        })?,
    };
    let current = server.store.revision();
    if from > current {
        return Err(too_large(from, current));
    }
    let initial = options.send_initial_events.unwrap_or(from == 0);
    let mut ready = VecDeque::new();
    let mut after = if from == 0 { current } else { from };
    if initial {
        after = snapshot(server, call, &selection, &mut ready).await?;
        if options.send_initial_events == Some(true) && options.allow_watch_bookmarks {
            ready.push_back(Item::Bookmark { revision: after, initial_end: true });
        }
    } else if options.send_initial_events == Some(false) && from == 0 {
        after = current;
    }
    let watch = match server.store.watch(&call.resource().space, after).await {
        Ok(watch) => watch,
        Err(e) => return Err(watch_error(e)),
    };
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(u64::from(seconds)),
        _ => server.rng.jitter(TIMEOUT, 1.0),
    };
    let bookmarks = options.allow_watch_bookmarks.then(|| {
        let period = server.rng.jitter(BOOKMARK, 0.25);
        let mut interval = tokio::time::interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    });
    let deadline = Box::pin(tokio::time::sleep(timeout));
    let rows = call.rows.clone();
    Ok(Feed { rows, selection, watch, ready, deadline, bookmarks, told: after, ended: false })
}

/// Everything that is there now, as ADDED; the revision of that instant.
async fn snapshot(
    server: &Inner,
    call: &Call,
    selection: &Selection,
    ready: &mut VecDeque<Item>,
) -> Result<u64, Status> {
    let query = ListQuery {
        space: Arc::from(call.resource().space.as_str()),
        prefix: selection.prefix().to_owned(),
        after: None,
        limit: 0,
        at: None,
    };
    let page = server.store.list(query).await.map_err(from_store)?;
    for entry in page.entries {
        if selection.matches(&call.rows.view(&entry)) {
            ready.push_back(Item::Change { change: Change::Added, entry, event: None });
        }
    }
    Ok(page.revision)
}

fn check_options(call: &Call) -> Result<(), Status> {
    let o = &call.options;
    let mut faults = Vec::new();
    let path = Path::new("resourceVersionMatch");
    let mut forbid = |text: &str| faults.push(field::Error::forbidden(&path, text));
    let not_older = o.resource_version_match == "NotOlderThan";
    if o.send_initial_events.is_some() && !not_older {
        forbid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if !o.resource_version_match.is_empty() {
        if o.send_initial_events.is_none() {
            forbid("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if !not_older {
            faults.push(field::Error::not_supported(&path, &o.resource_version_match, &["NotOlderThan"]));
        }
        if !o.continue_token.is_empty() {
            let text = "resourceVersionMatch is forbidden when continue is provided";
            faults.push(field::Error::forbidden(&path, text));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &faults)) }
}

/// A watcher who asks for what is no longer kept starts again from a list.
fn watch_error(error: Error) -> Status {
    match error {
        Error::Compacted { asked, oldest } => {
            Status::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        other => from_store(other),
    }
}

impl Feed {
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// An item that is there without waiting.
    pub fn ready(&mut self) -> Option<Item> {
        self.ready.pop_front()
    }

    /// The next item; `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Result<Item, Status>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                batch = self.watch.next() => match batch {
                    Ok(events) => self.take(events),
                    Err(Error::Closed) => self.ended = true,
                    Err(e) => {
                        self.ended = true;
                        return Some(Err(watch_error(e)));
                    }
                },
                () = self.deadline.as_mut() => {
                    self.ended = true;
                    if self.bookmarks.is_some() {
                        self.tell_position();
                    }
                }
                () = tick(&mut self.bookmarks) => self.tell_position(),
            }
        }
    }

    fn tell_position(&mut self) {
        let revision = self.watch.position();
        if revision > self.told {
            self.told = revision;
            self.ready.push_back(Item::Bookmark { revision, initial_end: false });
        }
    }

    fn take(&mut self, events: Vec<Arc<Event>>) {
        for event in events {
            if !event.entry.key.path.starts_with(self.selection.prefix()) {
                continue;
            }
            let revision = event.revision;
            if let Some(item) = self.see(event) {
                self.told = revision;
                self.ready.push_back(item);
            }
        }
    }

    /// How this watcher sees a change, if at all.
    fn see(&self, event: Arc<Event>) -> Option<Item> {
        let natural = match (event.deleted, event.is_creation()) {
            (true, _) => Change::Deleted,
            (false, true) => Change::Added,
            (false, false) => Change::Modified,
        };
        let entry = event.entry.clone();
        if !self.selection.is_thinning() {
            return Some(Item::Change { change: natural, entry, event: Some(event) });
        }
        let before = event.previous.as_ref().is_some_and(|p| self.selection.matches(&self.rows.view(p)));
        let now = !event.deleted && self.selection.matches(&self.rows.view(&entry));
        let change = match (before, now) {
            (true, true) => Change::Modified,
            (false, true) => Change::Added,
            (true, false) => Change::Deleted,
            (false, false) => return None,
        };
        let entry = match (&event.previous, change == natural) {
            (Some(previous), false) if change == Change::Deleted => at_revision(previous, event.revision),
            _ => entry,
        };
        let shared = (change == natural).then_some(event);
        Some(Item::Change { change, entry, event: shared })
    }

    /// The feed as the in-process transport hands it out.
    pub fn into_stream(self) -> krate_client::WatchStream {
        Box::pin(futures::stream::unfold(self, |mut feed| async move {
            let item = feed.next().await?;
            let event = item.map(|item| feed.event(item));
            Some((event, feed))
        }))
    }

    fn event(&self, item: Item) -> WatchEvent {
        match item {
            Item::Change { change, entry, .. } => {
                let object: Shared = self.rows.shared(&entry);
                match change {
                    Change::Added => WatchEvent::Added(object),
                    Change::Modified => WatchEvent::Modified(object),
                    Change::Deleted => WatchEvent::Deleted(object),
                }
            }
            Item::Bookmark { revision, initial_end } => WatchEvent::Bookmark { revision, initial_end },
        }
    }
}

async fn tick(bookmarks: &mut Option<Interval>) {
    match bookmarks {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
