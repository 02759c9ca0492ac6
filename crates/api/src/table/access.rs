//! Role bindings and certificate signing requests.

use super::text::{NONE, age, name, text, text_or};
use super::{AGE, Column, NAME, Printer, print, string};
use crate::meta::ObjectMeta;
use crate::types::certificates::v1::CertificateSigningRequest;
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
