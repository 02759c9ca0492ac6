//! Roles, ClusterRoles and their bindings: one file, since they are the same thing in two scopes.

use super::fill::{self, items_mut, text};
use super::{Behaviour, Typed, names};
use crate::types::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject};
use std::sync::Arc;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn role() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Role> { check_name: names::path_name, ..Default::default() })
}

pub fn cluster_role() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ClusterRole> { check_name: names::path_name, ..Default::default() })
}

pub fn role_binding() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<RoleBinding> {
        default: |b| default_binding(&mut b.role_ref, &mut b.subjects),
        check_name: names::path_name,
        ..Default::default()
    })
}

pub fn cluster_role_binding() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ClusterRoleBinding> {
        default: |b| default_binding(&mut b.role_ref, &mut b.subjects),
        check_name: names::path_name,
        ..Default::default()
    })
}

fn default_binding(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    text(&mut role.api_group, GROUP);
    for subject in items_mut(subjects) {
        if fill::is_empty(&subject.api_group) && matches!(subject.kind.as_str(), "User" | "Group") {
            subject.api_group = Some(GROUP.to_owned());
        }
    }
}
