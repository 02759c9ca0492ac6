//! Eviction: a deletion that disruption budgets may put off.

use crate::admission::{cast, cast_mut};
use crate::call::{Call, Outcome};
use crate::codec::Rows;
use crate::rest::create::COMMIT_ATTEMPTS;
use crate::rest::{delete, list, update};
use crate::server::Inner;
use krate_api::labels::Selector;
use krate_api::meta::{DeleteOptions, StatusCause, Time};
use krate_api::types::core::v1::{Pod, PodCondition};
use krate_api::types::policy::v1::{Eviction, PodDisruptionBudget};
use krate_api::{Kind as _, Reason, Status};
use krate_client::Body;
use serde_json::Value;

/// Pods of one budget that may be going at once.
const MOST_DISRUPTED: usize = 2_000;
const MANY: &str =
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(crate) async fn create(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    let eviction: Eviction = super::admitted(server, call, body.map(renewed)).await?;
    let options = eviction.delete_options.unwrap_or_default();
    let dry = dry_run(call, &options);
    let mut pods = pod_call(call, dry, &options);
    let entry = list::entry(server, &pods).await?.ok_or_else(|| pods.not_found())?;
    let object = pods.rows.held(&entry)?;
    let Some(pod) = cast::<Pod>(&*object) else { return Err(Status::internal("not a pod")) };
    if !is_free(pod) {
        spend(server, call, pod, dry).await?;
    }
    if !dry {
        announce(server, &mut pods).await?;
    }
    delete::delete(server, &pods).await?;
    Ok(super::done())
}

/// An eviction of the version before, which the original still takes (kubectl's drain says it up to 1.21), in today's.
fn renewed(body: Body) -> Body {
    let Body::Bytes(bytes) = &body else { return body };
    let Ok(Value::Object(mut object)) = serde_json::from_slice(bytes) else { return body };
    if object.get("kind") != Some(&Eviction::KIND.into())
        || object.get("apiVersion") != Some(&"policy/v1beta1".into())
    {
        return body;
    }
    object.insert("apiVersion".to_owned(), "policy/v1".into());
    Body::Bytes(Value::Object(object).to_string().into())
}

/// Whether nothing is to be done in fact, as the request or its body says.
fn dry_run(call: &Call, options: &DeleteOptions) -> bool {
    call.options.dry_run || options.dry_run.as_ref().is_some_and(|d| !d.is_empty())
}

/// The deletion that follows.
fn pod_call(call: &Call, dry: bool, options: &DeleteOptions) -> Call {
    let mut wanted = call.options.clone();
    wanted.dry_run = dry;
    wanted.delete = Some(options.clone());
    Call {
        user: call.user.clone(),
        rows: call.rows.clone(),
        namespace: call.namespace.clone(),
        name: call.name.clone(),
        subresource: String::new(),
        options: wanted,
        found: Vec::new(),
        warnings: Default::default(),
    }
}

/// Whether no budget counts the pod: it is over, has not begun, or is going.
fn is_free(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Takes one disruption from the pod's budget, if it has one.
async fn spend(server: &Inner, call: &Call, pod: &Pod, dry: bool) -> Result<(), Status> {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let mut budgets = Vec::new();
    for shared in server.read_all::<PodDisruptionBudget>(&call.namespace).await? {
        let budget = shared.typed::<PodDisruptionBudget>().map_err(Status::internal)?;
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        if Selector::of(selector).is_ok_and(|s| s.matches(&labels)) {
            budgets.push(budget);
        }
    }
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => {
            return Err(Status::failure(Reason::InternalError, MANY));
        }
    };
    let status = budget.status.clone().unwrap_or_default();
    let policy = budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref());
    let desired = status.desired_healthy.unwrap_or(0);
    let met = status.current_healthy.unwrap_or(0) >= desired && desired > 0;
    if !is_ready(pod) && (policy == Some("AlwaysAllow") || met) {
        return Ok(());
    }
    let catalogue = server.catalogue();
    let row = catalogue
        .get(PodDisruptionBudget::GROUP, PodDisruptionBudget::VERSION, PodDisruptionBudget::PLURAL)
        .ok_or_else(|| Status::internal("budgets are not served"))?;
    let of_budget = Call {
        rows: Rows::of(&catalogue, row),
        name: budget.metadata.name.clone().unwrap_or_default(),
        ..pod_call(call, dry, &DeleteOptions::default())
    };
    for _ in 0..COMMIT_ATTEMPTS {
        let entry = list::entry(server, &of_budget).await?.ok_or_else(|| of_budget.not_found())?;
        let mut object = of_budget.rows.copy(&entry)?;
        let Some(budget) = cast_mut::<PodDisruptionBudget>(&mut *object) else { return Ok(()) };
        decrement(budget, &call.name, Time(server.clock.now_seconds()))?;
        if dry || update::replace(server, &of_budget, &entry, object).await?.is_some() {
            return Ok(());
        }
    }
    Err(Status::too_many_requests(REFUSED, 1))
}

