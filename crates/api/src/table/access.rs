//! Role bindings, certificate signing requests, and who is served before whom.

use super::text::{NONE, age, name, text, text_or};
use super::{AGE, Column, NAME, Printer, print, string};
use crate::meta::ObjectMeta;
use crate::types::certificates::v1::CertificateSigningRequest;
use crate::types::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use crate::types::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) const PRINTERS: &[Printer] = &[
    print!(RoleBinding, BINDING, |o, now| binding(&o.metadata, &o.role_ref, o.subjects.as_deref(), now)),
    print!(ClusterRoleBinding, BINDING, |o, now| binding(
        &o.metadata,
        &o.role_ref,
        o.subjects.as_deref(),
        now
    )),
    print!(FlowSchema, FLOW_SCHEMA, flow_schema),
    print!(PriorityLevelConfiguration, PRIORITY_LEVEL, priority_level),
    print!(
        CertificateSigningRequest,
        &[
            NAME,
            AGE,
            string("SignerName", "Who is asked to sign."),
            string("Requestor", "Who asks."),
            string("RequestedDuration", "How long the certificate should be valid."),
            string("Condition", "Whether it was approved, denied or issued."),
        ],
        |o, now| {
            let duration =
                o.spec.expiration_seconds.map_or_else(|| NONE.to_owned(), super::workloads::seconds);
            vec![
                name(&o.metadata),
                age(&o.metadata, now),
                json!(text_or(Some(&o.spec.signer_name), NONE)),
                json!(text(o.spec.username.as_ref())),
                json!(duration),
                json!(request_state(o)),
            ]
        }
    ),
];

const BINDING: &[Column] = &[
    NAME,
    string("Role", "Role that is given."),
    AGE,
    string("Users", "Users that have it.").wide(),
    string("Groups", "Groups that have it.").wide(),
    string("ServiceAccounts", "Service accounts that have it.").wide(),
];

fn binding(meta: &ObjectMeta, role: &RoleRef, subjects: Option<&[Subject]>, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| {
        let subjects = subjects.unwrap_or_default().iter().filter(|s| s.kind == kind);
        let names = subjects.map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", text(s.namespace.as_ref()), s.name),
            _ => s.name.clone(),
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        name(meta),
        json!(format!("{}/{}", role.kind, role.name)),
        age(meta, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

fn request_state(request: &CertificateSigningRequest) -> String {
    let status = request.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let has = |kind: &str| conditions.iter().any(|c| c.type_ == kind);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if status.and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty()) {
        state.push_str(",Issued");
    }
    state
}

const FLOW_SCHEMA: &[Column] = &[
    NAME,
    string("PriorityLevel", "The level that requests of the schema have."),
    string("MatchingPrecedence", "The schema with the lowest number that matches decides."),
    string("DistinguisherMethod", "What tells flows of the schema apart."),
    AGE,
    string("MissingPL", "Whether the level does not exist."),
];

fn flow_schema(o: &FlowSchema, now: Timestamp) -> Vec<Value> {
    let spec = o.spec.clone().unwrap_or_default();
    let conditions = o.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let dangling = conditions.iter().find(|c| c.type_.as_deref() == Some("Dangling"));
    vec![
        name(&o.metadata),
        json!(spec.priority_level_configuration.name),
        json!(spec.matching_precedence.unwrap_or(0).to_string()),
        json!(text_or(spec.distinguisher_method.as_ref().map(|m| &m.type_), NONE)),
        age(&o.metadata, now),
        json!(text_or(dangling.and_then(|c| c.status.as_ref()), "?")),
    ]
}

const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    string("Type", "Whether the level is limited."),
    string("NominalConcurrencyShares", "The level's part of what is served at once."),
    string("Queues", "Queues that requests wait in."),
    string("HandSize", "Queues that one flow may use."),
    string("QueueLengthLimit", "Requests that wait in one queue."),
    AGE,
];

fn priority_level(o: &PriorityLevelConfiguration, now: Timestamp) -> Vec<Value> {
    let spec = o.spec.clone().unwrap_or_default();
    let shown = |n: Option<i32>| json!(n.map_or_else(|| NONE.to_owned(), |n| n.to_string()));
    let limited = spec.limited.as_ref();
    let queuing = limited.and_then(|l| l.limit_response.as_ref()).and_then(|r| r.queuing.as_ref());
    vec![
        name(&o.metadata),
        json!(spec.type_),
        shown(limited.and_then(|l| l.nominal_concurrency_shares)),
        shown(queuing.and_then(|q| q.queues)),
        shown(queuing.and_then(|q| q.hand_size)),
        shown(queuing.and_then(|q| q.queue_length_limit)),
        age(&o.metadata, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn bindings_name_their_subjects() {
        let object = ClusterRoleBinding::from_value(json!({"metadata": {"name": "b"},
            "roleRef": {"apiGroup": "", "kind": "ClusterRole", "name": "admin"}, "subjects": [
                {"kind": "User", "name": "u"}, {"kind": "User", "name": "v"},
                {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}))
        .unwrap();
        let row = super::super::row_of(
            "rbac.authorization.k8s.io",
            "ClusterRoleBinding",
            &object,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(json!(row), json!(["b", "ClusterRole/admin", "<unknown>", "u, v", "", "n/s"]));
    }

    #[test]
    fn requests_say_what_became_of_them() {
        let mut request = CertificateSigningRequest::default();
        request.spec.expiration_seconds = Some(86_400);
        let row = |o: &CertificateSigningRequest| {
            super::super::row_of("certificates.k8s.io", "CertificateSigningRequest", o, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(row(&request)[4..], [json!("24h"), json!("Pending")]);
        let status = request.status.get_or_insert_default();
        status.certificate = Some(crate::k8s_openapi::ByteString(vec![1]));
        let condition = crate::types::certificates::v1::CertificateSigningRequestCondition {
            type_: "Approved".into(),
            ..Default::default()
        };
        status.conditions = Some(vec![condition]);
        assert_eq!(row(&request)[5], "Approved,Issued");
    }
}
