//! Persistent volumes: binding them to claims, making them, letting them grow, keeping them while they are
//! used.

pub mod binder;
pub mod ephemeral;
pub mod expansion;
pub mod protection;
pub mod provisioner;

use krate_api::Kind;

/// The event source of everything that binds volumes.
const COMPONENT: &str = "persistentvolume-controller";

/// Adds or removes a finalizer; whether that changed anything.
fn finalizer<K: Kind>(object: &mut K, name: &str, wanted: bool) -> bool {
    let list = object.meta_mut().finalizers.get_or_insert_default();
    let has = list.iter().any(|f| f == name);
    if has == wanted {
        return false;
    }
    if wanted {
        list.push(name.to_owned());
    } else {
        list.retain(|f| f != name);
    }
    true
}

fn has_finalizer<K: Kind>(object: &K, name: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|f| f == name)
}
