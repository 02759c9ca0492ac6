//! What becomes of an object, given the state of its owners. Pure.

use super::graph::{FOREGROUND, ORPHAN};
use krate_api::meta::OwnerReference;
use std::collections::BTreeSet;

/// An owner as the graph or the API knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    Lives,
    /// It is being deleted in the foreground.
    Waits,
    Gone,
    /// Nobody can say: nothing is deleted for its sake.
    Unknown,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Keep,
    /// The references to these owners go: others keep it alive.
    Unlink(BTreeSet<String>),
    /// Its references to its owners hold up none of them any more; then it is looked at again.
    Unblock,
    /// With this propagation policy.
    Delete(&'static str),
}

/// Decides. `blocked`: one of its own dependents would hold up its deletion. `circular`: such a dependent
/// waits for its own dependents already, and so perhaps, around a circle, for this one.
#[must_use]
pub fn fate(
    owners: &[(OwnerReference, OwnerState)],
    finalizers: &[String],
    blocked: bool,
    circular: bool,
) -> Fate {
    let lives = owners.iter().any(|(_, s)| matches!(s, OwnerState::Lives | OwnerState::Unknown));
    let lost: BTreeSet<String> = owners
        .iter()
        .filter(|(_, s)| matches!(s, OwnerState::Gone | OwnerState::Waits))
        .map(|(o, _)| o.uid.clone())
        .collect();
    if lives {
        return if lost.is_empty() { Fate::Keep } else { Fate::Unlink(lost) };
    }
    let waits = owners.iter().any(|(_, s)| *s == OwnerState::Waits);
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if waits && circular && owners.iter().any(|(o, _)| o.block_owner_deletion == Some(true)) {
        return Fate::Unblock;
    }
    if waits && blocked {
        // The owner waits for the whole tree, not only for its first level.
        return Fate::Delete("Foreground");
    }
    Fate::Delete(match (has(ORPHAN), has(FOREGROUND)) {
        (true, _) => "Orphan",
        (_, true) => "Foreground",
        _ => "Background",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use OwnerState::{Gone, Lives, Unknown, Waits};

    fn owners(states: &[OwnerState]) -> Vec<(OwnerReference, OwnerState)> {
        let owner = |n: usize| OwnerReference { uid: n.to_string(), ..OwnerReference::default() };
        states.iter().enumerate().map(|(n, s)| (owner(n), *s)).collect()
    }

    #[test]
    fn the_table_of_fates() {
        let decide = |states: &[OwnerState]| fate(&owners(states), &[], false, false);
        assert_eq!(decide(&[Lives]), Fate::Keep);
        assert_eq!(decide(&[Unknown, Unknown]), Fate::Keep);
        assert_eq!(decide(&[Gone]), Fate::Delete("Background"));
        assert_eq!(decide(&[Waits, Gone]), Fate::Delete("Background"));
        assert_eq!(decide(&[Gone, Lives]), Fate::Unlink(["0".to_owned()].into()));
        let waiting = fate(&owners(&[Waits]), &[], true, false);
        assert_eq!(waiting, Fate::Delete("Foreground"));
        let own = fate(&owners(&[Gone]), &[ORPHAN.to_owned()], false, false);
        assert_eq!(own, Fate::Delete("Orphan"));
    }

    #[test]
    fn a_circle_is_opened_before_its_last_member_goes() {
        let mut owners = owners(&[Waits]);
        owners[0].0.block_owner_deletion = Some(true);
        assert_eq!(fate(&owners, &[], true, false), Fate::Delete("Foreground"));
        assert_eq!(fate(&owners, &[], true, true), Fate::Unblock);
        owners[0].0.block_owner_deletion = Some(false);
        assert_eq!(fate(&owners, &[], true, true), Fate::Delete("Foreground"));
    }
}
