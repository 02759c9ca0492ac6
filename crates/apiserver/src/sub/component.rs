//! Component statuses: not stored, but found out when somebody asks.
//!
//! The original asks the health ports of the scheduler and the controller manager. Here the one that works is the
//! one that holds the component's lease, in whatever process it is.

use crate::call::{Call, Listed, Outcome};
use crate::rest::select::Selection;
use crate::server::Inner;
use krate_api::types::coordination::v1::{Lease, LeaseSpec};
use krate_api::types::core::v1::{ComponentCondition, ComponentStatus};
use krate_api::{Object as _, Reason, Shared, Status, View};
use krate_client::Verb;
use std::sync::Arc;
use std::time::Duration;

/// Components that hold a lease while they work, and the leases' names.
const LEASED: [(&str, &str); 2] =
    [("scheduler", "kube-scheduler"), ("controller-manager", "kube-controller-manager")];
/// The store, which answers if anything does.
const STORE: &str = "etcd-0";

pub(super) async fn read(server: &Inner, call: &Call, verb: Verb) -> Result<Outcome, Status> {
    let mut all = Vec::new();
    for (name, lease) in LEASED {
        all.push(status(name, fault(server, lease).await?));
    }
    all.push(status(STORE, None));
    if verb == Verb::Get {
        let found = all.into_iter().find(|object| object.view.name == call.name);
        return found.map(Outcome::object).ok_or_else(|| unknown(&call.name));
    }
    let selection = Selection::of(call)?;
    all.retain(|object| selection.matches(&object.view));
    Ok(Outcome::List(Listed { items: all, revision: 0, continue_token: String::new(), remaining: None }))
}

/// The original answers so, without a reason.
fn unknown(name: &str) -> Status {
    let mut status = Status::failure(Reason::InternalError, format!("Component not found: {name}"));
    status.0.reason = None;
    status
}

/// Why nobody does the work of this lease; `None` if somebody does.
async fn fault(server: &Inner, name: &str) -> Result<Option<String>, Status> {
    let lease = server.read::<Lease>("kube-system", name).await?;
    let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
    let held = spec.is_some_and(|spec| is_held(spec, server));
    Ok((!held).then(|| format!("the lease kube-system/{name} is held by nobody")))
}

fn is_held(spec: &LeaseSpec, server: &Inner) -> bool {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let lasts = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0).unsigned_abs().into());
    let until = spec.renew_time.as_ref().and_then(|at| at.0.checked_add(lasts).ok());
    !holder.is_empty() && until.is_some_and(|until| server.clock.now() <= until)
}

fn status(name: &str, fault: Option<String>) -> Shared {
    let condition = ComponentCondition {
        type_: "Healthy".to_owned(),
        status: if fault.is_none() { "True" } else { "False" }.to_owned(),
        message: Some(fault.unwrap_or_else(|| "ok".to_owned())),
        error: None,
    };
    let mut object = ComponentStatus { conditions: Some(vec![condition]), ..Default::default() };
    object.metadata.name = Some(name.to_owned());
    let view = Arc::new(View::of(&object, Vec::new()));
    Shared { bytes: object.encode().into(), revision: 0, view }
}
