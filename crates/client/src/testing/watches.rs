//! Lists and watches of the in-memory server.

use super::{Fake, Logged, State, resource};
use crate::request::{Reply, Request, WatchEvent, WatchStream};
use futures::StreamExt;
use krate_api::{Shared, Status};
use serde_json::Value;
use tokio::sync::watch;

/// What a list or watch selects.
#[derive(Clone)]
struct Selection {
    resource: String,
    namespace: String,
    labels: String,
    fields: String,
}

impl Selection {
    fn of(request: &Request) -> Self {
        Self {
            resource: resource(&request.group, &request.plural),
            namespace: request.namespace.clone(),
            labels: request.options.label_selector.clone(),
            fields: request.options.field_selector.clone(),
        }
    }

    fn matches(&self, object: &Shared) -> bool {
        let view = &object.view;
        (self.namespace.is_empty() || self.namespace == view.namespace)
            && terms(&self.labels).all(|term| term.holds(view.labels.get(term.key).map(String::as_str)))
            && (self.fields.is_empty() || self.fields_match(object))
    }

    fn fields_match(&self, object: &Shared) -> bool {
        let value: Value = serde_json::from_slice(&object.bytes).unwrap_or_default();
        terms(&self.fields).all(|term| {
            let field = value.pointer(&format!("/{}", term.key.replace('.', "/")));
            term.holds(Some(field.and_then(Value::as_str).unwrap_or_default()))
        })
    }
}

/// A requirement `key`, `key=value` or `key!=value`.
struct Term<'a> {
    key: &'a str,
    equal: bool,
    value: Option<&'a str>,
}

impl Term<'_> {
    fn holds(&self, found: Option<&str>) -> bool {
        match self.value {
            None => found.is_some() == self.equal,
            Some(value) => (found == Some(value)) == self.equal,
        }
    }
}

fn terms(selector: &str) -> impl Iterator<Item = Term<'_>> {
    selector.split(',').map(str::trim).filter(|t| !t.is_empty()).map(|term| {
        if let Some((key, value)) = term.split_once("!=") {
            return Term { key, equal: false, value: Some(value) };
        }
        match term.split_once('=') {
            Some((key, value)) => Term { key, equal: true, value: Some(value.trim_start_matches('=')) },
            None => match term.strip_prefix('!') {
                Some(key) => Term { key, equal: false, value: None },
                None => Term { key: term, equal: true, value: None },
            },
        }
    })
}

impl State {
    pub(super) fn list(&self, resource: &str, request: &Request) -> Result<Reply, Status> {
        let selection = Selection::of(request);
        let all = self.objects.get(resource);
        let items = all.into_iter().flat_map(|m| m.values()).map(|s| s.shared.clone());
        let items = items.filter(|o| selection.matches(o)).collect();
        Ok(Reply::List { items, revision: self.revision, continue_token: String::new() })
    }
}

fn event(logged: &Logged, selection: &Selection) -> Option<WatchEvent> {
    if logged.resource != selection.resource {
        return None;
    }
    let was = logged.old.as_ref().is_some_and(|o| selection.matches(o));
    let is = logged.new.as_ref().is_some_and(|o| selection.matches(o));
    match (was, is, &logged.new, &logged.last) {
        (false, true, Some(new), _) => Some(WatchEvent::Added(new.clone())),
        (true, true, Some(new), _) => Some(WatchEvent::Modified(new.clone())),
        (true, false, Some(new), _) => Some(WatchEvent::Deleted(new.clone())),
        (true, false, None, Some(last)) => Some(WatchEvent::Deleted(last.clone())),
        _ => None,
    }
}

struct Cursor {
    fake: Fake,
    selection: Selection,
    revision: u64,
    moved: watch::Receiver<(u64, u64)>,
    breaks: u64,
}

pub(super) fn open(fake: Fake, request: &Request) -> Result<WatchStream, Status> {
    let from = request.options.resource_version.parse().unwrap_or(0);
    let state = fake.0.state.lock();
    let revision = if from == 0 { state.revision } else { from };
    if revision < state.compacted {
        return Err(Status::expired(format!("too old resource version: {from} ({})", state.compacted)));
    }
    drop(state);
    let moved = fake.0.moved.subscribe();
    let breaks = moved.borrow().1;
    let cursor = Cursor { fake, selection: Selection::of(request), revision, moved, breaks };
    let chunks = futures::stream::unfold(cursor, |mut cursor| async move {
        loop {
            if cursor.moved.borrow_and_update().1 != cursor.breaks {
                return None;
            }
            let events = cursor.next_events();
            if !events.is_empty() {
                return Some((futures::stream::iter(events), cursor));
            }
            cursor.moved.changed().await.ok()?;
        }
    });
    Ok(chunks.flatten().boxed())
}

impl Cursor {
    fn next_events(&mut self) -> Vec<Result<WatchEvent, Status>> {
        let state = self.fake.0.state.lock();
        if self.revision < state.compacted {
            return vec![Err(Status::expired("the watch fell behind"))];
        }
        let new = state.history.partition_point(|l| l.revision <= self.revision);
        self.revision = state.revision;
        state.history[new..].iter().filter_map(|l| event(l, &self.selection)).map(Ok).collect()
    }
}
