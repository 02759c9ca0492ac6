//! Bootstrap tokens: `id.secret`, kept in Secrets of `kube-system`, by which a machine that is not a member yet
//! may ask for its certificate.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>.

use super::token::Refusal;
use crate::server::Inner;
use crate::user::UserInfo;
use krate_api::types::core::v1::Secret;
use krate_base::Timestamp;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;
/// Longest name of a further group behind its prefix.
const MAX_GROUP: usize = 256;

/// The two halves of what looks like a bootstrap token.
pub(crate) fn split(token: &str) -> Option<(&str, &str)> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let (id, secret) = token.split_once('.')?;
    (id.len() == ID_LEN && secret.len() == SECRET_LEN && plain(id) && plain(secret)).then_some((id, secret))
}

/// The identity behind a token whose Secret is there and still holds.
pub(crate) async fn authenticate(server: &Inner, id: &str, secret: &str) -> Result<UserInfo, Refusal> {
    let name = format!("bootstrap-token-{id}");
    let found = server.read::<Secret>(NAMESPACE, &name).await?.ok_or(Refusal::Foreign)?;
    identity(&found, id, secret, server.clock.now()).ok_or(Refusal::Foreign)
}

fn identity(found: &Secret, id: &str, secret: &str, now: Timestamp) -> Option<UserInfo> {
    let data = found.data.as_ref()?;
    let text = |key: &str| data.get(key).and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or("");
    let same = |key: &str, shown: &str| same(text(key).as_bytes(), shown.as_bytes());
    if found.metadata.deletion_timestamp.is_some()
        || found.type_.as_deref() != Some(TYPE)
        || !same("token-secret", secret)
        || !same("token-id", id)
        || text("usage-bootstrap-authentication") != "true"
    {
        return None;
    }
    let expiration = text("expiration");
    if !expiration.is_empty() && expiration.parse::<Timestamp>().ok()? <= now {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in text("auth-extra-groups").split(',').map(str::trim).filter(|group| !group.is_empty()) {
        is_bootstrap_group(group).then(|| groups.push(group.to_owned()))?;
    }
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

/// `system:bootstrappers:` and a name that ends with a letter or digit.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(name) = group.strip_prefix("system:bootstrappers:") else { return false };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-';
    name.len() <= MAX_GROUP
        && name.bytes().all(allowed)
        && name.bytes().last().is_some_and(|b| b != b':' && b != b'-')
}

/// Compares in a time that does not tell how much is the same.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::k8s_openapi::ByteString;

    fn secret(changes: &[(&str, &str)]) -> Secret {
        let mut data: std::collections::BTreeMap<String, ByteString> = Default::default();
        let base = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:nodes"),
            ("expiration", "2030-01-01T00:00:00Z"),
        ];
        for (key, value) in base.iter().chain(changes) {
            data.insert((*key).to_owned(), ByteString(value.as_bytes().to_vec()));
        }
        Secret { data: Some(data), type_: Some(TYPE.to_owned()), ..Secret::default() }
    }

    fn user(secret: &Secret) -> Option<UserInfo> {
        identity(secret, "abcdef", "0123456789abcdef", "2029-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_token_is_good_while_its_secret_says_so() {
        let found = user(&secret(&[])).unwrap();
        assert_eq!(found.name, "system:bootstrap:abcdef");
        assert_eq!(found.groups, ["system:bootstrappers", "system:bootstrappers:nodes"]);
        for change in [
            ("token-secret", "0123456789abcdeX"),
            ("token-id", "other1"),
            ("usage-bootstrap-authentication", "false"),
            ("expiration", "2028-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:x-"),
        ] {
            assert_eq!(user(&secret(&[change])).map(|u| u.groups), None, "{change:?}");
        }
        let other = Secret { type_: Some("Opaque".to_owned()), ..secret(&[]) };
        assert!(user(&other).is_none());
    }

    #[test]
    fn only_two_halves_of_letters_and_digits_are_a_token() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for wrong in [
            "abcdef",
            "abcdef.0123456789abcde",
            "Abcdef.0123456789abcdef",
            "a.b.c",
            "abcdef.0123456789abcde.",
        ] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
