//! What the conditions of a terminating namespace say. Pure.

use jiff::Timestamp;
use krate_api::Status;
use krate_api::meta::Time;
use krate_api::types::core::v1::NamespaceCondition;
use std::collections::BTreeMap;

/// What is left of a namespace's content.
#[derive(Debug, Default)]
pub struct Remains {
    /// Objects by resource (`pods.`, `jobs.batch`).
    pub content: BTreeMap<String, usize>,
    /// Objects by the finalizer that holds them.
    pub finalizers: BTreeMap<String, usize>,
    /// Seconds that it may take.
    pub estimate: i64,
    pub failures: Vec<Status>,
}

impl Remains {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && self.failures.is_empty()
    }

    pub fn add(&mut self, one: Result<Self, Status>) {
        match one {
            Err(status) => self.failures.push(status),
            Ok(one) => {
                self.content.extend(one.content);
                for (finalizer, count) in one.finalizers {
                    *self.finalizers.entry(finalizer).or_default() += count;
                }
                self.estimate = self.estimate.max(one.estimate);
            }
        }
    }
}

/// Sets all conditions; one that keeps its status keeps its time.
pub fn set(conditions: &mut Vec<NamespaceCondition>, remains: &Remains, now: Timestamp) {
    for (kind, value, reason, message) in said(remains) {
        let value = if value { "True" } else { "False" };
        let condition = match conditions.iter_mut().position(|c| c.type_ == kind) {
            Some(at) => &mut conditions[at],
            None => {
                conditions.push(NamespaceCondition { type_: kind.to_owned(), ..Default::default() });
                conditions.last_mut().expect("one was just added")
            }
        };
        if condition.status != value {
            condition.last_transition_time = Some(Time(now));
        }
        value.clone_into(&mut condition.status);
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message);
    }
}

fn said(remains: &Remains) -> [(&'static str, bool, &'static str, String); 5] {
    let listed = |map: &BTreeMap<String, usize>, form: &dyn Fn(&str, usize) -> String| {
        map.iter().map(|(name, count)| form(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let content = listed(&remains.content, &|name, n| format!("{name} has {n} resource instances"));
    let held = listed(&remains.finalizers, &|name, n| format!("{name} in {n} resource instances"));
    let failed = match remains.failures.first() {
        None => {
            let message = "All content successfully deleted, may be waiting on finalization";
            (false, "ContentDeleted", message.to_owned())
        }
        Some(first) => {
            let count = remains.failures.len();
            let message = format!("Failed to delete all resource types, {count} remaining: {first}");
            (true, "ContentDeletionFailed", message)
        }
    };
    let left = if remains.content.is_empty() {
        (false, "ContentRemoved", "All content successfully removed".to_owned())
    } else {
        (true, "SomeResourcesRemain", format!("Some resources are remaining: {content}"))
    };
    let finalized = if remains.finalizers.is_empty() {
        (false, "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
    } else {
        let message = format!("Some content in the namespace has finalizers remaining: {held}");
        (true, "SomeFinalizersRemain", message)
    };
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        ("NamespaceDeletionContentFailure", failed.0, failed.1, failed.2),
        ("NamespaceContentRemaining", left.0, left.1, left.2),
        ("NamespaceFinalizersRemaining", finalized.0, finalized.1, finalized.2),
    ]
}