fn refused(why: String, retry_seconds: i32) -> Status {
    let mut status = Status::too_many_requests(REFUSED, retry_seconds);
    let details = status.0.details.get_or_insert_default();
    if retry_seconds == 0 {
        details.retry_after_seconds = None;
    }
    details.causes = Some(vec![StatusCause {
        reason: Some("DisruptionBudget".to_owned()),
        message: Some(why),
        field: None,
    }]);
    status
}

fn decrement(budget: &mut PodDisruptionBudget, pod: &str, now: Time) -> Result<(), Status> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < generation {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(why, 10));
    }
    let allowed = status.disruptions_allowed.unwrap_or(0);
    let forbidden = |why: &str| Err(Status::forbidden("policy", "poddisruptionbudgets", &name, why));
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    let going = status.disrupted_pods.get_or_insert_default();
    if going.len() > MOST_DISRUPTED {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let (needs, has) = (status.desired_healthy.unwrap_or(0), status.current_healthy.unwrap_or(0));
        let unknown = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionAllowed");
        let why = match unknown.filter(|c| c.reason == "SyncFailed") {
            Some(fault) => format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
                fault.message
            ),
            None => {
                format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently")
            }
        };
        return Err(refused(why, 0));
    }
    status.disruptions_allowed = Some(allowed - 1);
    going.insert(pod.to_owned(), now);
    Ok(())
}

/// Says in the pod's conditions why it goes. A version that the deletion asks for is then the new one.
async fn announce(server: &Inner, pods: &mut Call) -> Result<(), Status> {
    for _ in 0..COMMIT_ATTEMPTS {
        let entry = list::entry(server, pods).await?.ok_or_else(|| pods.not_found())?;
        let mut object = pods.rows.copy(&entry)?;
        let Some(pod) = cast_mut::<Pod>(&mut *object) else { return Ok(()) };
        expected(pods, pod)?;
        mark(pod, Time(server.clock.now_seconds()));
        if let Some(written) = update::replace(server, pods, &entry, object).await? {
            let asked = pods.options.delete.as_mut().and_then(|d| d.preconditions.as_mut());
            if let Some(asked) = asked.filter(|p| p.resource_version.is_some()) {
                asked.resource_version = Some(written.revision.to_string());
            }
            return Ok(());
        }
    }
    Ok(())
}

/// The deletion's conditions hold, so that nothing is announced that is then refused.
fn expected(pods: &Call, pod: &Pod) -> Result<(), Status> {
    let Some(asked) = pods.options.delete.as_ref().and_then(|d| d.preconditions.as_ref()) else {
        return Ok(());
    };
    let told = |asked: &Option<String>| asked.clone().unwrap_or_default();
    for (what, asked, is) in [
        ("UID", &asked.uid, &pod.metadata.uid),
        ("ResourceVersion", &asked.resource_version, &pod.metadata.resource_version),
    ] {
        if asked.is_some() && asked != is {
            let detail = format!(
                "Precondition failed: {what} in precondition: {}, {what} in object meta: {}",
                told(asked),
                told(is)
            );
            return Err(Status::conflict("", "pods", &pods.name, &detail));
        }
    }
    Ok(())
}

fn mark(pod: &mut Pod, now: Time) {
    let generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let new = PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        last_transition_time: Some(now),
        observed_generation: generation,
        ..PodCondition::default()
    };
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            let since = old.last_transition_time.clone().filter(|_| old.status == new.status);
            *old = PodCondition { last_transition_time: since.or(new.last_transition_time.clone()), ..new };
        }
        None => conditions.push(new),
    }
}
