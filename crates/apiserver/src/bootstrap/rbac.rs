//! The default roles and bindings.

use krate_api::types::rbac::v1::PolicyRule;

pub(crate) fn node_rules() -> &'static [PolicyRule] {
    &[]
}
