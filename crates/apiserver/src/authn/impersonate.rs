//! Acting as another user: the `Impersonate-*` headers (`kubectl --as`), for whoever may `impersonate` them.

use crate::authz::Attributes;
use crate::server::Inner;
use crate::user::{AUTHENTICATED, UserInfo};
use http::HeaderMap;
use krate_api::Status;
use krate_api::status::Reason;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What all of the headers begin with.
const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The identity that a request is to be carried out as: its own, or the one that it asks for and may take.
pub(crate) fn effective(
    server: &Inner,
    user: Arc<UserInfo>,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, Status> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(user);
    }

    let values = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let name = values(USER).into_iter().next().unwrap_or_default();
    let (groups, uid, extra) =
        (values(GROUP), values(UID).into_iter().next().unwrap_or_default(), extra(headers));
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        let asked = format!("requested [{}] without impersonating a user", groups.join(" "));
        return Err(Status::failure(Reason::InternalError, asked));
    }
    let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        server.authz.check(&Attributes {
            user: &user,
            verb: "impersonate",
            group,
            resource,
            subresource,
            namespace,
            name,
            field_selector: "",
            label_selector: "",
            path: None,
        })
    };
    let mut taken = UserInfo { name, uid, ..UserInfo::default() };
    match taken.service_account() {
        Some((namespace, account)) => may("", "serviceaccounts", "", namespace, account)?,
        None => may("", "users", "", "", &taken.name)?,
    }
    for group in &groups {
        may("", "groups", "", "", group)?;
    }
    if !taken.uid.is_empty() {
        may(AUTHENTICATION, "uids", "", "", &taken.uid)?;
    }
    for (key, values) in &extra {
        for value in values {
            may(AUTHENTICATION, "userextras", key, "", value)?;
        }
    }
    taken.groups = groups;
    taken.extra = extra;
    complete(&mut taken);
    Ok(Arc::new(taken))
}

/// The groups that such a user has by nature.
fn complete(user: &mut UserInfo) {
    if user.groups.is_empty()
        && let Some((namespace, _)) = user.service_account()
    {
        user.groups =
            vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let anonymous = user.name == "system:anonymous";
    let implied = if anonymous { crate::user::UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.is_in(implied) {
        user.groups.push(implied.to_owned());
    }
}

fn extra(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            extra.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    extra
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impersonated_user_has_the_groups_of_its_nature() {
        let mut jane = UserInfo { name: "jane".into(), ..UserInfo::default() };
        complete(&mut jane);
        assert_eq!(jane.groups, [AUTHENTICATED]);
        let mut account = UserInfo { name: "system:serviceaccount:dev:robot".into(), ..UserInfo::default() };
        complete(&mut account);
        assert!(account.is_in("system:serviceaccounts:dev") && account.is_in(AUTHENTICATED));
    }
}
