//! Small rules about pods and nodes: priorities, default tolerations, the taint of a node that is not yet
//! ready.

use super::{Attributes, Operation, Plugin, cast, cast_mut};
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::types::core::v1::{Node, Pod, Taint, Toleration};
use krate_api::types::scheduling::v1::PriorityClass;
use krate_api::{Object, Status};

/// Priority: a pod's number comes from its class, the default class, or is 0; one class at most is the
/// default.
pub(super) struct Priority;

const LOWER: &str = "PreemptLowerPriority";

#[async_trait]
impl Plugin for Priority {
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        if !at.is_core("pods") {
            return Ok(());
        }
        let Some(pod) = cast_mut::<Pod>(object) else { return Ok(()) };
        let spec = pod.spec.get_or_insert_default();
        if at.operation == Operation::Update {
            let old = at.old.and_then(cast::<Pod>).and_then(|p| p.spec.as_ref());
            if let Some(old) = old.filter(|_| spec.priority.is_none()) {
                spec.priority = old.priority;
            }
            if let Some(old) = old.filter(|_| spec.preemption_policy.is_none()) {
                spec.preemption_policy.clone_from(&old.preemption_policy);
            }
            return Ok(());
        }
        if at.operation != Operation::Create {
            return Ok(());
        }
        let (name, value, policy) = match spec.priority_class_name.as_deref() {
            None | Some("") => default_class(server).await?,
            Some(name) => match server.read::<PriorityClass>("", name).await? {
                Some(class) => (name.to_owned(), class.value.unwrap_or(0), class.preemption_policy.clone()),
                None => {
                    let detail = format!("no PriorityClass with name {name} was found");
                    return Err(at.forbidden(&detail));
                }
            },
        };
        if let Some(given) = spec.priority.filter(|p| *p != value) {
            return Err(at.forbidden(&format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {value} from the given PriorityClass name"
            )));
        }
        let policy = policy.unwrap_or_else(|| LOWER.to_owned());
        if spec.preemption_policy.as_ref().is_some_and(|p| *p != policy) {
            return Err(at.forbidden(&format!(
                "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name",
                spec.preemption_policy.as_deref().unwrap_or("")
            )));
        }
        spec.priority_class_name = (!name.is_empty()).then_some(name);
        spec.priority = Some(value);
        spec.preemption_policy = Some(policy);
        Ok(())
    }

    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(class) = object.and_then(cast::<PriorityClass>) else { return Ok(()) };
        let was = at.old.and_then(cast::<PriorityClass>).and_then(|c| c.global_default) == Some(true);
        if class.global_default != Some(true) || was {
            return Ok(());
        }
        for other in server.read_all::<PriorityClass>("").await? {
            let other = other.typed::<PriorityClass>().map_err(Status::internal)?;
            if other.global_default == Some(true) && other.metadata.name != class.metadata.name {
                let name = other.metadata.name.as_deref().unwrap_or("");
                return Err(at.forbidden(&format!(
                    "PriorityClass {name} is already marked as default. Only one default can exist"
                )));
            }
        }
        Ok(())
    }
}

/// The class that is the default, if there is one; of several the lowest.
async fn default_class(server: &Inner) -> Result<(String, i32, Option<String>), Status> {
    let mut found: Option<(String, i32, Option<String>)> = None;
    for class in server.read_all::<PriorityClass>("").await? {
        let class = class.typed::<PriorityClass>().map_err(Status::internal)?;
        let value = class.value.unwrap_or(0);
        if class.global_default == Some(true) && found.as_ref().is_none_or(|f| value < f.1) {
            let name = class.metadata.name.clone().unwrap_or_default();
            found = Some((name, value, class.preemption_policy.clone()));
        }
    }
    Ok(found.unwrap_or_default())
}

/// DefaultTolerationSeconds: five minutes on a node that is lost, unless the pod says otherwise.
pub(super) struct DefaultTolerations;

const LOST: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const LOST_SECONDS: i64 = 300;

#[async_trait]
impl Plugin for DefaultTolerations {
    async fn admit(&self, _: &Inner, at: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        let writes = matches!(at.operation, Operation::Create | Operation::Update);
        let Some(pod) = cast_mut::<Pod>(object).filter(|_| writes && at.is_core("pods")) else {
            return Ok(());
        };
        let tolerations = pod.spec.get_or_insert_default().tolerations.get_or_insert_default();
        for key in LOST {
            let covers = |t: &Toleration| {
                let key_of = t.key.as_deref().unwrap_or("");
                let effect = t.effect.as_deref().unwrap_or("");
                (key_of == key || key_of.is_empty()) && matches!(effect, "NoExecute" | "")
            };
            if !tolerations.iter().any(covers) {
                tolerations.push(Toleration {
                    key: Some(key.to_owned()),
                    operator: Some("Exists".to_owned()),
                    effect: Some("NoExecute".to_owned()),
                    toleration_seconds: Some(LOST_SECONDS),
                    value: None,
                });
            }
        }
        Ok(())
    }
}

/// TaintNodesByCondition: a new node takes no pods before it is ready.
pub(super) struct TaintNewNodes;

#[async_trait]
impl Plugin for TaintNewNodes {
    async fn admit(&self, _: &Inner, at: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        let creates = at.operation == Operation::Create && at.is_core("nodes");
        let Some(node) = cast_mut::<Node>(object).filter(|_| creates) else { return Ok(()) };
        let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
        let mine = |t: &Taint| t.key == LOST[0] && t.effect == "NoSchedule";
        if !taints.iter().any(mine) {
            taints.push(Taint {
                key: LOST[0].to_owned(),
                effect: "NoSchedule".to_owned(),
                ..Taint::default()
            });
        }
        Ok(())
    }
}
