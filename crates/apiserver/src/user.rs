//! Who a request is from. Says nothing of what they may do.

use std::collections::BTreeMap;

/// The group of everybody who proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything, whatever the rules say.
pub const MASTERS: &str = "system:masters";
/// The group of nodes' kubelets.
pub const NODES: &str = "system:nodes";

/// An identity, in the words of `authentication.k8s.io` `UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user who proved who they are; `system:authenticated` is added.
    #[must_use]
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// Somebody who showed nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// The server's own identity, for its loopback work.
    #[must_use]
    pub fn apiserver() -> Self {
        Self::new("system:apiserver", &[MASTERS])
    }

    /// The identity of a controller: the user `system:<name>` for the managers themselves
    /// (`kube-controller-manager`, `kube-scheduler`, `kube-proxy`), for any other name the service account of
    /// that name in `kube-system`, which has the rights of its bootstrap role.
    #[must_use]
    pub fn component(name: &str) -> Self {
        if name.starts_with("kube-") {
            return Self::new(&format!("system:{name}"), &[]);
        }
        Self::new(
            &format!("system:serviceaccount:kube-system:{name}"),
            &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
        )
    }

    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Namespace and name, if this is a service account.
    #[must_use]
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// The node's name, if this is a kubelet.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        if self.is_in(NODES) { self.name.strip_prefix("system:node:") } else { None }
    }
}
