//! May they? `system:masters`, then the node authorizer, then RBAC; whatever nobody allows is forbidden.
//!
//! Decisions are made from indexes that follow the store ([`follow`]); no request waits for a read, but that of
//! a kubelet that was faster than the index ([`permit`]). Nothing here changes anything.

mod follow;
mod node;
mod rbac;

pub(crate) use follow::{follow, load};

use crate::call::Call;
use crate::server::Inner;
use crate::user::{MASTERS, UserInfo};
use krate_api::Status;
use krate_api::types::rbac::v1::PolicyRule;
use parking_lot::RwLock;

/// What somebody wants to do.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Selectors of a list or watch, for the node authorizer.
    pub field_selector: &'a str,
    pub label_selector: &'a str,
    /// Set for what is not a resource, such as `/healthz`.
    pub path: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// What a call does, under `verb`.
    pub fn of_call(call: &'a Call, verb: &'a str) -> Self {
        Self {
            user: &call.user,
            verb,
            group: &call.resource().group,
            resource: &call.resource().plural,
            subresource: &call.subresource,
            namespace: &call.namespace,
            name: &call.name,
            field_selector: &call.options.field_selector,
            label_selector: &call.options.label_selector,
            path: None,
        }
    }

    fn qualified_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// Why not, in the original's words.
    fn refusal(&self, reason: &str) -> Status {
        let user = &self.user.name;
        let mut text = match self.path {
            Some(path) => format!("User \"{user}\" cannot {} path \"{path}\"", self.verb),
            None => {
                let place = if self.namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace \"{}\"", self.namespace)
                };
                format!(
                    "User \"{user}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
                    self.verb,
                    self.qualified_resource(),
                    self.group
                )
            }
        };
        if !reason.is_empty() {
            text = format!("{text}: {reason}");
        }
        Status::forbidden(self.group, self.resource, self.name, &text)
    }
}

/// What the authorizer thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow(String),
    /// Nobody allows it; why, if there is something to say.
    NoOpinion(String),
}

/// The authorizers with their indexes.
#[derive(Default)]
pub(crate) struct Authorizer {
    rbac: RwLock<rbac::Index>,
    nodes: RwLock<node::Graph>,
}

impl Authorizer {
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reason = String::new();
        if let Some(node) = attributes.user.node() {
            match self.nodes.read().decide(node, attributes) {
                Decision::NoOpinion(why) => reason = why,
                decided => return decided,
            }
        }
        match self.rbac.read().decide(attributes) {
            Decision::NoOpinion(why) => {
                let both: Vec<String> = [reason, why].into_iter().filter(|r| !r.is_empty()).collect();
                Decision::NoOpinion(both.join(", "))
            }
            decided => decided,
        }
    }

    /// An error unless it is allowed.
    pub fn check(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let node = attributes.user.node().is_some();
        if !node && (attributes.user.is_in(MASTERS) || self.rbac.read().allows(attributes)) {
            return Ok(());
        }
        match self.decide(attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(attributes.refusal(&reason)),
        }
    }

    /// The rules that hold for a user in a namespace, for `SelfSubjectRulesReview` and escalation checks.
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        self.rbac.read().rules_for(user, namespace)
    }

    /// The rules of a role that a binding names.
    pub fn role_rules(&self, namespace: &str, kind: &str, name: &str) -> Option<Vec<PolicyRule>> {
        self.rbac.read().role(namespace, kind, name).map(<[PolicyRule]>::to_vec)
    }
}

/// An error unless it is allowed. A kubelet hears of a pod as early as the index does, and asks for what the pod
/// needs at once: what is refused to it is decided again when the index has seen what the store has now.
pub(crate) async fn permit(server: &Inner, attributes: &Attributes<'_>) -> Result<(), Status> {
    match server.authz.check(attributes) {
        Err(_) if attributes.user.node().is_some() && node::hangs_on_pods(attributes) => {
            follow::catch_up(server).await?;
            server.authz.check(attributes)
        }
        decided => decided,
    }
}

/// Whether `rules` together allow everything that `wanted` allows (the escalation check).
pub(crate) fn covers(rules: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    rbac::uncovered(rules, wanted)
}
