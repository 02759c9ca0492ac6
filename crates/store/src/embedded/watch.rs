//! A reader of one space's history at its own position: from the ring while it keeps up, from the disk
//! when it does not, and told so when even that is gone.

use super::Core;
use super::past::Past;
use crate::{Error, Event, Revision, Watch};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::Notify;

/// Most events handed over at once (a revision is never cut in two, so it may be a few more).
const BATCH: usize = 1_000;

pub(crate) struct Watcher {
    core: Arc<Core>,
    space: Arc<str>,
    signal: Arc<Notify>,
    /// Everything up to here has been handed over.
    position: Revision,
}

/// What there is for a watcher now.
enum Found {
    Events(Vec<Arc<Event>>),
    /// Nothing; the watcher has everything up to this revision.
    Nothing(Revision),
    /// The ring begins at the revision; what is before it is on the disk.
    Behind(Past, Revision),
}

impl Watcher {
    pub(crate) fn new(core: Arc<Core>, space: &str, after: Revision) -> Result<Self, Error> {
        let (name, signal) = {
            let mut state = core.state.write();
            state.check(after)?;
            let name =
                state.spaces.get_key_value(space).map_or_else(|| space.into(), |(name, _)| name.clone());
            let space = state.space_mut(&name);
            if after < space.ring.start && core.medium().is_none() {
                return Err(Error::Compacted { asked: after, oldest: space.ring.start });
            }
            (name, space.signal.clone())
        };
        Ok(Self { core, space: name, signal, position: after })
    }

    fn look(&self) -> Result<Found, Error> {
        let state = self.core.state.read();
        let Some(space) = state.spaces.get(&self.space) else {
            return Ok(Found::Nothing(state.revision));
        };
        if self.position < space.ring.start {
            return match self.core.medium() {
                Some(medium) if self.position >= state.compacted => {
                    let past = Past {
                        medium,
                        vault: self.core.vault.clone(),
                        id: space.id,
                        space: self.space.clone(),
                    };
                    Ok(Found::Behind(past, space.ring.start))
                }
                _ => {
                    let oldest = state.compacted.max(self.position + 1);
                    Err(Error::Compacted { asked: self.position, oldest })
                }
            };
        }
        let mut events: Vec<Arc<Event>> = Vec::new();
        for event in space.ring.after(self.position) {
            if events.len() >= BATCH && events.last().is_some_and(|last| last.revision != event.revision) {
                break;
            }
            events.push(event.clone());
        }
        Ok(if events.is_empty() { Found::Nothing(state.revision) } else { Found::Events(events) })
    }

    async fn read_back(&mut self, past: Past, start: Revision) -> Result<Vec<Arc<Event>>, Error> {
        let after = self.position;
        let events = super::off_runtime(move || past.events(after, start, BATCH)).await?;
        // what was compacted while we read may be missing from what we read
        self.core.state.read().check(after)?;
        self.position = match events.last() {
            Some(last) => last.revision,
            None => start,
        };
        Ok(events)
    }
}

#[async_trait]
impl Watch for Watcher {
    async fn next(&mut self) -> Result<Vec<Arc<Event>>, Error> {
        loop {
            let signal = self.signal.clone();
            let woken = signal.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.core.is_closed() {
                return Err(Error::Closed);
            }
            match self.look()? {
                Found::Events(events) => {
                    self.position = events.last().map_or(self.position, |last| last.revision);
                    return Ok(events);
                }
                Found::Behind(past, start) => {
                    let events = self.read_back(past, start).await?;
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
                Found::Nothing(revision) => {
                    self.position = revision;
                    woken.await;
                }
            }
        }
    }

    fn position(&self) -> Revision {
        let state = self.core.state.read();
        match state.spaces.get(&self.space) {
            Some(space) if space.ring.newest() > self.position => self.position,
            _ => state.revision,
        }
    }
}
